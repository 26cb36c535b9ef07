"""The variables with which a process runs in one generation, and in that one only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bnbenv.env.generation import python_in

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def environ_for(generation: Path, environ: Mapping[str, str], *, name: str | None = None) -> dict[str, str]:
    """`environ`, changed as an activation script would, with the generation's real path.

    Args:
        generation: the generation, or any venv; links in the path are resolved here, once.
        environ: the caller's variables, which are kept but for `PYTHONHOME`.
        name: shown in the prompt by shells that look for it.
    """
    real = os.path.realpath(generation)
    scripts = os.path.dirname(python_in(type(generation)(real)))  # noqa: PTH120 - text in, text out
    rest = [part for part in environ.get("PATH", os.defpath).split(os.pathsep) if part != scripts]
    changed = {
        key: value for key, value in environ.items() if key not in {"PYTHONHOME", "__PYVENV_LAUNCHER__"}
    }
    changed["PATH"] = os.pathsep.join([scripts, *rest])
    changed["VIRTUAL_ENV"] = real
    if name is not None:
        changed["VIRTUAL_ENV_PROMPT"] = name
    return changed
