"""The stack that an environment holds, read from its files, as the judge takes it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.matrix.rows import BitsandbytesWheel, Provenance, TorchBuild
from bnbenv.units import CudaVersion, minor_release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bnbenv.env.installed import Distribution, Installed
    from bnbenv.env.torch import InstalledTorch
    from bnbenv.judge.stack import Stack
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import NativeLibrary

# Packages whose loss of metadata, or second copy, matters to bitsandbytes; each is imported by its own name.
WATCHED = (
    "bitsandbytes", "torch", "triton", "transformers", "accelerate", "peft", "trl", "safetensors",
    "tokenizers", "numpy",
)  # fmt: skip
LIBRARY = re.compile(r"libbitsandbytes[\w.]*\.(?:so|dll|dylib)")
_VERSION = re.compile(r"""^__version__\s*=\s*["']([^"']+)["']""", re.MULTILINE)
_LARGEST_TEXT = 1 << 20  # bytes of a Python file that is read
_LARGEST_LIBRARY = 1 << 30  # bytes; the largest of bitsandbytes has 180 million

# Variables that decide what a process loads. Those that hide GPUs are in the target already.
JUDGED_VARIABLES = ("BNB_CUDA_VERSION", "BNB_ROCM_VERSION", "CUDA_VERSION", "HSA_OVERRIDE_GFX_VERSION")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was read.

    Attributes:
        torch: ``None`` where there is none, or its `version.py` cannot be read.
        bitsandbytes: the version that would be imported, ``None`` where there is none.
        package: the directory of the package `bitsandbytes`.
        stack: ``None`` without a torch.
    """

    torch: InstalledTorch | None
    bitsandbytes: str | None
    package: Path | None
    stack: Stack | None


def read_stack(
    installed: Installed,
    target: Target,
    matrix: Matrix,
    *,
    profile: str,
    environ: Mapping[str, str],
    report: Callable[[str], None],
) -> Reading:
    """Read torch, bitsandbytes and what the judge knows of the other packages.

    Libraries and builds that the matrix has no row for are measured where they lie.
    """
    from bnbenv.judge.stack import Stack

    torch = read_torch(installed)
    version, package = read_bitsandbytes(installed)
    stack = None
    if torch is not None and _is_version(torch.version):
        wheel = None
        if version is not None and _is_version(version):
            wheel = wheel_row(version, package, target, matrix, report, by=installed.find("bitsandbytes"))
        stack = Stack(
            python=installed.minor or "3.12",
            torch=torch_row(torch, target, matrix, python=installed.python, report=report),
            bitsandbytes=wheel,
            profile=profile,
            packages=_packages(installed, matrix),
            env={name: environ[name] for name in JUDGED_VARIABLES if name in environ},
        )
    return Reading(torch=torch, bitsandbytes=version, package=package, stack=stack)


def read_torch(installed: Installed) -> InstalledTorch | None:
    """The torch that would be imported, with or without metadata."""
    from bnbenv.env.torch import installed_torch

    for site in installed.site_packages:
        file = site / "torch" / "version.py"
        text = _text(file)
        if text is None:
            if not os.path.lexists(file):
                continue
            text = ""  # it is there and cannot be read: damaged, which is not the same as gone
        found = installed.find("torch")
        return installed_torch(text, site / "torch", distribution=found.version if found else None)
    return None


def read_bitsandbytes(installed: Installed) -> tuple[str | None, Path | None]:
    """The version and the directory of the package that would be imported."""
    found = installed.find("bitsandbytes")
    places = [site / "bitsandbytes" for site in installed.site_packages]
    if found is not None and found.editable and (found.direct_url or "").startswith("file://"):
        from urllib.parse import unquote, urlsplit

        places.insert(0, Path(unquote(urlsplit(found.direct_url or "").path)) / "bitsandbytes")
    package = next((place for place in places if (place / "__init__.py").is_file()), None)
    if found is not None and found.version:
        return found.version, package
    if package is None:
        return None, None
    told = _VERSION.search(_text(package / "__init__.py") or "")
    return (told[1] if told else "0"), package


def torch_row(
    torch: InstalledTorch,
    target: Target,
    matrix: Matrix,
    *,
    python: str | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> TorchBuild:
    """The matrix's row of an installed torch; one measured from its libraries where there is none."""
    build = build_on(torch, target)
    known = (torch.version, build, target.os, target.arch)
    rows = [row for row in matrix.torch if (row.version, row.build, row.os, row.arch) == known]
    if not rows and build.startswith("rocm"):  # the index says 6.2.4 where the file says 6.2
        rows = [
            row
            for row in matrix.torch
            if (row.version, row.os, row.arch) == (torch.version, target.os, target.arch)
            and (row.build.startswith(build) or build.startswith(row.build))
        ]
    # Distributions of PyTorch's indexes carry the local part in their metadata too, those of PyPI do not.
    from_pypi = "+" not in (torch.distribution or torch.full_version)
    rows.sort(key=lambda row: (row.index == "pypi") != from_pypi)
    if rows:
        return rows[0]._replace(local=torch.local)
    from bnbenv.matrix.binary import DamagedFileError
    from bnbenv.matrix.measure_torch import TorchImages, measure_torch_library

    images = TorchImages(cubins=(), ptx=())
    if torch.cuda and (target.os, target.arch) == _native(torch.directory, target):
        report(f"torch {torch.full_version} is not in the matrix: measuring its library")
        try:
            images = measure_torch_library(torch.directory)
        except (DamagedFileError, OSError):
            report("its library cannot be read")
    try:
        cuda = CudaVersion.parse(torch.cuda) if torch.cuda else None
    except ValueError:
        cuda = None
    return TorchBuild(
        version=torch.version,
        build=build,
        index="base",
        local=torch.local,
        os=target.os,
        arch=target.arch,
        pythons=(minor_release(python),) if python else (),
        cuda=cuda,
        rocm=torch.hip,
        cubins=images.cubins,
        ptx=images.ptx,
        provenance=_here(torch.directory, matrix),
    )


def build_on(torch: InstalledTorch, target: Target) -> str:
    """The build in the words of the matrix; macOS has one that serves CPU and MPS."""
    return "mps" if target.os == "macos" and torch.build == "cpu" else torch.build


def wheel_row(
    version: str,
    package: Path | None,
    target: Target,
    matrix: Matrix,
    report: Callable[[str], None],
    *,
    by: Distribution | None = None,
) -> BitsandbytesWheel:
    """The matrix's row of an installed release, with what lies in its directory beside it measured.

    A library that the wheel brought and that is gone stays in the row: that is a damaged file, which says
    more than what the loader makes of it. What somebody else built is measured, whatever it calls itself.

    Args:
        by: what the package was installed by.
    """
    from bnbenv.judge import lookup
    from bnbenv.judge.check import find_wheel

    row = find_wheel(version, target, matrix)
    present = native_names(package)
    conda = by is not None and by.installer == "conda"
    built = by is not None and by.direct_url is not None and not by.direct_url.endswith(".whl")
    published = row.provenance.source != lookup.NOT_IN_MATRIX and not conda and not built
    known = {library.name for library in row.libraries} if published else frozenset()
    foreign = sorted(present - known)
    more = tuple(_measured(package, foreign, report)) if package and foreign else ()
    if published:
        return row._replace(libraries=(*row.libraries, *more)) if more else row
    if package is None or not more:
        return row
    return row._replace(
        wheel=row.wheel if conda else "", libraries=more, provenance=_here(package, matrix), broken=None
    )


def native_names(package: Path | None) -> frozenset[str]:
    """The file names of bitsandbytes' own native libraries that lie in its directory."""
    from bnbenv.env import durable

    if package is None:
        return frozenset()
    return frozenset(name for name in durable.names_in(package) if LIBRARY.fullmatch(name))


def _measured(package: Path, names: Iterable[str], report: Callable[[str], None]) -> Iterable[NativeLibrary]:
    from bnbenv.matrix.binary import DamagedFileError
    from bnbenv.matrix.measure import measure_library

    for name in names:
        file = package / name
        report(f"`{name}` is not in the matrix: measuring it")
        try:
            if file.is_file() and file.stat().st_size <= _LARGEST_LIBRARY:
                yield measure_library(name, file.read_bytes(), where=str(file))
        except (DamagedFileError, OSError, ValueError):
            continue  # the comparison with RECORD, or the search for foreign libraries, tells of it


def _packages(installed: Installed, matrix: Matrix) -> dict[str, str]:
    """The packages of which the matrix knows something, as far as their versions can be compared."""
    known = {row.package for row in matrix.floors} | {name for row in matrix.floors for name in row.needs}
    known |= {row.package for row in matrix.hazards} | {name for row in matrix.hazards for name in row.when}
    known |= {name for row in matrix.profiles for name in row.excludes}
    known |= {"kernels"}
    known -= {"torch", "bitsandbytes", "python"}
    return {
        name: version
        for name, version in installed.versions.items()
        if name in known and _is_version(version)
    }


def _is_version(text: str) -> bool:
    from packaging.version import InvalidVersion

    from bnbenv.judge.ranges import version

    try:
        version(text)
    except InvalidVersion:
        return False
    return True


def _native(directory: Path, target: Target) -> tuple[str, str]:
    """What the target is, where torch's library is of its system: a DLL on Linux is not measured."""
    dll = (directory / "lib" / "torch_cuda.dll").is_file()
    return ("windows" if dll else target.os, target.arch)


def _here(directory: Path, matrix: Matrix) -> Provenance:
    return Provenance(how="measured", source=str(directory), checked=matrix.revision.replace(".", "-"))


def _text(file: Path) -> str | None:
    try:
        if not file.is_file():
            return None
        with file.open("rb") as stream:
            return stream.read(_LARGEST_TEXT).decode("utf-8", errors="replace")
    except OSError:
        return None
