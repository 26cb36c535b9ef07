"""Finds the best stack for a machine: the least by `bnbenv.judge.order` of all that may be combined."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.judge.candidates import Candidates, admits_wheel, candidates
from bnbenv.judge.judge import judge
from bnbenv.judge.order import ERROR, inexact, made_for, weight
from bnbenv.judge.ranges import within
from bnbenv.judge.rules import RULES
from bnbenv.judge.stack import Offers, Solution

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    from bnbenv.judge.explain import passed_over, unsolvable

    search = Search(candidates(request, target, matrix, offers), matrix)
    stack = search.best()
    if stack is None:
        return unsolvable(request, target, matrix, offers)
    return Solution(
        stack=stack,
        judgement=judge(stack, search.choices.target, matrix),
        passed_over=passed_over(search, stack) if explain else (),
    )


def solvable(request: Request, target: Target, matrix: Matrix, offers: Offers) -> bool:
    """Whether any stack has no error."""
    return Search(candidates(request, target, matrix, offers), matrix).best(any_will_do=True) is not None


def _scopes() -> tuple[tuple[frozenset[Part], tuple[Rule, ...]], ...]:
    """The rules by what they read, the fewest parts first."""
    found: dict[frozenset[Part], list[Rule]] = {}
    for rule in RULES:
        found.setdefault(rule.reads, []).append(rule)
    return tuple(
        (reads, tuple(found[reads])) for reads in sorted(found, key=lambda parts: (len(parts), sorted(parts)))
    )


SCOPES = _scopes()
_TARGET: tuple[frozenset[Part], ...] = (frozenset(),)
_OF_TORCH: tuple[frozenset[Part], ...] = (frozenset({"torch"}),)
_OF_WHEEL: tuple[frozenset[Part], ...] = (frozenset({"bitsandbytes"}),)
_OF_SET: tuple[frozenset[Part], ...] = (frozenset({"packages"}),)
_REST = tuple(reads for reads, _ in SCOPES if reads not in {*_TARGET, *_OF_TORCH, *_OF_WHEEL, *_OF_SET})


class Search:
    """One search: the candidates, and what the rules said of the parts that were looked at.

    A rule is asked once for each combination of the parts that it reads, so that the product of all
    parts is never judged whole.
    """

    def __init__(self, choices: Candidates, matrix: Matrix) -> None:
        self.choices = choices
        self.matrix = matrix
        self._rules = dict(SCOPES)
        self._weights: dict[tuple[object, ...], int] = {}

    def best(self, *, any_will_do: bool = False) -> Stack | None:
        """The best stack without an error, or the first that is found."""
        found: Stack | None = None
        found_weight = ERROR
        for stack, known in self._in_order():
            if known >= found_weight:
                continue
            total = known
            for reads in _REST:
                total |= self._weigh(reads, stack)
                if total >= found_weight:
                    break
            else:
                found, found_weight = stack, total
                if any_will_do or total <= self._least:
                    break
        return found

    def findings(self, stack: Stack) -> tuple[Finding, ...]:
        """What all rules say of a stack."""
        return tuple(found for rule in RULES for found in rule(stack, self.choices.target, self.matrix))

    def _in_order(self) -> Iterator[tuple[Stack, int]]:
        """The stacks that have no error in any part by itself, best first among those of equal weight."""
        choices = self.choices
        probe = next(
            (
                choices.stack(group, builds[0], wheel, python)
                for group in choices.sets
                for builds in choices.torch
                for wheel in choices.wheels
                for python in choices.pythons
            ),
            None,
        )
        self._least = ERROR
        if probe is None:
            return
        base = self._weigh(_TARGET[0], probe)
        wheels = [
            (wheel, bits)
            for wheel in choices.wheels
            if (bits := self._alone(_OF_WHEEL[0], probe, wheel=wheel)) < ERROR
        ]
        releases = [
            [
                (build, bits)
                for build in builds
                if (bits := self._alone(_OF_TORCH[0], probe, build=build)) < ERROR
            ]
            for builds in choices.torch
        ]
        of_torch = [bits for builds in releases for _, bits in builds]
        if base >= ERROR or not wheels or not of_torch:
            return
        self._least = max(base, min(of_torch), min(bits for _, bits in wheels))
        for right in (True, False):
            ours = [
                [(build, bits) for build, bits in builds if made_for(build, choices.target) is right]
                for builds in releases
            ]
            for group in choices.sets:
                yield from self._in_set(group, [builds for builds in ours if builds], wheels, base)

    def _in_set(
        self,
        group: PackageSet,
        releases: list[list[tuple[TorchBuild, int]]],
        wheels: list[tuple[BitsandbytesWheel | None, int]],
        base: int,
    ) -> Iterator[tuple[Stack, int]]:
        choices = self.choices
        pythons = [python for python in choices.pythons if within(python, group.python)]
        fitting = [(wheel, bits) for wheel, bits in wheels if admits_wheel(group, wheel)]
        if not pythons or not fitting:
            return
        of_set = self._weigh(_OF_SET[0], choices.stack(group, choices.torch[0][0], fitting[0][0], pythons[0]))
        for builds in releases:
            if not within(builds[0][0].version, group.torch):
                continue
            for wheel, of_wheel in fitting:
                for python in pythons:
                    stacks = [
                        (choices.stack(group, build, wheel, python), base | of_set | of_wheel | of_torch)
                        for build, of_torch in builds
                        if not build.pythons or python in build.pythons
                    ]
                    if len(stacks) > 1:
                        stacks.sort(key=lambda pair: inexact(pair[0], choices.target, self.matrix))
                    yield from stacks

    def _alone(
        self,
        reads: frozenset[Part],
        probe: Stack,
        *,
        build: TorchBuild | None = None,
        wheel: BitsandbytesWheel | None = None,
    ) -> int:
        """The weight of one part by itself, tried in place of the probe's."""
        from dataclasses import replace

        tried = replace(probe, torch=build) if build is not None else replace(probe, bitsandbytes=wheel)
        return self._weigh(reads, tried)

    def _weigh(self, reads: frozenset[Part], stack: Stack) -> int:
        """What the rules that read these parts say of the stack, as a weight."""
        key = (
            reads,
            id(stack.torch) if "torch" in reads else 0,
            id(stack.bitsandbytes) if "bitsandbytes" in reads else 0,
            stack.python if "python" in reads else "",
            tuple(stack.packages.items()) if "packages" in reads else (),
        )
        known = self._weights.get(key)
        if known is None:
            known = 0
            for rule in self._rules[reads]:
                known |= weight(rule(stack, self.choices.target, self.matrix))
                if known >= ERROR:
                    break
            self._weights[key] = known
        return known
