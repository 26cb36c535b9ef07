"""Run a program that may hang, and give it up in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_GRACE = 1.0  # seconds for a killed program to disappear


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a program said.

    Attributes:
        status: its exit status; ``None`` when it did not end in time or could not be started.
        output: standard output.
        errors: standard error, or why it could not be started.
        timed_out: whether it was given up.
    """

    status: int | None
    output: str = ""
    errors: str = ""
    timed_out: bool = False


def ask(command: Sequence[str], *, environ: Mapping[str, str], timeout: float) -> Answer:
    """Run a program to its end or to the time limit.

    A process that waits inside a broken kernel module ignores SIGKILL. Therefore it is killed and then
    *left*: waiting for it, as `subprocess.run` does, would hang as long as the driver does.

    Args:
        command: program and arguments.
        environ: its whole environment.
        timeout: seconds.
    """
    import subprocess

    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environ),
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        return Answer(status=None, errors=str(error))
    try:
        output, errors = process.communicate(timeout=timeout)
    except KeyboardInterrupt:
        process.kill()
        raise
    except subprocess.TimeoutExpired:
        process.kill()
        try:
            process.communicate(timeout=_GRACE)
        except subprocess.TimeoutExpired:
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
            # Marked as ended, so that the garbage collector neither waits nor warns.
            process.returncode = -9
        return Answer(status=None, timed_out=True)
    return Answer(status=process.returncode, output=output, errors=errors)
