"""Who uses a generation is seen, and who has ended is not counted."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from bnbenv.env import lease, processes
from bnbenv.env.layout import FACTS
from bnbenv.env.processes import ProcessIdentity
from support import faults

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="only /proc shows what others hold"
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "0123456789ab-1" / FACTS).mkdir(parents=True)
    return tmp_path / "0123456789ab-1"


@contextmanager
def working(arguments: Sequence[str], where: Path) -> Iterator[int]:
    """A Python at work in a directory, which has said that it is up."""
    child = subprocess.Popen(
        [sys.executable, *arguments], cwd=where, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        yield child.pid
    finally:
        child.communicate("\n", timeout=60)


def test_a_lease_is_taken_and_given_back(directory: Path) -> None:
    taken = lease.take(directory, command="shell")
    assert taken is not None
    assert lease.users(directory) == (os.getpid(),)
    lease.release(taken)
    lease.release(taken)
    assert lease.users(directory) == ()


def test_where_nothing_can_be_written_there_is_no_lease(directory: Path) -> None:
    with faults.read_only(directory):
        assert lease.take(directory, command="run") is None
    lease.release(None)


def _put(directory: Path, name: str, **identity: object) -> Path:
    (directory / FACTS / "leases").mkdir(exist_ok=True)
    path = directory / FACTS / "leases" / name
    path.write_text(json.dumps(identity))
    return path


def test_a_reused_number_a_dead_process_and_garbage_do_not_count(directory: Path) -> None:
    me = processes.this_process()
    stale = [
        _put(directory, "reused.json", **{**me.as_dict(), "start": "another-boot:1"}),
        _put(directory, "dead.json", host=me.host, pid=2**22 + 1, start="x"),
        _put(directory, "garbage.json", pid="many"),
    ]
    (directory / FACTS / "leases" / "broken.json").write_text("{")
    assert lease.users(directory) == ()
    assert not any(path.exists() for path in stale)


def test_a_lease_of_another_host_cannot_be_checked_and_counts(directory: Path) -> None:
    path = _put(directory, "far.json", host="node-7/4026531836", pid=77, start="x")
    assert lease.users(directory) == (77,)
    assert path.exists()


@pytest.mark.parametrize("code", [errno.EACCES, errno.ESTALE])
def test_a_lease_that_cannot_be_read_now_counts_by_its_name(
    directory: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = _put(directory, "77-1.json", host="node-7/4026531836", pid=77, start="x")
    other = _put(directory, "notes.json")

    def refused(self: Path) -> bytes:
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "read_bytes", refused)
    assert lease.users(directory) == (77,)
    assert path.exists()
    assert other.exists()


def test_a_lease_that_goes_while_it_is_looked_at_does_not_count(directory: Path) -> None:
    link = directory / FACTS / "leases" / "77-1.json"
    link.parent.mkdir()
    link.symlink_to(directory / "gone")
    assert lease.users(directory) == ()


@needs_proc
@pytest.mark.parametrize("how", ["mapped", "opened", "stands", "started"])
def test_a_process_without_a_lease_is_seen(directory: Path, how: str) -> None:
    (directory / "lib.bin").write_bytes(b"x" * 8192)
    (directory / "lib.py").write_text("import sys; print('up', flush=True); sys.stdin.readline()")
    wait = "print('up', flush=True); sys.stdin.readline()"
    code = {
        # By the C library: Python's own mmap keeps a descriptor open, a loaded library has none.
        "mapped": "import ctypes, os, sys; f = os.open('lib.bin', os.O_RDONLY); c = ctypes.CDLL(None); "
        "c.mmap.restype = ctypes.c_ssize_t; size = ctypes.c_size_t(4096); zero = ctypes.c_long(0); "
        f"assert c.mmap(None, size, 1, 2, f, zero) != -1; os.close(f); os.chdir('/'); {wait}",
        "opened": f"import os, sys; f = os.open('lib.bin', os.O_RDONLY); os.chdir('/'); {wait}",
        "stands": f"import sys; {wait}",
    }
    arguments = [str(directory / "lib.py")] if how == "started" else ["-c", code[how]]
    with working(arguments, Path("/") if how == "started" else directory) as pid:
        assert lease.users(directory) == (pid,)
    assert lease.users(directory) == ()


@pytest.mark.parametrize("how", ["stands", "started", "beside"])
def test_where_there_is_no_proc_what_every_system_tells_shows_them(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(processes, "_PROC", tmp_path / "none")
    beside = directory.with_name(directory.name + "0")
    beside.mkdir()
    waiting = "import sys; print('up', flush=True); sys.stdin.readline()"
    (directory / "train.py").write_text(waiting)
    arguments = [str(directory / "train.py")] if how == "started" else ["-c", waiting]
    with working(arguments, {"stands": directory, "started": Path("/"), "beside": beside}[how]) as pid:
        assert lease.users(directory) == (() if how == "beside" else (pid,))
    assert lease.users(directory) == ()


@pytest.mark.parametrize("place", ["none", "empty"])
def test_a_linux_without_proc_shows_nobody(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """As in a chroot."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(processes, "_PROC", tmp_path / place)
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / place))
    assert lease.users(directory) == ()


def test_a_neighbour_with_a_longer_name_is_not_this_one(directory: Path) -> None:
    other = directory.with_name(directory.name + "0")
    other.mkdir()
    child = subprocess.Popen(["sleep", "600"], cwd=other)
    try:
        assert lease.users(directory) == ()
    finally:
        child.kill()
        child.wait()


def test_an_identity_survives_its_file_and_garbage_does_not() -> None:
    me = processes.this_process()
    assert ProcessIdentity.from_dict(json.loads(json.dumps(me.as_dict()))) == me
    assert processes.is_alive(me)
    for bad in ({}, {"host": "x", "pid": True, "start": ""}, {"host": "x", "pid": -1, "start": ""}):
        with pytest.raises(ValueError, match="identity"):
            ProcessIdentity.from_dict(bad)


@needs_proc
def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has collected it
    assert processes.start_of(child.pid) is None
    child.wait()


@needs_proc
def test_who_holds_a_file_open(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    assert processes.opened_by(tmp_path / "f") == ()
    with (tmp_path / "f").open():
        assert processes.opened_by(tmp_path / "f") == (os.getpid(),)
    assert processes.opened_by(tmp_path / "missing") == ()
