from __future__ import annotations

import io
import json
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from bnbenv.cli.commands.doctor import _told
from bnbenv.cli.main import main
from bnbenv.cli.ui import Ui

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from bnbenv.env.generation import Generation


def test_what_is_advised_for_another_machine_names_it(
    make_environment: Callable[..., Generation], capsys: pytest.CaptureFixture[str]
) -> None:
    make_environment("lab")
    assert main(["doctor", "lab", "--gpu", "RTX 5090", "--driver", "580", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["data"]["findings"]
    [absent] = [found for found in findings if found["code"] == "torch-not-installed"]
    assert absent["remedy"]["commands"] == ["bnbenv repair lab --gpu 'RTX 5090' --driver 580"]


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
