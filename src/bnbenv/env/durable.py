"""Writes that are whole or not there, and file-system errors told as problems a user can act on."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING

from bnbenv.errors import BnbenvError, ExternalError, UsageError
from bnbenv.renames import HELD, OPEN, patiently

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# EFBIG is what a process with a file-size limit meets; for the user it is the same wall.
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}

TEMPORARY_SUFFIX = ".tmp"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)  # Windows would change line ends


def explained(error: OSError, path: Path, doing: str) -> BnbenvError:
    """The problem behind `error`, met while `doing` something to `path` (such as ``write``)."""
    where = f"cannot {doing} `{path}`"
    if error.errno in _FULL:
        return ExternalError(
            f"{where}: the file system is full or a quota is used up",
            hint="free some space (`bnbenv prune`, `uv cache prune`), or choose a larger disk "
            "(for environments: `BNBENV_HOME`)",
            code="disk-full",
        )
    if getattr(error, "winerror", None) in OPEN:
        return ExternalError(
            f"{where}: another program has it open",
            hint="close what uses it (a notebook, an editor, a terminal that stands in it), and try again",
            code="permission",
        )
    if error.errno in _REFUSED:
        other = None if error.errno == errno.EROFS else others(path)
        whose = f"; `{other[0]}` belongs to {other[1]}" if other else ""
        mend = f"ask {other[1]}" if other else "change permissions"
        return ExternalError(
            f"{where}: {os.strerror(error.errno or 0).lower()}{whose}",
            hint=("close what may use it, or " if getattr(error, "winerror", None) in HELD else "")
            + f"{mend}, or choose another place (for environments: `BNBENV_HOME`, `--path`)",
            code="permission",
        )
    if error.errno == errno.EXDEV:
        return ExternalError(
            f"{where}: it is on another disk than what is renamed, as a part of an environment may be",
            hint="keep the environment on one disk, or make another beside it: bnbenv create",
            code="tool-failed",
        )
    if error.errno == errno.ENAMETOOLONG:
        return UsageError(
            f"{where}: the path is too long", hint="choose a shorter name or place", code="bad-name"
        )
    hint = None
    if error.errno == errno.ENOENT and not os.path.isdir(path.parent):  # noqa: PTH112 - it may lie where nobody may look
        from bnbenv.typed_paths import to_type

        hint = f"mkdir -p {to_type(path.parent)}, or choose another place"
    return ExternalError(f"{where}: {error.strerror or error}", hint=hint, code="tool-failed")


def others(path: Path) -> tuple[Path, str] | None:
    """What of another user refuses us at `path`, and that user's name: it, or the directory it stands in."""
    if sys.platform == "win32":
        return None
    import pwd

    for part in (path, *path.parents):
        try:
            owner = os.lstat(part).st_uid
        except OSError:  # it is not there, or its directory may not be entered
            continue
        if owner != os.geteuid() and not may_write(part):
            try:
                return part, f"`{pwd.getpwuid(owner).pw_name}`"
            except KeyError:  # of another machine that shares the disk
                return part, f"user {owner}"
        if part != path:  # the first directory that is there decides
            break
    return None


def may_write(path: Path) -> bool:
    """Whether this user may write the file, or in the directory, that stands there."""
    return _may(path, os.W_OK)


def may_read(path: Path) -> bool:
    """Whether this user may read the file, or list the directory, that stands there."""
    return _may(path, os.R_OK)


def _may(path: Path, how: int) -> bool:
    return os.access(path, how, effective_ids=os.access in os.supports_effective_ids)


@contextlib.contextmanager
def told(path: Path, doing: str) -> Iterator[None]:
    """Turn an ``OSError`` of the block into the problem it means.

    Raises:
        ExternalError: codes ``disk-full``, ``permission``, ``tool-failed``.
        UsageError: code ``bad-name`` where the path is too long.
    """
    try:
        yield
    except OSError as error:
        raise explained(error, path, doing) from error


def temporary_beside(path: Path) -> Path:
    """A hidden name beside `path` that names its maker, so that a sweep can tell whether it lives."""
    return path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}{TEMPORARY_SUFFIX}")


def sync_directory(directory: Path) -> None:
    """Make renames in `directory` survive a power cut, where the system can."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems refuse to sync a directory; the rename itself has happened.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS}:
            raise
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: bytes, *, flush: bool = True, mode: int = 0o666) -> None:
    """Put `data` at `path`: a reader sees the old bytes or the new ones, also after a kill or a full disk.

    Args:
        path: in a directory that is there.
        data: all of it.
        flush: wait for the disk, so that this holds after a power cut too; else `flush_all` does, later.
        mode: who may read and write it, from its first moment; less what the umask takes away.

    Raises:
        ExternalError: codes ``disk-full``, ``permission``, ``tool-failed``.
    """
    temporary = temporary_beside(path)
    with told(path, "write"):
        try:
            with os.fdopen(os.open(temporary, _NEW, mode), "wb") as stream:
                stream.write(data)
                if flush:
                    stream.flush()
                    os.fsync(stream.fileno())
            patiently(lambda: temporary.replace(path))
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        if flush:
            sync_directory(path.parent)


def flush_all(files: Iterable[Path]) -> None:
    """Wait until files that stand already, and their names, are on the disk.

    Raises:
        ExternalError: codes ``disk-full``, ``permission``, ``tool-failed``.
    """
    written = tuple(files)
    for path in written:
        with told(path, "write"):
            descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    for directory in {path.parent: None for path in written}:
        with told(directory, "write"):
            sync_directory(directory)


def names_in(directory: str | Path) -> list[str]:
    """The names of what stands in `directory`, sorted; none where it cannot be read."""
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208 - names are wanted, and /proc is walked with it
    except OSError:
        return []


def temporaries_in(directory: Path) -> Iterator[tuple[Path, int]]:
    """The temporary entries that `temporary_beside` named in `directory`, each with its maker's pid."""
    for entry in names_in(directory):
        if not (entry.startswith(".") and entry.endswith(TEMPORARY_SUFFIX)):
            continue
        maker = entry.removesuffix(TEMPORARY_SUFFIX).rpartition(".")[2].partition("-")[0]
        if maker.isascii() and maker.isdigit():
            yield directory / entry, int(maker)
