from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.cli.commands.repair import _outcome
from bnbenv.cli.main import main
from bnbenv.cli.outcome import envelope
from bnbenv.cli.ui import Ui
from bnbenv.doctor.plan import Plan, Step
from bnbenv.env.generation import Generation
from bnbenv.judge.stack import Finding
from bnbenv.selftest.verdict import Verdict
from bnbenv.workflows.doctor import Examined, examine
from bnbenv.workflows.environment import locate
from bnbenv.workflows.mend import Change
from bnbenv.workflows.rebuild import Carried
from bnbenv.workflows.repair import Repaired
from support.schemas import validate
from support.voice import Listener

if TYPE_CHECKING:
    from collections.abc import Callable

STEP = Step(action="reinstall", subject="bitsandbytes", summary="again", why=("file-damaged: gone",))
SHOWN = Step(
    action="show", subject="BNB_CUDA_VERSION", summary="unset it", why=("x: y",), commands=("unset",)
)
STOP = Step(action="stop", subject="driver", summary="reboot", why=("driver-broken: mismatch",))


@pytest.fixture
def examined(tmp_path: Path) -> Examined:
    """A real look at an empty venv, with findings of our own."""
    (tmp_path / "env" / "lib" / "python3.12" / "site-packages").mkdir(parents=True)
    (tmp_path / "env" / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.12.1\n", encoding="utf-8")
    environ = {"BNBENV_HOME": str(tmp_path / "home"), "PATH": ""}
    seen = examine(locate(str(tmp_path / "env"), environ, tmp_path), Listener(), environ)
    return replace(seen, findings=())


def wrong(examined: Examined, severity: Any = "error") -> Examined:
    return replace(
        examined,
        findings=(Finding(code="file-damaged", severity=severity, subject="torch", summary="it is cut"),),
    )


def answered(repaired: Repaired) -> tuple[int, dict[str, Any], str]:
    outcome = _outcome(repaired, Ui(json=True))
    document = json.loads(json.dumps(envelope("repair", outcome)))
    validate(document)
    return outcome.exit_code, document, outcome.text


def test_nothing_to_do_is_fine(examined: Examined) -> None:
    code, document, text = answered(
        Repaired(located=examined.located, outcome="nothing", before=examined, plan=Plan())
    )
    assert (code, document["data"]["healthy"]) == (0, True)
    assert text == "nothing needs to change"


def test_a_changed_driver_that_breaks_nothing_is_told(examined: Examined) -> None:
    notice = Finding(code="driver-changed", severity="info", subject="driver", summary="it was 550, is 580")
    before = replace(examined, findings=(notice,))
    text = answered(Repaired(located=examined.located, outcome="nothing", before=before, plan=Plan()))[2]
    assert text == "nothing needs to change; it was 550, is 580"


def test_what_is_the_users_to_do_is_an_error_as_long_as_it_is_one(examined: Examined) -> None:
    code, document, text = answered(
        Repaired(
            located=examined.located, outcome="nothing", before=wrong(examined), plan=Plan(shown=(SHOWN,))
        )
    )
    assert (code, document["status"]) == (1, "findings")
    assert document["problems"][0]["hint"] == "unset"
    assert "Yours to do" in text


def test_a_stop_names_the_next_step(examined: Examined) -> None:
    code, document, text = answered(
        Repaired(
            located=examined.located, outcome="stopped", before=wrong(examined), plan=Plan(stops=(STOP,))
        )
    )
    assert (code, document["data"]["outcome"]) == (1, "stopped")
    assert "reboot" in text
    assert text.endswith("nothing was touched")


def test_a_plan_says_why(examined: Examined) -> None:
    change = Change(name="bitsandbytes", version="0.50.2", present="0.50.2")
    code, document, text = answered(
        Repaired(
            located=examined.located,
            outcome="planned",
            before=wrong(examined),
            plan=Plan(steps=(STEP,)),
            changes=(change,),
        )
    )
    assert (code, document["data"]["plan"]["steps"][0]["why"]) == (0, ["file-damaged: gone"])
    assert "because file-damaged: gone" in text
    assert "bitsandbytes 0.50.2, again" in text


@pytest.mark.parametrize(("severity", "expected"), [("error", 1), ("warning", 0), ("info", 0)])
def test_what_is_left_after_a_repair_decides_the_exit(
    examined: Examined, severity: str, expected: int
) -> None:
    carried = Carried(installed=["einops==0.8.1"], copied=["mine 1.0"], left=["peft 0.1: the lock has 0.2"])
    code, document, text = answered(
        Repaired(
            located=examined.located,
            outcome="repaired",
            before=wrong(examined),
            after=wrong(examined, severity),
            plan=Plan(steps=(STEP,)),
            generation=Generation(directory=Path("/g/0123456789ab-2"), digest="0123456789ab", number=2),
            carried=carried,
            verdict=Verdict(verdict="passed", level="quick", library="x.so", devices=()),
        )
    )
    assert (code, document["data"]["generation"]) == (expected, "0123456789ab-2")
    told = {problem["message"]: problem["hint"] for problem in document["problems"]}
    assert "peft 0.1: the lock has 0.2" in told
    hint = f"bnbenv doctor {examined.located.name}"
    assert told.get("still wrong: torch: it is cut") == (hint if expected else None)
    assert "einops==0.8.1" in text


def test_a_lost_state_stops_and_touches_nothing(
    make_environment: Callable[..., Generation], capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_environment()
    made.state_file.write_text("{", encoding="utf-8")
    before = sorted(str(path) for path in made.directory.rglob("*"))
    capsys.readouterr()
    code = main(["repair", "qlora", "--json"])
    document = json.loads(capsys.readouterr().out)
    validate(document)
    assert (code, document["data"]["outcome"]) == (1, "stopped")
    assert "state-broken" in json.dumps(document["data"]["plan"]["stops"])
    assert sorted(str(path) for path in made.directory.rglob("*")) == before


def test_ways_that_exclude_each_other_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repair", "--restore", "--upgrade"]) == 2
    assert "not allowed with" in capsys.readouterr().err
