"""What stops bnbenv from outside: Ctrl-C, `kill`, a scheduler, a container that ends, a closed terminal."""

from __future__ import annotations

import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Stopped(KeyboardInterrupt):
    """A signal asks bnbenv to end: whoever cleans up after Ctrl-C cleans up after any of them.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def listen() -> None:
    """From now on a signal that stops bnbenv ends what bnbenv has started, and raises `Stopped`.

    An ignored signal stays ignored: `nohup` counts on it. Windows sends Ctrl-C to every process of the
    console, and has none of the others.
    """
    if sys.platform == "win32":
        return
    for name in _NAMES:
        number = getattr(signal, name)
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def exit_code_of(stop: KeyboardInterrupt) -> int:
    """128 and the signal, as shells tell the end of a program that a signal ended."""
    return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)


def _stop(number: int, _frame: FrameType | None) -> None:
    # One that closes a terminal hangs up twice, and what sees to the end must not be stopped by the second.
    # Ctrl-C remains, for who cannot wait.
    for other in _NAMES[1:]:
        if signal.getsignal(code := getattr(signal, other)) is _stop:
            signal.signal(code, _pass)
    _end_children()
    raise Stopped(number)


def _pass(_number: int, _frame: FrameType | None) -> None:
    """Nothing; unlike what SIG_IGN does, a child still hears the signal."""


def _end_children() -> None:
    """A terminal sends Ctrl-C to uv and the self-test too; `kill` does not, and threads wait for them."""
    from contextlib import suppress  # every start would wait for it

    try:
        import psutil

        children = psutil.Process().children(recursive=True)
    except Exception:  # noqa: BLE001 - no `/proc`, or stopped amid that import: they end by themselves
        return
    for child in children:
        with suppress(psutil.Error):  # it has ended, or is another user's
            child.terminate()
