"""Run one parsed command: its log, its errors, its answer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bnbenv import home
from bnbenv.cli.outcome import Outcome, Problem, envelope, failure, status_of
from bnbenv.cli.signals import exit_code_of
from bnbenv.cli.ui import Ui
from bnbenv.errors import EXIT_BUG, BnbenvError, Interrupted, UsageError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence
    from types import ModuleType


# Access, space, a server or a mount that is gone, and the limits of names and of open files.
_OF_THE_MACHINE = frozenset(
    {"EACCES", "EPERM", "EROFS", "ENOSPC", "EFBIG", "EDQUOT", "EIO", "ESTALE"}
    | {"ENOTCONN", "ETIMEDOUT", "EHOSTDOWN", "EREMOTEIO", "ENAMETOOLONG", "ELOOP", "EMFILE", "ENFILE"}
)


def run(args: Namespace, module: ModuleType, words: Sequence[str]) -> int:
    """Run the command that `module` holds; return the exit code."""
    from bnbenv.cli.runlog import RunLog

    ui = Ui(json=args.json, verbosity=args.verbose, quiet=args.quiet)
    command: str = args.command
    log = ui.log = RunLog(words)
    stopped: KeyboardInterrupt | None = None
    try:
        _stand_somewhere()
        answer = module.run(args, ui)
        outcome = Outcome(exit_code=answer, streamed=True) if isinstance(answer, int) else answer
    except BnbenvError as error:
        outcome = failure(error)
    except KeyboardInterrupt as stop:
        message = "stopped; what had been built before is unchanged"
        outcome, stopped = failure(Interrupted(message, exit_code=exit_code_of(stop))), stop
    except BrokenPipeError:
        raise
    except OSError as error:
        problem = _of_the_machine(error)
        outcome = failure(problem) if problem is not None else _bug(error, words)
    except Exception as error:  # noqa: BLE001 - the one place where a bug becomes a report
        # A path under a home that the system does not know was asked for.
        lacking = home.unknown() if isinstance(error, RuntimeError) else None
        outcome = failure(lacking) if lacking is not None else _bug(error, words)
    log.finish(outcome.exit_code)
    if not outcome.streamed:
        try:
            render(ui, getattr(args, "schema", None) or command, outcome)
        except OSError:
            if stopped is None:
                raise
            raise stopped from None  # what stopped us stopped the reader too, and still tells how we ended
    return outcome.exit_code


def _stand_somewhere() -> None:
    """Every command reads paths from where it was called.

    Raises:
        UsageError: that directory was deleted, or cannot be told.
    """
    try:
        os.getcwd()  # noqa: PTH109 - `pathlib` would do the same, later
    except OSError as error:
        raise UsageError(
            f"the working directory is gone: {error.strerror}", hint="cd to a directory that is there"
        ) from error


def render(ui: Ui, command: str, outcome: Outcome) -> None:
    """Print an outcome: one JSON object, or text on stdout and problems on stderr."""
    if ui.json:
        ui.answer(envelope(command, outcome))
        return
    if outcome.text:
        ui.out(outcome.text, document=outcome.document)
    for problem in outcome.problems:
        ui.problem(problem, error=status_of(outcome.exit_code) != "ok" and problem.code != "notice")


def _of_the_machine(error: OSError) -> BnbenvError | None:
    """What a file or a disk refused where no command foresaw it; ``None`` for what only a bug asks for."""
    import errno
    from pathlib import Path

    from bnbenv.env.durable import explained

    if error.filename is None or errno.errorcode.get(error.errno or 0) not in _OF_THE_MACHINE:
        return None
    return explained(error, Path(os.fsdecode(error.filename)), "use")


def _bug(error: Exception, words: Sequence[str]) -> Outcome:
    from bnbenv.cli.bugreport import write_report

    path = write_report(error, words)
    where = f"a report to paste is in {path}" if path else "the report could not be written anywhere"
    problem = Problem(
        code="bug",
        message=f"bnbenv itself failed: {type(error).__name__}: {error}; {where}",
        hint="paste that report into a new issue of bnbenv",
    )
    data = {"report": str(path) if path else None}
    return Outcome(data=data, exit_code=EXIT_BUG, problems=(problem,))
