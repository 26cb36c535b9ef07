"""Rows of the matrix by what the judge asks for, looked up once for each matrix."""

from __future__ import annotations

import bisect
from functools import lru_cache
from typing import TYPE_CHECKING

from bnbenv.errors import UsageError
from bnbenv.judge.ranges import version, within

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.machine.target import Arch, OsName, Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import (
        ArchitectureDrivers,
        BitsandbytesWheel,
        DriverFloor,
        Floor,
        LoaderRule,
        PackageSet,
        Profile,
        TorchBuild,
    )
    from bnbenv.units import ComputeCapability, CudaVersion, DriverVersion

NOT_IN_MATRIX = "not in the matrix"
"""The source of a row that was made up from a name, because the matrix has none."""

FIRST_TAGGED = "0.43.0"
"""The first bitsandbytes whose wheels' tags tell the platform: before, all said ``any``."""


@lru_cache(maxsize=64)
def torch_builds(matrix: Matrix, os: OsName, arch: Arch) -> tuple[TorchBuild, ...]:
    """The torch builds for a platform, newest release first."""
    rows = (row for row in matrix.torch if (row.os, row.arch) == (os, arch))
    return tuple(sorted(rows, key=lambda row: version(row.version), reverse=True))


@lru_cache(maxsize=64)
def wheels(matrix: Matrix, os: OsName, arch: Arch) -> tuple[BitsandbytesWheel, ...]:
    """The bitsandbytes wheels for a platform, newest first; those whose tag claims any platform are left out.

    Before `FIRST_TAGGED` every wheel was tagged ``any`` and held x86-64 Linux libraries.
    """
    rows = (row for row in matrix.bitsandbytes if (row.os, row.arch) == (os, arch) and row.platform != "any")
    return tuple(sorted(rows, key=lambda row: version(row.version), reverse=True))


@lru_cache(maxsize=4096)
def loader_rule(matrix: Matrix, release: str) -> LoaderRule | None:
    """How that release of bitsandbytes chooses its library."""
    return next((row for row in matrix.loaders if within(release, row.versions)), None)


@lru_cache(maxsize=4096)
def toolkit_serves(matrix: Matrix, cuda: CudaVersion, capability: ComputeCapability) -> bool:
    """Whether builds of torch for a CUDA version can serve a GPU, as far as those for x86-64 Linux tell.

    An architecture comes with one toolkit and goes with a later major version: a CUDA older than all builds
    that serve the GPU cannot make code for it, and neither can one of a newer major version than they all,
    where builds of a newer one are known at all.
    """
    builds = [build for build in torch_builds(matrix, "linux", "x86_64") if build.cuda is not None]
    known = [build.cuda for build in builds if build.cuda is not None]
    serving = [
        build.cuda
        for build in builds
        if build.cuda is not None
        and any(one.major == capability.major and one.minor <= capability.minor for one in build.cubins)
    ]
    if not serving or cuda < min(known):  # of what came before the first build nothing is known
        return True
    dropped = cuda.major > max(serving).major and max(known).major > max(serving).major
    return min(serving) <= cuda and not dropped


@lru_cache(maxsize=8)
def torch_targets(matrix: Matrix) -> frozenset[str]:
    """Every gfx target that some torch build for x86-64 Linux is known to hold."""
    return frozenset(gfx for build in torch_builds(matrix, "linux", "x86_64") for gfx in build.gfx)


@lru_cache(maxsize=8)
def sycl_runtimes(matrix: Matrix) -> Mapping[str, frozenset[str]]:
    """Each SYCL runtime by the years of oneAPI whose libraries need it."""
    found: dict[str, set[str]] = {}
    for wheel in matrix.bitsandbytes:
        for library in wheel.libraries:
            if library.backend == "xpu" and library.toolkit is not None:
                for name in library.needed:
                    if "sycl" in name:
                        found.setdefault(name, set()).add(library.toolkit)
    return {name: frozenset(years) for name, years in found.items()}


@lru_cache(maxsize=64)
def profile(matrix: Matrix, name: str) -> Profile:
    """A profile by name.

    Raises:
        UsageError: there is no such profile.
    """
    for row in matrix.profiles:
        if row.name == name:
            return row
    known = ", ".join(f"`{row.name}`" for row in matrix.profiles)
    raise UsageError(f"there is no profile `{name}`", hint=f"known profiles: {known}", code="bad-request")


def fitting_set(row: Profile, versions: Mapping[str, str]) -> PackageSet | None:
    """The newest package set of a profile that takes these versions, each where it is known.

    Args:
        versions: name → exact version, ``torch`` and ``python`` included.
    """
    for group in row.sets:
        ranges = {"torch": group.torch, "python": group.python, **group.packages}
        if all(name not in versions or within(versions[name], text) for name, text in ranges.items()):
            return group
    return None


def takes_toolkit(group: PackageSet, build: TorchBuild) -> bool:
    """Whether the set's compiled packages find the CUDA libraries that they were linked with."""
    return not group.cuda or (build.cuda is not None and within(str(build.cuda), group.cuda))


def published_for(group: PackageSet, build: TorchBuild) -> bool:
    """Whether the set's packages have files for the build's platform."""
    return not group.platforms or f"{build.os}-{build.arch}" in group.platforms


@lru_cache(maxsize=256)
def floors(matrix: Matrix, package: str) -> tuple[Floor, ...]:
    """The run-time floors of a package's releases."""
    return tuple(row for row in matrix.floors if row.package == package)


@lru_cache(maxsize=64)
def driver_floor(matrix: Matrix, major: int) -> DriverFloor | None:
    """The oldest drivers that run a CUDA major version."""
    return next((row for row in matrix.driver_floors if row.major == major), None)


def oldest_driver(row: DriverFloor, target: Target) -> DriverVersion:
    """The floor for the target's system; WSL2 runs on the Windows driver."""
    if target.os != "windows" and not target.wsl:
        return row.linux
    if target.arch == "aarch64" and row.windows_arm is not None:
        return row.windows_arm
    return row.windows


@lru_cache(maxsize=1024)
def architecture(matrix: Matrix, capability: ComputeCapability) -> ArchitectureDrivers | None:
    """The driver branches that know a compute capability."""
    return next((row for row in matrix.architectures if capability in row.capabilities), None)


@lru_cache(maxsize=8)
def _branches(matrix: Matrix) -> tuple[tuple[int, CudaVersion], ...]:
    return tuple(sorted((row.branch, row.cuda) for row in matrix.driver_branches))


@lru_cache(maxsize=4096)
def release_branch(matrix: Matrix, number: int) -> int:
    """The branch that a driver's first number belongs to: Windows' 581 and 582 are of branch 580."""
    known = _branches(matrix)
    place = bisect.bisect_right([branch for branch, _ in known], number)
    return known[place - 1][0] if place else number


@lru_cache(maxsize=4096)
def driver_cuda(matrix: Matrix, number: int) -> CudaVersion | None:
    """The CUDA version that a driver of that branch reports; ``None`` below the oldest known branch."""
    return dict(_branches(matrix)).get(release_branch(matrix, number))


@lru_cache(maxsize=4096)
def ever_served(matrix: Matrix, os: OsName, arch: Arch, capability: ComputeCapability) -> bool:
    """Whether any bitsandbytes wheel for the platform holds a kernel for the compute capability."""
    return any(
        cubin.major == capability.major and cubin.minor <= capability.minor
        for wheel in wheels(matrix, os, arch)
        for library in wheel.libraries
        for cubin in library.cubins
    )
