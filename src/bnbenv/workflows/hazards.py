"""Packages that would break others: kept out of an environment, or let in where the user insists."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bnbenv.errors import UnsolvableError
    from bnbenv.workflows.choose import Choice

    # Requirement, mechanism, the profile that serves it instead → the error.
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
            instead = entry.instead or _family(entry.package, choice)
            raise refusal(names[entry.package], entry.mechanism, instead)
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


def _family(package: str, choice: Choice) -> str | None:
    """The first profile that is about a package: every set of it has it."""
    profiles = choice.matrix.profiles
    return next((row.name for row in profiles if all(package in it.packages for it in row.sets)), None)
