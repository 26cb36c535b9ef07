"""A verdict survives its way through JSON."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnbenv.errors import EnvironmentProblem
from bnbenv.selftest.document import SCHEMA, verdict_from_dict, verdict_to_dict
from bnbenv.selftest.verdict import Check, CheckState, Device, Verdict

numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
checks = st.builds(
    Check,
    name=st.text(min_size=1),
    dtype=st.sampled_from(["float32", "float16", "bfloat16", ""]),
    state=st.sampled_from(get_args(CheckState)),
    error=numbers,
    tolerance=numbers,
    ms=numbers,
    shape=st.dictionaries(st.text(), st.integers()),
    detail=st.none() | st.text(),
    fault=st.none() | st.text(),
)
devices = st.builds(
    Device, device=st.text(), name=st.text(), judged=st.booleans(), checks=st.lists(checks).map(tuple)
)
verdicts = st.builds(
    Verdict,
    verdict=st.sampled_from(["passed", "degraded", "failed", "not-run"]),
    level=st.sampled_from(["quick", "full", "train"]),
    library=st.none() | st.text(),
    devices=st.lists(devices, max_size=2).map(tuple),
    versions=st.dictionaries(st.text(), st.text()),
    notes=st.lists(st.text()).map(tuple),
    faults=st.lists(st.text()).map(tuple),
    seconds=numbers,
)
PLAIN = verdict_to_dict(
    Verdict(
        verdict="passed",
        level="quick",
        library=None,
        devices=(
            Device(device="cpu", name="", judged=True, checks=(Check(name="x", dtype="", state="passed"),)),
        ),
    )
)


@given(verdicts)
def test_round_trip(verdict: Verdict) -> None:
    assert verdict_from_dict(json.loads(json.dumps(verdict_to_dict(verdict)))) == verdict


def test_the_keys_of_the_contract_are_there() -> None:
    assert {"verdict", "library", "devices"} <= PLAIN.keys()
    assert {"device", "name", "checks"} <= PLAIN["devices"][0].keys()
    assert {"name", "dtype", "state", "error", "tolerance", "ms"} <= PLAIN["devices"][0]["checks"][0].keys()


def test_unknown_keys_are_left_out() -> None:
    data = json.loads(json.dumps(PLAIN))
    data["later"] = data["devices"][0]["later"] = data["devices"][0]["checks"][0]["later"] = 1
    assert verdict_from_dict(data) == verdict_from_dict(PLAIN)


def test_a_newer_schema_is_refused() -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        verdict_from_dict({**PLAIN, "schema": SCHEMA + 1})
    assert caught.value.code == "state-too-new"


@pytest.mark.parametrize(
    "change",
    [{"verdict": "splendid"}, {"level": None}, {"devices": 3}, {"devices": [{}]}, {"devices": [None]}],
    ids=str,
)
def test_a_broken_verdict_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        verdict_from_dict({**PLAIN, **change})
    assert caught.value.code == "state-broken"
