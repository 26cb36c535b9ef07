"""How the user can call this very program again: hints are lines to type, and must work as they stand."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def program(
    argv0: str | None = None, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> str:
    """The words that start bnbenv: ``bnbenv`` where that is found on PATH, else what was typed."""
    env = os.environ if environ is None else environ
    if "UV_RUN_RECURSION_DEPTH" in env:  # set for what `uv run` runs; its PATH ends with it
        return "uv run bnbenv"
    script = Path(sys.argv[0] if argv0 is None else argv0)
    if script.stem.lower() != "bnbenv":  # `python -m bnbenv`
        return shlex.join([sys.executable, "-m", "bnbenv"])
    found = shutil.which("bnbenv", path=env.get("PATH"))
    if found and _without_suffix(found) == _without_suffix(script):
        return "bnbenv"
    try:
        here = Path.cwd() if cwd is None else cwd
    except OSError:  # it was deleted; nothing is relative to it any more
        return shlex.quote(str(script))
    whole = script if script.is_absolute() else here / script
    shown = whole.relative_to(here) if whole.is_relative_to(here) else whole
    return shlex.quote(str(shown))


def _without_suffix(path: str | Path) -> str:
    """The real path of a program; the launchers of Windows take `.exe` off before they tell their own."""
    real = os.path.realpath(path)
    return os.path.normcase(real.removesuffix(real[-4:]) if real.lower().endswith(".exe") else real)
