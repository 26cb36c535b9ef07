"""What the indexes have for a plan: foreseen, remembered, or asked; none is passed over in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, replace
from bnbenv.errors import ExternalError, UsageError
from bnbenv.judge.cover import identity
from bnbenv.workflows.lock_plan import best_cover

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from bnbenv.install.availability import Availability
    from bnbenv.install.sources import Sources
    from bnbenv.judge.cover import Cover
    from bnbenv.judge.stack import Offers, Stack
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.workflows.fleet import Fleet
    from bnbenv.workflows.lock_plan import Plan
    from bnbenv.workflows.request import Wanted
    from bnbenv.workflows.voice import Voice

# Seconds that an index has to answer: a lock is made seldom, and an index that is late stops it.
PATIENCE = 15.0

# Seconds for which an answer is not asked for again: uv takes a page for as fresh as public indexes say.
_FRESH = 600.0


def foreseeable(sources: Sources) -> bool:
    """Whether the indexes can be expected to have what the matrix says: no place of the user's own."""
    return not sources.offline and all(index.role in ("explicit", "default") for index in sources.indexes)


def foreseen(sources: Sources, wanted: Wanted, matrix: Matrix) -> Offers:
    """What the indexes have if every one that is configured has what the matrix says."""
    from bnbenv.install.availability import assemble
    from bnbenv.workflows.choose import pinned_indexes

    found = assemble((), sources, known=matrix.torch, all_names=pinned_indexes(matrix))
    return offers_of(found, wanted, matrix)


def remembered(
    plan: Plan, matrix: Matrix, sources: Sources, environ: Mapping[str, str]
) -> Availability | None:
    """What the indexes said some minutes ago, where that bears the plan out."""
    import time

    from bnbenv.env.layout import Layout
    from bnbenv.install.availability import assemble
    from bnbenv.install.remembered import recall
    from bnbenv.workflows.choose import pinned_indexes

    if environ.get("UV_NO_CACHE") or not foreseeable(sources):
        return None
    cache = Layout.find(environ).cache
    answers = recall(sources, cache, environ=environ, now=time.time(), max_age=_FRESH)
    needed = {stack.torch.index for stack in plan.found.stacks.values()}
    needed |= {index.name for index in sources.indexes if index.role == "default"}
    told = {answer.index for answer in answers or () if answer.problem is None}
    if answers is None or not needed <= told:
        return None
    kept = [answer for answer in answers if answer.index in needed or answer.problem is not None]
    found = assemble(kept, sources, known=matrix.torch, all_names=pinned_indexes(matrix))
    return found if confirmed(plan, found) else None


def ask_for(
    wanted: Wanted,
    fleet: Fleet,
    matrix: Matrix,
    sources: Sources,
    voice: Voice,
    environ: Mapping[str, str],
) -> Availability:
    """Ask every index that a machine of the fleet could need."""
    from bnbenv.workflows.choose import ask_indexes

    targets = [kind.target for kind in fleet.kinds()]
    return ask_indexes(wanted, targets, matrix, sources, voice, environ, timeout=PATIENCE)


def offers_of(availability: Availability, wanted: Wanted, matrix: Matrix) -> Offers:
    """What the judge may take: what the indexes have, less what the request excludes."""
    from bnbenv.workflows.choose import without

    offers = availability.offers()
    return replace(offers, unavailable=offers.unavailable | without(wanted, matrix))


def confirmed(plan: Plan, availability: Availability) -> bool:
    """Whether the indexes have all that was expected of them, so that nothing else would be chosen."""
    if availability.builds:
        return False
    for key, stack in plan.found.stacks.items():
        torch = stack.torch
        if key in plan.found.kept:
            continue
        if torch.index in availability.unavailable:
            return False
        listed = availability.listed.get(torch.index)
        if listed is not None and (torch.version, torch.build, stack.python) not in listed:
            return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """The line that was typed.

    Attributes:
        local: places of this machine's disk were left out.
    """

    command: str
    local: bool

    def without(self, indexes: Iterable[str]) -> str:
        """What to type where these indexes do not answer."""
        excluded = " ".join(f"--without-index {name}" for name in sorted(indexes))
        if not excluded:
            return "try again later; or take it out of the configuration (`bnbenv config`)"
        own = f"with what only this machine has: {self.command} --allow-local {excluded}; or "
        return f"{own if self.local else ''}try again later; or lock without it: {self.command} {excluded}"


def refuse_silence(
    wanted: Wanted,
    fleet: Fleet,
    matrix: Matrix,
    availability: Availability,
    kept: Mapping[Hashable, Stack],
    found: Cover,
    again: Again,
) -> None:
    """Refuse to lock another torch because the index of the right one does not answer just now.

    Raises:
        ExternalError: code ``index-unreachable``; the message names every such index.
    """
    from bnbenv.workflows.choose import without

    silent = {
        problem.index: problem for problem in availability.problems if problem.code == "index-unreachable"
    }
    if not silent or found.kept == frozenset(fleet.classes):
        return
    shut = without(wanted, matrix)
    offers = availability.offers()
    answering = replace(offers, unavailable=(offers.unavailable - silent.keys()) | shut)
    wished = best_cover(wanted, fleet, matrix, answering, kept)
    held = {key: identity(stack) for key, stack in found.stacks.items()}
    needed = {
        stack.torch.index for key, stack in wished.stacks.items() if held.get(key) != identity(stack)
    } & silent.keys()
    # What an index of the user's own would have, nobody knows.
    known = {row.name for row in matrix.indexes} | {"pypi"}
    needed |= silent.keys() - known
    if not needed:
        return
    raise ExternalError(
        "an index that this lock needs does not answer, and another torch is not taken in silence:\n"
        + "\n".join(silent[name].message for name in sorted(needed)),
        hint=again.without(needed & known),
        code="index-unreachable",
    )


def refuse_unknown_indexes(found: Cover, sources: Sources, command: str, *, local: bool) -> None:
    """Say what to type where the present lock has torch from an index that is not in use here.

    Raises:
        UsageError: it has.
    """
    known = {index.name for index in sources.indexes}
    gone = sorted({stack.torch.index for stack in found.stacks.values()} - known)
    if gone:
        own = f"{command} --allow-local (with what only this machine has)" if local else "configure it anew"
        raise UsageError(
            f"the present lock has torch from {', '.join(f'`{name}`' for name in gone)}, "
            "which is no index in use here",
            hint=f"{own}; or choose anew: {command} --repack",
        )
