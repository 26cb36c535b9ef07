"""Runs a script in another interpreter, watches its event file, and tells how it ended."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from threading import Event

_POLL = 0.1
_TAIL = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a process ended.

    Attributes:
        returncode: negative where a signal ended it, as `subprocess` tells.
        hang: seconds after which it was killed, ``None`` if it ended by itself.
        stderr: the end of what it said.
    """

    returncode: int
    hang: float | None
    stderr: str

    @property
    def how(self) -> str:
        """The end in words."""
        if self.hang is not None:
            return f"gave no sign of life for {self.hang:.0f} s and was killed"
        if self.returncode < 0:
            try:
                name = signal.Signals(-self.returncode).name
            except ValueError:
                name = f"signal {-self.returncode}"
            return f"killed by {name}"
        last = self.stderr.strip().splitlines()[-1:] or [""]
        return f"ended with exit code {self.returncode}" + (f": {last[0]}" if last[0] else "")


def watch(
    command: Sequence[str],
    *,
    events: Path,
    environ: Mapping[str, str],
    cwd: Path,
    stall: float,
    log: Path,
    pass_fds: Sequence[int] = (),
    stop: Event | None = None,
) -> Ended:
    """Run a command to its end, or kill it when its event file has not grown for `stall` seconds.

    Args:
        command: the program and its arguments.
        events: the file that it appends to.
        environ: its whole environment.
        cwd: where it runs.
        stall: seconds.
        log: receives its standard output and error.
        pass_fds: descriptors that it inherits, such as the lock of the environment (POSIX).
        stop: once it is set, the command is killed: a thread hears no Ctrl-C.

    Raises:
        OSError: the program cannot be started.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environ),
            cwd=cwd,
            pass_fds=tuple(pass_fds),
        )
        hang = None
        try:
            size, changed = -1, time.monotonic()
            while process.poll() is None:
                if stop is not None and stop.is_set():
                    break
                grown = events.stat().st_size if events.exists() else 0
                if grown != size:
                    size, changed = grown, time.monotonic()
                elif time.monotonic() - changed > stall:
                    hang = stall
                    process.kill()
                try:
                    process.wait(timeout=_POLL)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    text = log.read_bytes()[-_TAIL:].decode("utf-8", "replace")
    return Ended(returncode=process.returncode, hang=hang, stderr=text)
