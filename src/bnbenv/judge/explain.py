"""Why not: newer stacks that were passed over, a smallest set of facts that exclude each other, near misses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

from bnbenv.errors import UsageError
from bnbenv.judge.candidates import candidates
from bnbenv.judge.order import ERROR, made_for, newest, weight
from bnbenv.judge.solve import Search, solvable, solve
from bnbenv.judge.stack import Finding, Offers, Rejection, Solution, Unsolvable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bnbenv.judge.candidates import Candidates
    from bnbenv.judge.stack import Request, Stack
    from bnbenv.machine.target import Gpu, Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import TorchBuild

_PASSED_OVER = 6
_NEAREST = 5
_DRIVER = "driver >= "
_LOOKED_AT = 12  # builds for which every wheel is tried when looking for near misses

Problem = tuple["Request", "Target", Offers]


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyNot:
    """The answer for one pin.

    Attributes:
        pin: as it was asked, such as ``torch==2.15.0``.
        possible: a stack with the pin has no error.
        stack: the best stack with the pin where one is possible, else the nearest, if any.
        reasons: what stands against the pin: errors, or where it is possible, what made another better.
        needs: what would make it possible.
    """

    pin: str
    possible: bool
    stack: Stack | None
    reasons: tuple[Finding, ...]
    needs: tuple[str, ...] = ()


def passed_over(search: Search, chosen: Stack) -> tuple[Rejection, ...]:
    """The newest builds of torch that would have come before the chosen one, each with what rejected it."""
    found: list[Rejection] = []
    allowed = weight(search.findings(chosen))
    for builds in search.choices.torch:
        for build in builds:
            if build is chosen.torch or newest(chosen.torch.version) < newest(build.version):
                return tuple(found)
            if not made_for(build, search.choices.target):
                continue
            stack = _representative(search.choices, build)
            if stack is None:
                continue
            findings = search.findings(stack)
            worse = _worst(findings, allowed)
            if worse is not None:
                found.append(Rejection(stack=stack, finding=worse))
            if len(found) == _PASSED_OVER:
                return tuple(found)
    return tuple(found)


def _worst(findings: tuple[Finding, ...], allowed: int) -> Finding | None:
    """The finding that makes a stack worse than what is allowed, the gravest kind first."""
    for bit in (ERROR, 2, 1):
        if not allowed & bit:
            for finding in findings:
                if weight((finding,)) & bit:
                    return finding
    return None


def _representative(choices: Candidates, build: TorchBuild) -> Stack | None:
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


# ---- no stack at all -------------------------------------------------------------------------------


def unsolvable(request: Request, target: Target, matrix: Matrix, offers: Offers) -> Unsolvable:
    """Why there is none: a smallest set of facts that cannot hold together, and the nearest stacks."""
    near = nearest(request, target, matrix, offers)
    search = Search(candidates(request, target, matrix, offers), matrix)
    return Unsolvable(
        blocking=blocking(request, target, matrix, offers),
        nearest=near,
        findings=tuple(f for f in search.findings(near[0][0]) if f.severity == "error") if near else (),
    )


def blocking(request: Request, target: Target, matrix: Matrix, offers: Offers) -> tuple[str, ...]:
    """A smallest set of facts of which no two-sided reading leaves a stack.

    Each fact can be let go of by itself. First facts are dropped one by one while the rest still exclude
    every stack; then sets smaller than what is left are tried, so that the answer is a smallest one.
    """
    facts = tuple(_facts(request, target, offers))

    def blocks(kept: tuple[int, ...]) -> bool:
        problem: Problem = (request, target, offers)
        for number, (_, let_go) in enumerate(facts):
            if number not in kept:
                problem = let_go(problem)
        return not solvable(problem[0], problem[1], matrix, problem[2])

    kept = tuple(range(len(facts)))
    for number in range(len(facts)):
        fewer = tuple(other for other in kept if other != number)
        if blocks(fewer):
            kept = fewer
    for size in range(min(len(kept), 3)):
        smaller = next((some for some in combinations(range(len(facts)), size) if blocks(some)), None)
        if smaller is not None:
            kept = smaller
            break
    told = tuple(facts[number][0] for number in kept)
    return told or (f"{target.os} {target.arch}", f"profile {request.profile}")


def _facts(
    request: Request, target: Target, offers: Offers
) -> Iterator[tuple[str, Callable[[Problem], Problem]]]:
    """The facts that could be otherwise, in words, each with the problem without it; softer facts first."""

    def on_request(**changes: object) -> Callable[[Problem], Problem]:
        return lambda problem: (replace(problem[0], **changes), problem[1], problem[2])  # type: ignore[arg-type]

    def on_target(**changes: object) -> Callable[[Problem], Problem]:
        return lambda problem: (problem[0], replace(problem[1], **changes), problem[2])  # type: ignore[arg-type]

    if offers.unavailable:
        yield (
            f"unavailable: {', '.join(sorted(offers.unavailable))}",
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
    if target.tegra:
        yield f"L4T {target.l4t or 'unknown'}", on_target(tegra=False, l4t=None)
    if request.cpu:
        return
    if target.driver is not None:
        yield f"driver {target.driver}", on_target(driver=None)
    for label, gpus in _kinds_of_gpu(target):
        yield label, _without_gpus(gpus)


def _without_variable(name: str) -> Callable[[Problem], Problem]:
    def let_go(problem: Problem) -> Problem:
        env = {key: value for key, value in problem[0].env.items() if key != name}
        return replace(problem[0], env=env), problem[1], problem[2]

    return let_go


def _any_python(problem: Problem) -> Problem:
    return replace(problem[0], python=None), replace(problem[1], pythons=()), problem[2]


def _without_gpus(gpus: tuple[Gpu, ...]) -> Callable[[Problem], Problem]:
    def let_go(problem: Problem) -> Problem:
        left = tuple(gpu for gpu in problem[1].gpus if not any(gpu is other for other in gpus))
        return problem[0], replace(problem[1], gpus=left), problem[2]

    return let_go


def _kinds_of_gpu(target: Target) -> list[tuple[str, tuple[Gpu, ...]]]:
    """The visible GPUs by what the rules can tell apart, such as ``GPU 0, 1 (8.9)``."""
    kinds: dict[object, list[tuple[int, Gpu]]] = {}
    for position, gpu in enumerate(target.visible_gpus):
        kinds.setdefault((gpu.compute_capability, gpu.gfx, gpu.integrated), []).append((position, gpu))
    return [
        (
            f"GPU {', '.join(_number(gpu, position) for position, gpu in members)} "
            f"({members[0][1].compute_capability or members[0][1].gfx or members[0][1].name})",
            tuple(gpu for _, gpu in members),
        )
        for members in kinds.values()
    ]


def _number(gpu: Gpu, position: int) -> str:
    return str(gpu.index if gpu.index is not None else position)


# ---- near misses -----------------------------------------------------------------------------------


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
    kinds = _kinds_of_gpu(target)
    if request.cpu or len(kinds) < 2:
        return
    for size in range(1, len(kinds)):
        some = False
        for dropped in combinations(kinds, size):
            gone = tuple(gpu for _, gpus in dropped for gpu in gpus)
            _, smaller, _ = _without_gpus(gone)((request, target, offers))
            stack = Search(candidates(request, smaller, matrix, offers), matrix).best()
            if stack is not None:
                some = True
                yield stack, (*(f"drop {label}" for label, _ in dropped), _select(target, smaller))
        if some:
            return


def _select(target: Target, smaller: Target) -> str:
    variable = "HIP_VISIBLE_DEVICES" if target.accelerator == "rocm" else "CUDA_VISIBLE_DEVICES"
    numbers = [
        _number(gpu, position)
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
    tried = [
        (stack, search.findings(stack)) for build in fitting if (stack := _representative(choices, build))
    ]
    tried.sort(key=lambda pair: len(_needs(pair[1])))  # stable: the newest first among equals
    for stack, _ in tried[:_LOOKED_AT]:
        best = min(
            (
                replace(stack, bitsandbytes=wheel, python=python)
                for wheel in choices.wheels
                for python in choices.pythons
                if not stack.torch.pythons or python in stack.torch.pythons
            ),
            key=lambda other: len(_needs(search.findings(other))),
            default=stack,
        )
        yield best, _needs(search.findings(best))


def _needs(findings: tuple[Finding, ...]) -> tuple[str, ...]:
    """What the errors need, each once, in order."""
    needs = dict.fromkeys(f.need or f.summary for f in findings if f.severity == "error")
    drivers = [need for need in needs if need.startswith(_DRIVER)]
    newest_driver = max(drivers, key=lambda need: int(need.removeprefix(_DRIVER)), default=None)
    return tuple(need for need in needs if need not in drivers or need == newest_driver)


# ---- one pin ---------------------------------------------------------------------------------------


def why_not(
    pin: str, request: Request, target: Target, matrix: Matrix, offers: Offers | None = None
) -> WhyNot:
    """Why a release is not chosen, such as ``torch==2.15.0`` or ``torch==2.15.0+cu132``.

    Raises:
        UsageError: the pin names neither torch nor bitsandbytes, or cannot be read.
    """
    name, specification, build = _read_pin(pin)
    offers = offers or Offers()
    asked = (
        replace(request, torch=specification)
        if name == "torch"
        else replace(request, bitsandbytes=specification)
    )
    if build is not None:
        keep = {row.build for row in matrix.torch} - {build}
        offers = replace(offers, builds=tuple(row for row in offers.builds if row.build == build))
        matrix = replace_torch(matrix, tuple(row for row in matrix.torch if row.build not in keep))
    answer = solve(asked, target, matrix, offers)
    if isinstance(answer, Solution):
        return WhyNot(
            pin=pin,
            possible=True,
            stack=answer.stack,
            reasons=tuple(f for f in answer.judgement.findings if weight((f,))),
        )
    if answer.nearest:
        stack, needs = answer.nearest[0]
        return WhyNot(pin=pin, possible=False, stack=stack, reasons=answer.findings, needs=needs)
    return WhyNot(pin=pin, possible=False, stack=None, reasons=_absent(name, pin, target))


def replace_torch(matrix: Matrix, rows: tuple[TorchBuild, ...]) -> Matrix:
    """The matrix with other torch rows; parts that were not loaded stay so."""
    from bnbenv.matrix.matrix import PARTS, Matrix

    parts = {name: getattr(matrix, name) for name in PARTS if hasattr(matrix, name)}
    return Matrix(revision=matrix.revision, **{**parts, "torch": rows})


def _read_pin(pin: str) -> tuple[str, str, str | None]:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(pin)
    except InvalidRequirement as error:
        raise UsageError(
            f"`{pin}` is not a requirement: {error}", hint="such as `torch==2.15.0`", code="bad-request"
        ) from None
    if requirement.name not in ("torch", "bitsandbytes") or not requirement.specifier:
        raise UsageError(
            f"`{pin}` must pin torch or bitsandbytes", hint="such as `torch==2.15.0`", code="bad-request"
        )
    text, _, local = str(requirement.specifier).partition("+")
    return requirement.name, text, local or None


def _absent(name: str, pin: str, target: Target) -> tuple[Finding, ...]:
    """No candidate at all: the release has no wheel for the platform, is unknown, or its index is not there."""
    code = "unknown-torch-build" if name == "torch" else "unknown-bnb-release"
    return (
        Finding(
            code=code,
            severity="error",
            subject=name,
            summary=f"the matrix has nothing that meets `{pin}` for {target.os} {target.arch}",
            source="compat/",
        ),
    )


__all__ = ["WhyNot", "blocking", "nearest", "passed_over", "unsolvable", "why_not"]
