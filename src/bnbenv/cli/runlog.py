"""The log of a run: what it started and how that ended, without credentials; the last twenty are kept."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT = 20


class RunLog:
    """Collects what a run started; the file appears with its first entry.

    Entries come from `ran`, which workflows hand down as a callback. ``BNBENV_LOG`` names a second file that
    is appended to, entries or none.
    """

    def __init__(self, words: Sequence[str], directory: Path | None = None) -> None:
        self._words = list(words)
        self._directory = directory
        self._files: list[Path] = []
        self._started = time.monotonic()
        self._own: Path | None = None
        if extra := os.environ.get("BNBENV_LOG"):
            self._files.append(Path(extra))
            self._write(self._head())

    def ran(self, arguments: Sequence[str], exit_code: int | None, seconds: float | None = None) -> None:
        """Record one command that has ended; `exit_code` is ``None`` where it never started."""
        from bnbenv.cli.redact import redact_words

        took = f" in {seconds:.1f} s" if seconds is not None else ""
        ended = "did not start" if exit_code is None else f"exit {exit_code}"
        self._open_own()
        self._write(f"{ended}{took}: {' '.join(redact_words(tuple(arguments)))}")

    def note(self, text: str) -> None:
        """Record a line of progress where a log is being written anyway."""
        if self._files:
            from bnbenv.cli.redact import redact

            self._write(redact(text))

    def finish(self, exit_code: int) -> None:
        """Record how the run itself ended."""
        if self._files:
            self._write(f"bnbenv ended with exit {exit_code} after {time.monotonic() - self._started:.1f} s")

    def _head(self) -> str:
        from bnbenv import __version__
        from bnbenv.cli.redact import redact_words

        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        return f"{stamp} bnbenv {__version__}: {' '.join(redact_words(self._words))}"

    def _open_own(self) -> None:
        if self._own is not None:
            return
        from bnbenv.env.layout import Layout

        directory = self._directory or Layout.find(os.environ).runs
        self._own = directory / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.log"
        with suppress(OSError):  # a read-only home must not stop a command that could do its work
            directory.mkdir(parents=True, exist_ok=True)
            self._own.write_text(self._head() + "\n", encoding="utf-8", errors="backslashreplace")
            self._files.append(self._own)
            _forget_old(directory)

    def _write(self, line: str) -> None:
        for path in self._files:
            # An argument need not be valid text; it must not stop the command that it was given to.
            with suppress(OSError), path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(line + "\n")


def _forget_old(directory: Path) -> None:
    from bnbenv.workflows.belongings import run_logs

    for old in run_logs(directory)[:-KEPT]:
        with suppress(OSError):
            old.unlink()
