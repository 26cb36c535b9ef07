"""Generations are listed when they are whole, and what a killed process leaves is cleared, and only that."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bnbenv.env import generation, lease, locking, state, switch, windows
from bnbenv.env.durable import names_in
from bnbenv.env.layout import FACTS, Layout, Place, check_free, prepare
from bnbenv.env.processes import this_process
from bnbenv.errors import BnbenvError, EnvironmentProblem, ExternalError, UsageError
from support import faults

A, B = "a1" * 32, "b2" * 32

# What a create does on disk: state, a file of the venv, READY, switch, prune; under the lock.
_BUILD = """
import sys
from pathlib import Path
from bnbenv.env import generation, locking, state, switch
from bnbenv.env.layout import Layout, prepare
from bnbenv.env.state import State
layout = Layout(home=Path(sys.argv[1]))
if sys.argv[2] == "home":
    place = layout.named("qlora")
else:
    place = layout.at(sys.argv[2], generations=sys.argv[3] == "yes")
prepare(place)
with locking.hold(place.lock):
    generation.sweep(place)
    made = generation.begin(place, sys.argv[4])
    (made.directory / "payload").write_text(sys.argv[4])
    state.write(made.state_file, State(
        name="qlora", profile="qlora", request={}, target={}, matrix="1", lock=sys.argv[4],
        created="2026-11-23T00:00:00Z", python="3.12.0", bnbenv="0.1.0"))
    generation.mark_ready(place, made)
    switch.switch(place, made)
    generation.prune(place, current=made, keep=1)
"""


@pytest.fixture(params=["home", "path", "plain"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    layout = Layout(home=tmp_path / "home")
    if request.param == "home":
        return layout.named("qlora")
    return layout.at(tmp_path / "project" / "env", generations=request.param == "path")


@pytest.fixture
def named(tmp_path: Path) -> Place:
    made = Layout(home=tmp_path / "home").named("qlora")
    prepare(made)
    return made


def _ready(place: Place, digest: str = A) -> generation.Generation:
    made = generation.begin(place, digest)
    generation.mark_ready(place, made)
    return made


def _build_arguments(tmp_path: Path, place: Place, digest: str) -> tuple[object, ...]:
    form = "home" if place.form == "home" else place.link
    return tmp_path / "home", form, "no" if place.form == "plain" else "yes", digest


def test_the_directories_of_the_contract(named: Place) -> None:
    first, second, other = _ready(named), _ready(named), _ready(named, B)
    assert first.directory == named.generations / "a1a1a1a1a1a1-1"
    assert second.directory == named.generations / "a1a1a1a1a1a1-2"
    assert other.directory == named.generations / "b2b2b2b2b2b2-1"
    assert generation.list_generations(named) == (first, second, other)
    assert first.state_file == first.directory / ".bnbenv/state.json"
    assert first.lock_file == first.directory / ".bnbenv/lock.toml"
    assert first.verdict_file == first.directory / ".bnbenv/verdict.json"
    assert first.ready_file == first.directory / ".bnbenv/READY"


def test_what_is_not_finished_is_not_there(named: Place) -> None:
    made = generation.begin(named, A)
    assert not made.ready
    assert generation.list_generations(named) == ()
    with pytest.raises(EnvironmentProblem):
        switch.switch(named, made)
    generation.mark_ready(named, made)
    assert generation.list_generations(named) == (made,)


def test_order_is_by_completion_not_by_clock_or_name(named: Place) -> None:
    made = [_ready(named, B), _ready(named, A), _ready(named, B)]
    os.utime(made[2].ready_file, (1, 1))
    assert list(generation.list_generations(named)) == made


@pytest.mark.parametrize("long_paths", [True, False])
def test_windows_is_asked_whether_it_opens_what_lies_so_deep(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, long_paths: bool
) -> None:
    _ready(place)
    deep = replace(place, generations=place.generations / ("x" * 90), link=place.link / ("x" * 90))
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(windows, "opens_long_paths", lambda: long_paths)
    if long_paths:
        assert generation.begin(deep, A).directory.is_dir()
        return
    with pytest.raises(UsageError, match="characters too long"):
        generation.begin(deep, A)
    assert generation.list_generations(deep) == ()


def test_a_damaged_mark_still_marks(named: Place) -> None:
    made = _ready(named)
    made.ready_file.write_text("{")
    assert generation.list_generations(named) == (made,)
    assert _ready(named).sequence == 1


def test_foreign_directories_are_no_generations(named: Place) -> None:
    for name in ("notes", "a1a1a1a1a1a1-0", "a1a1a1a1a1a1-01", "A1A1A1A1A1A1-1", "a1-1"):
        (named.generations / name / FACTS).mkdir(parents=True)
        (named.generations / name / FACTS / "READY").touch()
    assert generation.list_generations(named) == ()
    generation.sweep(named)
    assert (named.generations / "notes").is_dir()


def test_sweep_clears_the_dead_and_leaves_the_living(named: Place) -> None:
    finished = _ready(named)
    dead = generation.begin(named, A)
    living = generation.begin(named, B)
    child = subprocess.Popen(["sleep", "600"])
    try:
        (dead.facts / "BUILDING").write_text(json.dumps({**this_process().as_dict(), "pid": 2**22 + 1}))
        note = {"host": this_process().host, "pid": child.pid, "start": ""}
        (living.facts / "BUILDING").write_text(json.dumps(note))
        said: list[str] = []
        assert generation.sweep(named, report=said.append) == (dead.directory,)
        assert living.directory.is_dir()
        assert living.directory.name in said[0]
    finally:
        child.kill()
        child.wait()
    assert generation.sweep(named) == (living.directory,)
    assert generation.list_generations(named) == (finished,)
    assert names_in(named.generations) == [finished.directory.name]


def test_a_reader_orphaned_by_a_dead_builder_keeps_nothing(named: Place) -> None:
    """A self-test goes on when bnbenv is killed; it holds no lock and writes nothing."""
    made = generation.begin(named, A)
    (made.facts / "BUILDING").write_text(json.dumps({**this_process().as_dict(), "pid": 2**22 + 1}))
    child = subprocess.Popen(["sleep", "600"], cwd=made.directory)
    try:
        assert generation.sweep(named) == (made.directory,)
    finally:
        child.kill()
        child.wait()


def test_an_orphan_of_nobody_known_keeps_its_directory(named: Place) -> None:
    made = generation.begin(named, A)
    (made.facts / "BUILDING").unlink()
    child = subprocess.Popen(["sleep", "600"], cwd=made.directory)
    try:
        assert generation.sweep(named) == ()
    finally:
        child.kill()
        child.wait()
    assert generation.sweep(named) == (made.directory,)


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b"null", b'{"pid": "x"}', b"\xff"])
def test_an_unreadable_note_is_of_the_dead(named: Place, note: bytes) -> None:
    made = generation.begin(named, A)
    (made.facts / "BUILDING").write_bytes(note)
    assert generation.sweep(named) == (made.directory,)


def test_prune_keeps_the_current_one_and_one_more(named: Place) -> None:
    made = [_ready(named) for _ in range(4)]
    switch.switch(named, made[3])
    tried = generation.prune(named, current=made[3], dry_run=True)
    assert all(one.directory.is_dir() for one in made)
    done = generation.prune(named, current=made[3])
    assert done == tried
    assert done.removed == (made[0].directory, made[1].directory)
    assert generation.list_generations(named) == (made[2], made[3])
    assert generation.prune(named, current=made[3], keep=0).removed == (made[2].directory,)


def test_prune_after_a_rollback_keeps_what_is_current(named: Place) -> None:
    made = [_ready(named) for _ in range(3)]
    generation.prune(named, current=made[0])
    assert generation.list_generations(named) == (made[0], made[2])


@pytest.mark.skipif(sys.platform == "win32", reason="a link needs a privilege there")
def test_prune_keeps_what_is_current_in_a_home_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to("disk")
    place = Layout(home=tmp_path / "home").named("qlora")
    prepare(place)
    made = [_ready(place) for _ in range(3)]
    switch.switch(place, made[0])
    assert switch.current(place) == made[0]
    generation.prune(place, current=switch.current(place), keep=0)
    assert generation.list_generations(place) == (made[0],)


def test_prune_never_takes_one_in_use(named: Place) -> None:
    made = [_ready(named) for _ in range(3)]
    child = subprocess.Popen(["sleep", "600"], cwd=made[0].directory)
    try:
        done = generation.prune(named, current=made[2], keep=0)
        assert done.in_use == ((made[0].directory, (child.pid,)),)
        assert done.removed == (made[1].directory,)
    finally:
        child.kill()
        child.wait()
    assert generation.prune(named, current=made[2], keep=0).removed == (made[0].directory,)


def test_remove_takes_all_that_bnbenv_made_and_nothing_else(place: Place) -> None:
    prepare(place)
    with locking.hold(place.lock):
        switch.switch(place, _ready(place))
        if place.form != "plain":
            (place.generations / "notes.txt").write_text("mine")
        generation.remove(place)
    assert not place.exists
    if place.form != "plain":
        assert names_in(place.generations) == ["notes.txt"]


def test_what_a_user_named_like_a_generation_stays(named: Place) -> None:
    prepare(named)
    mine = generation.directory_of(named) / f"{A[:12]}-1"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    with locking.hold(named.lock):
        made = _ready(named)
        assert made.directory.name == f"{A[:12]}-2"
        switch.switch(named, made)
        assert generation.sweep(named) == ()
        generation.remove(named)
    assert names_in(named.generations) == [mine.name]
    assert names_in(mine) == ["notes.txt"]


def test_what_a_user_put_in_the_place_of_the_link_stays(named: Place, tmp_path: Path) -> None:
    prepare(named)
    with locking.hold(named.lock):
        _ready(named)
        named.link.symlink_to(tmp_path)
        generation.remove(named)
    assert named.link.readlink() == tmp_path
    assert not named.generations.exists()


def test_a_plain_directory_of_the_user_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    place = Layout(home=tmp_path / "home").at(tmp_path / "mine", generations=False)
    with pytest.raises(EnvironmentProblem):
        generation.remove(place)
    assert (tmp_path / "mine").is_dir()


# As an environment is, with a file that comes before `.bnbenv` in every order, and links.
_REMOVE_PLAIN = """
import sys
from pathlib import Path
from bnbenv.env import generation, locking
from bnbenv.env.layout import Layout
place = Layout(home=Path(sys.argv[1])).at(sys.argv[2], generations=False)
if not place.exists:
    with locking.hold(place.lock):
        made = generation.begin(place, "")
        (place.link / "lib" / "site-packages").mkdir(parents=True)
        (place.link / "lib" / "site-packages" / "torch.py").touch()
        (place.link / "lib64").symlink_to("lib")
        (place.link / ".gitignore").touch()
        generation.mark_ready(place, made)
from support import faults
faults.arm(place.link, int(sys.argv[3]))
with locking.hold(place.lock):
    generation.remove(place)
"""


def test_a_killed_removal_of_a_plain_directory_leaves_what_can_be_removed(tmp_path: Path) -> None:
    place = Layout(home=tmp_path / "home").at(tmp_path / "image", generations=False)
    for step in range(1, 40):
        done = faults.child(_REMOVE_PLAIN, tmp_path / "home", place.link, step)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        whole = (place.link / "lib/site-packages/torch.py").exists()
        assert whole or not generation.plain(place).ready
        check_free(place)  # to be built anew
        if (place.link / FACTS / "PLAIN").exists():
            generation.remove(place)
        else:
            assert names_in(place.link) in ([], [FACTS])
            shutil.rmtree(place.link, ignore_errors=True)
    else:
        pytest.fail("never through")
    assert step > 6
    assert not place.exists


def test_a_failed_build_in_a_plain_directory_deletes_nothing(tmp_path: Path) -> None:
    place = Layout(home=tmp_path / "home").at(tmp_path / "image", generations=False)
    made = _ready(place)
    (place.link / "notes.txt").write_text("mine")
    generation.discard(made)
    assert (place.link / "notes.txt").is_file()


def test_what_a_dead_writer_left_in_a_plain_directory_is_swept(tmp_path: Path) -> None:
    place = Layout(home=tmp_path / "home").at(tmp_path / "image", generations=False)
    made = _ready(place)
    left = made.facts / ".state.json.4194305-0badcafe.tmp"
    left.touch()
    assert generation.sweep(place) == ()
    assert not left.exists()
    assert made.ready


def test_a_lock_that_may_not_be_deleted_while_it_is_held_stays(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is on Windows."""
    unlink = Path.unlink

    def refuse(path: Path, *, missing_ok: bool = False) -> None:
        if path == place.lock:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        unlink(path, missing_ok=missing_ok)

    prepare(place)
    with locking.hold(place.lock):
        switch.switch(place, _ready(place))
        monkeypatch.setattr(Path, "unlink", refuse)
        generation.remove(place)
    assert not place.exists
    assert place.lock.is_file()
    monkeypatch.undo()
    prepare(place)


def test_a_plain_directory_is_not_ready_while_it_is_rebuilt(tmp_path: Path) -> None:
    place = Layout(home=tmp_path / "home").at(tmp_path / "image", generations=False)
    made = _ready(place)
    assert switch.current(place) == made
    generation.begin(place, B)
    assert switch.current(place) is None
    assert generation.list_generations(place) == ()


def _works(place: Place, digests: set[str]) -> str:
    """What the environment holds, seen as a user does; it must be whole and of one of the builds."""
    text = (place.link / "payload").read_text()
    assert text in digests
    assert state.read(place.link / FACTS / "state.json").lock == text
    return text


@pytest.mark.parametrize("form", ["home", "path"])
def test_a_kill_at_every_step_leaves_the_old_environment_working(tmp_path: Path, form: str) -> None:
    layout = Layout(home=tmp_path / "home")
    place = layout.named("qlora") if form == "home" else layout.at(tmp_path / "project" / "env")
    done = faults.child(_BUILD, *_build_arguments(tmp_path, place, A))
    assert done.returncode == 0, done.stderr
    old = switch.require_current(place)
    steps = 0
    for step in faults.killed_at_every_step(_BUILD, tmp_path, *_build_arguments(tmp_path, place, B)):
        seen = _works(place, {A, B})
        current = switch.require_current(place)
        assert all((made.directory / "payload").is_file() for made in generation.list_generations(place))
        assert (current.directory / "payload").read_text() == seen
        if step == 0:
            assert seen == B
            continue
        steps += 1
        with locking.hold(place.lock, timeout=60):
            generation.sweep(place)
            # Back to the start, for the next kill: the old one current, and nothing else.
            switch.switch(place, old)
            generation.prune(place, current=old, keep=0)
        assert [made.directory for made in generation.list_generations(place)] == [old.directory]
        left = {entry for entry in names_in(place.generations) if entry not in {".lock", ".gitignore"}}
        assert left == {old.directory.name}
        assert not [entry for entry in names_in(place.link.parent) if entry.endswith(".tmp")]
    assert steps >= 12


@pytest.mark.parametrize("form", ["home", "path", "plain"])
def test_a_kill_at_every_step_of_the_first_build_lists_nothing_half_made(tmp_path: Path, form: str) -> None:
    layout = Layout(home=tmp_path / "home")
    place = (
        layout.named("qlora") if form == "home" else layout.at(tmp_path / "env", generations=form == "path")
    )
    steps = 0
    for step in faults.killed_at_every_step(_BUILD, tmp_path, *_build_arguments(tmp_path, place, A)):
        for made in generation.list_generations(place):
            assert (made.directory / "payload").read_text() == A
            assert state.read(made.state_file).lock == A
        if switch.current(place) is not None:
            _works(place, {A})
        # The next run must get through from whatever this one left; every third leftover is built upon.
        if step and step % 3 == 0:
            done = faults.child(_BUILD, *_build_arguments(tmp_path, place, A))
            assert done.returncode == 0, done.stderr
            _works(place, {A})
        if step:
            steps += 1
            if place.link.is_symlink():
                place.link.unlink()
            for directory in (place.generations, place.link, tmp_path / "home"):
                if directory != tmp_path and directory.is_dir():
                    shutil.rmtree(directory)
    assert steps >= 12


@pytest.mark.parametrize("kib", [12, 16, 20, 24, 32])
def test_a_full_disk_is_told_and_leaves_the_old_environment(tmp_path: Path, kib: int) -> None:
    with faults.small_disk(tmp_path / "disk", kib=512) as disk:
        place = Layout(home=disk / "home").named("qlora")
        old = _ready(place)
        (old.directory / "payload").write_text("old")
        switch.switch(place, old)
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "filler").write_bytes(b"x" * (free - kib * 1024 - 4096))
        code = ""
        try:
            made = generation.begin(place, B)
            (made.directory / "payload").write_bytes(b"new" * 1000)
            generation.mark_ready(place, made)
            switch.switch(place, made)
            expected = "new" * 1000
        except (BnbenvError, OSError) as error:
            expected, code = "old", getattr(error, "code", "the payload's own")
        assert (place.link / "payload").read_text() == expected
        assert code in {"", "disk-full", "the payload's own"}
        (disk / "filler").unlink()
        generation.sweep(place)
        assert generation.debris(place) == ()
        assert (place.link / "payload").exists()


def test_the_smallest_disk_was_really_full(tmp_path: Path) -> None:
    with faults.small_disk(tmp_path / "disk", kib=64) as disk:
        place = Layout(home=disk).named("qlora")
        prepare(place)
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "filler").write_bytes(b"x" * free)
        with pytest.raises(ExternalError) as caught:
            generation.mark_ready(place, generation.begin(place, A))
        assert caught.value.code == "disk-full"


def test_a_read_only_home_is_told(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with faults.read_only(home), pytest.raises(ExternalError) as caught:
        generation.begin(Layout(home=home).named("qlora"), A)
    assert caught.value.code == "permission"
    assert "BNBENV_HOME" in (caught.value.hint or "")


def test_a_write_beyond_a_limit_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "state.json"
    target.write_text("old")
    code = """
import sys
from pathlib import Path
from support import faults
from bnbenv.env import durable
from bnbenv.errors import ExternalError
faults.limit_file_size(100)
try:
    durable.write_whole(Path(sys.argv[1]), b"x" * 101)
except ExternalError as error:
    assert error.code == "disk-full", error.code
else:
    raise SystemExit("nothing was raised")
"""
    done = faults.child(code, target)
    assert done.returncode == 0, done.stderr
    assert names_in(tmp_path) == ["state.json"]
    assert target.read_text() == "old"


def test_the_kill_really_kills(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from support import faults
faults.arm(Path({str(tmp_path)!r}), 2)
Path({str(tmp_path / "one")!r}).touch()
Path({str(tmp_path / "two")!r}).touch()
"""
    assert faults.child(code).returncode == -signal.SIGKILL
    assert names_in(tmp_path) == ["one"]


def test_a_lease_ends_with_its_process(named: Place) -> None:
    made = _ready(named)
    code = """
import sys
from pathlib import Path
from bnbenv.env import lease
assert lease.take(Path(sys.argv[1]), command="run") is not None
print("taken", flush=True)
sys.stdin.readline()
"""
    with subprocess.Popen(
        faults.python_command(code, made.directory),
        env=faults.child_environ(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert lease.users(made.directory) == (child.pid,)
        assert generation.prune(named, current=None, keep=0).in_use == ((made.directory, (child.pid,)),)
        child.kill()
        child.wait()
    assert lease.users(made.directory) == ()
    assert names_in(made.facts / "leases") == []  # the stale one is gone
