"""Measures a wheel: what its name, its metadata and its native libraries say."""

from __future__ import annotations

import hashlib
import re
from datetime import date
from typing import TYPE_CHECKING, Literal, NamedTuple

from bnbenv.matrix import elf, macho, pe
from bnbenv.matrix.binary import Binary, DamagedFileError
from bnbenv.matrix.fatbin import find_images, sort_images
from bnbenv.matrix.offload import find_targets
from bnbenv.matrix.remote import LocalFile
from bnbenv.matrix.rows import BitsandbytesWheel, NativeLibrary, Provenance
from bnbenv.matrix.wheel import Wheel
from bnbenv.units import CudaVersion

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bnbenv.machine.target import Arch, OsName
    from bnbenv.matrix.remote import PiecewiseFile
    from bnbenv.matrix.rows import Backend

_PIECE = 1 << 20
_LIBRARY = re.compile(r"(?:.*/)?[^/]+\.(?:so(?:\.\d+)*|dll|dylib|pyd)")
_NAME = re.compile(
    r"libbitsandbytes_(?P<backend>cpu|cuda|rocm|hip|xpu|mps|sycl)(?P<digits>\d*)(?:_nocublaslt\d*)?\."
)
_BACKENDS: dict[str, Backend] = {
    "cpu": "cpu",
    "cuda": "cuda",
    "rocm": "rocm",
    "hip": "rocm",
    "xpu": "xpu",
    "sycl": "xpu",
    "mps": "mps",
}


class Published(NamedTuple):
    """What an index tells of a file beside its bytes.

    Attributes:
        uploaded: the day, ``YYYY-MM-DD``; empty where nobody tells.
        broken: why nobody should install it, where the caller knows.
    """

    sha256: str
    uploaded: str
    broken: str | None = None


def measure_wheel(path: Path) -> BitsandbytesWheel:
    """Measure a bitsandbytes wheel on disk.

    Raises:
        DamagedFileError: the file is damaged.
    """
    digest = hashlib.sha256()
    file = LocalFile(path)
    for chunk in file.stream(0, file.size):
        digest.update(chunk)
    return measure_bitsandbytes(file, Published(digest.hexdigest(), uploaded=""))


def measure_bitsandbytes(
    file: PiecewiseFile, published: Published, *, checked: str | None = None
) -> BitsandbytesWheel:
    """Measure a bitsandbytes wheel, wherever its bytes are.

    Args:
        checked: the date of the row; today by default.

    Raises:
        DamagedFileError: the file is damaged.
        ExternalError: its bytes cannot be had.
    """
    from packaging.requirements import Requirement

    wheel = Wheel(file)
    version, platform = split_name(file.name)
    os, arch = platform_of(platform)
    metadata = wheel.metadata()
    requires = tuple(
        sorted(text.strip() for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text)
    )
    torch = [r for r in map(Requirement, requires) if r.name.lower() == "torch" and r.marker is None]
    python = metadata.get("Requires-Python")
    return BitsandbytesWheel(
        version=version,
        wheel=file.name,
        sha256=published.sha256,
        size=file.size,
        platform=platform,
        os=os,
        arch=arch,
        uploaded=published.uploaded,
        requires_python=python.strip() if python else None,
        requires_torch=_specifier(str(torch[0].specifier)) if torch else None,
        requires=requires,
        libraries=tuple(measure_libraries(wheel)),
        broken=published.broken,
        provenance=Provenance(
            how="measured",
            source=f"{file.name} sha256:{published.sha256}",
            checked=checked or date.today().isoformat(),  # noqa: DTZ011 - the day where the measuring is done
        ),
    )


def _specifier(text: str) -> str:
    return ",".join(sorted(text.split(","), key=lambda part: (part.lstrip("<>=!~"), part)))


def split_name(file_name: str) -> tuple[str, str]:
    """Version and platform tag of a wheel's file name.

    Raises:
        DamagedFileError: it is no wheel's name.
    """
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        parse_wheel_filename(file_name)
    except InvalidWheelFilename as error:
        raise DamagedFileError(file_name, 0, f"not the name of a wheel: {error}") from error
    parts = file_name.removesuffix(".whl").split("-")
    return parts[1], parts[-1]


def platform_of(platform: str) -> tuple[OsName, Arch]:
    """What a platform tag stands for. ``any`` is what x86-64 Linux wheels of bitsandbytes were tagged."""
    arch: Arch = "aarch64" if platform.endswith(("aarch64", "arm64")) else "x86_64"
    if platform.startswith("win"):
        return "windows", arch
    if platform.startswith("macosx"):
        return "macos", arch
    return "linux", arch


def measure_libraries(wheel: Wheel) -> Iterable[NativeLibrary]:
    """Every native library of a bitsandbytes wheel, by name."""
    names = sorted(name for name in wheel.names if _LIBRARY.fullmatch(name))
    for name in names:
        yield measure_library(name.rpartition("/")[2], wheel.read(name), where=f"{wheel.name}:{name}")


def measure_library(name: str, data: bytes, *, where: str | None = None) -> NativeLibrary:
    """Measure one native library by its file name and bytes.

    Args:
        where: for messages, the name by default.

    Raises:
        DamagedFileError: its headers or fatbins lie, or its format is unknown.
    """
    binary = Binary(where or name, data)
    facts = read_native(binary)
    backend, toolkit = _backend(name)
    pieces = (data[at : at + _PIECE] for at in range(0, len(data), _PIECE))
    images = sort_images(find_images(binary.name, pieces), facts.sections)
    linkage: Literal["relocatable", "executable"] | None = None
    if images.ptx or images.relocatable_ptx:
        linkage = "executable" if images.ptx else "relocatable"
    return NativeLibrary(
        name=name,
        backend=backend,
        toolkit=toolkit,
        cubins=tuple(images.cubins),
        ptx=tuple(images.ptx or images.relocatable_ptx),
        ptx_linkage=linkage,
        gfx=find_targets(binary, facts.sections),
        needed=facts.needed,
        run_paths=facts.run_paths,
        symbol_versions=facts.symbol_versions,
    )


def read_native(binary: Binary) -> elf.NativeFacts:
    """The linker's tables of a library of any of the three systems.

    Raises:
        DamagedFileError: they lie, or the format is unknown.
    """
    head = bytes(binary.take(0, min(4, binary.end), "the magic"))
    if head == elf.MAGIC:
        return elf.read_elf(binary)
    if head[:2] == pe.MAGIC:
        return pe.read_pe(binary)
    if head == macho.MAGIC:
        return macho.read_macho(binary)
    return binary.fail(0, "neither ELF nor PE nor 64-bit Mach-O")


def _backend(name: str) -> tuple[Backend, str | None]:
    match = _NAME.match(name)
    if match is None:
        return "cpu", None  # libbitsandbytes.so of very old releases, and whatever others bundle
    digits = match["digits"]
    backend = _BACKENDS[match["backend"]]
    if backend == "cuda" and digits:
        return backend, str(CudaVersion.parse(digits))
    if backend == "rocm" and digits:
        return backend, f"{digits[0]}.{digits[1:]}"  # the name spells the major as one digit
    return backend, digits or None
