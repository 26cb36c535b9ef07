"""Packages that would break others: kept out of an environment, or let in where the user insists."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bnbenv.errors import UnsolvableError
    from bnbenv.judge.hazards import Barred
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.workflows.choose import Choice

    # Requirement, mechanism, the command for an environment of its own → the error.
    Refusal = Callable[[str, str, str | None], UnsolvableError]


def let_in_named(
    choice: Choice, texts: Iterable[str], *, recorded: Iterable[str], anyway: bool, refusal: Refusal
) -> dict[str, str]:
    """What of these requirements would break the others → what it does.

    Args:
        recorded: packages that were let in before.
        anyway: the user insists.

    Raises:
        UnsolvableError: code ``hazard``; the user does not.
    """
    from bnbenv.install.compile_inputs import name_of
    from bnbenv.judge.hazards import barred

    names = {name_of(text): text for text in texts}
    known = frozenset(recorded)
    let_in: dict[str, str] = {}
    for entry in barred(choice.solution.stack, choice.matrix):
        if entry.package not in names or entry.package in known:
            continue
        if not anyway:
            raise refusal(names[entry.package], entry.mechanism, _way_out(entry, choice))
        let_in[entry.package] = entry.mechanism
    return let_in


def let_in_brought(
    choice: Choice,
    before: Mapping[str, str],
    after: Mapping[str, str],
    *,
    recorded: Iterable[str],
    anyway: bool,
    refusal: Refusal,
) -> dict[str, str]:
    """Judge locked versions as the doctor would: a hazard may come along behind another package.

    Raises:
        UnsolvableError: see `let_in_named`.
    """
    from bnbenv.judge.hazards import hazards_of

    stack = choice.solution.stack
    known = {*hazards_of(stack, before, choice.matrix), *recorded}
    let_in: dict[str, str] = {}
    for name, mechanism in hazards_of(stack, after, choice.matrix).items():
        if name in known:
            continue
        if not anyway:
            raise refusal(name, mechanism, None)
        let_in[name] = mechanism
    return let_in


def profile_instead(instead: str | None, successor: str | None, target: Target, matrix: Matrix) -> str | None:
    """The profile for a package that is kept apart: its own, unless only its successor's serves the machine.

    Args:
        instead, successor: see `rows.Hazard`.
        matrix: with all that the judge reads.
    """
    if instead and successor and not _serves(instead, target, matrix) and _serves(successor, target, matrix):
        return successor
    return instead


def _serves(profile: str, target: Target, matrix: Matrix) -> bool:
    """Whether a profile has a stack for the machine, with its Pythons or those that uv can fetch."""
    from bnbenv.dataclass import replace
    from bnbenv.judge.solve import solve
    from bnbenv.judge.stack import Request, Solution
    from bnbenv.workflows.choose import DOWNLOADABLE_PYTHONS

    pythons = tuple(dict.fromkeys((*target.pythons, *DOWNLOADABLE_PYTHONS)))
    asked = Request(profile=profile)
    return isinstance(solve(asked, replace(target, pythons=pythons), matrix, explain=False), Solution)


def _way_out(entry: Barred, choice: Choice) -> str | None:
    """The command for an environment of its own, and that for the package's successor."""
    instead = profile_instead(entry.instead, entry.successor, choice.target, choice.matrix)
    instead = instead or _family(entry.package, choice)
    if instead is None:
        return None
    own = "an environment of its own"
    if entry.successor is not None:
        own += f"; {successor_sentence(entry.package, entry.successor, choice.matrix)}"
    return f"bnbenv create {instead} ({own})"


def successor_sentence(package: str, successor: str, matrix: Matrix) -> str:
    """What is maintained in the package's place, and by which profile it comes."""
    from bnbenv.judge import lookup

    name = ", ".join(lookup.profile(matrix, successor).builds)
    return f"{name}, profile {successor}, is the maintained successor of {package}"


def _family(package: str, choice: Choice) -> str | None:
    """The first profile that is about a package: every set of it has it."""
    profiles = choice.matrix.profiles
    return next((row.name for row in profiles if all(package in it.packages for it in row.sets)), None)
