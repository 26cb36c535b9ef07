"""What the rules can tell of a machine: the key under which answers for like machines are shared."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING

from bnbenv.judge import lookup
from bnbenv.judge.rules.platform import tag_glibc
from bnbenv.units import minor_release

if TYPE_CHECKING:
    from collections.abc import Hashable

    from bnbenv.machine.target import Arch, OsName, Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import TorchBuild
    from bnbenv.units import CudaVersion, DriverVersion


def class_of(
    target: Target,
    matrix: Matrix,
    *,
    positions: bool = False,
    builds: tuple[TorchBuild, ...] = (),
) -> tuple[Hashable, ...]:
    """What the rules can tell of a machine: equal for two machines that every stack serves alike.

    Args:
        target: the machine.
        matrix: its floors are the only versions at which an answer can change.
        positions: the places of the GPUs count as well, as variables of the request may select by them, and
            the system's ROCm, as they may ask for a library that needs it.
        builds: torch builds that are offered beside those of the matrix.
    """
    kinds = [
        (gpu.compute_capability, gpu.gfx, gpu.integrated, gpu.visible is not False) for gpu in target.gpus
    ]
    floors = _floors(matrix, target.os, target.arch)
    libc = target.libc
    return (
        (target.os, target.arch, target.accelerator, target.wsl, target.tegra, target.l4t),
        None if libc is None else (libc.family, bisect_right(floors.glibc, tuple(libc.version))),
        None if target.libstdcxx is None else bisect_right(floors.glibcxx, tuple(target.libstdcxx)),
        None if target.driver is None else _driver(target, target.driver, matrix, builds),
        tuple(kinds) if positions else frozenset(kinds),
        "avx512_bf16" in (target.cpu_flags or ()),  # there bitsandbytes looks for the package `kernels`
        # "drop this GPU" is a need only where another is left.
        sum(visible for *_, visible in kinds) > 1,
        tuple(gpu.uuid for gpu in target.gpus) if positions else (),
        target.rocm.split(".")[0] if positions and target.rocm is not None else None,
        frozenset(minor_release(python) for python in target.pythons),
    )


def _driver(
    target: Target, driver: DriverVersion, matrix: Matrix, builds: tuple[TorchBuild, ...]
) -> tuple[Hashable, ...]:
    """What can be told of a driver: the CUDA majors it runs, the GPUs it knows, the PTX it compiles."""
    branch = lookup.release_branch(matrix, driver.branch)
    capabilities = {gpu.compute_capability for gpu in target.gpus if gpu.compute_capability is not None}
    known = frozenset(
        (capability, (row.first is None or row.first <= branch), (row.last is None or branch <= row.last))
        for capability in capabilities
        if (row := lookup.architecture(matrix, capability)) is not None
    )
    with_ptx = _with_ptx(matrix, target.os, target.arch)
    if any(build.ptx for build in builds):
        with_ptx = tuple(sorted({*with_ptx, *(build.cuda for build in builds if build.ptx and build.cuda)}))
    own = lookup.driver_cuda(matrix, driver.branch) if with_ptx else None
    return (
        tuple(
            (driver.at_least(floor), driver.branch >= floor.branch)
            for floor in (lookup.oldest_driver(row, target) for row in matrix.driver_floors)
        ),
        known,
        None if own is None else bisect_right(with_ptx, own),
    )


@lru_cache(maxsize=64)
def _with_ptx(matrix: Matrix, os: OsName, arch: Arch) -> tuple[CudaVersion, ...]:
    """The CUDA versions of torch builds that hold PTX, which a driver has to compile, ascending."""
    builds = lookup.torch_builds(matrix, os, arch)
    return tuple(sorted({build.cuda for build in builds if build.ptx and build.cuda is not None}))


class _Floors:
    """The versions at which some wheel for a platform begins to run, ascending."""

    __slots__ = ("glibc", "glibcxx")

    def __init__(self, matrix: Matrix, os: OsName, arch: Arch) -> None:
        wheels = [wheel for wheel in matrix.bitsandbytes if (wheel.os, wheel.arch) == (os, arch)]
        asked = {
            family: {
                tuple(library.symbol_versions[family])
                for wheel in wheels
                for library in wheel.libraries
                if family in library.symbol_versions
            }
            for family in ("GLIBC", "GLIBCXX")
        }
        tags = {tuple(floor) for wheel in wheels if (floor := tag_glibc(wheel.platform))}
        torch = {
            tuple(floor)
            for build in lookup.torch_builds(matrix, os, arch)
            if (floor := build.oldest_glibc) is not None
        }
        self.glibc = sorted(asked["GLIBC"] | tags | torch)
        self.glibcxx = sorted(asked["GLIBCXX"])


@lru_cache(maxsize=64)
def _floors(matrix: Matrix, os: OsName, arch: Arch) -> _Floors:
    return _Floors(matrix, os, arch)
