"""A lock for file systems without flock: a directory that only one can make, with a heartbeat."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

from bnbenv.env import durable, processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BEAT = 5.0  # seconds between two heartbeats
PATIENCE = 60.0  # seconds without one after which a holder on another host is taken for dead


@contextlib.contextmanager
def hold(directory: Path, wait: Callable[[Callable[[], str]], None], *, command: str) -> Iterator[int]:
    """Hold `directory` as a lock; yields a descriptor that children inherit.

    A holder on this host is dead when its process has ended and no other process has the file `held` open
    (children that still write have). One on another host is dead when its heartbeat, watched on our own
    clock, stood still for a minute; clocks of two hosts are never compared.

    Args:
        directory: the lock.
        wait: called while the holder lives, with what describes it; raises at a deadline.
        command: what this process is doing.
    """
    token = os.urandom(8).hex()
    watch = _Watch()
    while not _make(directory, token, command):
        note = _note(directory)
        if watch.is_dead(directory, note) and _break(directory, note, watch):
            continue
        from bnbenv.env.locking import holder_words

        wait(lambda: holder_words(_note(directory)) if _note(directory) else "another process")
    with durable.told(directory, "lock"):
        descriptor = os.open(directory / "held", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(descriptor, True)  # noqa: FBT003 - the standard library's own
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(directory, token, stop), daemon=True)
    beating.start()
    try:
        yield descriptor
    finally:
        stop.set()
        beating.join()
        os.close(descriptor)
        if _note(directory).get("token") == token:
            if processes.opened_by(directory / "held"):
                # A child that still writes keeps the lock: the directory stays until that one has ended.
                with contextlib.suppress(OSError):
                    (directory / "left").touch()
            else:
                _put_aside(directory)


def _make(directory: Path, token: str, command: str) -> bool:
    """Take the lock in one step: a directory made ready aside, then renamed to a name that must be free."""
    from bnbenv.env.locking import holder_note

    aside = directory.with_name(f".{directory.name}.{os.getpid()}-{token}{durable.TEMPORARY_SUFFIX}")
    with durable.told(directory, "lock"):
        directory.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
        try:
            note = {**json.loads(holder_note(command)), "token": token}
            (aside / "holder.json").write_text(json.dumps(note) + "\n", encoding="utf-8")
            (aside / "beat").write_text("0", encoding="utf-8")
            (aside / "held").touch()
            # rename(2) replaces an empty directory only, and a lock is never empty.
            aside.rename(directory)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                return False
            raise
    return True


def _note(directory: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        note = json.loads((directory / "holder.json").read_bytes())
        if isinstance(note, dict):
            return note
    return {}


class _Watch:
    """Watches one holder's heartbeat on our own clock."""

    def __init__(self) -> None:
        self._seen: tuple[str, bytes] | None = None
        self._since = 0.0
        self._claims: dict[str, float] = {}

    def is_dead(self, directory: Path, note: dict[str, Any]) -> bool:
        with contextlib.suppress(ValueError):
            alive = processes.is_alive(processes.ProcessIdentity.from_dict(note))
            if alive is not None:
                gone = not alive or (directory / "left").exists()
                return gone and not processes.opened_by(directory / "held")
        try:
            beat = (directory / "beat").read_bytes()
        except OSError:
            beat = b""
        now = time.monotonic()
        if self._seen != (str(note.get("token")), beat):
            self._seen = (str(note.get("token")), beat)
            self._since = now
        return now - self._since > PATIENCE

    def is_claimer_dead(self, claim: str) -> bool:
        """The same for one who began to take a dead lock away."""
        with contextlib.suppress(ValueError, AttributeError):
            alive = processes.is_alive(processes.ProcessIdentity.from_dict(json.loads(claim)))
            if alive is not None:
                return not alive
        now = time.monotonic()
        return now - self._claims.setdefault(claim, now) > PATIENCE


def _break(directory: Path, note: dict[str, Any], watch: _Watch) -> bool:
    """Take a dead holder's lock away; false where another is doing so.

    Two who find the same lock dead must not both rename: the second would take the third one's new lock.
    So the right to rename is a claim inside the dead directory itself, reached by its descriptor.
    """
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return True
    try:
        if _note(directory).get("token") == note.get("token") and _claim(handle, watch):
            there = directory.stat()
            ours = os.fstat(handle)
            if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                _put_aside(directory)
                return True
    except FileNotFoundError:
        return True  # another has taken it away
    finally:
        os.close(handle)
    return False


def _claim(handle: int, watch: _Watch) -> bool:
    me = json.dumps(processes.this_process().as_dict())
    for number in range(1000):
        name = f"claim-{number}"
        try:
            os.symlink(me, name, dir_fd=handle)  # a link's text is there as soon as its name is
        except FileExistsError:
            if not watch.is_claimer_dead(os.readlink(name, dir_fd=handle)):
                return False
        else:
            return True
    return False


def _put_aside(directory: Path) -> None:
    if aside := _renamed(directory):
        shutil.rmtree(aside, ignore_errors=True)


def _renamed(directory: Path) -> Path | None:
    aside = directory.with_name(
        f".{directory.name}.{os.getpid()}-{os.urandom(8).hex()}{durable.TEMPORARY_SUFFIX}"
    )
    try:
        directory.rename(aside)
    except OSError:
        return None
    return aside


def _beat(directory: Path, token: str, stop: threading.Event) -> None:
    count = 0
    while not stop.wait(BEAT):
        count += 1
        if _note(directory).get("token") != token:
            return
        with contextlib.suppress(OSError):
            (directory / "beat").write_text(str(count), encoding="utf-8")
