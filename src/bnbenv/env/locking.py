"""One writer an environment at a time: a lock held by bnbenv and by every child that writes for it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Literal

from bnbenv.dataclass import dataclass
from bnbenv.env import durable, processes
from bnbenv.errors import ExternalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Method = Literal["flock", "directory"]

_POLL = 0.05  # seconds between two tries at first; more and more, up to the next
_LONGEST_POLL = 0.5
_REMIND = 60.0  # seconds between two words about waiting
_HELD = {errno.EACCES, errno.EDEADLK}  # what Windows answers where another process holds the bytes
_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A lock that is held.

    Attributes:
        fd: an inheritable descriptor; whoever inherits it holds the lock too, until it ends.
    """

    fd: int

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """For ``subprocess``: what a child that writes must inherit. Windows uses a job object instead."""
        return () if sys.platform == "win32" else (self.fd,)


class _FlockUnusableError(Exception):
    """The file system has no working flock."""


@contextlib.contextmanager
def hold(
    path: Path,
    report: Callable[[str], None] = lambda _: None,
    *,
    command: str = "",
    timeout: float | None = None,
    method: Method | None = None,
) -> Iterator[Hold]:
    """Hold the lock at `path`, waiting for whoever has it; the waiting is told once a minute.

    The lock is given up by closing, never by unlocking: a child that still writes goes on holding it.

    Args:
        path: the lock file; it and its directory are made where missing.
        report: told who holds the lock, and where flock does not work.
        command: what this process is doing, for those who wait for it.
        timeout: seconds to wait; ``None`` waits for ever.
        method: forces one way; else flock, or an exclusive directory where flock does not work.

    Raises:
        ExternalError: code ``locked`` after `timeout`; ``permission``, ``disk-full``.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    waiting = _Waiting(path=path, report=report, deadline=deadline)
    if sys.platform == "win32":
        with _hold_msvcrt(path, waiting, command) as held:
            yield held
        return
    if method != "directory":
        try:
            descriptor = _take_flock(path, waiting)
        except _FlockUnusableError:
            if method == "flock":
                raise ExternalError(
                    f"`{path}` cannot be locked: the file system has no flock", code="locked"
                ) from None
        else:
            try:
                _note_holder(descriptor, command)
                yield Hold(fd=descriptor)
            finally:
                os.close(descriptor)
            return
    from bnbenv.env import exclusive

    report(f"file locks do not work in `{path.parent}`; using an exclusive directory there instead")
    with exclusive.hold(path.with_name(path.name + ".d"), waiting.wait, command=command) as descriptor:
        yield Hold(fd=descriptor)


class _Waiting:
    """Waits a little, says for whom, and gives up at the deadline."""

    def __init__(self, *, path: Path, report: Callable[[str], None], deadline: float | None) -> None:
        self._path = path
        self._report = report
        self._deadline = deadline
        self._told: float | None = None
        self._poll = _POLL

    def wait(self, describe: Callable[[], str]) -> None:
        now = time.monotonic()
        if self._deadline is not None and now >= self._deadline:
            raise ExternalError(
                f"the environment is being changed by {describe()}; waited in vain for `{self._path}`",
                hint="wait for it to finish and try again",
                code="locked",
            )
        if self._told is None or now - self._told >= _REMIND:
            self._report(f"waiting for {describe()}, which is changing this environment")
            self._told = now
        time.sleep(self._poll)
        self._poll = min(self._poll * 1.5, _LONGEST_POLL)


def describe_holder(path: Path) -> str:
    """Who holds the lock at `path`, in words, as far as its file and `/proc` tell.

    The note in it may be of one who held it before: who may not write the file leaves none, and neither do
    the children of one that was killed.
    """
    note: Any = None
    with contextlib.suppress(OSError, ValueError):
        note = json.loads(path.read_bytes())
    if not isinstance(note, dict):
        return "another process"
    words = holder_words(note)
    with contextlib.suppress(ValueError):
        if processes.is_alive(processes.ProcessIdentity.from_dict(note)) is False:
            commands = {pid: processes.command_of(pid) for pid in processes.opened_by(path)}
            others = [f"process {pid} (`{it}`)" for pid, it in commands.items() if it and pid != os.getpid()]
            who = ", ".join(others[:3]) or "another process"
            return f"{who} (the last one noted, {words}, has ended)"
    return words


def holder_words(note: dict[str, Any]) -> str:
    """A holder's note as a phrase: process, host, command, since when."""
    host = str(note.get("host", "")).partition("/")[0]
    where = f"process {note.get('pid', '?')} on {host or 'an unknown host'}"
    command = f" (`{note['command']}`)" if note.get("command") else ""
    return f"{where}{command}, since {note.get('since', 'an unknown time')}"


def holder_note(command: str) -> bytes:
    """What a holder writes about itself."""
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return (
        json.dumps({**processes.this_process().as_dict(), "command": command, "since": since}) + "\n"
    ).encode()


def _open_lock(path: Path) -> int:
    with durable.told(path, "lock"):
        # `remove` takes the directory away too, maybe while we wait for the lock in it.
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _opened(path)
    os.set_inheritable(descriptor, True)  # noqa: FBT003 - the standard library's own
    return descriptor


def _opened(path: Path) -> int:
    # A link under a lock's name would let the holder's note be written into what it leads to.
    beside = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | beside, 0o666)
    except PermissionError:
        # A lock that another user's umask kept for that user must not keep out who may write beside it.
        if sys.platform == "win32" or not durable.may_write(path.parent):
            raise
        return os.open(path, os.O_RDONLY | beside)


def _take_flock(path: Path, waiting: _Waiting) -> int:
    while True:
        descriptor = _open_lock(path)
        try:
            if _flock(descriptor) and _is_still_there(descriptor, path):
                if not _excludes(path):
                    raise _FlockUnusableError  # noqa: TRY301 - closed on the way out
                return descriptor
            held_by_another = _is_still_there(descriptor, path)
        except OSError as error:
            os.close(descriptor)
            raise durable.explained(error, path, "lock") from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if held_by_another:
            waiting.wait(lambda: describe_holder(path))


def _flock(descriptor: int) -> bool:
    if sys.platform == "win32":
        raise _FlockUnusableError
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_FLOCK:
            raise _FlockUnusableError from error
        if error.errno == errno.EBADF:  # NFS locks no file that was opened to be read
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from error
        raise
    return True


def _excludes(path: Path) -> bool:
    """Whether flock keeps a second opener out; some network mounts answer yes to everybody."""
    second = _opened(path)
    try:
        return not _flock(second)
    finally:
        os.close(second)


def _is_still_there(descriptor: int, path: Path) -> bool:
    """Whether the locked file is the one at `path`: `remove` deletes it while we may be waiting."""
    try:
        there = path.stat()
    except OSError:
        return False
    ours = os.fstat(descriptor)
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


def _note_holder(descriptor: int, command: str) -> None:
    # Only for those who wait; a full disk must not keep `prune` from freeing space.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder_note(command), 0)


@contextlib.contextmanager
def _hold_msvcrt(path: Path, waiting: _Waiting, command: str) -> Iterator[Hold]:
    """Windows: a byte-range lock, and a job object that ends the children with us. Not run on Windows yet."""
    if sys.platform == "win32":
        import msvcrt

        from bnbenv.env import windows

        windows.end_children_with_us()
        while True:
            descriptor = _open_lock(path)
            try:
                os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # far behind the note, which stays readable
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                break
            except OSError as error:
                os.close(descriptor)
                if error.errno not in _HELD:
                    raise durable.explained(error, path, "lock") from error
                waiting.wait(lambda: describe_holder(path))
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, holder_note(command))
            yield Hold(fd=descriptor)
        finally:
            os.lseek(descriptor, 1 << 20, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
            os.close(descriptor)
    else:
        raise AssertionError("msvcrt exists on Windows only")
