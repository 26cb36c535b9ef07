"""Near misses: the stacks that fail least on a machine, and what each would need to work there.

The needs of one near miss can be met together: what they name, they name once.
"""

from __future__ import annotations

import re
from itertools import combinations
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, replace
from bnbenv.judge.candidates import admits_build, candidates, without_accelerator
from bnbenv.judge.coverage import gpu_label, kinds_of_gpu, select
from bnbenv.judge.judge import judge
from bnbenv.judge.order import Newest, made_for, newest
from bnbenv.judge.ranges import as_range, members, within
from bnbenv.judge.solve import Search

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bnbenv.judge.candidates import Candidates
    from bnbenv.judge.stack import Finding, Offers, Request, Stack
    from bnbenv.machine.target import Gpu, Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import TorchBuild

_NEAREST = 5
# Such as `driver >= 580`, `Python 3.12`, `torch with CUDA >= 12.1`: a thing, and what releases of it serve.
_RELEASES = re.compile(r"(?P<thing>.*?) ?(?P<range>[<>=!~].*|(?<= )[0-9][0-9.]*)")
# Builds for which every wheel is tried: of each kind of need the newest, fewest needs first; and the newest.
_LOOKED_AT, _NEWEST = 4, 2


@dataclass(frozen=True, slots=True)
class Near:
    """A near miss, free of how one machine numbers its GPUs.

    Attributes:
        stack: what nearly works, of what the request leaves open.
        amended: the same where it also takes what the request would have to allow.
        asked: what that is, in words.
        dropped: the kinds of GPU that `amended` cannot serve, by their places in `kinds_of_gpu`.
    """

    stack: Stack
    amended: Stack
    asked: tuple[str, ...] = ()
    dropped: tuple[int, ...] = ()


def nearest(request: Request, target: Target, matrix: Matrix, offers: Offers) -> tuple[Near, ...]:
    """The stacks that fail least, fewest and least needs first; two with the same needs are told once."""
    seen = without_accelerator(target) if request.cpu else target
    found = [
        *_subsets(request, target, matrix, offers),
        *_least_failing(_wider_and_wider(request, target, matrix, offers)),
    ]
    told: dict[tuple[str, ...], Near] = {}
    for near in found:
        if essence := _essence(needs(near, seen, matrix)):
            told.setdefault(essence, near)
    ordered = sorted(told, key=lambda one: (len(one), sum(asks_less(other, one) for other in told)))
    return tuple(told[essence] for essence in ordered[:_NEAREST])


def asks_less(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether who meets the other needs meets these too, but not the reverse: ``driver >= 570`` of 580."""
    one, other = _essence(one), _essence(other)
    return set(one) != set(other) and set(_together((*other, *one)) or ()) == set(other)


def asked_for(request: Request, target: Target, matrix: Matrix, offers: Offers) -> Stack | None:
    """The newest stack that the request leaves open, whatever is wrong with it."""
    choices = candidates(request, target, matrix, offers)
    builds = (build for release in choices.torch for build in release)
    return next((stack for build in builds if (stack := representative(choices, build))), None)


def needs(near: Near, target: Target, matrix: Matrix) -> tuple[str, ...]:
    """What a near miss would need on a machine; nothing where that cannot be had together."""
    kinds = kinds_of_gpu(target)
    ways: tuple[str, ...] = ()
    machines = [target]
    if near.dropped and len(near.dropped) == len(kinds):  # none would be left: what would serve each
        machines = [replace(target, gpus=gpus[:1]) for _, gpus in kinds]
    elif near.dropped:
        gone = [kinds[place] for place in near.dropped]
        machines = [_without(target, gone)]
        ways = (*(f"drop {label}" for label, _ in gone), select(target, machines[0].gpus))
    errors = (need for here in machines for need in needed(judge(near.amended, here, matrix).findings))
    met = _together((*near.asked, *errors), near.amended)
    return () if met is None else (*ways, *met)


def _without(target: Target, gone: Iterable[tuple[str, tuple[Gpu, ...]]]) -> Target:
    gpus = tuple(gpu for _, members in gone for gpu in members)
    return replace(target, gpus=tuple(gpu for gpu in target.gpus if not any(gpu is one for one in gpus)))


def _essence(told: tuple[str, ...]) -> tuple[str, ...]:
    """The needs without the variable that only carries one of them out."""
    return tuple(need for need in told if "VISIBLE_DEVICES=" not in need)


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
                near = Near(stack, stack, dropped=dropped)
                found.append((-left, newest(stack.torch.version), near))
        if found:
            yield from (near for *_, near in sorted(found, key=lambda entry: entry[:2]))
            return


def _wider_and_wider(request: Request, target: Target, matrix: Matrix, offers: Offers) -> list[Search]:
    """Searches of what the request leaves open; then of any Python, any bitsandbytes, and any of both."""
    asked = [(request, target)]
    if request.python is not None or target.pythons:
        known = {python for row in matrix.torch for python in row.pythons}
        asked += [(replace(request, python=None), replace(target, pythons=tuple(known)))]
    if request.bitsandbytes is not None:
        asked += [(replace(one, bitsandbytes=None), machine) for one, machine in asked]
    return [Search(candidates(one, machine, matrix, offers), matrix) for one, machine in asked]


def _least_failing(searches: list[Search]) -> Iterator[Near]:
    search, choices = searches[0], searches[0].choices
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
        tried.setdefault(needed(search.of_torch(replace(probe, torch=build))), build)
    fewest = [tried[needed] for needed in sorted(tried, key=len)[:_LOOKED_AT]]
    for build in fewest + [build for build in latest if not any(build is other for other in fewest)]:
        if stack := representative(choices, build):
            yield _amended(searches, build, stack)


def _amended(searches: list[Search], build: TorchBuild, stack: Stack) -> Near:
    """The near miss of a build: of what the request leaves open, or else of the least that it must allow."""
    asked, target = searches[0].choices, searches[0].choices.target
    search, amended = searches[0], stack
    for wider in searches:
        if (taken := admitted(wider.choices, build)) is not None:
            search, amended = wider, taken
            break
    amended = _improved(search, amended)
    lost = {
        found.subject
        for found in search.findings(amended)
        if found.severity == "error" and found.need.startswith("drop ")
    }
    labels = {id(gpu): gpu_label(gpu, position) for position, gpu in enumerate(target.visible_gpus)}
    return Near(
        stack=amended if search is searches[0] else stack,
        amended=amended,
        asked=_allowed(asked, search.choices, amended) if search is not searches[0] else (),
        dropped=tuple(
            place
            for place, (_, gpus) in enumerate(kinds_of_gpu(target))
            if any(labels[id(gpu)] in lost for gpu in gpus)
        ),
    )


def _allowed(asked: Candidates, wider: Candidates, stack: Stack) -> tuple[str, ...]:
    """What a request would have to allow for a stack of a wider search."""
    group = next(group for group in wider.sets if wider.packages[group.name] is stack.packages)
    found = []
    if stack.python not in asked.pythons:
        fitting = [python for python in wider.pythons if within(python, group.python)]
        every = fitting[:1] == [stack.python] and set(fitting) <= set(stack.torch.pythons or fitting)
        found.append(f"Python {group.python if every else stack.python}")
    if stack.bitsandbytes is not None and stack.bitsandbytes not in asked.wheels:
        span = group.packages["bitsandbytes"]
        newest_in = next(wheel for wheel in wider.wheels if wheel and within(wheel.version, span))
        every = newest_in is stack.bitsandbytes
        found.append(f"bitsandbytes {span if every else stack.bitsandbytes.version}")
    return tuple(found)


def _improved(search: Search, stack: Stack) -> Stack:
    """The stack with another bitsandbytes or Python, where that leaves fewer needs."""
    choices = search.choices
    best, fewest = stack, len(needed(search.findings(stack)))
    floor = len(needed(search.of_torch(stack)))  # what the machine and the build need by themselves stays
    pythons = [python for python in choices.pythons if python in (stack.torch.pythons or choices.pythons)]
    others = [replace(stack, bitsandbytes=wheel) for wheel in choices.wheels]
    others += [replace(stack, python=python) for python in pythons]
    for other in others:
        if fewest <= floor:
            break
        fewer = len(needed(search.findings(other)))
        if fewer < fewest:
            best, fewest = other, fewer
    return best


def needed(findings: tuple[Finding, ...]) -> tuple[str, ...]:
    """What the errors need, each once, in order; of several ranges of one thing what lies in all."""
    every = tuple(found.need or found.summary for found in findings if found.severity == "error")
    return _together(every) or tuple(dict.fromkeys(every))


def _together(needs: Iterable[str], stack: Stack | None = None) -> tuple[str, ...] | None:
    """The needs, each thing named once; ``None`` where no release of one serves, or not the stack's torch."""
    things: dict[str, list[str]] = {}
    for need in dict.fromkeys(needs):
        found = _RELEASES.fullmatch(need)
        things.setdefault(found["thing"] if found else need, []).append(need)
    met = []
    for thing, told in things.items():
        ranges = [need.removeprefix(thing).strip() for need in told]
        if thing == "torch" and stack is not None:
            if not all(within(stack.torch.version, as_range(text)) for text in ranges):
                return None
        elif any(f"{vague} {other}" == thing for other in things for vague in ("a newer", "another")):
            continue  # the range of it says which
        elif len(told) == 1:
            met += told
        elif (common := _common(ranges)) is not None:
            met.append(told[ranges.index(common)] if common in ranges else f"{thing} {common}")
        else:
            return None
    return tuple(met)


def _common(ranges: list[str]) -> str | None:
    """What lies in all of several ranges, as one of them where that says it; ``None`` where nothing does."""
    releases = {text: set(members(text, *ranges)) for text in ranges}
    if not set.intersection(*releases.values()):
        return None
    least = min(ranges, key=lambda text: len(releases[text]))
    if all(releases[least] <= others for others in releases.values()):
        return least
    return ",".join(as_range(text) for text in ranges)


def admitted(choices: Candidates, build: TorchBuild) -> Stack | None:
    """The newest stack with a build that the sets' own ranges take."""
    for group in choices.sets:
        for wheel in choices.wheels:
            for python in choices.pythons:
                if choices.admits(group, build, wheel, python):
                    return choices.stack(group, build, wheel, python)
    return None


def representative(choices: Candidates, build: TorchBuild) -> Stack | None:
    """The newest stack with a build, the sets' own ranges held where that is possible."""
    if (stack := admitted(choices, build)) is not None:
        return stack
    if not (choices.sets and choices.wheels and choices.pythons):
        return None
    python = next((name for name in choices.pythons if name in build.pythons), choices.pythons[0])
    return choices.stack(choices.sets[0], build, choices.wheels[0], python)
