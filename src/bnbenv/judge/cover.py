"""The fewest stacks that serve many kinds of machines: one environment for as many of them as possible.

The objective, in this order:

1. serve every kind that any stack serves, as well as its own best stack would
2. keep what is assigned already
3. the same releases in every stack, where one set of releases serves all
4. the fewest stacks, never more than a greedy cover needs
5. the newest
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations, takewhile
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, field
from bnbenv.judge.candidates import candidates
from bnbenv.judge.order import ERROR, index_tie, inexact, newest
from bnbenv.judge.solve import Search, solve
from bnbenv.judge.stack import Offers, Unsolvable

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence
    from typing import Any

    from bnbenv.judge.stack import Request, Stack
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix

_NO_OFFERS = Offers()

# Package set, torch, bitsandbytes ("" for none), Python: what the stacks of one lock should share.
Release = tuple[str, str, str, str]
# Release, and the build with its platform and index: what makes one environment.
Build = tuple[str, str, str, str]
_Found = dict[Release, dict[Build, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Machines that no rule can tell apart, by one of them.

    Attributes:
        key: equal for equal kinds; what the answers are found by.
    """

    key: Hashable
    target: Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """Which stack serves which kind.

    Attributes:
        stacks: by key; kinds with equal stacks share one environment.
        unserved: by key, why no stack serves the kind.
        kept: keys whose stack is the one that was assigned before.
    """

    stacks: Mapping[Hashable, Stack] = field(default_factory=dict)
    unserved: Mapping[Hashable, Unsolvable] = field(default_factory=dict)
    kept: frozenset[Hashable] = frozenset()

    @property
    def environments(self) -> int:
        """How many environments that makes."""
        return len({identity(stack) for stack in self.stacks.values()})


def cover(
    request: Request,
    kinds: Iterable[Kind],
    matrix: Matrix,
    offers: Offers = _NO_OFFERS,
    *,
    present: Mapping[Hashable, Stack] | None = None,
) -> Cover:
    """Assign a stack to every kind that can be served.

    Args:
        request: what was asked for.
        kinds: in any order; the answer does not depend on it as long as keys sort alike.
        matrix: the facts.
        offers: what the indexes have.
        present: key → stack of the assignment that is to be kept as far as it still holds.

    Raises:
        UsageError: the request cannot be read.
    """
    present = present or {}
    ordered = sorted({kind.key: kind for kind in kinds}.values(), key=lambda kind: repr(kind.key))
    stacks: dict[Hashable, Stack] = {}
    unserved: dict[Hashable, Unsolvable] = {}
    for kind in ordered:
        held = present.get(kind.key)
        if held is not None and serves(held, kind.target, request, matrix, offers):
            stacks[kind.key] = held
    kept = frozenset(stacks)
    wishes: list[_Wish] = []
    for kind in ordered:
        if kind.key in kept:
            continue
        wish = _Wish.of(kind, request, matrix, offers)
        if wish is None:
            answer = solve(request, kind.target, matrix, offers, explain=False)
            if isinstance(answer, Unsolvable):
                unserved[kind.key] = answer
        else:
            wishes.append(wish)
    # A kind that is new joins an environment that is there, before another one is made for it.
    there = _distinct(present.values())
    left: list[_Wish] = []
    for wish in wishes:
        joined = min((stack for stack in there if wish.takes(stack)), key=wish.rank, default=None)
        if joined is None:
            left.append(wish)
        else:
            stacks[wish.kind.key] = joined
    if left:
        stacks.update(_fewest(left, {release_of(stack) for stack in there}))
    return Cover(stacks=stacks, unserved=unserved, kept=kept)


def serves(stack: Stack, target: Target, request: Request, matrix: Matrix, offers: Offers) -> bool:
    """Whether the judge finds no error in a stack on a machine, as the request wants it seen."""
    search = Search(candidates(request, target, matrix, offers), matrix)
    seen = search.choices.target
    return (stack.torch.os, stack.torch.arch) == (seen.os, seen.arch) and search.weigh(stack) < ERROR


def identity(stack: Stack) -> tuple[Release, Build]:
    """What makes two stacks one environment."""
    return release_of(stack), _build_of(stack)


def release_of(stack: Stack) -> Release:
    """The releases of a stack, whatever the build."""
    wheel = stack.bitsandbytes
    return (
        _words(tuple(stack.packages.items())),
        stack.torch.version,
        wheel.version if wheel else "",
        stack.python,
    )


@lru_cache(maxsize=256)
def _words(packages: tuple[tuple[str, str], ...]) -> str:
    return " ".join(f"{name}{spec}" for name, spec in sorted(packages))


def _build_of(stack: Stack) -> Build:
    torch = stack.torch
    return torch.os, torch.arch, torch.build, torch.index


def _distinct(stacks: Iterable[Stack]) -> list[Stack]:
    found = {identity(stack): stack for stack in stacks}
    return [found[key] for key in sorted(found)]


class _Wish:
    """One kind that is still to be served: the stacks that serve it as well as its best one does."""

    def __init__(self, kind: Kind, search: Search, best: Stack) -> None:
        self.kind = kind
        self.search = search
        self._best = search.standing(best)
        self._places = {
            _words(tuple(search.choices.packages[group.name].items())): place
            for place, group in enumerate(search.choices.sets)
        }

    @classmethod
    def of(cls, kind: Kind, request: Request, matrix: Matrix, offers: Offers) -> _Wish | None:
        """``None`` where no stack serves the kind."""
        search = Search(candidates(request, kind.target, matrix, offers), matrix)
        best = search.best()
        return None if best is None else cls(kind, search, best)

    def takes(self, stack: Stack) -> bool:
        """Whether a stack serves the kind as well as its best one."""
        target = self.search.choices.target
        if (stack.torch.os, stack.torch.arch) != (target.os, target.arch):
            return False
        return self.search.standing(stack) <= self._best

    def rank(self, stack: Stack) -> tuple[Any, ...]:
        """The newest first."""
        return (*self.age(release_of(stack)), *self.preference(stack))

    def age(self, release: Release) -> tuple[Any, ...]:
        """The order of releases, the newest first."""
        packages, torch, wheel, python = release
        return (
            self._places.get(packages, len(self._places)),
            newest(torch),
            newest(wheel or "0"),
            newest(python),
        )

    def preference(self, stack: Stack) -> tuple[Any, ...]:
        """The order of builds of one release."""
        choices = self.search.choices
        return (
            inexact(stack, choices.target, self.search.matrix),
            index_tie(stack.torch, choices.own),
        )

    def stacks(self) -> Iterable[Stack]:
        """Every stack that it takes."""
        return self.search.within(self._best)


def _newest(wish: _Wish) -> Stack:
    """What the objective wants for one kind alone: its stacks come the newest first, and one is enough."""
    stacks = iter(wish.stacks())
    first = next(stacks)
    release = release_of(first)
    builds = [first, *takewhile(lambda stack: release_of(stack) == release, stacks)]
    return min(builds, key=lambda stack: (wish.preference(stack), _build_of(stack)))


def _fewest(wishes: Sequence[_Wish], known: set[Release]) -> dict[Hashable, Stack]:
    """The assignment that the objective wants; `known` are releases that other stacks of the lock have."""
    if len(wishes) == 1 and not known:
        return {wishes[0].kind.key: _newest(wishes[0])}
    return _compared(wishes, known)


def _compared(wishes: Sequence[_Wish], known: set[Release]) -> dict[Hashable, Stack]:
    """The same, from all the stacks that any of the kinds takes."""
    found: _Found = {}
    by_identity: dict[tuple[int, Release, Build], Stack] = {}
    ages: dict[Release, tuple[Any, ...]] = {}
    ties: dict[Build, tuple[Any, ...]] = {}
    for number, wish in enumerate(wishes):
        for stack in wish.stacks():
            release, build = identity(stack)
            by_identity[number, release, build] = stack
            builds = found.setdefault(release, {})
            builds[build] = builds.get(build, 0) | 1 << number
            if release not in ages:
                ages[release] = wish.age(release)
            if build not in ties:
                ties[build] = wish.preference(stack)
    order = sorted(found, key=lambda release: (release not in known, *ages[release], release))
    chosen = _by_release(order, found, ties, known, everyone=(1 << len(wishes)) - 1)
    greedy = _greedy(order, found, ties, everyone=(1 << len(wishes)) - 1)
    if len(chosen) > len(greedy):
        chosen = greedy
    assigned: dict[Hashable, Stack] = {}
    for number, wish in enumerate(wishes):
        own = [
            stack
            for release, build in chosen
            if found[release][build] >> number & 1
            for stack in [by_identity[number, release, build]]
        ]
        assigned[wish.kind.key] = min(
            own, key=lambda stack: (release_of(stack) not in known, *wish.rank(stack))
        )
    return assigned


def _by_release(
    order: Sequence[Release],
    found: _Found,
    ties: Mapping[Build, tuple[Any, ...]],
    known: set[Release],
    everyone: int,
) -> list[tuple[Release, Build]]:
    """As few sets of releases as possible; of each, as few builds as possible."""
    left, chosen = everyone, []
    while left:
        serving = {release: _union(found[release].values()) & left for release in order}
        most = max(_count(mask) for mask in serving.values())
        best: tuple[tuple[int, int, int], Release, tuple[Build, ...]] | None = None
        for place, release in enumerate(order):
            if _count(serving[release]) < most:
                continue
            builds = _smallest(found[release], ties, serving[release])
            cost = (int(release not in known), len(builds), place)
            if best is None or cost < best[0]:
                best = cost, release, builds
        if best is None:
            raise AssertionError("every wish has a stack of its own")
        chosen += [(best[1], build) for build in best[2]]
        left &= ~serving[best[1]]
    return chosen


def _greedy(
    order: Sequence[Release], found: _Found, ties: Mapping[Build, tuple[Any, ...]], everyone: int
) -> list[tuple[Release, Build]]:
    """Repeatedly the stack that serves the most of those that are left, the newest of equals."""
    every = [
        (release, build, found[release][build])
        for release in order
        for build in sorted(found[release], key=lambda build: (*ties[build], build))
    ]
    left, chosen = everyone, []
    while left:
        release, build, mask = max(every, key=lambda one: _count(one[2] & left))
        chosen.append((release, build))
        left &= ~mask
    return chosen


def _smallest(
    builds: Mapping[Build, int], ties: Mapping[Build, tuple[Any, ...]], wanted: int
) -> tuple[Build, ...]:
    """The fewest builds of one release that serve all of `wanted`, platform by platform."""
    chosen: list[Build] = []
    for platform in sorted({build[:2] for build in builds}):
        mine = sorted((b for b in builds if b[:2] == platform), key=lambda build: (*ties[build], build))
        share = _union(builds[build] for build in mine) & wanted
        if not share:
            continue
        chosen += next(
            some
            for size in range(1, len(mine) + 1)
            for some in combinations(mine, size)
            if _union(builds[build] for build in some) & share == share
        )
    return tuple(chosen)


def _union(masks: Iterable[int]) -> int:
    found = 0
    for mask in masks:
        found |= mask
    return found


def _count(mask: int) -> int:
    return mask.bit_count()
