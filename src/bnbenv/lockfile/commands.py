"""Commands about a team's lock, as they are typed from where the user stands."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bnbenv.errors import BnbenvError
from bnbenv.typed_paths import to_type

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Keys of a request that `resolve` has options for.
_NARROWING = ("torch", "bitsandbytes", "cuda", "python", "cpu", "without_index")

_LOCAL_FILE = re.compile(rb"""\b(?:url\s*=\s*["']file:|path\s*=\s*["'])""", re.IGNORECASE)


def lock_command(directory: Path, *words: str) -> str:
    """`bnbenv lock` with options, which are quoted already, for the lock of a directory.

    A lock that names files of this machine is neither read nor made again without `--allow-local`.
    """
    local = () if "--allow-local" in " ".join(words) or not _is_local(directory) else ("--allow-local",)
    return " ".join(("bnbenv lock", *filter(None, words), *local, *_elsewhere(directory, "--dir")))


def sync_command(directory: Path, *words: str) -> str:
    """`bnbenv sync` from the lock of a directory, with options."""
    return " ".join(("bnbenv sync", *_elsewhere(directory), *filter(None, words)))


def bundle_command(directory: Path, *words: str) -> str:
    """`bnbenv bundle` of the lock of a directory, with options, which are quoted already."""
    return " ".join(("bnbenv bundle", *_elsewhere(directory), *filter(None, words)))


def resolve_command(request: Mapping[str, Any], *words: str) -> str:
    """`bnbenv resolve`, which says what a machine would need, for what a lock was asked for."""
    options: list[str] = [str(request.get("profile", "qlora"))]
    for key in _NARROWING:
        value = request.get(key)
        for one in value if isinstance(value, (list, tuple)) else (value,):
            if one:
                options += [f"--{key.replace('_', '-')}", *([] if one is True else [str(one)])]
    return " ".join(("bnbenv resolve", shlex.join(options), *filter(None, words)))


def _is_local(directory: Path) -> bool:
    """Whether a lock there names files of this machine, by its text: git may have left its marks in it."""
    from bnbenv.lockfile import text

    for path in directory.glob("pylock.*.toml"):
        with suppress(BnbenvError):
            if _LOCAL_FILE.search(text.read_bytes(path)):
                return True
    return False


def _elsewhere(directory: Path, *option: str) -> tuple[str, ...]:
    return () if (place := to_type(directory)) == "." else (*option, place)
