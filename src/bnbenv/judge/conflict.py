"""A smallest set of facts that leaves no stack, out of those that could be otherwise."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

from bnbenv.judge.coverage import kinds_of_gpu
from bnbenv.judge.solve import solvable
from bnbenv.judge.stack import Offers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bnbenv.judge.stack import Request
    from bnbenv.machine.target import Gpu, Target
    from bnbenv.matrix.matrix import Matrix

Problem = tuple["Request", "Target", Offers]


def blocking(request: Request, target: Target, matrix: Matrix, offers: Offers) -> tuple[int, ...]:
    """A smallest set of facts that together leave no stack, by their places in `facts`.

    Each fact can be let go of by itself. First facts are dropped one by one while the rest still exclude
    every stack; then sets smaller than what is left are tried, so that the answer is a smallest one.
    """
    all_facts = facts(request, target, matrix, offers)

    def blocks(kept: tuple[int, ...]) -> bool:
        problem: Problem = (request, target, offers)
        for number, (_, let_go) in enumerate(all_facts):
            if number not in kept:
                problem = let_go(problem)
        return not solvable(problem[0], problem[1], matrix, problem[2])

    kept = tuple(range(len(all_facts)))
    for number in range(len(all_facts)):
        fewer = tuple(other for other in kept if other != number)
        if blocks(fewer):
            kept = fewer
    for size in range(len(kept)):
        smaller = next((some for some in combinations(range(len(all_facts)), size) if blocks(some)), None)
        if smaller is not None:
            return smaller
    return kept


def told(
    places: tuple[int, ...], request: Request, target: Target, matrix: Matrix, offers: Offers
) -> tuple[str, ...]:
    """Facts in words; where none could be otherwise, what the machine and the profile are."""
    all_facts = facts(request, target, matrix, offers)
    words = tuple(all_facts[place][0] for place in places)
    return words or (f"{target.os} {target.arch}", f"profile {request.profile}")


def facts(
    request: Request, target: Target, matrix: Matrix, offers: Offers
) -> tuple[tuple[str, Callable[[Problem], Problem]], ...]:
    """The facts that could be otherwise, in words, each with what lets go of it; softer facts first."""
    return tuple(_facts(request, target, matrix, offers))


def _facts(
    request: Request, target: Target, matrix: Matrix, offers: Offers
) -> Iterator[tuple[str, Callable[[Problem], Problem]]]:
    def on_request(**changes: object) -> Callable[[Problem], Problem]:
        return lambda problem: (replace(problem[0], **changes), problem[1], problem[2])  # type: ignore[arg-type]

    def on_target(**changes: object) -> Callable[[Problem], Problem]:
        return lambda problem: (problem[0], replace(problem[1], **changes), problem[2])  # type: ignore[arg-type]

    if offers.unavailable:
        yield (
            f"unavailable: {', '.join(_families(offers.unavailable, matrix))}",
            lambda problem: (problem[0], problem[1], replace(problem[2], unavailable=frozenset())),
        )
    if offers.listed:
        yield (
            f"listed by {', '.join(sorted(offers.listed))}",
            lambda problem: (problem[0], problem[1], replace(problem[2], listed={})),
        )
    for name, value in sorted(request.env.items()):
        yield f"{name}={value}", _without_variable(name)
    if request.bitsandbytes is not None:
        yield f"bitsandbytes {request.bitsandbytes}", on_request(bitsandbytes=None)
    if request.python is not None:
        yield f"Python {request.python}", _any_python
    elif target.pythons:
        yield f"Python {', '.join(target.pythons)}", _any_python
    if request.cuda is not None:
        yield f"CUDA {request.cuda}", on_request(cuda=None)
    if request.torch is not None:
        yield f"torch {request.torch}", on_request(torch=None)
    if target.libc is not None:
        yield f"{target.libc.family} {target.libc.version}", on_target(libc=None)
    if target.libstdcxx is not None:
        yield f"GLIBCXX {target.libstdcxx}", on_target(libstdcxx=None)
    if request.cpu:
        return
    if target.driver is not None:
        yield f"driver {target.driver}", on_target(driver=None)
    for label, gpus in kinds_of_gpu(target):
        yield label, without_gpus(gpus)
    if target.tegra:
        yield f"L4T {target.l4t or 'unknown'}", on_target(tegra=False, l4t=None)


def _families(names: frozenset[str], matrix: Matrix) -> list[str]:
    """The names, a family in place of its members where all of them are named."""
    told = set(names)
    for family in {row.family for row in matrix.indexes}:
        members = {row.name for row in matrix.indexes if row.family == family}
        if len(members) > 1 and members <= names:
            told = (told - members) | {family}
    return sorted(told)


def _without_variable(name: str) -> Callable[[Problem], Problem]:
    def let_go(problem: Problem) -> Problem:
        env = {key: value for key, value in problem[0].env.items() if key != name}
        return replace(problem[0], env=env), problem[1], problem[2]

    return let_go


def _any_python(problem: Problem) -> Problem:
    return replace(problem[0], python=None), replace(problem[1], pythons=()), problem[2]


def without_gpus(gpus: tuple[Gpu, ...]) -> Callable[[Problem], Problem]:
    """The same problem on a machine without these GPUs."""

    def let_go(problem: Problem) -> Problem:
        left = tuple(gpu for gpu in problem[1].gpus if not any(gpu is other for other in gpus))
        return problem[0], replace(problem[1], gpus=left), problem[2]

    return let_go
