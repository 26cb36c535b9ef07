from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_names_are_what_commands_take(
    make_environment: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_environment("qlora")
    make_environment("broken").state_file.write_text("{", encoding="utf-8")
    make_environment(path=tmp_path / "env")
    assert main(["list", "--names"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert names == ["broken", "qlora", str(tmp_path / "env")]
    assert main(["list", "--names", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["data"]["environments"]
    assert [entry["name"] for entry in told] == names


def test_a_path_is_told_whole(
    make_environment: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link = tmp_path / "shared-work" / "env"
    link.parent.mkdir()
    make_environment(path=link)
    monkeypatch.setattr("bnbenv.cli.redact._own_secrets", lambda: ("shared-work",))
    for words in (["path", str(link)], ["list", "--names"]):
        assert main(words) == 0
        assert capsys.readouterr().out == f"{link}\n"
    assert main(["path", str(link), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["link"] == str(link)


@pytest.mark.usefixtures("clean_environment")
def test_no_names_are_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--names"]) == 0
    assert capsys.readouterr().out == ""
