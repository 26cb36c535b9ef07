"""Finds the best stack for a machine: the least by `bnbenv.judge.order` of all that may be combined."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, replace
from bnbenv.judge.candidates import Candidates, admits_build, admits_wheel, candidates
from bnbenv.judge.judge import judge
from bnbenv.judge.kind import class_of
from bnbenv.judge.order import ERROR, inexact, made_for, standing, weight
from bnbenv.judge.ranges import within
from bnbenv.judge.rules import RULES
from bnbenv.judge.stack import Offers, Solution

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from bnbenv.judge.rules import Part, Rule
    from bnbenv.judge.stack import Finding, Request, Stack, Unsolvable
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import BitsandbytesWheel, PackageSet, TorchBuild

_NO_OFFERS = Offers()


def solve(
    request: Request,
    target: Target,
    matrix: Matrix,
    offers: Offers = _NO_OFFERS,
    *,
    explain: bool = True,
) -> Solution | Unsolvable:
    """The best stack for the request, or why there is none.

    Args:
        request: what the user asked for.
        target: the machine.
        matrix: the facts.
        offers: what the indexes have.
        explain: tell also which newer stacks were passed over, and why.

    Raises:
        UsageError: the request cannot be read.
    """
    from bnbenv.judge.explain import conflict, passed_over, unsolvable

    search = Search(candidates(request, target, matrix, offers), matrix)
    stack = best_stack(request, target, matrix, offers, search=search)
    if stack is None:
        return unsolvable(conflict(request, target, matrix, offers), request, target, matrix, offers)
    return Solution(
        stack=stack,
        judgement=judge(stack, search.choices.target, matrix),
        passed_over=passed_over(search, stack) if explain else (),
    )


def best_stack(
    request: Request, target: Target, matrix: Matrix, offers: Offers, *, search: Search | None = None
) -> Stack | None:
    """The best stack without an error; where verified ones are preferred, the newest of them first."""
    if request.prefer == "verified":
        from bnbenv.judge.evidence import newest_verified

        if (found := newest_verified(request, target, matrix, offers)) is not None:
            return found
    return (search or Search(candidates(request, target, matrix, offers), matrix)).best()


def solvable(request: Request, target: Target, matrix: Matrix, offers: Offers) -> bool:
    """Whether any stack has no error."""
    return Search(candidates(request, target, matrix, offers), matrix).best(any_will_do=True) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The rules that read the same parts of a stack."""

    number: int
    rules: tuple[Rule, ...]
    torch: bool
    wheel: bool
    python: bool
    packages: bool


def _scopes() -> tuple[Scope, ...]:
    """The rules by what they read, the fewest parts first."""
    found: dict[frozenset[Part], list[Rule]] = {}
    for rule in RULES:
        found.setdefault(rule.reads, []).append(rule)
    return tuple(
        Scope(
            number=number,
            rules=tuple(found[reads]),
            torch="torch" in reads,
            wheel="bitsandbytes" in reads,
            python="python" in reads,
            packages="packages" in reads,
        )
        for number, reads in enumerate(sorted(found, key=lambda parts: (len(parts), sorted(parts))))
    )


SCOPES = _scopes()


def _only(**parts: bool) -> Scope | None:
    wanted = {name: parts.get(name, False) for name in ("torch", "wheel", "python", "packages")}
    for scope in SCOPES:
        if all(getattr(scope, name) is value for name, value in wanted.items()):
            return scope
    return None


_OF_TARGET, _OF_TORCH, _OF_WHEEL = _only(), _only(torch=True), _only(wheel=True)
_ALONE = (_OF_TARGET, _OF_TORCH, _OF_WHEEL)
_TOGETHER = tuple(scope for scope in SCOPES if scope not in _ALONE)


class Search:
    """One search: the candidates, and what the rules said of the parts that were looked at.

    A rule is asked once for each combination of the parts that it reads, so that the product of all
    parts is never judged whole.
    """

    def __init__(self, choices: Candidates, matrix: Matrix) -> None:
        self.choices = choices
        self.matrix = matrix
        self._known: dict[tuple[int, int, int, str, int], tuple[Finding, ...]] = {}
        # By whether a build is made for the machine: what weighs against a stack → its standing.
        self._standing = tuple(
            tuple(standing(weighs, choices.target, made=made) for weighs in range(2 * ERROR))
            for made in (False, True)
        )
        env = choices.request.env
        own = tuple(row for rows in choices.torch for row in rows if row.index in choices.own)
        # Without its Pythons: they choose among the stacks and weigh nothing themselves.
        machine = class_of(choices.target, matrix, positions=bool(env), builds=own)[:-1]
        # Rules that do not read the packages weigh alike on machines that no rule can tell apart.
        self._weights = _weights(matrix, machine, choices.request.profile, tuple(sorted(env.items())))

    def best(self, *, any_will_do: bool = False) -> Stack | None:
        """The best stack without an error, or the first that is found."""
        found: Stack | None = None
        best = self._standing[True][ERROR]
        least: int | None = None
        for stack, base, made in self._in_order():
            places = self._standing[made]
            total = base
            for scope in _TOGETHER:
                if places[total] >= best:
                    break
                total |= self._weigh(scope, stack)
            if places[total] >= best:
                continue
            found, best = stack, places[total]
            if any_will_do or total == 0:
                break
            if least is None:
                least = self._least()
            if best <= least:
                break
        return found

    def weigh(self, stack: Stack) -> int:
        """What all rules together weigh against a stack; `ERROR` and more where it cannot be taken."""
        total = 0
        for scope in SCOPES:
            total |= self._weigh(scope, stack)
            if total >= ERROR:
                break
        return total

    def standing(self, stack: Stack) -> int:
        """Where a stack stands before any age counts; the less the better."""
        return self._standing[made_for(stack.torch, self.choices.target)][self.weigh(stack)]

    def within(self, limit: int) -> Iterator[Stack]:
        """Every stack whose standing is no more than `limit`; the newest first."""
        for stack, base, made in self._in_order():
            places = self._standing[made]
            total = base
            for scope in _TOGETHER:
                if places[total] > limit:
                    break
                total |= self._weigh(scope, stack)
            if places[total] <= limit:
                yield stack

    def findings(self, stack: Stack) -> tuple[Finding, ...]:
        """What all rules say of a stack, by scope."""
        return tuple(found for scope in SCOPES for found in self._ask(scope, stack))

    def of_torch(self, stack: Stack) -> tuple[Finding, ...]:
        """What the rules say that read nothing but the machine and the torch build."""
        return tuple(
            found
            for scope in (_OF_TARGET, _OF_TORCH)
            if scope is not None
            for found in self._ask(scope, stack)
        )

    def _least(self) -> int:
        """A standing that no stack can be under: that of the best part of each kind by itself."""
        choices = self.choices
        probe = self._probe()
        if probe is None:
            return self._standing[True][ERROR]
        builds = (
            self._standing[made_for(row, choices.target)][self._weigh(_OF_TORCH, replace(probe, torch=row))]
            for rows in choices.torch
            for row in rows
        )
        right = self._standing[True]
        wheels = (
            right[self._weigh(_OF_WHEEL, replace(probe, bitsandbytes=wheel))] for wheel in choices.wheels
        )
        return max(right[self._weigh(_OF_TARGET, probe)], min(builds), min(wheels))

    def _probe(self) -> Stack | None:
        choices = self.choices
        if not (choices.sets and choices.torch and choices.wheels and choices.pythons):
            return None
        return choices.stack(choices.sets[0], choices.torch[0][0], choices.wheels[0], choices.pythons[0])

    def _in_order(self) -> Iterator[tuple[Stack, int, bool]]:
        """The stacks that have no error in any part by itself, best first among those of equal standing.

        Each with what weighs against its parts, and whether its build is made for the machine.
        """
        choices = self.choices
        probe = self._probe()
        if probe is None or (base := self._weigh(_OF_TARGET, probe)) >= ERROR:
            return
        wheels = [
            (wheel, bits)
            for wheel in choices.wheels
            if (bits := self._weigh(_OF_WHEEL, replace(probe, bitsandbytes=wheel))) < ERROR
        ]
        for made in (True, False):
            releases = [
                ours
                for rows in choices.torch
                if (ours := [row for row in rows if made_for(row, choices.target) is made])
            ]
            for group in choices.sets if releases else ():
                for stack, weighs in self._in_set(group, releases, wheels, probe, base):
                    yield stack, weighs, made

    def _in_set(
        self,
        group: PackageSet,
        releases: list[list[TorchBuild]],
        wheels: list[tuple[BitsandbytesWheel | None, int]],
        probe: Stack,
        base: int,
    ) -> Iterator[tuple[Stack, int]]:
        choices = self.choices
        pythons = [python for python in choices.pythons if within(python, group.python)]
        fitting = [(wheel, bits) for wheel, bits in wheels if admits_wheel(group, wheel)]
        if not pythons or not fitting:
            return
        for rows in releases:
            if not within(rows[0].version, group.torch):
                continue
            builds = [
                (row, bits)
                for row in rows
                if admits_build(group, row)
                and (bits := self._weigh(_OF_TORCH, replace(probe, torch=row))) < ERROR
            ]
            if not builds:
                continue
            for wheel, of_wheel in fitting:
                for python in pythons:
                    stacks = [
                        (choices.stack(group, row, wheel, python), base | of_wheel | of_torch)
                        for row, of_torch in builds
                        if not row.pythons or python in row.pythons
                    ]
                    if len(stacks) > 1:
                        stacks.sort(key=lambda pair: inexact(pair[0], choices.target, self.matrix))
                    yield from stacks

    def _weigh(self, scope: Scope | None, stack: Stack) -> int:
        if scope is None:
            return 0
        if scope.packages:
            return weight(self._ask(scope, stack))
        key = (
            scope.number,
            id(stack.torch) if scope.torch else 0,
            id(stack.bitsandbytes) if scope.wheel else 0,
            stack.python if scope.python else "",
        )
        known = self._weights.get(key)
        if known is None:
            known = weight(self._ask(scope, stack)), stack.torch, stack.bitsandbytes
            self._weights[key] = known
        return known[0]

    def _ask(self, scope: Scope, stack: Stack) -> tuple[Finding, ...]:
        """What the rules of a scope say of the stack."""
        key = (
            scope.number,
            id(stack.torch) if scope.torch else 0,
            id(stack.bitsandbytes) if scope.wheel else 0,
            stack.python if scope.python else "",
            id(stack.packages) if scope.packages else 0,
        )
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = tuple(
                found for rule in scope.rules for found in rule(stack, self.choices.target, self.matrix)
            )
        return known


# Scope, torch build, wheel, Python → weight, and the rows, so that no others take their identities.
_Weights = dict[tuple[int, int, int, str], tuple[int, "TorchBuild", "BitsandbytesWheel | None"]]


@lru_cache(maxsize=1024)
def _weights(
    matrix: Matrix, machine: tuple[Hashable, ...], profile: str, env: tuple[tuple[str, str], ...]
) -> _Weights:
    """The weights that are known for a class of machines; empty at first, filled by searches."""
    del matrix, machine, profile, env
    return {}
