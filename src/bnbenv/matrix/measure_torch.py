"""Measures a torch wheel: CUDA version, GPU code of `libtorch_cuda.so`, and what it requires."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from bnbenv.dataclass import dataclass, field
from bnbenv.matrix import elf, pe
from bnbenv.matrix.binary import Binary, DamagedFileError
from bnbenv.matrix.fatbin import find_images, sort_images
from bnbenv.matrix.remote import LocalFile
from bnbenv.matrix.wheel import Wheel
from bnbenv.units import LEGACY_MANYLINUX, CudaVersion, DottedVersion
from bnbenv.version_py import assigned_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from email.message import Message
    from pathlib import Path

    from bnbenv.machine.target import Arch, OsName
    from bnbenv.matrix.elf import Section
    from bnbenv.matrix.fatbin import Image
    from bnbenv.matrix.remote import PiecewiseFile
    from bnbenv.units import ComputeCapability

_VERSION_FILE = "torch/version.py"
_LIBRARIES = ("torch/lib/libtorch_cuda.so", "torch/lib/torch_cuda.dll")
_CORE = ("torch/lib/libc10.so", "torch/lib/libtorch_cpu.so", "torch/lib/libtorch_python.so")
_VERSION_NAME = re.compile(rb"\0((?:GLIBC|GLIBCXX|CXXABI)_\d[\d.]*)(?=\0)")
_LONGEST_NAME = 64
_HEAD_BYTES = 4096
_NEAR = 4 << 20  # the sections' names stand within this of the section table
_FEW = 0.2
"""A capability with less than this share of the commonest one's images serves a few kernels only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchFacts:
    """What one wheel of torch holds.

    Attributes:
        cuda, rocm: as `torch/version.py` says; both ``None`` in a CPU build.
        cubins: executable ones that serve all of `libtorch_cuda`, ascending: some capabilities have a few
            kernels only.
        ptx: executable PTX, ascending.
        triton: the requirement on triton, ``None`` without one.
        nvidia: requirements on NVIDIA's packages, sorted.
        symbol_versions: what its core libraries ask for, where a legacy tag tells less.
    """

    cuda: CudaVersion | None
    rocm: str | None
    cubins: tuple[ComputeCapability, ...]
    ptx: tuple[ComputeCapability, ...]
    triton: str | None
    nvidia: tuple[str, ...]
    symbol_versions: Mapping[str, DottedVersion] = field(default_factory=dict)


class TorchImages(NamedTuple):
    """The GPU code of `libtorch_cuda`: empty in a build for the CPU."""

    cubins: tuple[ComputeCapability, ...]
    ptx: tuple[ComputeCapability, ...]


def measure_torch(
    file: PiecewiseFile, *, os: OsName, arch: Arch, python: str, platform: str = ""
) -> TorchFacts:
    """Measure a torch wheel, wherever its bytes are.

    Args:
        python: the minor version for which its requirements are read.
        platform: its platform tag, which decides whether symbol versions are read.

    Raises:
        DamagedFileError: the file is damaged.
        ExternalError: its bytes cannot be had.
    """
    wheel = Wheel(file)
    versions = read_versions(wheel)
    triton, nvidia = read_requirements(wheel.metadata(), os=os, arch=arch, python=python)
    cuda, rocm = versions.get("cuda"), versions.get("hip")
    cubins: tuple[ComputeCapability, ...] = ()
    ptx: tuple[ComputeCapability, ...] = ()
    if cuda:
        library = next((name for name in _LIBRARIES if name in wheel.names), None)
        if library is None:
            raise DamagedFileError(wheel.name, 0, f"says CUDA {cuda} and holds no libtorch_cuda")
        found = sort_images(*_read_large(f"{wheel.name}:{library}", wheel.stream(library)))
        cubins, ptx = serving(found.cubins), tuple(found.ptx)
    return TorchFacts(
        cuda=CudaVersion.parse(cuda) if cuda else None,
        rocm=rocm,
        cubins=cubins,
        ptx=ptx,
        triton=triton,
        nvidia=nvidia,
        symbol_versions=measure_symbol_versions(file) if tag_promises_too_much(platform) else {},
    )


def tag_promises_too_much(platform: str) -> bool:
    """Whether a wheel under this tag may need a newer glibc: nobody audited those of ``manylinux1``."""
    return platform.startswith("manylinux1_")


def measure_symbol_versions(file: PiecewiseFile) -> dict[str, DottedVersion]:
    """The highest GLIBC, GLIBCXX and CXXABI versions that the core libraries of a Linux wheel ask for.

    A legacy tag such as ``manylinux1`` promises an older glibc than these libraries can be loaded with.

    Raises:
        DamagedFileError: the file is damaged, or holds none of the core libraries.
        ExternalError: its bytes cannot be had.
    """
    wheel = Wheel(file)
    names = [name for name in _CORE if name in wheel.names]
    if not names:
        raise DamagedFileError(wheel.name, 0, f"holds none of {', '.join(_CORE)}")
    highest: dict[str, DottedVersion] = {}
    for name in names:
        for text in _version_names(f"{wheel.name}:{name}", wheel.stream(name)):
            elf.keep_highest(highest, text)
    return dict(sorted(highest.items()))


def _version_names(name: str, chunks: Iterable[bytes]) -> list[str]:
    """The names of symbol versions among a library's dynamic strings, found while it streams by."""
    kept = _Kept(name, chunks)
    found: list[tuple[int, str]] = []
    carried, at = b"", 0
    for chunk in kept:
        window = carried + chunk
        at -= len(carried)
        found += [(at + hit.start(1), hit[1].decode()) for hit in _VERSION_NAME.finditer(window)]
        at += len(window)
        carried = window[-_LONGEST_NAME:]
    sections = elf.read_sections(
        Binary(name, kept.head), Binary(name, kept.window, base=kept.window_at), end=kept.size
    )
    strings = [section for section in sections if section.name == ".dynstr"]
    return sorted({text for offset, text in found if any(section.holds(offset) for section in strings)})


def measure_torch_library(directory: Path) -> TorchImages:
    """The GPU code of an installed torch, by the directory of its package.

    Raises:
        DamagedFileError: the library is damaged.
    """
    for name in _LIBRARIES:
        library = directory.parent / name
        if library.is_file():
            file = LocalFile(library)
            found = sort_images(*_read_large(str(library), file.stream(0, file.size)))
            return TorchImages(cubins=serving(found.cubins), ptx=tuple(found.ptx))
    return TorchImages(cubins=(), ptx=())


def serving(images: Mapping[ComputeCapability, int]) -> tuple[ComputeCapability, ...]:
    """The capabilities that the whole library was built for, without those of a few kernels."""
    most = max(images.values(), default=0)
    return tuple(sorted(capability for capability, count in images.items() if count >= _FEW * most))


def read_versions(wheel: Wheel) -> dict[str, str]:
    """The texts that `torch/version.py` assigns, read without running it.

    Raises:
        DamagedFileError: there is no such file, or it is no Python.
    """
    if _VERSION_FILE not in wheel.names:
        raise DamagedFileError(wheel.name, 0, f"holds no {_VERSION_FILE}")
    text = wheel.read(_VERSION_FILE, limit=1 << 20).decode("utf-8", errors="replace")
    try:
        return assigned_texts(text)
    except ValueError as error:
        raise DamagedFileError(f"{wheel.name}:{_VERSION_FILE}", 0, f"is {error}") from error


def read_requirements(
    metadata: Message, *, os: OsName, arch: Arch, python: str
) -> tuple[str | None, tuple[str, ...]]:
    """The requirements on triton and on NVIDIA's packages that hold on a platform."""
    from bnbenv.markers import holding, of_platform, of_python

    values = {**of_platform(os, arch), **of_python(python)}
    triton: str | None = None
    nvidia = []
    for text in metadata.get_all("Requires-Dist", []):
        if (requirement := holding(text.strip(), values)) is None:
            continue
        name = requirement.name.lower()
        extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
        spelt = f"{requirement.name}{extras}{requirement.specifier}"
        if "triton" in name:
            triton = spelt
        elif name.startswith(("nvidia-", "cuda-")):
            nvidia.append(spelt)
    return triton, tuple(sorted(nvidia))


def platform_floors(platform: str) -> tuple[DottedVersion | None, DottedVersion | None]:
    """The lowest glibc and the lowest macOS that a platform tag asks for."""
    for name, glibc in LEGACY_MANYLINUX.items():
        if platform.startswith(name + "_"):
            return DottedVersion.parse(glibc), None
    if match := re.match(r"manylinux_(\d+)_(\d+)_", platform):
        return DottedVersion.parse(f"{match[1]}.{match[2]}"), None
    if match := re.match(r"macosx_(\d+)_(\d+)_", platform):
        return None, DottedVersion.parse(f"{match[1]}.{match[2]}")
    return None, None


def _read_large(name: str, chunks: Iterable[bytes]) -> tuple[list[Image], tuple[Section, ...]]:
    kept = _Kept(name, chunks)
    images = find_images(name, kept)
    head = Binary(name, kept.head)
    if kept.head[:2] == pe.MAGIC:
        return images, pe.read_pe_sections(head, end=kept.size)
    return images, elf.read_sections(head, Binary(name, kept.window, base=kept.window_at), end=kept.size)


class _Kept:
    """Passes chunks on, and keeps the first bytes and those around an ELF file's section table."""

    def __init__(self, name: str, chunks: Iterable[bytes]) -> None:
        self._name = name
        self._chunks = chunks
        self.head = b""
        self.size = 0
        self.window = bytearray()
        self.window_at = self._window_end = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            if len(self.head) < _HEAD_BYTES:
                self.head += chunk[: _HEAD_BYTES - len(self.head)]
                if not self._window_end and len(self.head) >= 64 and self.head[:4] == elf.MAGIC:
                    start, end = elf.section_table(Binary(self._name, self.head))
                    self.window_at, self._window_end = max(0, start - _NEAR), end + _NEAR
                    self.window += self.head[self.window_at : self.size]  # what small chunks brought before
            start, end = self.size, self.size + len(chunk)
            self.size = end
            if start < self._window_end and end > self.window_at:
                self.window += chunk[max(0, self.window_at - start) : self._window_end - start]
            yield chunk
