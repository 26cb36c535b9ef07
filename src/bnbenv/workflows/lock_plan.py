"""Which stacks serve a fleet, what their variants are called, and what machine each is locked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass, replace
from bnbenv.errors import DataError
from bnbenv.judge.cover import cover, identity
from bnbenv.judge.stack import Solution

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from bnbenv.judge.cover import Cover
    from bnbenv.judge.evidence import Evidence
    from bnbenv.judge.stack import Offers, Stack
    from bnbenv.lockfile.index import TeamLock
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.workflows.fleet import Fleet
    from bnbenv.workflows.request import Wanted

# From the weakest to the strongest.
_EVIDENCE: tuple[Evidence, ...] = ("none", "neighbour", "verified")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which stacks serve the fleet; each by its identity.

    Attributes:
        names: of the variants.
        served: what each is locked for.
    """

    found: Cover
    names: Mapping[Any, str]
    served: Mapping[Any, Served]


def make_plan(
    wanted: Wanted,
    fleet: Fleet,
    matrix: Matrix,
    offers: Offers,
    before: TeamLock | None,
    kept: Mapping[Hashable, Stack],
) -> Plan:
    """Cover the fleet with what is offered; what `kept` assigns stays."""
    found = best_cover(wanted, fleet, matrix, offers, kept)
    return Plan(
        found=found, names=_names(found, before, matrix), served=_served(found, fleet, cpu=wanted.cpu)
    )


def best_cover(
    wanted: Wanted, fleet: Fleet, matrix: Matrix, offers: Offers, kept: Mapping[Hashable, Stack]
) -> Cover:
    """The assignment; where the Pythons that all machines have leave one unserved, with those of uv."""
    from bnbenv.workflows.choose import judge_request

    asked = judge_request(wanted)
    found = cover(asked, fleet.kinds(), matrix, offers, present=kept)
    if found.unserved and wanted.python is None:
        wider = cover(asked, fleet.kinds(wide=True), matrix, offers, present=kept)
        if len(wider.unserved) < len(found.unserved):
            return wider
    return found


def _names(found: Cover, before: TeamLock | None, matrix: Matrix) -> dict[Any, str]:
    """Identity of a stack → name of its variant; a stack that has a name keeps it."""
    from bnbenv.workflows.fleet import stack_of

    stacks = {identity(stack): stack for stack in found.stacks.values()}
    names: dict[Any, str] = {}
    for variant in before.variants if before else ():
        try:
            held = identity(stack_of(variant, "", matrix))
        except DataError:
            continue
        if held in stacks:
            names.setdefault(held, variant.name)
    for key in sorted(stacks):
        if key in names:
            continue
        base = _name(stacks[key])
        taken = set(names.values())
        candidates = [base, f"{base}-torch{stacks[key].torch.version}".replace(".", "-")]
        candidates += [f"{candidates[1]}-{number}" for number in range(2, 100)]
        names[key] = next(name for name in candidates if name not in taken)
    return names


def _name(stack: Stack) -> str:
    torch = stack.torch
    parts = [torch.build.replace(".", "")]
    if torch.os != "linux":
        parts.append(torch.os)
    if torch.arch != "x86_64" and torch.os != "macos":
        parts.append(torch.arch)
    return "-".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One stack and the machine that it is locked for: the least of those that it serves.

    Attributes:
        evidence: the weakest of what is known of the stack on the machines that it serves.
    """

    solution: Solution
    target: Target
    evidence: Evidence


def _served(found: Cover, fleet: Fleet, *, cpu: bool) -> dict[Any, Served]:
    from bnbenv.judge.candidates import without_accelerator
    from bnbenv.judge.evidence import evidence
    from bnbenv.judge.judge import judge

    by_identity: dict[Any, list[Hashable]] = {}
    for key, stack in found.stacks.items():
        by_identity.setdefault(identity(stack), []).append(key)
    served = {}
    for key, keys in by_identity.items():
        stack = found.stacks[keys[0]]
        targets = sorted((fleet.classes[key].target for key in keys), key=repr)
        libcs = [target.libc for target in targets if target.libc is not None]
        families = {libc.family for libc in libcs}
        # Wheels that run on the oldest C library of them run on all.
        libc = min(libcs, key=lambda libc: tuple(libc.version)) if len(families) == 1 else None
        target = replace(targets[0], libc=libc or targets[0].libc, pythons=(stack.python,))
        served[key] = Served(
            solution=Solution(stack=stack, judgement=judge(stack, target, fleet.matrix)),
            target=target,
            evidence=min(
                (evidence(stack, without_accelerator(one) if cpu else one, fleet.matrix) for one in targets),
                key=_EVIDENCE.index,
            ),
        )
    return served
