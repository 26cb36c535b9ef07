"""Why not: newer stacks that were passed over, what leaves no stack at all, and why one pin is not chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, replace
from bnbenv.errors import UsageError
from bnbenv.judge import lookup
from bnbenv.judge.candidates import without_accelerator
from bnbenv.judge.conflict import blocking, told
from bnbenv.judge.judge import judge
from bnbenv.judge.near import Near, asked_for, asks_less, nearest, needed, needs, representative
from bnbenv.judge.order import ERROR, UNDECIDED, WARNING, made_for, newest, weight
from bnbenv.judge.ranges import meet
from bnbenv.judge.solve import solve
from bnbenv.judge.stack import Finding, Offers, Rejection, Remedy, Solution, Unsolvable

if TYPE_CHECKING:
    from bnbenv.judge.solve import Search
    from bnbenv.judge.stack import Request, Stack
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix

    Way = tuple[Stack, tuple[str, ...]]

_PASSED_OVER = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyNot:
    """The answer for one pin.

    Attributes:
        pin: as it was asked, such as ``torch==2.15.0``.
        possible: a stack with the pin has no error.
        stack: the best stack with the pin where one is possible, else the nearest, if any.
        reasons: what stands against the pin: errors, or where it is possible, what made another better.
        needs: what would make it possible.
        ways: each way to it, a stack and its needs; none asks for all of another and more. The first is
            that of `stack` and `needs`.
    """

    pin: str
    possible: bool
    stack: Stack | None
    reasons: tuple[Finding, ...]
    needs: tuple[str, ...] = ()
    ways: tuple[Way, ...] = ()


def passed_over(search: Search, chosen: Stack) -> tuple[Rejection, ...]:
    """The newest builds of torch that would have come before the chosen one, each with what rejected it."""
    found: list[Rejection] = []
    seen: set[tuple[str, str]] = set()
    allowed = weight(search.findings(chosen))
    for builds in search.choices.torch:
        for build in builds:
            if build is chosen.torch or newest(chosen.torch.version) < newest(build.version):
                return tuple(found)
            known = (build.version, build.build)
            if not made_for(build, search.choices.target) or known in seen:
                continue
            seen.add(known)
            stack = representative(search.choices, build)
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
    for bit in (ERROR, UNDECIDED, WARNING):
        if not allowed & bit:
            for finding in findings:
                if weight((finding,)) & bit:
                    return finding
    return None


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why there is no stack, free of what only words tell: the same for every machine of a class.

    Attributes:
        blocking: by their places in `bnbenv.judge.conflict.facts`.
        failing: the nearest stack, or what the request asks for where nothing is near; its errors are told.
    """

    blocking: tuple[int, ...]
    nearest: tuple[Near, ...]
    failing: Stack | None


def conflict(request: Request, target: Target, matrix: Matrix, offers: Offers) -> Conflict:
    """A smallest set of facts that cannot hold together, and the nearest stacks."""
    near = nearest(request, target, matrix, offers)
    return Conflict(
        blocking=blocking(request, target, matrix, offers),
        nearest=near,
        failing=near[0].stack if near else asked_for(request, target, matrix, offers),
    )


def unsolvable(
    found: Conflict,
    request: Request,
    target: Target,
    matrix: Matrix,
    offers: Offers,
    words: tuple[tuple[str, ...], ...] | None = None,
) -> Unsolvable:
    """A conflict in the words of one machine; `words` are what `near_words` says, where that is known."""
    seen = without_accelerator(target) if request.cpu else target
    errors = _older_than_tags(request)
    if found.failing is not None:
        findings = judge(found.failing, seen, matrix).findings
        errors = tuple(finding for finding in findings if finding.severity == "error")
    if words is None:
        words = near_words(found, request, target, matrix)
    return Unsolvable(
        blocking=told(found.blocking, request, target, matrix, offers),
        nearest=tuple((near.stack, needed) for near, needed in zip(found.nearest, words, strict=True)),
        findings=errors,
    )


def near_words(
    found: Conflict, request: Request, target: Target, matrix: Matrix
) -> tuple[tuple[str, ...], ...]:
    """What each near miss needs; of one machine it names nothing but the GPUs."""
    seen = without_accelerator(target) if request.cpu else target
    return tuple(needs(near, seen, matrix) for near in found.nearest)


def why_not(
    pin: str, request: Request, target: Target, matrix: Matrix, offers: Offers | None = None
) -> WhyNot:
    """Why a release is not chosen, such as ``torch==2.15.0`` or ``torch==2.15.0+cu132``.

    Raises:
        UsageError: the pin names neither torch nor bitsandbytes, or cannot be read.
    """
    name, specification, build = read_pin(pin)
    offers = offers or Offers()
    asked = (
        replace(request, torch=specification)
        if name == "torch"
        else replace(request, bitsandbytes=specification)
    )
    others: tuple[Way, ...] = ()
    if build is not None:
        others = _of_another_build(pin, build, request, target, matrix, offers)
        keep = {row.build for row in matrix.torch} - {build}
        offers = replace(offers, builds=tuple(row for row in offers.builds if row.build == build))
        matrix = matrix.with_torch(tuple(row for row in matrix.torch if row.build not in keep))
    answer = solve(asked, target, matrix, offers)
    if isinstance(answer, Solution):
        return WhyNot(
            pin=pin,
            possible=True,
            stack=answer.stack,
            reasons=tuple(f for f in answer.judgement.findings if weight((f,))),
        )
    everywhere = solve(asked, target, matrix, Offers(builds=offers.builds), explain=False)
    reasons, nearest = answer.findings, answer.nearest
    if isinstance(everywhere, Solution):
        shut = _out_of_reach(pin, everywhere.stack, offers)
        reasons, nearest = (shut, *reasons), ((everywhere.stack, (shut.need,)), *nearest)
    else:
        reasons, nearest = reasons or everywhere.findings, nearest or everywhere.nearest
    reasons = reasons or _absent(name, pin, target)
    if not nearest:
        told = needed(tuple(reason for reason in reasons if reason.need))
        return WhyNot(pin=pin, possible=False, stack=None, reasons=reasons, needs=told)
    ways = nearest + others
    least = tuple(way for way in ways if not any(asks_less(needs, way[1]) for _, needs in ways))
    stack, its_needs = least[0]
    return WhyNot(pin=pin, possible=False, stack=stack, reasons=reasons, needs=its_needs, ways=least)


def _of_another_build(
    pin: str, build: str, request: Request, target: Target, matrix: Matrix, offers: Offers
) -> tuple[Way, ...]:
    """The ways to the same release in a build that the pin leaves out."""
    released = why_not(pin.partition("+")[0], request, target, matrix, offers)
    ways = ((released.stack, ()),) if released.possible and released.stack else released.ways
    return tuple(
        (stack, ("another build of it", *needs)) for stack, needs in ways if stack.torch.build != build
    )


def _out_of_reach(pin: str, stack: Stack, offers: Offers) -> Finding:
    """The index that has what would serve, and cannot be used."""
    build = stack.torch
    how = "cannot be used" if build.index in offers.unavailable else "was found not to list it"
    return Finding(
        code="index-unavailable",
        severity="error",
        subject="torch",
        summary=f"`{pin}` would be served by torch {build.version} ({build.build}) of `{build.index}`, "
        f"but that index {how}",
        remedy=Remedy(summary="Allow the index, or configure a mirror of it or a wheelhouse."),
        source="what is known of the indexes",
        need=f"the index `{build.index}`",
    )


def read_pin(pin: str) -> tuple[str, str, str | None]:
    """The package, the specifier and the build of a pin; ``None`` where it names no build.

    Raises:
        UsageError: the pin names neither torch nor bitsandbytes, or cannot be read.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(pin)
    except InvalidRequirement:
        raise UsageError(
            f"`{pin}` names no release",
            hint="such as `bitsandbytes==0.50.2`, `bitsandbytes==0.46.*` or `bitsandbytes>=0.46,<0.50`"
            if pin.startswith("bitsandbytes")
            else "such as `torch==2.15.0`, `torch==2.9.*`, `torch>=2.9,<2.11` or `torch==2.9.1+cu128`",
            code="bad-request",
        ) from None
    if requirement.name not in ("torch", "bitsandbytes") or not requirement.specifier:
        raise UsageError(
            f"`{pin}` must name a release of torch or bitsandbytes",
            hint="such as `torch==2.15.0`",
            code="bad-request",
        )
    text, _, local = str(requirement.specifier).partition("+")
    return requirement.name, text, local or None


def _older_than_tags(request: Request) -> tuple[Finding, ...]:
    """What is said where only releases are asked for whose wheels are never chosen, for their tag lies."""
    first = lookup.FIRST_TAGGED
    if request.bitsandbytes is None or meet(request.bitsandbytes, f">={first}"):
        return ()
    return (
        Finding(
            code="legacy-cuda-setup",
            severity="error",
            subject="bitsandbytes",
            summary=f"bitsandbytes before {first} is never chosen: the tag of its wheels, `any`, lies, "
            "as they hold x86-64 Linux libraries whatever the platform",
            remedy=Remedy(
                summary=f"Take bitsandbytes {first} or newer; `bnbenv check` tells what an old one would do."
            ),
            source="compat/bitsandbytes.json",
            need=f"bitsandbytes >= {first}",
        ),
    )


def _absent(name: str, pin: str, target: Target) -> tuple[Finding, ...]:
    """No candidate at all: the release is unknown, is not made for the platform, or has no index."""
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
