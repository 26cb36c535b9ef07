"""Near misses: the stacks that fail least on a machine, and what each would need to work there."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

from bnbenv.judge.candidates import candidates
from bnbenv.judge.conflict import without_gpus
from bnbenv.judge.coverage import gpu_number, kinds_of_gpu
from bnbenv.judge.order import made_for
from bnbenv.judge.ranges import version
from bnbenv.judge.solve import Search

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnbenv.judge.candidates import Candidates
    from bnbenv.judge.stack import Finding, Offers, Request, Stack
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import TorchBuild

_NEAREST = 5
_RELEASE = re.compile(r"[0-9]+(\.[0-9]+)*")
_LOOKED_AT = 12  # builds for which every wheel is tried


def nearest(
    request: Request, target: Target, matrix: Matrix, offers: Offers
) -> tuple[tuple[Stack, tuple[str, ...]], ...]:
    """The stacks that fail least, each with what it would need; fewest needs first."""
    found = [
        *_subsets(request, target, matrix, offers),
        *_least_failing(request, target, matrix, offers),
    ]
    told: set[tuple[str, ...]] = set()
    chosen = []
    for stack, needs in sorted(found, key=lambda pair: len(_essence(pair[1]))):
        essence = _essence(needs)
        if needs and essence not in told:
            told.add(essence)
            chosen.append((stack, needs))
    return tuple(chosen[:_NEAREST])


def _essence(needs: tuple[str, ...]) -> tuple[str, ...]:
    """The needs without the variable that only carries one of them out."""
    return tuple(need for need in needs if "VISIBLE_DEVICES=" not in need)


def _subsets(
    request: Request, target: Target, matrix: Matrix, offers: Offers
) -> Iterator[tuple[Stack, tuple[str, ...]]]:
    """On a machine with unlike GPUs: the stacks for the largest sets of them that one stack serves."""
    kinds = kinds_of_gpu(target)
    if request.cpu or len(kinds) < 2:
        return
    for size in range(1, len(kinds)):
        some = False
        for dropped in combinations(kinds, size):
            gone = tuple(gpu for _, gpus in dropped for gpu in gpus)
            _, smaller, _ = without_gpus(gone)((request, target, offers))
            stack = Search(candidates(request, smaller, matrix, offers), matrix).best()
            if stack is not None:
                some = True
                yield stack, (*(f"drop {label}" for label, _ in dropped), _select(target, smaller))
        if some:
            return


def _select(target: Target, smaller: Target) -> str:
    variable = "HIP_VISIBLE_DEVICES" if target.accelerator == "rocm" else "CUDA_VISIBLE_DEVICES"
    numbers = [
        gpu_number(gpu, position)
        for position, gpu in enumerate(target.visible_gpus)
        if any(gpu is left for left in smaller.gpus)
    ]
    return f"{variable}={','.join(numbers)}"


def _least_failing(
    request: Request, target: Target, matrix: Matrix, offers: Offers
) -> Iterator[tuple[Stack, tuple[str, ...]]]:
    choices = candidates(request, target, matrix, offers)
    search = Search(choices, matrix)
    builds = [build for release in choices.torch for build in release]
    fitting = [build for build in builds if made_for(build, choices.target)] or builds
    distinct = {(build.version, build.build): build for build in reversed(fitting)}
    tried = [
        (len(_needs(search.of_torch(stack))), stack)
        for build in reversed(distinct.values())
        if (stack := representative(choices, build))
    ]
    tried.sort(key=lambda pair: pair[0])  # stable: the newest first among equals
    for _, stack in tried[:_LOOKED_AT]:
        best = _least(search, [replace(stack, bitsandbytes=wheel) for wheel in choices.wheels], stack)
        pythons = [python for python in choices.pythons if python in (stack.torch.pythons or choices.pythons)]
        best = _least(search, [replace(best, python=python) for python in pythons], best)
        yield best, _needs(search.findings(best))


def _least(search: Search, stacks: list[Stack], otherwise: Stack) -> Stack:
    """The stack with the fewest needs, the first among equals."""
    return min(stacks, key=lambda stack: len(_needs(search.findings(stack))), default=otherwise)


def _needs(findings: tuple[Finding, ...]) -> tuple[str, ...]:
    """What the errors need, each once, in order."""
    needs: dict[str, str] = {}
    for f in findings:
        if f.severity != "error":
            continue
        need = f.need or f.summary
        what, floor, least = need.partition(">=")
        key = what.strip() if floor and _RELEASE.fullmatch(least.strip()) else need
        held = needs.get(key)
        if held is None or (key != need and version(held.partition(">=")[2]) < version(least)):
            needs[key] = need  # of two floors on the same thing the higher one
    return tuple(needs.values())


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
