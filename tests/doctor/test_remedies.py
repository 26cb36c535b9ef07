from __future__ import annotations

from pathlib import Path

import pytest

from bnbenv.doctor.plan import Facts, make_plan
from bnbenv.doctor.remedies import with_commands
from bnbenv.judge.stack import Finding
from bnbenv.matrix.load import load

CAUSES = {row.id: row for row in load("causes").causes}
LOCKED = {"torch": "2.13.0+cpu", "bitsandbytes": "0.50.2"}


@pytest.mark.parametrize("code", CAUSES)
def test_repair_is_named_exactly_where_it_would_do_something(code: str) -> None:
    found = Finding(code=code, severity="error", subject="bitsandbytes", summary=code, evidence=())
    plan = make_plan(
        Facts(
            environment="lab",
            findings=(found,),
            installed=LOCKED,
            causes=CAUSES,
            locked=LOCKED,
            rebuilds=True,
        )
    )
    told = with_commands(
        found,
        CAUSES[code],
        name="lab",
        ours=True,
        managed=False,
        apart=False,
        python=Path("/lab/bin/python"),
        version="0.50.2",
    )
    commands = told.remedy.commands if told.remedy else ()
    assert ("bnbenv repair lab" in commands) == bool(plan.steps)
