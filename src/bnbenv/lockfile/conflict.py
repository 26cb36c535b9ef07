"""An index that git could not merge: its two sides, and the way out of them."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from bnbenv.errors import DataError
from bnbenv.lockfile import text
from bnbenv.lockfile.commands import lock_command
from bnbenv.typed_paths import to_type

if TYPE_CHECKING:
    from bnbenv.lockfile.index import TeamLock


def marked(content: str) -> bool:
    """Whether git left its marks in a text."""
    return any(mark in f"\n{content}" for mark in ("\n<<<<<<< ", "\n>>>>>>> "))


def sides(content: str) -> tuple[str, str]:
    """The text as it was here, ``HEAD``, and as it was on the other side."""
    here: list[str] = []
    other: list[str] = []
    both: tuple[list[str], ...] = (here, other)
    into = both
    for line in content.splitlines(keepends=True):
        if line.startswith("<<<<<<< "):
            into = (here,)
        elif into is not both and line.startswith("||||||| "):
            into = ()  # what both sides started from, where git is set to tell it
        elif into is not both and line.rstrip() == "=======":
            into = (other,)
        elif line.startswith(">>>>>>> "):
            into = both
        else:
            for side in into:
                side.append(line)
    return "".join(here), "".join(other)


def refusal(content: str, origin: str) -> DataError:
    """The error for an index with git's marks.

    Its hint takes the index of ``HEAD`` back together with its locks: of those that git has mixed no version
    could be kept.
    """
    directory = Path(origin).parent
    files = f"{to_type(Path(origin))} {to_type(directory / 'pylock.*.toml')}"
    options, rest = _of_the_other_side(content, origin)
    command = lock_command(directory, *options)
    return text.invalid(
        origin,
        "it holds the marks of a conflict that git could not merge",
        hint=f"git checkout HEAD -- {files}, then {command}{rest}",
    )


def _of_the_other_side(content: str, origin: str) -> tuple[tuple[str, ...], str]:
    """Options that ask for what both sides add, and what else only the other side has."""
    from bnbenv.lockfile import index

    try:
        here, other = (index.parse(side, origin=origin) for side in sides(content))
    except DataError:
        return (
            (),
            ", with --target FILE for each machine, and what is asked for, that only the other side has",
        )
    told = []
    if strange := sorted(_machines(other) - _machines(here)):
        named = ", ".join(f"`{name}`" for name in strange)
        told.append(f"has {named} (--target FILE for each, or --add-this-machine there)")
    packages = dict.fromkeys((*here.request.get("packages", ()), *other.request.get("packages", ())))
    if here.request.get("packages") == other.request.get("packages"):
        packages = {}
    keys = {*here.request, *other.request} - {"packages"}
    if differing := sorted(key for key in keys if here.request.get(key) != other.request.get(key)):
        words = (f"{key.replace('_', '-')}: {other.request.get(key, 'nothing')}" for key in differing)
        told.append(f"asks for {', '.join(words)}")
    rest = f"; only the other side {' and '.join(told)}" if told else ""
    return tuple(f"--with {quote(line)}" for line in packages), rest


def _machines(team: TeamLock) -> set[str]:
    return {name for entry in team.classes for name in entry.machines}
