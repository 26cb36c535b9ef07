"""Many machines at once: those that no rule can tell apart are solved once."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from bnbenv.judge.candidates import candidates, without_accelerator
from bnbenv.judge.coverage import gpu_number, kinds_of_gpu
from bnbenv.judge.explain import Conflict, conflict, near_words, passed_over, unsolvable
from bnbenv.judge.judge import judge
from bnbenv.judge.kind import class_of
from bnbenv.judge.solve import Search, best_stack
from bnbenv.judge.stack import Offers, Solution

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from bnbenv.judge.stack import Rejection, Request, Stack, Unsolvable
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix

_KEPT = 4096  # classes; a fleet has some hundreds
_NO_OFFERS = Offers()


class Fleet:
    """Answers one request for one machine after another, in memory that does not grow.

    A machine of a class that was met before costs one judgement.
    """

    def __init__(self, request: Request, matrix: Matrix, offers: Offers = _NO_OFFERS) -> None:
        self.request = request
        self.matrix = matrix
        self.offers = offers
        self._known: OrderedDict[Hashable, Stack | Conflict] = OrderedDict()
        self._spoken: OrderedDict[Hashable, tuple[tuple[str, ...], ...]] = OrderedDict()

    def solve(self, target: Target, *, explain: bool = False) -> Solution | Unsolvable:
        """The same answer as `bnbenv.judge.solve.solve`.

        Raises:
            UsageError: the request cannot be read.
        """
        request, matrix, offers = self.request, self.matrix, self.offers
        key = class_of(target, matrix, positions=bool(request.env), builds=offers.builds)
        answer = self._known.get(key)
        if answer is None:
            stack = best_stack(request, target, matrix, offers)
            answer = self._known[key] = stack or conflict(request, target, matrix, offers)
            _forget(self._known)
        if isinstance(answer, Conflict):
            return unsolvable(answer, request, target, matrix, offers, self._words(key, answer, target))
        seen = without_accelerator(target) if request.cpu else target
        rejections: tuple[Rejection, ...] = ()
        if explain:  # in the words of this machine
            rejections = passed_over(Search(candidates(request, target, matrix, offers), matrix), answer)
        return Solution(stack=answer, judgement=judge(answer, seen, matrix), passed_over=rejections)

    def _words(self, key: Hashable, answer: Conflict, target: Target) -> tuple[tuple[str, ...], ...]:
        """What the near misses need, which depends on nothing but the class and the numbers of the GPUs."""
        labels = key, tuple(label for label, _ in kinds_of_gpu(target)), _numbers(target)
        words = self._spoken.get(labels)
        if words is None:
            words = self._spoken[labels] = near_words(answer, self.request, target, self.matrix)
            _forget(self._spoken)
        return words


def solve_all(
    request: Request,
    targets: Iterable[Target],
    matrix: Matrix,
    offers: Offers = _NO_OFFERS,
    *,
    explain: bool = False,
) -> Iterator[Solution | Unsolvable]:
    """The answer of `solve` for each machine, in order and one by one, in memory that does not grow.

    Raises:
        UsageError: the request cannot be read.
    """
    fleet = Fleet(request, matrix, offers)
    return (fleet.solve(target, explain=explain) for target in targets)


def _numbers(target: Target) -> tuple[str, ...]:
    return tuple(gpu_number(gpu, position) for position, gpu in enumerate(target.visible_gpus))


def _forget(known: OrderedDict[Hashable, Any]) -> None:
    """Keep memory flat: the oldest goes first."""
    if len(known) > _KEPT:
        known.popitem(last=False)
