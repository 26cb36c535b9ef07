"""Notices a file system that is mounted so that nothing on it can be run, and no library loaded."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bnbenv.errors import ExternalError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def refuse_noexec(place: Path, *, flags: Callable[[Path], int] | None = None) -> None:
    """Stop before anything is fetched for an environment that could not start.

    Args:
        place: where it will stand; need not exist yet.
        flags: of the file system under a directory that is there, as `os.statvfs` tells them.

    Raises:
        ExternalError: code ``permission``.
    """
    mask = getattr(os, "ST_NOEXEC", None)
    if mask is None:  # Windows and macOS do not tell
        return
    there = place.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if (flags or _flags)(there) & mask:
        raise ExternalError(
            f"`{there}` is mounted `noexec`: no library can be loaded and no program run from there",
            hint="choose a place on another file system: `BNBENV_HOME` or `--path DIR`",
            code="permission",
        )


def _flags(directory: Path) -> int:
    try:
        return os.statvfs(directory).f_flag
    except OSError:
        return 0
