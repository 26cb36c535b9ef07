"""Paths in lines to type, spelt from where the user stands."""

from __future__ import annotations

import os
import shlex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


def to_type(path: Path) -> str:
    """A path as a word of a line to type: relative to the working directory where that is shorter.

    What was typed as a relative path comes back as such; what lies far off stays whole.
    """
    whole = str(path.absolute())
    try:
        near = os.path.relpath(whole)
    except (OSError, ValueError):  # the working directory is gone; or another drive of Windows
        return shlex.quote(whole)
    # `..` after a link leads elsewhere than its text says.
    if len(near) >= len(whole) or os.path.realpath(near) != os.path.realpath(whole):
        return shlex.quote(whole)
    # A word that begins so would be read as an option, or as another user's home.
    return shlex.quote(f"./{near}" if near.startswith(("-", "~")) else near)
