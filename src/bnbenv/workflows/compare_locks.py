"""`lock --against`: what a team's lock has otherwise than another one, such as that of another checkout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.errors import EnvironmentProblem

if TYPE_CHECKING:
    from pathlib import Path

    from bnbenv.lockfile.index import TeamLock


def compare_locks(before: Path, after: Path) -> tuple[str, ...]:
    """What is other for whom, a sentence each, by the files alone; none where their order differs at most.

    Raises:
        UsageError: one of them is a file.
        EnvironmentProblem: there is no lock in one of them.
        DataError: a lock is invalid, or not the one that its index names.
    """
    from bnbenv.lockfile import index
    from bnbenv.lockfile.difference import differences

    new = index.read(after)
    try:
        old = index.read(before)
    except EnvironmentProblem as problem:
        problem.hint = "name the directory of a lock to compare with, such as another checkout's"
        raise
    texts, files = _texts(before, old), _texts(after, new)
    named = {f"pylock.{name}.toml": content for name, content in files.items()}
    return differences(old, texts, new, named)


def _texts(directory: Path, team: TeamLock) -> dict[str, str]:
    """Each variant's lock, with newlines alone."""
    from bnbenv.lockfile.index import locked_text

    return {
        variant.name: locked_text(directory, variant, name=str(directory / variant.file), origin=team.origin)
        for variant in team.variants
    }
