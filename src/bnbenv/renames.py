"""Renames that wait for a program which has a file open, on Windows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Of Windows: a file is open elsewhere, or a part of it locked. To rename it then, or over it, may be "access
# denied" as well. A virus scanner or an indexer opens all that is new, for a moment.
OPEN = {32, 33}
HELD = {5, *OPEN}
_WAITS = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds


def patiently(rename: Callable[[], object]) -> None:
    """Rename; where Windows refuses because somebody has the file open, try again for a second and a half.

    Raises:
        OSError: as `rename` does.
    """
    for wait in _WAITS:
        try:
            rename()
        except PermissionError as error:  # noqa: PERF203 - a few times at most
            if getattr(error, "winerror", None) not in HELD:
                raise
            time.sleep(wait)
        else:
            return
    rename()
