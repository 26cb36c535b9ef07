"""Reads the file names of torch wheels, and finds what the matrix knows of such a build."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.matrix.rows import Provenance, TorchBuild
from bnbenv.units import LEGACY_MANYLINUX, CudaVersion, DottedVersion, RocmVersion

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from bnbenv.machine.target import Arch, OsName

_PLATFORM = re.compile(
    r"(?:manylinux_(?P<major>\d+)_(?P<minor>\d+)|(?P<legacy>manylinux(?:1|2010|2014))|linux|win"
    r"|macosx_(?P<mac>\d+_\d+))_(?P<arch>x86_64|aarch64|arm64|amd64|universal2)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchWheel:
    """What a file name of torch says.

    Attributes:
        file: the name.
        version: public version.
        local: the local version, such as ``cu126``.
        python: the minor version, such as ``3.12``.
        glibc, macos: the floor that the platform tag sets.
        size: bytes, where the index tells.
    """

    file: str
    version: str
    local: str | None
    python: str
    os: OsName
    arch: Arch
    glibc: DottedVersion | None = None
    macos: DottedVersion | None = None
    size: int | None = None


def read_wheel_name(file: str, size: int | None = None) -> TorchWheel | None:
    """The facts of a torch wheel's name; ``None`` for anything else, unknown platforms included."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        name, version, _, tags = parse_wheel_filename(file)
    except InvalidWheelFilename:
        return None
    if name != "torch":
        return None
    python = next((match for tag in tags if (match := re.fullmatch(r"cp3(\d+)", tag.interpreter))), None)
    platform = next((found for tag in sorted(tags, key=str) if (found := _platform(tag.platform))), None)
    # Free-threaded wheels (`cp313t`) are for another interpreter than the one the name begins with.
    if python is None or platform is None or any(tag.abi.endswith("t") for tag in tags):
        return None
    return TorchWheel(
        file=file,
        version=version.public,
        local=version.local,
        python=f"3.{python[1]}",
        size=size,
        **platform,
    )


def _build_of(wheel: TorchWheel, of_matrix: Mapping[tuple[str, OsName, Arch], str]) -> str | None:
    """The build: the local version, else what the matrix says; ``None`` where unknown."""
    if wheel.local is not None:
        return wheel.local if _is_build(wheel.local) else None
    return of_matrix.get((wheel.version, wheel.os, wheel.arch))


def newer_release(wheels: Iterable[TorchWheel], known: Iterable[TorchBuild]) -> str | None:
    """The newest release among wheels, where it is newer than every release that the matrix knows."""
    from packaging.version import Version

    releases = {Version(wheel.version) for wheel in wheels}
    newest = max((release for release in releases if not release.is_prerelease), default=None)
    if newest is None or newest <= max(map(Version, {row.version for row in known}), default=newest):
        return None
    return str(newest)


def listed_builds(
    wheels: Iterable[TorchWheel], index: str, known: Sequence[TorchBuild]
) -> frozenset[tuple[str, str, str]]:
    """What an index was seen to list, as (version, build, Python minor)."""
    of_matrix = {(row.version, row.os, row.arch): row.build for row in known if row.index == index}
    return frozenset(
        (wheel.version, build, wheel.python)
        for wheel in wheels
        if (build := _build_of(wheel, of_matrix)) is not None
    )


def candidate_builds(
    wheels: Iterable[TorchWheel], index: str, known: Sequence[TorchBuild]
) -> tuple[TorchBuild, ...]:
    """The builds of a place outside the matrix, with what the matrix knows of the same build elsewhere.

    A CUDA or ROCm build that the matrix does not know is left out: nothing tells which GPUs it serves.
    """
    groups: dict[tuple[str, str | None, OsName, Arch], list[TorchWheel]] = {}
    for wheel in wheels:
        groups.setdefault((wheel.version, wheel.local, wheel.os, wheel.arch), []).append(wheel)
    found = []
    for (version, local, os, arch), members in sorted(groups.items(), key=str):
        build = local if local is not None and _is_build(local) else None
        row = _same(version, build, os, arch, known)
        if row is None and build == "cpu":
            row = _cpu_row(members[0], version, os, arch)
        if row is None:
            continue
        pythons = sorted({member.python for member in members}, key=lambda minor: int(minor[2:]))
        found.append(
            row._replace(
                index=index,
                local=local,
                pythons=tuple(pythons),
                glibc=members[0].glibc,
                macos=members[0].macos,
                size=members[0].size,
            )
        )
    return tuple(found)


def _same(
    version: str, build: str | None, os: OsName, arch: Arch, known: Iterable[TorchBuild]
) -> TorchBuild | None:
    for row in known:
        if (row.version, row.os, row.arch) != (version, os, arch):
            continue
        # A wheel without a local version is a copy of PyPI's.
        if (build is not None and row.build == build) or (build is None and row.local is None):
            return row
    return None


def _cpu_row(wheel: TorchWheel, version: str, os: OsName, arch: Arch) -> TorchBuild:
    # A CPU build has no kernels whose list could be wrong: its name says all that the judge needs.
    return TorchBuild(
        version=version,
        build="cpu",
        index="",
        local=wheel.local,
        os=os,
        arch=arch,
        pythons=(),
        provenance=Provenance(how="published", source=wheel.file, checked="unknown"),
    )


def _is_build(local: str) -> bool:
    if local in {"cpu", "xpu"}:
        return True
    for parse in (CudaVersion.parse, RocmVersion.parse):
        try:
            parse(local)
        except ValueError:
            continue
        return local.startswith(("cu", "rocm"))
    return False


def _platform(tag: str) -> dict[str, Any] | None:
    match = _PLATFORM.fullmatch(tag)
    if match is None:
        return {"os": "windows", "arch": "x86_64"} if tag == "win_amd64" else None
    arch = "aarch64" if match["arch"] in {"aarch64", "arm64"} else "x86_64"
    if match["mac"]:
        floor = DottedVersion.parse(match["mac"].replace("_", "."))
        return {"os": "macos", "arch": arch, "macos": floor}
    if tag.startswith("win"):
        return {"os": "windows", "arch": arch}
    legacy = LEGACY_MANYLINUX.get(match["legacy"])
    glibc = f"{match['major']}.{match['minor']}" if match["major"] else legacy
    return {"os": "linux", "arch": arch, "glibc": DottedVersion.parse(glibc) if glibc else None}
