"""One writer at a time, also when bnbenv is killed and its child is not, and where flock does not work."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from bnbenv.env import exclusive, locking, processes, windows
from bnbenv.errors import ExternalError
from support import faults

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="flock is not of Windows")
METHODS = ["flock", "directory"]

# Holds the lock, says so, and waits to be told to end.
_HOLDER = """
import sys
from pathlib import Path
from bnbenv.env import locking
with locking.hold(Path(sys.argv[1]), command="create qlora", method=sys.argv[2]):
    print("held", flush=True)
    sys.stdin.readline()
print("free", flush=True)
"""

# Holds the lock and starts a child that inherits it and says on the same pipe that it lives.
_PARENT = """
import subprocess, sys
from pathlib import Path
from bnbenv.env import locking
with locking.hold(Path(sys.argv[1]), command="create qlora", method=sys.argv[2]) as held:
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; print('writing', flush=True); sys.stdin.readline()"],
        pass_fds=held.pass_fds,
    )
    child.wait()
"""


class _Started:
    """A child that is driven through its pipes."""

    def __init__(self, code: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            faults.python_command(code, *arguments),
            env=faults.child_environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def expect(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == word

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@pytest.fixture
def started() -> Iterator[list[_Started]]:
    children: list[_Started] = []
    yield children
    for child in children:
        for stream in (child.process.stdin, child.process.stdout):
            if stream is not None:
                stream.close()
        child.process.kill()
        child.process.wait()


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_take_turns_and_the_waiting_one_says_for_whom(
    tmp_path: Path, started: list[_Started], method: locking.Method
) -> None:
    first = _Started(_HOLDER, tmp_path / ".lock", method)
    started.append(first)
    first.expect("held")
    told: list[str] = []

    def report(text: str) -> None:
        told.append(text)
        if text.startswith("waiting"):
            first.go_on()

    with locking.hold(tmp_path / ".lock", report, method=method) as held:
        assert (tmp_path / ".lock.d").is_dir() is (method == "directory")
        assert os.get_inheritable(held.fd)
    waited = [text for text in told if text.startswith("waiting")]
    assert len(waited) == 1
    assert f"process {first.process.pid}" in waited[0]
    assert "create qlora" in waited[0]
    assert "since 20" in waited[0]
    first.expect("free")


@pytest.mark.parametrize("method", METHODS)
def test_a_deadline_names_the_holder(tmp_path: Path, started: list[_Started], method: locking.Method) -> None:
    holder = _Started(_HOLDER, tmp_path / ".lock", method)
    started.append(holder)
    holder.expect("held")
    with (
        pytest.raises(ExternalError, match=f"process {holder.process.pid}") as caught,
        locking.hold(tmp_path / ".lock", timeout=0.2, method=method),
    ):
        pass
    assert caught.value.code == "locked"


@pytest.mark.parametrize("method", METHODS)
def test_the_lock_outlives_a_killed_parent_while_its_child_writes(
    tmp_path: Path, started: list[_Started], method: locking.Method
) -> None:
    parent = _Started(_PARENT, tmp_path / ".lock", method)
    started.append(parent)
    parent.expect("writing")
    parent.process.send_signal(signal.SIGKILL)
    parent.process.wait()
    with (
        pytest.raises(ExternalError) as caught,
        locking.hold(tmp_path / ".lock", timeout=0.3, method=method),
    ):
        pass
    assert caught.value.code == "locked"
    if method == "flock":
        assert " (the last one noted, process " in caught.value.message
        assert ", has ended)" in caught.value.message
    parent.go_on()  # the child reads the same pipe, and ends
    with locking.hold(tmp_path / ".lock", timeout=60, method=method):
        pass


@pytest.mark.parametrize("method", METHODS)
def test_the_lock_outlives_its_block_while_a_child_writes(tmp_path: Path, method: locking.Method) -> None:
    """An interrupted bnbenv leaves the block at once; what it started may need a moment more."""
    with locking.hold(tmp_path / ".lock", method=method) as held:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=held.pass_fds)
    with (
        pytest.raises(ExternalError) as caught,
        locking.hold(tmp_path / ".lock", timeout=0.2, method=method),
    ):
        pass
    assert caught.value.code == "locked"
    child.communicate(timeout=60)
    with locking.hold(tmp_path / ".lock", timeout=60, method=method):
        pass


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_holder_without_children_leaves_the_lock_free(
    tmp_path: Path, started: list[_Started], method: locking.Method
) -> None:
    holder = _Started(_HOLDER, tmp_path / ".lock", method)
    started.append(holder)
    holder.expect("held")
    holder.process.send_signal(signal.SIGKILL)
    holder.process.wait()
    with locking.hold(tmp_path / ".lock", timeout=60, method=method):
        pass


@pytest.mark.parametrize("method", METHODS)
def test_many_processes_never_overlap(tmp_path: Path, method: locking.Method) -> None:
    code = """
import os, sys
from pathlib import Path
from bnbenv.env import locking
base = Path(sys.argv[1])
for turn in range(5):
    with locking.hold(base / ".lock", method=sys.argv[2]):
        os.close(os.open(base / "inside", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        with (base / "turns").open("a") as stream:
            stream.write("x")
        (base / "inside").unlink()
"""
    children = [
        subprocess.Popen(
            faults.python_command(code, tmp_path, method),
            env=faults.child_environ(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
    assert (tmp_path / "turns").read_text() == "x" * 20


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_flock_an_exclusive_directory_is_used_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    import fcntl

    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", refuse)  # a network mount that cannot be had here
    told: list[str] = []
    with locking.hold(tmp_path / ".lock", told.append):
        assert (tmp_path / ".lock.d").is_dir()
    assert any("exclusive directory" in text for text in told)
    assert not (tmp_path / ".lock.d").exists()
    with pytest.raises(ExternalError), locking.hold(tmp_path / ".lock", method="flock"):
        pass


def test_a_flock_that_lets_everybody_in_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    monkeypatch.setattr(fcntl, "flock", lambda _descriptor, _operation: None)  # as some FUSE mounts do
    with locking.hold(tmp_path / ".lock"):
        assert (tmp_path / ".lock.d").is_dir()


def test_who_waits_while_the_environment_is_removed_gets_the_new_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    entered = threading.Event()

    def wait_for_it() -> None:
        with locking.hold(path, lambda _: entered.set(), timeout=60):
            assert path.exists()

    with locking.hold(path):
        waiter = threading.Thread(target=wait_for_it)
        waiter.start()
        assert entered.wait(60)
        path.unlink()
    waiter.join(60)
    assert not waiter.is_alive()
    assert path.exists()


def test_a_lock_taken_on_a_file_that_is_gone_is_not_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking, `remove` may take the file and its directory away."""
    path = tmp_path / "qlora" / ".lock"
    real, calls = locking._flock, iter([True])

    def flock(descriptor: int) -> bool:
        got = real(descriptor)
        if next(calls, False):
            path.unlink()
            path.parent.rmdir()
        return got

    monkeypatch.setattr(locking, "_flock", flock)
    with locking.hold(path) as held:
        assert os.path.samestat(os.fstat(held.fd), path.stat())


def _foreign_lock(directory: Path) -> None:
    directory.mkdir()
    (directory / "holder.json").write_text('{"host": "node-7/1", "pid": 12, "start": "x", "token": "t"}')
    (directory / "beat").write_text("3")


def test_a_holder_on_another_host_counts_as_long_as_its_heart_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _foreign_lock(tmp_path / ".lock.d")
    with (
        pytest.raises(ExternalError, match="process 12 on node-7"),
        locking.hold(tmp_path / ".lock", timeout=0.2, method="directory"),
    ):
        pass
    monkeypatch.setattr(exclusive, "PATIENCE", 0.0)  # a minute is long for a test
    with locking.hold(tmp_path / ".lock", timeout=60, method="directory"):
        pass


def test_only_one_takes_a_dead_lock_away(tmp_path: Path) -> None:
    """Many find the same lock dead at the same time; at every moment one of them at most is inside."""
    code = """
import os, sys
from pathlib import Path
from bnbenv.env import locking
base = Path(sys.argv[1])
sys.stdin.readline()
for turn in range(8):
    pid = os.fork()
    if not pid:
        with locking.hold(base / ".lock", method="directory"):
            os.close(os.open(base / "inside", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            (base / "inside").unlink()
            os._exit(0)  # dies with the lock in its hands
    if os.waitpid(pid, 0)[1]:
        sys.exit("two were inside")
print("through")
"""
    children = [_Started(code, tmp_path) for _ in range(4)]
    for child in children:
        child.go_on()
    for child in children:
        assert child.process.communicate(timeout=120)[0] == "through\n"


@pytest.mark.parametrize(
    ("claimer", "free"), [("dead", True), ("alive", False), ("far", False)], ids=["dead", "alive", "far"]
)
def test_who_died_while_taking_a_dead_lock_away_is_followed(
    tmp_path: Path, claimer: str, *, free: bool
) -> None:
    directory = tmp_path / ".lock.d"
    _foreign_lock(directory)
    me = processes.this_process().as_dict()
    (directory / "holder.json").write_text(json.dumps({**me, "pid": 2**22 + 1, "token": "t"}))
    note = {
        "dead": {**me, "pid": 2**22 + 1},
        "alive": {**me, "pid": os.getppid(), "start": ""},
        "far": {**me, "host": "n"},
    }
    (directory / "claim-0").symlink_to(json.dumps(note[claimer]))
    if free:
        with locking.hold(tmp_path / ".lock", timeout=60, method="directory"):
            pass
    else:
        with pytest.raises(ExternalError), locking.hold(tmp_path / ".lock", timeout=0.2, method="directory"):
            pass


def test_a_reused_process_number_is_not_the_holder(tmp_path: Path) -> None:
    directory = tmp_path / ".lock.d"
    _foreign_lock(directory)
    (directory / "holder.json").write_text(
        f'{{"host": "{processes.this_host()}", "pid": {os.getpid()}, "start": "long-ago", "token": "t"}}'
    )
    with locking.hold(tmp_path / ".lock", timeout=60, method="directory"):
        pass


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with (
        faults.read_only(tmp_path) as directory,
        pytest.raises(ExternalError) as caught,
        locking.hold(directory / ".lock"),
    ):
        pass
    assert caught.value.code == "permission"


def test_a_lock_that_another_user_keeps_shut_does_not_keep_out_who_may_write_beside_it() -> None:
    with faults.shared_directory() as directory:
        directory.chmod(0o777)
        path = directory / ".lock"
        path.touch(mode=0o644)
        with faults.another_user(), locking.hold(path):
            with pytest.raises(ExternalError) as caught, locking.hold(path, timeout=0):
                pass
            assert caught.value.code == "locked"


def test_who_holds_a_lock_that_another_user_keeps_shut_is_not_who_held_it_before() -> None:
    with faults.shared_directory() as directory:
        directory.chmod(0o777)
        path = directory / ".lock"
        before = _Started(_HOLDER, path, "flock")
        before.expect("held")
        before.go_on()
        before.process.communicate()
        path.chmod(0o644)
        with faults.another_user(), locking.hold(path):
            with pytest.raises(ExternalError) as caught, locking.hold(path, timeout=0):
                pass
            assert f"by another process (the last one noted, process {before.process.pid} on" in str(
                caught.value
            )


def test_a_lock_in_another_users_directory_is_not_held() -> None:
    with faults.shared_directory() as directory:
        (directory / ".lock").touch(mode=0o644)
        with (
            faults.another_user(),
            pytest.raises(ExternalError) as caught,
            locking.hold(directory / ".lock"),
        ):
            pass
        assert caught.value.code == "permission"
        assert "belongs to `root`" in caught.value.message


def test_a_disk_that_locks_only_what_may_be_written_refuses_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def flock(_descriptor: int, _how: int) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ExternalError) as caught, locking.hold(tmp_path / ".lock"):
        pass
    assert caught.value.code == "permission"


def test_a_link_under_the_name_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("chapter one")
    (tmp_path / ".lock").symlink_to(thesis)
    with pytest.raises(ExternalError), locking.hold(tmp_path / ".lock"):
        pass
    assert thesis.read_text() == "chapter one"


def test_a_full_disk_does_not_keep_anybody_from_locking(tmp_path: Path) -> None:
    with faults.small_disk(tmp_path / "disk", kib=16) as disk:
        (disk / ".lock").touch()
        with pytest.raises(OSError, match="No space"):
            (disk / "filler").write_bytes(b"x" * 64 * 1024)
        with locking.hold(disk / ".lock"):
            assert not (disk / ".lock.d").exists()


def test_a_kill_at_every_step_of_the_exclusive_directory_leaves_a_lock_that_can_be_had(
    tmp_path: Path,
) -> None:
    code = """
import sys
from pathlib import Path
from bnbenv.env import locking
with locking.hold(Path(sys.argv[1]) / ".lock", method="directory"):
    pass
"""
    steps = 0
    for step in faults.killed_at_every_step(code, tmp_path, tmp_path):
        with locking.hold(tmp_path / ".lock", timeout=60, method="directory"):
            pass
        steps += step > 0
    assert steps >= 5


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EACCES, "locked"), (errno.EDEADLK, "locked"), (errno.ENOLCK, "tool-failed")]
)
def test_on_windows_only_what_means_held_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    def refuse(_descriptor: int, _mode: int, _size: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(windows, "end_children_with_us", lambda: None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=refuse, LK_NBLCK=2))
    with pytest.raises(ExternalError) as caught, locking.hold(tmp_path / ".lock", timeout=0.1):
        pass
    assert caught.value.code == code
