"""Chooses how files get from uv's cache into an environment: by trying it there, not by guessing."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Literal

from bnbenv.dataclass import dataclass
from bnbenv.errors import ExternalError, UsageError

Mode = Literal["clone", "hardlink", "copy"]
MODES: tuple[Mode, ...] = ("clone", "hardlink", "copy")
_FICLONE = 0x40049409  # linux/fs.h: share the extents of one file with another


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkMode:
    """How files are shared with uv's cache.

    Attributes:
        mode: uv's name of it.
        reason: why this one, in one sentence.
    """

    mode: Mode
    reason: str


def wanted_link_mode(asked: str, configured: str | None) -> Mode | None:
    """What bnbenv is asked for, else what uv is configured to do; ``None`` leaves it to `choose_link_mode`.

    uv's ``symlink`` is not taken: such an environment goes with the cache.
    """
    return next((mode for wanted in (asked, configured) for mode in MODES if mode == wanted), None)


def choose_link_mode(cache: Path, target: Path, *, requested: str | None = None) -> LinkMode:
    """The cheapest way that works between uv's cache and the directory that will hold the environment.

    Args:
        cache: uv's cache; made if it is not there, as uv would.
        target: an existing directory on the file system of the environment.
        requested: the user's choice, which is kept.

    Raises:
        UsageError: the requested mode is none.
        ExternalError: code ``permission``; nothing can be written in one of the directories.
    """
    if requested is not None:
        for mode in MODES:
            if requested == mode:
                return LinkMode(mode=mode, reason="as requested")
        raise UsageError(f"`{requested}` is no link mode", hint=f"use one of {', '.join(MODES)}")
    with _scratch(cache) as near, _scratch(target) as far:
        source = Path(near) / "probe"
        source.write_bytes(b"bnbenv" * 1024)
        if _clones(source, Path(far) / "clone"):
            return LinkMode(mode="clone", reason="the file system shares the contents of copied files")
        try:
            os.link(source, Path(far) / "link")
        except OSError:
            if cache.stat().st_dev != target.stat().st_dev:
                return LinkMode(
                    mode="copy",
                    reason=f"uv's cache {cache} and {target} are on different file systems, "
                    "so that every file takes its space twice",
                )
            return LinkMode(mode="copy", reason="the file system has no hard links")
    return LinkMode(mode="hardlink", reason="files are shared with uv's cache by hard links")


def _scratch(directory: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".bnbenv-probe-", dir=directory)
    except OSError as problem:
        raise ExternalError(
            f"nothing can be written in {directory}: {problem.strerror or problem}",
            code="permission",
            hint="choose a place you may write to: `--path DIR`, `BNBENV_HOME` or `UV_CACHE_DIR`",
        ) from problem


def _clones(source: Path, target: Path) -> bool:
    if sys.platform == "darwin":
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        return hasattr(library, "clonefile") and not library.clonefile(
            os.fsencode(source), os.fsencode(target), 0
        )
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        with source.open("rb") as near, target.open("wb") as far:
            fcntl.ioctl(far.fileno(), _FICLONE, near.fileno())
    except OSError:
        return False
    return True
