"""Which environment is meant where none is named, active or in the directory."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bnbenv.env.generation import Generation

OWN = shlex.quote(sys.prefix)


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def problem(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main([*words, "--json"]) == 4
    [found] = json.loads(capsys.readouterr().out)["problems"]
    assert found["code"] == "no-environment"
    assert f"bnbenv's own Python, `{sys.prefix}`" in found["message"]
    return dict(found)


@pytest.mark.parametrize(
    ("words", "named", "unnamed"),
    [
        (["repair", "--dry-run"], "bnbenv repair lab", f"bnbenv repair {OWN}"),
        (["split"], "bnbenv split lab", f"bnbenv split {OWN}"),
        (["kernel", "install"], "bnbenv kernel install lab", f"bnbenv kernel install {OWN}"),
        (["install", "einops>=0.8"], "bnbenv install 'einops>=0.8' --in lab", "bnbenv create qlora"),
        (["upgrade"], "bnbenv upgrade --in lab", "bnbenv create qlora"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bnbenvs_own_python_is_not_changed_unless_it_is_named(
    words: list[str],
    named: str,
    unnamed: str,
    make_environment: Callable[..., Generation],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert problem(capsys, *words)["hint"] == unnamed
    make_environment("lab")
    assert problem(capsys, *words)["hint"] == f"{named}, or bnbenv list"


@pytest.mark.parametrize("command", ["repair", "split", "kernel", "install", "upgrade"])
def test_the_help_of_what_changes_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "the active one, ./.venv)" in told(command, capsys)


@pytest.mark.parametrize("command", ["doctor", "verify", "report", "quantize", "memory"])
def test_the_help_of_what_only_uses_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "the active one, ./.venv, bnbenv's own)" in told(command, capsys)


def told(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([command, "--help"]) == 0
    return " ".join(capsys.readouterr().out.split())
