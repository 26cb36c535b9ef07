"""How the command line speaks: results to stdout, progress to stderr, colours only where they can be seen."""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import TYPE_CHECKING, Any, TextIO

from bnbenv.cli.console import shows_colours
from bnbenv.cli.redact import Verbatim, redact, redact_document
from bnbenv.cli.signals import hang_up
from bnbenv.cli.spelling import spelt
from bnbenv.cli.wrapping import width_of, wrapped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnbenv.cli.outcome import Problem
    from bnbenv.cli.runlog import RunLog
    from bnbenv.install.uv import Ran

# What ipykernel sets for what a cell starts with `!`: in a terminal, which passes no answer on.
_OF_A_CELL = {"TERM": "xterm-color", "PAGER": "cat", "GIT_PAGER": "cat"}
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class Ui:
    """The voice of one run.

    Attributes:
        json: stdout belongs to one JSON object.
        verbosity: 0, 1 (``-v``) or 2 (``-vv``).
        quiet: no progress.
    """

    def __init__(
        self,
        *,
        json: bool = False,
        verbosity: int = 0,
        quiet: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
        environ: Mapping[str, str] | None = None,
        log: RunLog | None = None,
    ) -> None:
        self.json = json
        self.verbosity = verbosity
        self.quiet = quiet
        self.stdout = out if out is not None else sys.stdout
        self.stderr = err if err is not None else sys.stderr
        self.environ = os.environ if environ is None else environ
        self.log = log

    # -- writing --------------------------------------------------------------------------------------------

    def out(self, text: str, *, document: bool = False) -> None:
        """A result, for a person; nothing under ``--json``. A document is shown as it would be saved."""
        if not self.json:
            self._write(self.stdout, text, document=document)

    def answer(self, document: Mapping[str, Any]) -> None:
        """The one JSON object on stdout, or one line of a batch."""
        import json

        # ASCII, so that no terminal or pipe encoding can break it.
        _put(self.stdout, json.dumps(redact_document(document)) + "\n")

    def progress(self, text: str) -> None:
        """What is being done; on stderr, silent under ``--quiet``."""
        if self.log is not None:
            self.log.note(text)
        if not self.quiet:
            self._write(self.stderr, text)

    def ran(self, ran: Ran) -> None:
        """A command that has ended: into the run's log, and onto stderr under ``-v``."""
        if self.log is not None:
            self.log.ran(ran.arguments, ran.returncode, ran.seconds)
        self.detail(f"ran: {' '.join(ran.arguments)} (exit {ran.returncode})")

    def detail(self, text: str, *, level: int = 1) -> None:
        """What only ``-v`` (or ``-vv`` with level 2) tells."""
        if self.verbosity >= level and not self.quiet:
            self._write(self.stderr, self.paint(text, "dim", stream=self.stderr))

    def say(self, text: str) -> None:
        """What must be told on stderr, also under ``--quiet``."""
        self._write(self.stderr, text)

    def problem(self, problem: Problem, *, error: bool) -> None:
        """A problem and what to do next."""
        word = (
            self.paint("error", "red", "bold", stream=self.stderr)
            if error
            else self.paint("note", "yellow", "bold", stream=self.stderr)
        )
        self.say(f"{word}: {problem.message}")
        if problem.hint:
            self.say(f"{self.paint('next', 'cyan', 'bold', stream=self.stderr)}: {spelt(problem.hint)}")

    def _write(self, stream: TextIO, text: str, *, document: bool = False) -> None:
        if not isinstance(text, Verbatim):
            text = redact(text)
            text = text if document else wrapped(text, width_of(stream))
        _put(stream, text if text.endswith("\n") else text + "\n")

    # -- asking ---------------------------------------------------------------------------------------------

    @property
    def asks(self) -> bool:
        """Whether there is somebody to ask."""
        in_a_cell = all(self.environ.get(name) == value for name, value in _OF_A_CELL.items())
        return not self.json and not in_a_cell and _is_terminal(sys.stdin) and _is_terminal(self.stderr)

    def confirm(self, question: str, *, yes: bool = False) -> bool:
        """Whether the user agrees; where nobody can be asked the question is printed and work goes on.

        What deletes asks by `bnbenv.cli.deleting`, which does not go on.
        """
        if yes:
            return True
        if not self.asks:
            self.say(f"{question} (nobody to ask: going on)")
            return True
        _put(self.stderr, redact(f"{question} [Y/n] "))
        answer = sys.stdin.readline()
        if not answer:  # the terminal was closed: that is no agreement
            return False
        return answer.strip().lower() in {"", "y", "yes"}

    # -- looks ----------------------------------------------------------------------------------------------

    def colours(self, stream: TextIO | None = None) -> bool:
        """Whether `stream` shows colours: on a terminal, or as ``NO_COLOR`` and ``FORCE_COLOR`` say."""
        if self.environ.get("NO_COLOR"):
            return False
        if self.environ.get("FORCE_COLOR", "") not in {"", "0"}:
            return True
        if self.environ.get("TERM") == "dumb":
            return False
        stream = stream if stream is not None else self.stdout
        return _is_terminal(stream) and shows_colours(stream)

    def paint(self, text: str, *styles: str, stream: TextIO | None = None) -> str:
        """`text` in the named styles, where `stream` (stdout unless told) shows them."""
        if not text or not self.colours(stream):
            return text
        return f"\x1b[{';'.join(_STYLES[style] for style in styles)}m{text}\x1b[0m"

    def table(self, rows: Sequence[tuple[str, ...]], *, header: tuple[str, ...] | None = None) -> str:
        """`rows` as aligned columns; the last one is never padded."""
        every = [*([header] if header else []), *rows]
        if not every:
            return ""
        widths = [max(len(row[i]) for row in every) for i in range(len(every[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in every
        ]
        if header:
            lines[0] = self.paint(lines[0], "bold")
        return "\n".join(lines)


def _put(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        if error.errno != errno.EIO or not _is_device(stream):
            raise
        # A terminal has closed under us. What is kept for it must not fail again as we end.
        _lead_nowhere(stream)
        if not hang_up():
            raise


def _is_device(stream: TextIO) -> bool:
    """Whether a stream leads to a terminal, also to one that has closed, which denies that it is one."""
    return stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)


def _lead_nowhere(stream: TextIO) -> None:
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, stream.fileno())
    finally:
        os.close(devnull)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # a closed stream
        return False
