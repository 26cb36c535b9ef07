"""What an index lists of bitsandbytes and torch, and the rows for what the matrix does not hold yet."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, replace
from bnbenv.matrix.measure import Published, measure_bitsandbytes, platform_of
from bnbenv.matrix.measure_torch import measure_torch, platform_floors
from bnbenv.matrix.rows import Provenance, TorchBuild

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pypi_simple import DistributionPackage

    from bnbenv.matrix.measure_torch import TorchFacts
    from bnbenv.matrix.remote import PiecewiseFile
    from bnbenv.matrix.rows import BitsandbytesWheel, BrokenRelease

FIRST_BITSANDBYTES = "0.35.0"
FIRST_TORCH = "2.0.0"
_PREFERRED = ("3.11", "3.12", "3.10", "3.13", "3.9")
"""Which Python's wheel of torch is read: they differ only in the bindings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One wheel of bitsandbytes as an index lists it."""

    wheel: str
    version: str
    sha256: str
    size: int | None
    uploaded: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One wheel of torch as an index lists it.

    Attributes:
        version: the public version; `local` is the rest, such as ``cu126``.
    """

    wheel: str
    version: str
    local: str | None
    python: str
    platform: str
    build_tag: int
    sha256: str
    size: int | None
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A release of torch on a platform: the wheel to read, and the Pythons for which there is one."""

    chosen: Candidate
    pythons: tuple[str, ...]


def listed_wheels(packages: Iterable[DistributionPackage]) -> list[Listed]:
    """The wheels of interest out of an index page of bitsandbytes."""
    from packaging.version import InvalidVersion, Version

    wheels = []
    for package in packages:
        if package.package_type != "wheel" or package.version is None:
            continue
        try:
            if Version(package.version) < Version(FIRST_BITSANDBYTES):
                continue
        except InvalidVersion:
            continue
        day = package.upload_time.date().isoformat() if package.upload_time else ""
        wheels.append(
            Listed(
                wheel=package.filename,
                version=package.version,
                sha256=package.digests.get("sha256", ""),
                size=package.size,
                uploaded=day,
                url=package.url,
            )
        )
    return wheels


def why_broken(wheel: BitsandbytesWheel, broken: Sequence[BrokenRelease]) -> str | None:
    """The reasons against a wheel, with their sources."""
    from packaging.specifiers import SpecifierSet

    reasons = [
        f"{row.reason} ({row.provenance.source})"
        for row in broken
        if wheel.version in SpecifierSet(row.versions, prereleases=True)
        and (not row.os or wheel.os in row.os)
    ]
    return "; ".join(reasons) or None


def unknown_wheels(listed: Iterable[Listed], held: Iterable[BitsandbytesWheel]) -> list[Listed]:
    """The wheels of which no measured row tells; one replaced under its name is another wheel."""
    known = {(row.wheel, row.sha256) for row in held if row.provenance.how == "measured"}
    return [wheel for wheel in listed if (wheel.wheel, wheel.sha256) not in known]


def bitsandbytes_row(file: PiecewiseFile, wheel: Listed) -> BitsandbytesWheel:
    """The row of a listed wheel, measured.

    Raises:
        DamagedFileError: the file is damaged.
        ExternalError: its bytes cannot be had.
    """
    return measure_bitsandbytes(file, Published(wheel.sha256, wheel.uploaded))


def bitsandbytes_rows(
    listed: Sequence[Listed],
    held: Sequence[BitsandbytesWheel],
    broken: Sequence[BrokenRelease],
    measure: Callable[[Sequence[Listed]], Iterable[BitsandbytesWheel]],
) -> list[BitsandbytesWheel]:
    """The rows to write: those held, those measured now, each with today's reasons against it.

    A row whose wheel the index no longer lists is kept: locks may still name it.
    """
    rows = [*held, *measure(unknown_wheels(listed, held))]
    return [row._replace(broken=why_broken(row, broken)) for row in rows]


def candidates(packages: Iterable[DistributionPackage]) -> list[Candidate]:
    """The wheels of interest out of an index page of torch; free-threaded builds are left out."""
    from packaging.tags import parse_tag
    from packaging.version import InvalidVersion, Version

    found = []
    for package in packages:
        if package.package_type != "wheel" or package.version is None or package.is_yanked:
            continue
        try:
            version = Version(package.version)
        except InvalidVersion:
            continue
        if version < Version(FIRST_TORCH) or version.is_prerelease:
            continue
        parts = package.filename.removesuffix(".whl").split("-")
        tag = next(iter(parse_tag("-".join(parts[-3:]))))
        if tag.abi.endswith("t") or not tag.interpreter.startswith("cp3"):
            continue
        found.append(
            Candidate(
                wheel=package.filename,
                version=version.public,
                local=version.local,
                python=f"3.{tag.interpreter[3:]}",
                platform=parts[-1],
                build_tag=int(parts[2]) if len(parts) == 6 else 0,
                sha256=package.digests.get("sha256", ""),
                size=package.size,
                url=package.url,
            )
        )
    return found


def groups(wheels: Iterable[Candidate]) -> list[Group]:
    """One group a release, build and platform, the wheel to read chosen."""
    from packaging.version import Version

    together: dict[tuple[str, ...], list[Candidate]] = {}
    for wheel in wheels:
        key = (wheel.version, wheel.local or "", *platform_of(wheel.platform))
        together.setdefault(key, []).append(wheel)
    made = []
    for members in together.values():
        newest = max(member.build_tag for member in members)
        latest = [member for member in members if member.build_tag == newest]

        def rank(member: Candidate) -> tuple[int, str]:
            known = member.python in _PREFERRED
            return (_PREFERRED.index(member.python) if known else len(_PREFERRED), member.platform)

        pythons = sorted({member.python for member in members}, key=Version)
        made.append(Group(chosen=min(latest, key=rank), pythons=tuple(pythons)))
    return made


def measured_torch(file: PiecewiseFile, group: Group, *, index: str = "pypi") -> TorchBuild:
    """The row of the group's wheel, measured.

    Raises:
        DamagedFileError: the file is damaged.
        ExternalError: its bytes cannot be had.
    """
    chosen = group.chosen
    os, arch = platform_of(chosen.platform)
    facts = measure_torch(file, os=os, arch=arch, python=chosen.python, platform=chosen.platform)
    size = chosen.size if chosen.size is not None else file.size
    return torch_row(replace(group, chosen=replace(chosen, size=size)), facts, index=index)


def as_its_index_has_it(row: TorchBuild, held: Iterable[TorchBuild]) -> TorchBuild:
    """The row of a build for a board where its index has no others: nothing in a wheel tells that."""
    other = next((one for one in held if one.index == row.index and one.l4t is not None), None)
    if other is None:
        return row
    return row._replace(build=f"{other.build.partition('.')[0]}.{row.build}", l4t=other.l4t)


def torch_row(group: Group, facts: TorchFacts, *, index: str = "pypi") -> TorchBuild:
    """The row of a measured wheel.

    Args:
        index: the name of the index that lists it.
    """
    chosen = group.chosen
    os, arch = platform_of(chosen.platform)
    glibc, macos = platform_floors(chosen.platform)
    build = "cpu"
    if facts.cuda:
        build = facts.cuda.tag
    elif facts.rocm:
        build = chosen.local or f"rocm{'.'.join(facts.rocm.split('.')[:2])}"
    elif chosen.local == "xpu":
        build = "xpu"
    elif os == "macos" and arch == "aarch64":
        build = "mps"
    return TorchBuild(
        version=chosen.version,
        build=build,
        index=index,
        local=chosen.local,
        os=os,
        arch=arch,
        pythons=group.pythons,
        cuda=facts.cuda,
        rocm=facts.rocm,
        cubins=facts.cubins,
        ptx=facts.ptx,
        glibc=glibc,
        macos=macos,
        triton=facts.triton,
        nvidia=facts.nvidia,
        size=chosen.size,
        symbol_versions=facts.symbol_versions,
        provenance=Provenance(
            how="measured",
            source=f"{chosen.wheel} sha256:{chosen.sha256}" if chosen.sha256 else chosen.wheel,
            checked=date.today().isoformat(),  # noqa: DTZ011 - the day where the measuring is done
        ),
    )


def unknown_groups(
    listed: Iterable[Group], held: Iterable[TorchBuild], *, index: str = "pypi"
) -> list[Group]:
    """The groups of which no measured row tells, for one index."""
    known = {
        (row.version, row.local, row.os, row.arch)
        for row in held
        if row.index == index and row.provenance.how == "measured"
    }
    return [
        group
        for group in listed
        if (group.chosen.version, group.chosen.local, *platform_of(group.chosen.platform)) not in known
    ]


def torch_rows(
    listed: Sequence[Group],
    held: Sequence[TorchBuild],
    measure: Callable[[Sequence[Group]], Iterable[TorchBuild]],
) -> list[TorchBuild]:
    """The measured rows to write: those held, with today's list of Pythons, and those measured now."""
    known = {row.provenance.source.partition(" ")[0]: row for row in held if row.provenance.how == "measured"}
    kept, new = [], []
    for group in listed:
        row = known.pop(group.chosen.wheel, None)
        if row is None:
            new.append(group)
        else:
            kept.append(row._replace(pythons=group.pythons))
    replaced = {(g.chosen.version, *platform_of(g.chosen.platform)) for g in new}
    stale = [row for row in known.values() if (row.version, row.os, row.arch) not in replaced]
    return [*kept, *stale, *measure(new)]
