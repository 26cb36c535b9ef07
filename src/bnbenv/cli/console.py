"""Whether a terminal shows colours: the console of Windows has to be asked first. Not run on Windows yet."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

_ESCAPES = 0x0004  # ENABLE_VIRTUAL_TERMINAL_PROCESSING


@cache
def shows_colours(terminal: TextIO) -> bool:
    """Whether a terminal obeys escape sequences; that of Windows prints them until it is told to."""
    if sys.platform == "win32":
        import ctypes
        import msvcrt
        from ctypes import wintypes

        kernel = ctypes.WinDLL("kernel32")
        console = wintypes.HANDLE(msvcrt.get_osfhandle(terminal.fileno()))
        mode = wintypes.DWORD()
        known = kernel.GetConsoleMode(console, ctypes.byref(mode))
        return bool(known and kernel.SetConsoleMode(console, mode.value | _ESCAPES))
    return True
