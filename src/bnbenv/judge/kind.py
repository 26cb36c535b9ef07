"""What the rules can tell of a machine: the key under which answers for like machines are shared."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING

from bnbenv.judge import lookup
from bnbenv.judge.candidates import minor
from bnbenv.judge.rules.platform import tag_glibc

if TYPE_CHECKING:
    from collections.abc import Hashable

    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix


def class_of(target: Target, matrix: Matrix, *, positions: bool = False) -> tuple[Hashable, ...]:
    """What the rules can tell of a machine: equal for two machines that every stack serves alike.

    Args:
        target: the machine.
        matrix: its floors are the only versions at which an answer can change.
        positions: the places of the GPUs count as well, as variables of the request may select by them.
    """
    kinds = [
        (gpu.compute_capability, gpu.gfx, gpu.integrated, gpu.visible is not False) for gpu in target.gpus
    ]
    floors = _floors(matrix)
    libc = target.libc
    return (
        (target.os, target.arch, target.accelerator, target.wsl, target.tegra, target.l4t),
        None if libc is None else (libc.family, bisect_right(floors.glibc, tuple(libc.version))),
        None if target.libstdcxx is None else bisect_right(floors.glibcxx, tuple(target.libstdcxx)),
        None
        if target.driver is None
        else (
            lookup.release_branch(matrix, target.driver.branch),
            tuple(target.driver.at_least(lookup.oldest_driver(row, target)) for row in matrix.driver_floors),
        ),
        tuple(kinds) if positions else frozenset(kinds),
        # "drop this GPU" is a need only where another is left.
        sum(visible for *_, visible in kinds) > 1,
        tuple(gpu.uuid for gpu in target.gpus) if positions else (),
        frozenset(minor(python) for python in target.pythons),
    )


class _Floors:
    """The versions at which some wheel begins to run, ascending."""

    __slots__ = ("glibc", "glibcxx")

    def __init__(self, matrix: Matrix) -> None:
        libraries = [library for wheel in matrix.bitsandbytes for library in wheel.libraries]
        asked = {
            family: {
                tuple(library.symbol_versions[family])
                for library in libraries
                if family in library.symbol_versions
            }
            for family in ("GLIBC", "GLIBCXX")
        }
        tags = {tuple(floor) for wheel in matrix.bitsandbytes if (floor := tag_glibc(wheel.platform))}
        torch = {tuple(build.glibc) for build in matrix.torch if build.glibc is not None}
        self.glibc = sorted(asked["GLIBC"] | tags | torch)
        self.glibcxx = sorted(asked["GLIBCXX"])


@lru_cache(maxsize=8)
def _floors(matrix: Matrix) -> _Floors:
    return _Floors(matrix)
