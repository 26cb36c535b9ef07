"""Many machines at once: those that no rule can tell apart are solved once."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from functools import lru_cache
from typing import TYPE_CHECKING

from bnbenv.judge import lookup
from bnbenv.judge.candidates import candidates, minor, without_accelerator
from bnbenv.judge.explain import Conflict, conflict, passed_over, unsolvable
from bnbenv.judge.judge import judge
from bnbenv.judge.rules.platform import tag_glibc
from bnbenv.judge.solve import Search
from bnbenv.judge.stack import Offers, Solution

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from bnbenv.judge.stack import Rejection, Request, Stack, Unsolvable
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix

_KEPT = 4096  # classes; a fleet has some hundreds
_NO_OFFERS = Offers()


def solve_all(
    request: Request,
    targets: Iterable[Target],
    matrix: Matrix,
    offers: Offers = _NO_OFFERS,
    *,
    explain: bool = False,
) -> Iterator[Solution | Unsolvable]:
    """The answer of `solve` for each machine, in order and one by one, in memory that does not grow.

    A machine of a class that was met before costs one judgement.

    Raises:
        UsageError: the request cannot be read.
    """
    known: OrderedDict[Hashable, Stack | Conflict] = OrderedDict()
    for target in targets:
        key = class_of(target, matrix, positions=bool(request.env))
        answer = known.get(key)
        if answer is None:
            stack = Search(candidates(request, target, matrix, offers), matrix).best()
            answer = known[key] = stack or conflict(request, target, matrix, offers)
            if len(known) > _KEPT:
                known.popitem(last=False)
        if isinstance(answer, Conflict):
            yield unsolvable(answer, request, target, matrix, offers)
        else:
            seen = without_accelerator(target) if request.cpu else target
            rejections: tuple[Rejection, ...] = ()
            if explain:  # in the words of this machine
                rejections = passed_over(Search(candidates(request, target, matrix, offers), matrix), answer)
            yield Solution(stack=answer, judgement=judge(answer, seen, matrix), passed_over=rejections)


def class_of(target: Target, matrix: Matrix, *, positions: bool = False) -> Hashable:
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
