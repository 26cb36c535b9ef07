"""Versions of CUDA, ROCm, drivers and GPUs: the only place that parses or spells them."""

from __future__ import annotations

import re

from bnbenv.namedtuple import NamedTuple

# The glibc that each old name of a platform stands for, newest first: PEP 599, 571 and 513.
LEGACY_MANYLINUX = {"manylinux2014": "2.17", "manylinux2010": "2.12", "manylinux1": "2.5"}
_DOTTED = re.compile(r"\d+(?:\.\d+)*")


def minor_release(version: str) -> str:
    """``3.12`` of ``3.12.4``; of anything else what stands before its second dot."""
    return ".".join(version.split(".")[:2])


class CudaVersion(NamedTuple):
    """A CUDA toolkit or runtime version, such as 12.8."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> CudaVersion:
        """Read ``12.8``, ``12.8.1``, ``CUDA 12.8``, ``cu128``, ``128`` or the API's integer form ``12080``.

        Raises:
            ValueError: the text is none of these.
        """
        bare = re.sub(r"cu(?:da ?)?(?=\d)", "", text.strip(), count=1, flags=re.IGNORECASE)
        if match := re.fullmatch(r"(\d{1,2})\.(\d{1,2})(?:\.\d+)*", bare):
            return cls(int(match[1]), int(match[2]))
        if re.fullmatch(r"\d{4,5}", bare):
            number = int(bare)
            return cls(number // 1000, number % 1000 // 10)
        if re.fullmatch(r"\d{3}|[789]\d", bare):  # two digits only where they cannot be a bare major: cu92
            return cls(int(bare[:-1]), int(bare[-1]))
        raise ValueError(f"not a CUDA version: {text!r}")

    @property
    def tag(self) -> str:
        """The spelling of PyTorch's indexes and local versions, such as ``cu128``."""
        return f"cu{self.digits}"

    @property
    def digits(self) -> str:
        """The spelling of bitsandbytes' library names and ``BNB_CUDA_VERSION``, such as ``128``."""
        return f"{self.major}{self.minor}"

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


class RocmVersion(NamedTuple):
    """A ROCm or HIP version, such as 6.4 or 7.14."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> RocmVersion:
        """Read ``6.4``, ``6.4.43482-0f2d60242``, ``rocm6.4`` or ``rocm7.14.0``.

        Raises:
            ValueError: the text is none of these.
        """
        if match := re.match(r"(?:rocm)?(\d{1,2})\.(\d{1,2})(?!\d)", text.strip()):
            return cls(int(match[1]), int(match[2]))
        raise ValueError(f"not a ROCm version: {text!r}")

    @property
    def tag(self) -> str:
        """The spelling of PyTorch's indexes, such as ``rocm6.4``."""
        return f"rocm{self}"

    @property
    def digits(self) -> str:
        """The spelling of bitsandbytes' library names, such as ``64`` or ``714``."""
        return f"{self.major}{self.minor}"

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


class ComputeCapability(NamedTuple):
    """The compute capability of an NVIDIA GPU or of a cubin, such as 8.9."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> ComputeCapability:
        """Read ``8.9``, ``sm_89``, ``compute_120`` or the digits ``103``; a suffix ``a`` or ``f`` is refused.

        Raises:
            ValueError: the text is none of these.
        """
        bare = re.sub(r"^(?:sm_?|compute_)", "", text.strip())
        if match := re.fullmatch(r"(\d{1,2})\.(\d)", bare):
            return cls(int(match[1]), int(match[2]))
        if re.fullmatch(r"\d{2,3}", bare):
            return cls(int(bare[:-1]), int(bare[-1]))
        raise ValueError(f"not a compute capability: {text!r}")

    @property
    def on_arm(self) -> bool:
        """Whether NVIDIA puts such chips beside Arm processors alone: Jetson boards and GB10."""
        return self.tegra or (self.major, self.minor) in {(11, 0), (12, 1)}

    @property
    def tegra(self) -> bool:
        """Whether it is that of a chip which NVIDIA builds into Jetson boards alone; 11.0 is not counted."""
        return (self.major, self.minor) in {(5, 3), (6, 2), (7, 2), (8, 7), (10, 1)}

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


class DottedVersion(tuple[int, ...]):
    """A version made of numbers and dots that compares number by number: glibc, macOS, a driver."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> DottedVersion:
        """Read ``2.35`` or ``550.54.15``.

        Raises:
            ValueError: the text holds anything but numbers and dots.
        """
        bare = text.strip()
        if not _DOTTED.fullmatch(bare):
            raise ValueError(f"not a version of numbers and dots: {text!r}")
        return cls(int(part) for part in bare.split("."))

    def __str__(self) -> str:
        return ".".join(str(part) for part in self)


class DriverVersion:
    """A driver version as its vendor writes it, such as ``550.54.15``, ``580`` or ``32.0.15.6094``.

    Keeps the vendor's spelling (leading zeros are meant) and compares by numbers.
    """

    __slots__ = ("numbers", "text")

    def __init__(self, text: str) -> None:
        self.numbers = DottedVersion.parse(text)
        self.text = text.strip()

    @classmethod
    def parse(cls, text: str) -> DriverVersion:
        """Read a driver version.

        Raises:
            ValueError: the text holds anything but numbers and dots.
        """
        return cls(text)

    @property
    def branch(self) -> int:
        """The release branch: the first number."""
        return self.numbers[0]

    def at_least(self, floor: DriverVersion) -> bool:
        """Whether this driver is `floor` or newer; a bare branch (``580``) stands for every release of it.

        ``580`` as a *driver* meets any floor within branch 580: the user has named the branch alone.
        """
        if len(self.numbers) == 1 and self.branch == floor.branch:
            return True
        return tuple(self.numbers) >= tuple(floor.numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DriverVersion) and self.numbers == other.numbers

    def __hash__(self) -> int:
        return hash(self.numbers)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"DriverVersion({self.text!r})"
