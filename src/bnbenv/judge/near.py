"""Near misses: the stacks that fail least on a machine, and what each would need to work there."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

from bnbenv.judge.candidates import admits_build, candidates, without_accelerator
from bnbenv.judge.coverage import kinds_of_gpu, select
from bnbenv.judge.judge import judge
from bnbenv.judge.order import Newest, made_for, newest
from bnbenv.judge.ranges import version
from bnbenv.judge.solve import Search

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bnbenv.judge.candidates import Candidates
    from bnbenv.judge.stack import Finding, Offers, Request, Stack
    from bnbenv.machine.target import Gpu, Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import TorchBuild

_NEAREST = 5
_RELEASE = re.compile(r"[0-9]+(\.[0-9]+)*")
# Builds for which every wheel is tried: of each kind of need the newest, fewest needs first; and the newest.
_LOOKED_AT, _NEWEST = 4, 2


@dataclass(frozen=True, slots=True)
class Near:
    """A near miss, free of how one machine numbers its GPUs.

    Attributes:
        stack: what nearly works.
        dropped: the kinds of GPU that it leaves out, by their places in `kinds_of_gpu`.
    """

    stack: Stack
    dropped: tuple[int, ...] = ()


def nearest(request: Request, target: Target, matrix: Matrix, offers: Offers) -> tuple[Near, ...]:
    """The stacks that fail least, fewest needs first; two with the same needs are told once."""
    seen = _seen(request, target)
    search = Search(candidates(request, target, matrix, offers), matrix)
    found = [*_subsets(request, target, matrix, offers), *_least_failing(search)]
    told: set[tuple[str, ...]] = set()
    chosen = []
    for essence, near in sorted(
        (
            (
                _essence(needs(near, seen, matrix)) if near.dropped else _needs(search.findings(near.stack)),
                near,
            )
            for near in found
        ),
        key=lambda pair: len(pair[0]),
    ):
        if essence and essence not in told:
            told.add(essence)
            chosen.append(near)
    return tuple(chosen[:_NEAREST])


def needs(near: Near, target: Target, matrix: Matrix) -> tuple[str, ...]:
    """What a near miss would need on a machine."""
    if not near.dropped:
        return _needs(judge(near.stack, target, matrix).findings)
    kinds = kinds_of_gpu(target)
    gone = [kinds[place] for place in near.dropped]
    smaller = _without(target, gone)
    return (*(f"drop {label}" for label, _ in gone), select(target, smaller.gpus))


def _seen(request: Request, target: Target) -> Target:
    """The machine as the request wants it seen."""
    return without_accelerator(target) if request.cpu else target


def _without(target: Target, gone: Iterable[tuple[str, tuple[Gpu, ...]]]) -> Target:
    gpus = tuple(gpu for _, members in gone for gpu in members)
    return replace(target, gpus=tuple(gpu for gpu in target.gpus if not any(gpu is one for one in gpus)))


def _essence(needed: tuple[str, ...]) -> tuple[str, ...]:
    """The needs without the variable that only carries one of them out."""
    return tuple(need for need in needed if "VISIBLE_DEVICES=" not in need)


def _subsets(request: Request, target: Target, matrix: Matrix, offers: Offers) -> Iterator[Near]:
    """On a machine with unlike GPUs: the stacks for the largest sets of them that one stack serves."""
    kinds = kinds_of_gpu(target)
    if request.cpu or len(kinds) < 2:
        return
    for size in range(1, len(kinds)):
        found: list[tuple[int, Newest, Near]] = []
        for dropped in combinations(range(len(kinds)), size):
            smaller = _without(target, [kinds[place] for place in dropped])
            stack = Search(candidates(request, smaller, matrix, offers), matrix).best()
            if stack is not None:
                left = len(smaller.visible_gpus)
                found.append((-left, newest(stack.torch.version), Near(stack, dropped)))
        if found:
            yield from (near for *_, near in sorted(found, key=lambda entry: entry[:2]))
            return


def _least_failing(search: Search) -> Iterator[Near]:
    choices = search.choices
    builds = [build for release in choices.torch for build in release]
    fitting = [build for build in builds if made_for(build, choices.target)] or builds
    # A build that no set takes would need to be another one.
    fitting = [b for b in fitting if any(admits_build(group, b) for group in choices.sets)] or fitting
    distinct = {(build.version, build.build): build for build in reversed(fitting)}
    probe = next((made for build in fitting if (made := representative(choices, build))), None)
    if probe is None:
        return
    # What the rules say of a build by itself does not depend on what stands beside it.
    newest_first = tuple(reversed(distinct.values()))
    latest = newest_first[:_NEWEST]
    tried: dict[tuple[str, ...], TorchBuild] = {}  # of those with the same needs the newest
    for build in newest_first:
        tried.setdefault(_needs(search.of_torch(replace(probe, torch=build))), build)
    fewest = [tried[needed] for needed in sorted(tried, key=len)[:_LOOKED_AT]]
    for build in fewest + [build for build in latest if not any(build is other for other in fewest)]:
        if stack := representative(choices, build):
            yield Near(_improved(search, stack))


def _improved(search: Search, stack: Stack) -> Stack:
    """The stack with another bitsandbytes or Python, where that leaves fewer needs."""
    choices = search.choices
    best, fewest = stack, len(_needs(search.findings(stack)))
    floor = len(_needs(search.of_torch(stack)))  # what the machine and the build need by themselves stays
    pythons = [python for python in choices.pythons if python in (stack.torch.pythons or choices.pythons)]
    others = [replace(stack, bitsandbytes=wheel) for wheel in choices.wheels]
    others += [replace(stack, python=python) for python in pythons]
    for other in others:
        if fewest <= floor:
            break
        needed = len(_needs(search.findings(other)))
        if needed < fewest:
            best, fewest = other, needed
    return best


def _needs(findings: tuple[Finding, ...]) -> tuple[str, ...]:
    """What the errors need, each once, in order."""
    found: dict[str, str] = {}
    for f in findings:
        if f.severity != "error":
            continue
        need = f.need or f.summary
        what, floor, least = need.partition(">=")
        key = what.strip() if floor and _RELEASE.fullmatch(least.strip()) else need
        held = found.get(key)
        if held is None or (key != need and version(held.partition(">=")[2]) < version(least)):
            found[key] = need  # of two floors on the same thing the higher one
    return tuple(found.values())


def representative(choices: Candidates, build: TorchBuild) -> Stack | None:
    """The newest stack with a build, the sets' own ranges held where that is possible."""
    for group in choices.sets:
        for wheel in choices.wheels:
            for python in choices.pythons:
                if choices.admits(group, build, wheel, python):
                    return choices.stack(group, build, wheel, python)
    if not (choices.sets and choices.wheels and choices.pythons):
        return None
    python = next((name for name in choices.pythons if name in build.pythons), choices.pythons[0])
    return choices.stack(choices.sets[0], build, choices.wheels[0], python)
