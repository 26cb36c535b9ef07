"""Run a command in one generation, resolved once, with a lease that keeps it from being pruned."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.env import lease
from bnbenv.env.activation import environ_for
from bnbenv.errors import EnvironmentProblem, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType

    from bnbenv.env.generation import Generation


def launch(generation: Generation, command: Sequence[str], environ: Mapping[str, str], *, name: str) -> int:
    """Run `command` in `generation` and wait; its exit code, or 128 + the signal that ended it.

    Raises:
        EnvironmentProblem: code ``python-missing``; this user cannot start the environment's own Python.
        UsageError: there is no such program.
    """
    _refuse_without_python(generation.python, name)
    env = environ_for(generation.directory, environ, name=name)
    program, typed = shutil.which(command[0], path=env["PATH"]), shlex.quote(name)
    if program is None:
        script = Path(command[0]).suffix == ".py" and os.path.isfile(command[0])  # noqa: PTH113 - no error
        raise UsageError(
            f"there is no program `{command[0]}` in `{name}` or on PATH",
            hint=f"bnbenv run {typed} -- python {shlex.join(command)}"
            if script
            else f"bnbenv run {typed} -- python --version, or bnbenv shell {typed}",
        )
    held = lease.take(generation.directory, command=" ".join(command))
    try:
        with _signals() as forward:
            try:
                child = subprocess.Popen([program, *command[1:]], env=env)
            except OSError as error:
                raise UsageError(
                    f"`{program}` cannot be started: {error.strerror or error}",
                    hint=f"where it is a script: bnbenv run {typed} -- python {shlex.quote(command[0])}",
                ) from error
            forward.append(child)
            code = child.wait()
    finally:
        lease.release(held)
    return code if code >= 0 else 128 - code


def _refuse_without_python(python: Path, name: str) -> None:
    """Refuse what would run another Python of PATH, or open a shell with it, as if it were this one."""
    if os.access(python, os.X_OK):
        return
    try:
        python.stat()
        reason = "it may not be executed"
    except OSError as error:
        reason = error.strerror or str(error)
    raise EnvironmentProblem(
        f"the Python of `{name}` cannot be started: `{os.path.realpath(python)}`: {reason}",
        hint=f"bnbenv doctor {shlex.quote(name)}",
        code="python-missing",
    )


def shell_command(environ: Mapping[str, str]) -> list[str]:
    """The user's shell: ``SHELL``, else what the platform has."""
    if sys.platform == "win32":
        return [environ.get("COMSPEC", "cmd.exe")]
    given = environ.get("SHELL", "")
    return [given if given and Path(given).exists() else "/bin/sh"]


@contextmanager
def _signals() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Hand signals on to the child, and outlive it, so that its exit code is ours.

    A terminal sends Ctrl-C to the child as well: we only must not end before it does.
    """
    children: list[subprocess.Popen[bytes]] = []

    def hand_on(number: int, _frame: FrameType | None) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    def wait(_number: int, _frame: FrameType | None) -> None:
        return None

    # A handler, unlike SIG_IGN, is not inherited by the child.
    handlers = {signal.SIGINT: wait, signal.SIGTERM: hand_on}
    for other in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT"):
        if hasattr(signal, other):
            handlers[getattr(signal, other)] = wait if other == "SIGQUIT" else hand_on
    # An ignored signal stays ignored, for us and for the child: `nohup` counts on it.
    before = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield children
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
