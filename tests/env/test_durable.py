from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bnbenv.env import durable, generation
from bnbenv.env.layout import Layout
from bnbenv.errors import ExternalError

if TYPE_CHECKING:
    from collections.abc import Callable


class RefusedError(PermissionError):
    """What Windows raises: its own number beside that of C."""

    def __init__(self, winerror: int) -> None:
        super().__init__(errno.EACCES, "Access is denied")
        self.winerror = winerror


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    return waited


def _held(times: int, winerror: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a rename be refused so often, as by a scanner that has the file open."""
    rename: Callable[[Path, Path], Path] = getattr(Path, name)
    left = [winerror] * times

    def refuse(self: Path, target: Path) -> Path:
        if left:
            raise RefusedError(left.pop())
        return rename(self, target)

    monkeypatch.setattr(Path, name, refuse)


@pytest.mark.parametrize("winerror", [5, 32, 33])
def test_a_file_that_a_scanner_holds_on_windows_is_replaced_a_moment_later(
    winerror: int, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    _held(2, winerror, "replace", monkeypatch)
    durable.write_whole(tmp_path / "state.json", b"{}")
    assert (tmp_path / "state.json").read_bytes() == b"{}"
    assert len(waits) == 2


def test_a_file_that_stays_open_is_told_with_what_to_do(
    tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    _held(99, 32, "replace", monkeypatch)
    with pytest.raises(ExternalError, match="another program has it open") as caught:
        durable.write_whole(tmp_path / "state.json", b"{}")
    assert (caught.value.code, list(tmp_path.iterdir())) == ("permission", [])
    assert sum(waits) < 2


def test_a_directory_that_is_used_reads_as_refused_and_the_hint_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = generation.begin(Layout(home=tmp_path).named("qlora"), "a1" * 32)
    _held(99, 5, "rename", monkeypatch)
    with pytest.raises(ExternalError, match="permission denied") as caught:
        generation.discard(made)
    assert (caught.value.hint or "").startswith("close what may use it, or change permissions")


def test_what_is_refused_for_another_reason_is_not_waited_for(
    tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    _held(1, 19, "replace", monkeypatch)  # write-protected
    with pytest.raises(ExternalError) as caught:
        durable.write_whole(tmp_path / "state.json", b"{}")
    assert (caught.value.hint or "").startswith("change permissions")
    assert not waits


def test_a_generation_that_a_scanner_holds_is_discarded_a_moment_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = generation.begin(Layout(home=tmp_path).named("qlora"), "a1" * 32)
    _held(3, 5, "rename", monkeypatch)
    generation.discard(made)
    assert not made.directory.exists()
