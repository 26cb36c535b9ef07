from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from bnbenv.cli.main import main
from bnbenv.errors import EXIT_INTERRUPTED, Interrupted

if TYPE_CHECKING:
    from pathlib import Path

    from bnbenv.workflows.lock import LockRequest


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, str]:
    """The one problem of a `lock` whose line is wrong."""
    capsys.readouterr()
    assert main(["lock", "qlora", "--offline", *words, "--json"]) == 2
    problem: dict[str, str]
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    return problem


@pytest.mark.parametrize("text", ["9" * 30, "soon", "²", "9" * 5000])
def test_a_date_that_is_none_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    assert "SOURCE_DATE_EPOCH" in refused(capsys, "--dir", str(tmp_path))["message"]


def test_a_target_file_that_is_no_text_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "lab.jsonl").write_bytes(b"\xff\xfe")
    problem = refused(capsys, "--dir", str(tmp_path), "--targets", str(tmp_path))
    assert problem["code"] == "bad-target"
    assert "lab.jsonl" in problem["message"]


def names(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """What the machines of a line are called."""
    found: list[str] = []

    def read(request: LockRequest, *_: Any) -> NoReturn:
        found.extend(given.target.name for given in request.targets)
        raise Interrupted("read")

    monkeypatch.setattr("bnbenv.workflows.lock.lock", read)
    assert main(["lock", *words]) == EXIT_INTERRUPTED
    return found


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("--gpu", "H100", "--driver", "580", "--glibc", "2.28"), "H100, driver 580, glibc 2.28"),
        (("--gpu", "9.0", "--gpu", "8.9", "--os", "linux", "--arch", "x86_64"), "9.0, 8.9, linux, x86_64"),
        (("--os", "linux", "--glibc", "2.31"), "linux, glibc 2.31"),
        (("--glibc", "2.31"), "glibc 2.31"),
    ],
)
def test_a_machine_of_options_is_called_by_all_that_they_say(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], name: str
) -> None:
    assert names(monkeypatch, *words) == [name]
