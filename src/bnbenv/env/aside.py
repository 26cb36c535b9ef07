"""Keeps the files that an installer is about to replace, and puts them back if it comes to nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from typing import TYPE_CHECKING

from bnbenv.env import durable
from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

_JOURNAL = ".bnbenv-here"
_LIST = "journal.json"


@contextlib.contextmanager
def set_aside(site: Path, *, replaced: Collection[Path], written: Collection[Path]) -> Iterator[None]:
    """Keep what the block replaces, and if it fails leave every file as it was.

    Args:
        site: the directory in which the journal stands meanwhile.
        replaced: files that the block may take away.
        written: files that it may write, whether or not something is there.

    Raises:
        UsageError: code ``permission``; nothing was changed.
    """
    journal = site / _JOURNAL
    kept = sorted({path for path in (*replaced, *written) if os.path.lexists(path)})
    try:
        journal.mkdir()
        for number, path in enumerate(kept):
            _link(path, journal / f"{number}.kept")
        document = {
            "kept": [str(path) for path in kept],
            "written": [str(path) for path in sorted(written)],
            "directories": [str(path) for path in _missing_parents(written)],
        }
        # Written last and whole: without it nothing has been changed yet, and there is nothing to undo.
        durable.write_whole(journal / _LIST, json.dumps(document).encode())
    except OSError as error:
        shutil.rmtree(journal, ignore_errors=True)
        raise refused(site, error.strerror or str(error)) from error
    try:
        yield
    except BaseException:
        _undo(journal)
        raise
    _forget(journal)


def is_half_done(site: Path) -> bool:
    """Whether a killed call left something to put back."""
    return (site / _JOURNAL).is_dir()


def put_back(site: Path) -> None:
    """Undo what a killed call left half done."""
    _undo(site / _JOURNAL)


def refused(site: Path, why: str) -> UsageError:
    """The environment cannot be written."""
    return UsageError(
        f"`{site}` cannot be changed: {why}",
        hint="bnbenv create qlora --base $(command -v python) (an environment beside it)",
        code="permission",
    )


def _undo(journal: Path) -> None:
    from pathlib import Path

    try:
        document = json.loads((journal / _LIST).read_text(encoding="utf-8"))
    except OSError:
        _forget(journal)
        return
    kept = [Path(text) for text in document["kept"]]
    for text in set(document["written"]) - set(document["kept"]):
        _remove(Path(text))
    for number, path in enumerate(kept):
        source = journal / f"{number}.kept"
        if not os.path.lexists(source):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        _link(source, path)
    for text in sorted(document["directories"], key=len, reverse=True):
        directory = Path(text)
        if directory.suffix == ".dist-info":
            shutil.rmtree(directory, ignore_errors=True)  # also what the installer adds unasked
            continue
        shutil.rmtree(directory / "__pycache__", ignore_errors=True)
        with contextlib.suppress(OSError):
            directory.rmdir()
    _forget(journal)


def _forget(journal: Path) -> None:
    # The list first: a list without the files it names would undo what was never done.
    (journal / _LIST).unlink(missing_ok=True)
    shutil.rmtree(journal, ignore_errors=True)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
    if path.suffix == ".py":
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            with contextlib.suppress(OSError):
                compiled.unlink()


def _missing_parents(paths: Iterable[Path]) -> list[Path]:
    missing: set[Path] = set()
    for path in paths:
        for parent in path.parents:
            if parent in missing or parent.is_dir():
                break
            missing.add(parent)
    return sorted(missing)


def _link(source: Path, target: Path) -> None:
    """A second name where the file system has them: installers unlink before they write, never in place."""
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):
        shutil.copy2(source, target, follow_symlinks=False)
