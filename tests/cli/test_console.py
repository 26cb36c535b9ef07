from __future__ import annotations

import ctypes
import io
import sys
from types import SimpleNamespace

import pytest

from bnbenv.cli.console import shows_colours
from bnbenv.cli.ui import Ui


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1


class Kernel:
    """The two calls of Windows' console, as documented: zero where it is refused."""

    def __init__(self, *, mode: int | None, obeys: bool) -> None:
        self.mode, self.obeys = mode, obeys

    def GetConsoleMode(self, _console: object, mode: object) -> int:  # noqa: N802 - Windows' name
        if self.mode is None:
            return 0
        mode._obj.value = self.mode  # type: ignore[attr-defined]
        return 1

    def SetConsoleMode(self, _console: object, mode: int) -> int:  # noqa: N802
        if self.obeys:
            self.mode = mode
        return int(self.obeys)


@pytest.mark.parametrize(
    ("kernel", "coloured", "mode"),
    [
        (Kernel(mode=3, obeys=True), True, 7),
        (Kernel(mode=7, obeys=True), True, 7),
        (Kernel(mode=3, obeys=False), False, 3),
        (Kernel(mode=None, obeys=True), False, None),
    ],
    ids=["told", "told before", "too old", "no console"],
)
def test_windows_is_told_to_obey_escapes(
    kernel: Kernel, coloured: bool, mode: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(ctypes, "WinDLL", lambda _: kernel, raising=False)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(get_osfhandle=lambda _: 7))
    assert ("\x1b[" in Ui(out=Terminal(), environ={}).paint("word", "red")) is coloured
    assert kernel.mode == mode


def test_other_terminals_do_as_they_are() -> None:
    assert shows_colours(Terminal())
