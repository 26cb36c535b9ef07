from __future__ import annotations

import io
import json
import sys
from argparse import Namespace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.cli.commands.doctor import _told
from bnbenv.cli.main import main
from bnbenv.cli.ui import Ui

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bnbenv.env.generation import Generation


without_torch = pytest.mark.skipif(find_spec("torch") is not None, reason="this Python has torch")


def test_what_is_advised_for_another_machine_names_it(
    make_environment: Callable[..., Generation], capsys: pytest.CaptureFixture[str]
) -> None:
    make_environment("lab")
    assert main(["doctor", "lab", "--gpu", "RTX 5090", "--driver", "580", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["data"]["findings"]
    [absent] = [found for found in findings if found["code"] == "torch-not-installed"]
    assert absent["remedy"]["commands"] == ["bnbenv repair lab --gpu 'RTX 5090' --driver 580"]


@without_torch
@pytest.mark.parametrize(("locks", "word"), [(["bnbenv.lock"], "--lock"), ([], "--lock LOCKDIR")])
def test_a_name_that_only_a_lock_can_fill_in_is_asked_with_one(
    locks: list[str],
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in locks:
        (tmp_path / name).touch()
    assert main(["doctor", "lab-{variant}", "--deep", "--json"]) == 2
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    assert problem["hint"] == f"bnbenv doctor 'lab-{{variant}}' --deep --json {word}"


def test_bnbenvs_own_python_is_hardly_meant(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The tool's own, which has no torch: `uv tool install bnbenv`."""
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.endswith("Perhaps you mean: bnbenv create qlora\n")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    assert main(["doctor"]) == 1
    assert "Perhaps" not in capsys.readouterr().out


@without_torch
def test_the_environment_that_is_hardly_not_meant_is_named(
    make_environment: Callable[..., Generation],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    make_environment("lab")
    make_environment("other")
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 1
    assert "Perhaps you mean: bnbenv doctor lab (of bnbenv list)" in capsys.readouterr().out


def found(summary: str, severity: str, source: str) -> dict[str, Any]:
    return {"summary": summary, "severity": severity, "source": source, "evidence": [], "remedy": None}


def test_what_is_hidden_is_shown_by_the_same_line_and_the_word_on_the_lock_is_never_hidden() -> None:
    findings = [
        found("as in pylock.cpu.toml: the same", "info", "the lock"),
        found("a file is newer", "info", "RECORD"),
        found("the driver is old", "warning", "the driver"),
    ]
    args = Namespace(typed=("my env", "--lock"))
    lines = _told(findings, args, Ui(out=io.StringIO(), err=io.StringIO(), environ={}))
    assert lines == [
        "info: as in pylock.cpu.toml: the same",
        "warning: the driver is old",
        "1 notice: bnbenv doctor 'my env' --lock -v",
    ]
    every = _told(findings, args, Ui(verbosity=1, out=io.StringIO(), err=io.StringIO(), environ={}))
    assert len(every) == 3
    assert "info: a file is newer" in every
