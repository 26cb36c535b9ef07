"""Commands about a team's lock, as they are typed from where the user stands."""

from __future__ import annotations

import shlex
from pathlib import Path


def lock_command(directory: Path, *words: str) -> str:
    """`bnbenv lock` with options, which are quoted already, for the lock of a directory."""
    return " ".join(("bnbenv lock", *words, *_elsewhere(directory, "--dir")))


def sync_command(directory: Path, *words: str) -> str:
    """`bnbenv sync` from the lock of a directory, with options."""
    return " ".join(("bnbenv sync", *_elsewhere(directory), *words))


def _elsewhere(directory: Path, *option: str) -> tuple[str, ...]:
    return () if directory == Path.cwd() else (*option, shlex.quote(str(directory)))
