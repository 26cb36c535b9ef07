"""Changes an environment in place by renames alone, and undoes them after a failure or a kill.

What goes is renamed into a work directory on the same file system, what comes is renamed out of it. No file
is opened for writing: an installed file may be hard-linked to uv's cache and to other environments. A journal
is written before the first rename and removed after the last: while it is there, the change is undone by
whoever comes next.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.env import durable
from bnbenv.errors import UPGRADE, EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

WORK = ".bnbenv-repair"
# A directory that still holds something, or is gone, or may not be removed, simply stays.
_STAYS = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.EACCES, errno.EPERM}
_JOURNAL = "journal.json"
_KEPT = "kept"
_STAGED = "staged"
_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """What a change takes away and what it brings.

    Attributes:
        aside: files and links that go.
        place: where a file stands now, in the work directory → where it shall stand.
    """

    aside: frozenset[Path]
    place: Mapping[Path, Path]


def work_directory(prefix: Path) -> Path:
    """Where a change of the environment at `prefix` is prepared."""
    return prefix / WORK


def staging(prefix: Path) -> Path:
    """An empty directory, on the environment's own file system, for what will come.

    Raises:
        ExternalError: codes ``permission``, ``disk-full``.
    """
    work = work_directory(prefix)
    with durable.told(work, "create"):
        shutil.rmtree(work, ignore_errors=True)
        (work / _STAGED).mkdir(parents=True)
        (work / ".gitignore").write_text("*\n", encoding="utf-8")
    return work / _STAGED


def is_half_done(prefix: Path) -> bool:
    """Whether a change was cut off after its first rename."""
    return (work_directory(prefix) / _JOURNAL).is_file()


def heal(prefix: Path) -> bool:
    """Undo what a dead process left half done, and clear what it had prepared; whether anything was undone.

    The environment's lock must be held.

    Raises:
        ExternalError: a file cannot be put back; what could be is.
        EnvironmentProblem: the journal cannot be read, or is a newer bnbenv's; nothing was touched.
    """
    work = work_directory(prefix)
    undone = is_half_done(prefix)
    if undone:
        _undo(work)
    elif work.is_dir():
        shutil.rmtree(work, ignore_errors=True)
    return undone


@contextlib.contextmanager
def replacing(prefix: Path, swap: Swap) -> Iterator[None]:
    """Make the change, and if the block fails leave every file as it was.

    The environment's lock must be held.

    Raises:
        ExternalError: codes ``permission``, ``disk-full``; everything is as it was.
    """
    work = work_directory(prefix)
    aside = {path for path in (*swap.aside, *_with_bytecode(swap)) if os.path.lexists(path)}
    with durable.told(work, "write"):
        (work / _KEPT).mkdir(exist_ok=True)
    moves = [(path, work / _KEPT / str(number)) for number, path in enumerate(sorted(aside))]
    document = {
        "schema": _SCHEMA,
        "aside": [[str(path), str(kept)] for path, kept in moves],
        "place": [[str(staged), str(final)] for staged, final in sorted(swap.place.items())],
        "made": [str(path) for path in _missing_parents(swap.place.values())],
    }
    # Whole and before the first rename: without it nothing has been changed, and nothing is to be undone.
    durable.write_whole(work / _JOURNAL, json.dumps(document).encode())
    try:
        for path, kept in moves:
            with durable.told(path, "change"):
                path.rename(kept)
        _drop_empty({path.parent for path, _ in moves}, below=prefix)
        for staged, final in sorted(swap.place.items()):
            with durable.told(final, "create"):
                final.parent.mkdir(parents=True, exist_ok=True)
                staged.rename(final)
        yield
    except BaseException:
        _undo(work)
        raise
    _forget(work)


def _undo(work: Path) -> None:
    """Put everything back. May itself be cut off and called again: each step looks whether it was done."""
    try:
        document = json.loads((work / _JOURNAL).read_bytes())
        if document["schema"] > _SCHEMA:
            raise EnvironmentProblem(
                f"a change of the environment was interrupted, and the bnbenv that made it is newer: "
                f"`{work / _JOURNAL}` has schema {document['schema']}, this one reads up to {_SCHEMA}",
                hint=UPGRADE,
                code="state-too-new",
            )
        placed = [(Path(staged), Path(final)) for staged, final in document["place"]]
        aside = [(Path(path), Path(kept)) for path, kept in document["aside"]]
        made = [Path(text) for text in document["made"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EnvironmentProblem(
            f"`{work / _JOURNAL}`, the journal of an interrupted change, cannot be read: {error}",
            hint=f"what was set aside is in `{work / _KEPT}`",
            code="state-broken",
        ) from error
    for staged, final in placed:
        if os.path.lexists(final) and not os.path.lexists(staged):
            _remove_bytecode(final)
            with durable.told(final, "put back"):
                staged.parent.mkdir(parents=True, exist_ok=True)
                final.rename(staged)
    for path, kept in aside:
        if os.path.lexists(kept):
            with durable.told(path, "put back"):
                path.parent.mkdir(parents=True, exist_ok=True)
                kept.replace(path)
    for directory in sorted(made, key=lambda path: len(path.parts), reverse=True):
        shutil.rmtree(directory / "__pycache__", ignore_errors=True)
        with contextlib.suppress(OSError):
            directory.rmdir()
    _forget(work)


def _forget(work: Path) -> None:
    # The journal first: a journal without the files it names would undo what was never done.
    with durable.told(work, "change"):
        (work / _JOURNAL).unlink(missing_ok=True)
    shutil.rmtree(work, ignore_errors=True)


def _with_bytecode(swap: Swap) -> set[Path]:
    """The byte code of sources that go, and whatever stands where something comes."""
    more = {final for final in swap.place.values() if os.path.lexists(final)}
    for path in (*swap.aside, *more):
        more.update(_bytecode_of(path))
    return more


def _bytecode_of(path: Path) -> Iterable[Path]:
    if path.suffix != ".py":
        return ()
    return [entry for entry in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc") if entry.is_file()]


def _remove_bytecode(path: Path) -> None:
    for entry in _bytecode_of(path):
        with contextlib.suppress(OSError):
            entry.unlink()


def _drop_empty(directories: Collection[Path], *, below: Path) -> None:
    """Remove directories that the renames have emptied: an empty package directory can still be imported."""
    for directory in sorted(directories, key=lambda path: len(path.parts), reverse=True):
        current = directory
        while current != below and below in current.parents:
            try:
                current.rmdir()
            except OSError as error:
                if error.errno not in _STAYS:
                    raise durable.explained(error, current, "change") from error
                break
            current = current.parent


def _missing_parents(paths: Iterable[Path]) -> list[Path]:
    missing: set[Path] = set()
    for path in paths:
        for parent in path.parents:
            if parent in missing or parent.is_dir():
                break
            missing.add(parent)
    return sorted(missing)
