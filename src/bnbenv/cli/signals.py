"""What stops bnbenv from outside: Ctrl-C, `kill`, a scheduler, a container that ends, a closed terminal."""

from __future__ import annotations

import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Literal

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


def hang_up() -> bool:
    """Be stopped as by SIGHUP, which comes later than the writes that a closed terminal refuses, if at all.

    Returns:
        ``False`` where nobody listens to that signal here. True too where it is ignored: work goes on then.
    """
    if sys.platform == "win32" or signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        return False
    signal.raise_signal(signal.SIGHUP)
    return True


def exit_code_of(stop: KeyboardInterrupt) -> int:
    """128 and the signal, as shells tell the end of a program that a signal ended."""
    return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)


def _stop(number: int, _frame: FrameType | None) -> None:
    # One that closes a terminal hangs up twice, and what sees to the end must not be stopped by the second.
    # Ctrl-C remains, for who cannot wait.
    for other in _NAMES[1:]:
        if signal.getsignal(code := getattr(signal, other)) is _stop:
            signal.signal(code, _pass)
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, _stop_at_once)
    _end_children("terminate")
    raise Stopped(number)


def _stop_at_once(number: int, _frame: FrameType | None) -> None:
    # Nobody waits for a child any more that takes its time, and none must outlive us: it may hold no lock.
    _end_children("kill")
    raise Stopped(number)


def _pass(_number: int, _frame: FrameType | None) -> None:
    """Nothing; unlike what SIG_IGN does, a child still hears the signal."""


def _end_children(how: Literal["terminate", "kill"]) -> None:
    """A terminal sends Ctrl-C to uv and the self-test too; `kill` does not, and threads wait for them."""
    try:
        import psutil

        children = psutil.Process().children(recursive=True)
    except Exception:  # noqa: BLE001 - no `/proc`, or stopped amid that import: they end by themselves
        return
    for child in children:
        try:  # noqa: SIM105 - the signal may have come amid the import of `contextlib`
            getattr(child, how)()
        except psutil.Error:  # noqa: PERF203 - it has ended, or is another user's
            pass
