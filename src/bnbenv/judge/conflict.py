"""A smallest set of facts that leaves no stack, out of those that could be otherwise."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, get_args

from bnbenv.dataclass import replace
from bnbenv.judge.candidates import without_accelerator
from bnbenv.judge.coverage import kinds_of_gpu
from bnbenv.judge.solve import solvable
from bnbenv.judge.stack import Offers
from bnbenv.machine.target import Accelerator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bnbenv.judge.stack import Request
    from bnbenv.machine.target import Gpu, Target
    from bnbenv.matrix.matrix import Matrix

Problem = tuple["Request", "Target", Offers]
Fact = tuple[str, "Callable[[Problem], Iterable[Problem]]"]
"""In words, with the problems that are left when it is let go of."""

_GRANTED = 2  # the last facts: the accelerator and the profile


def blocking(request: Request, target: Target, matrix: Matrix, offers: Offers) -> tuple[int, ...]:
    """A smallest set of facts that together leave no stack, by their places in `facts`.

    With any one of them let go of, and all that is not named, some stack serves. The accelerator and the
    profile are what a stack is wanted for: they are granted, and named only where they exclude every stack
    by themselves. The platform is never let go of: nothing named means that it has no stack at all.
    """
    all_facts = facts(request, target, matrix, offers)

    def blocks(kept: tuple[int, ...]) -> bool:
        problems: list[Problem] = [(request, target, offers)]
        for number, (_, let_go) in enumerate(all_facts):
            if number not in kept:
                problems = [left for problem in problems for left in let_go(problem)]
        return not any(solvable(asked, machine, matrix, had) for asked, machine, had in problems)

    every = tuple(range(len(all_facts)))
    asked, granted = every[:-_GRANTED], every[-_GRANTED:]
    if blocks(granted):
        return _smallest(granted, blocks)
    return _smallest(asked, lambda kept: blocks(kept + granted))


def _smallest(every: tuple[int, ...], blocks: Callable[[tuple[int, ...]], bool]) -> tuple[int, ...]:
    """A smallest set that blocks: one by one is let go of, then all sets are tried that are smaller still."""
    kept = every
    for number in every:
        fewer = tuple(other for other in kept if other != number)
        if blocks(fewer):
            kept = fewer
    smaller = (some for size in range(len(kept)) for some in combinations(every, size) if blocks(some))
    return next(smaller, kept)


def told(
    places: tuple[int, ...], request: Request, target: Target, matrix: Matrix, offers: Offers
) -> tuple[str, ...]:
    """Facts in words; what by itself has no stack is told with the platform that lacks it."""
    all_facts = facts(request, target, matrix, offers)
    words = tuple(all_facts[place][0] for place in places)
    if len(places) < _GRANTED and all(place >= len(all_facts) - _GRANTED for place in places):
        return (" on ".join((*words, f"{target.os} {target.arch}")),)
    return words


def facts(request: Request, target: Target, matrix: Matrix, offers: Offers) -> tuple[Fact, ...]:
    """The facts that could be otherwise, softer ones first, the accelerator and the profile last."""
    softer = (
        (words, lambda problem, let_go=let_go: (let_go(problem),))
        for words, let_go in _facts(request, target, matrix, offers)
    )
    cpu = request.cpu or target.accelerator == "cpu"
    return (
        *softer,
        ("CPU alone" if cpu else target.accelerator.upper(), _any_accelerator),
        (
            f"profile {request.profile}",
            lambda problem: (
                (replace(problem[0], profile=row.name), *problem[1:]) for row in matrix.profiles
            ),
        ),
    )


def _any_accelerator(problem: Problem) -> Iterator[Problem]:
    bare = without_accelerator(problem[1])
    for accelerator in get_args(Accelerator):
        yield replace(problem[0], cpu=False), replace(bare, accelerator=accelerator), problem[2]


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
        yield "a CPU build of torch", _any_build_on_processor
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


def _any_build_on_processor(problem: Problem) -> Problem:
    return replace(problem[0], cpu=False), without_accelerator(problem[1]), problem[2]


def without_gpus(gpus: tuple[Gpu, ...]) -> Callable[[Problem], Problem]:
    """The same problem on a machine without these GPUs."""

    def let_go(problem: Problem) -> Problem:
        left = tuple(gpu for gpu in problem[1].gpus if not any(gpu is other for other in gpus))
        return problem[0], replace(problem[1], gpus=left), problem[2]

    return let_go
