from __future__ import annotations

import errno
import os
import pwd  # noqa: F401 - before another user needs it
from typing import TYPE_CHECKING

import pytest

from bnbenv.env import durable, generation
from bnbenv.env.layout import Layout
from bnbenv.errors import BnbenvError, ExternalError
from support import faults

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    return waited


@pytest.mark.parametrize("winerror", [5, 32, 33])
def test_a_file_that_a_scanner_holds_on_windows_is_replaced_a_moment_later(
    winerror: int, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.held_on_windows(2, winerror, "replace", monkeypatch)
    durable.write_whole(tmp_path / "state.json", b"{}")
    assert (tmp_path / "state.json").read_bytes() == b"{}"
    assert len(waits) == 2


def test_a_file_that_stays_open_is_told_with_what_to_do(
    tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.held_on_windows(99, 32, "replace", monkeypatch)
    with pytest.raises(ExternalError, match="another program has it open") as caught:
        durable.write_whole(tmp_path / "state.json", b"{}")
    assert (caught.value.code, list(tmp_path.iterdir())) == ("permission", [])
    assert sum(waits) < 2


def test_a_directory_that_is_used_reads_as_refused_and_the_hint_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = generation.begin(Layout(home=tmp_path).named("qlora"), "a1" * 32)
    faults.held_on_windows(99, 5, "rename", monkeypatch)
    with pytest.raises(ExternalError, match="permission denied") as caught:
        generation.discard(made)
    assert (caught.value.hint or "").startswith("close what may use it, or change permissions")


def test_what_is_refused_for_another_reason_is_not_waited_for(
    tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.held_on_windows(1, 19, "replace", monkeypatch)  # write-protected
    with pytest.raises(ExternalError) as caught:
        durable.write_whole(tmp_path / "state.json", b"{}")
    assert (caught.value.hint or "").startswith("change permissions")
    assert not waits


def test_a_generation_that_a_scanner_holds_is_discarded_a_moment_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = generation.begin(Layout(home=tmp_path).named("qlora"), "a1" * 32)
    faults.held_on_windows(3, 5, "rename", monkeypatch)
    generation.discard(made)
    assert not made.directory.exists()


def _told(path: Path, number: int = errno.EACCES) -> BnbenvError:
    return durable.explained(OSError(number, os.strerror(number)), path, "write")


def test_a_rename_from_one_disk_to_another_is_told_as_that(tmp_path: Path) -> None:
    problem = _told(tmp_path / "package.py", errno.EXDEV)
    assert problem.code == "tool-failed"
    assert "on another disk" in problem.message


def test_who_owns_what_refuses_is_told() -> None:
    with faults.shared_directory() as directory, faults.another_user():
        problem = _told(directory / "missing" / "state.json")
        assert problem.code == "permission"
        assert f"`{directory}` belongs to `root`" in problem.message
        assert problem.hint == (
            "ask `root`, or choose another place (for environments: `BNBENV_HOME`, `--path`)"
        )


def test_a_file_is_named_before_its_directory() -> None:
    with faults.shared_directory() as directory:
        directory.chmod(0o777)
        file = directory / "config.toml"
        file.touch(mode=0o600)
        with faults.another_user():
            assert f"`{file}` belongs to `root`" in _told(file).message


def test_a_directory_that_may_not_be_entered_is_named() -> None:
    with faults.shared_directory() as directory:
        private = directory / "generations"
        private.mkdir(mode=0o700)
        with faults.another_user():
            assert f"`{private}` belongs to `root`" in _told(private / "qlora" / "READY").message


def test_an_owner_without_a_name_is_told_by_number() -> None:
    with faults.shared_directory() as directory:
        file = directory / "state.json"
        file.touch(mode=0o644)
        os.chown(file, 54321, 54321)
        with faults.another_user():
            assert f"`{file}` belongs to user 54321" in _told(file).message


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_nobody_else_is_named_for_what_is_ours(tmp_path: Path, number: int) -> None:
    problem = _told(tmp_path / "state.json", number)
    assert "belongs to" not in problem.message
    assert problem.hint is not None
    assert problem.hint.startswith("change permissions")


def test_a_read_only_disk_is_no_matter_of_owners() -> None:
    with faults.shared_directory() as directory, faults.another_user():
        assert "belongs to" not in _told(directory / "state.json", errno.EROFS).message
