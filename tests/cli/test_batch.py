"""Batches: what a line may hold, and which options it leaves without meaning."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.main import main
from bnbenv.errors import EXIT_USAGE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["check", "--torch", "2.9.1", "--env", "A=1"], ["`--torch`", "`--env`"]),
        (["check", "--package", "peft==0.21.0"], ["`--package`"]),
        (["resolve", "--gpu", "8.9", "--driver", "580"], ["`--gpu`", "`--driver`"]),
        (["resolve", "--target", "host.json"], ["`--target`"]),
    ],
    ids=["check", "check-package", "resolve", "resolve-target"],
)
def test_what_every_line_tells_for_itself_is_refused_beside_it(
    words: list[str], named: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lines").write_text("", encoding="utf-8")
    assert main([*words, "--batch", str(tmp_path / "lines"), "--json"]) == EXIT_USAGE
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["message"].startswith(f"{', '.join(named)} cannot be given with `--batch`")


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity"])
def test_a_number_that_json_cannot_tell_is_refused_and_the_rest_go_on(
    number: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = f'{{"id": {number}, "torch": "2.9.1"}}\n{{"id": 1.5, "torch": "two"}}\n'
    (tmp_path / "lines").write_text(lines, encoding="utf-8")
    assert main(["check", "--batch", str(tmp_path / "lines")]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert "id" not in first
    assert number in first["problems"][0]["message"]
    assert second["id"] == 1.5


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\r\n", ""], ids=["ended", "open"])
def test_lines_are_read_as_powershell_writes_them(
    encoding: str, end: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = ["erster", "\u010a\u0a0d"]  # bytes of a line's end stand in these letters
    lines = "\r\n".join(json.dumps({"id": it, "torch": "two"}, ensure_ascii=False) for it in ids)
    (tmp_path / "lines").write_bytes((lines + end).encode(encoding))
    assert main(["check", "--batch", str(tmp_path / "lines")]) == 0
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == ids


def test_a_text_that_ends_within_a_letter_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lines").write_bytes("{}\n".encode("utf-16") + b"{")
    assert main(["check", "--batch", str(tmp_path / "lines")]) == EXIT_USAGE
    assert "cannot be read" in capsys.readouterr().err
