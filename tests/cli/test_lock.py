from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


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
