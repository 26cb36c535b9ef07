"""A state survives writing and reading, and what cannot be read says how to mend it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnbenv.env import state
from bnbenv.env.state import Base, State
from bnbenv.errors import EnvironmentProblem

FIXTURES = Path(__file__).parent / "states"

SAMPLE = State(
    name="qlora",
    profile="qlora",
    request={"torch": ">=2.9", "with": ["scipy"]},
    target={"schema": 1, "name": "here", "os": "linux"},
    matrix="2026.11.23",
    lock="ab" * 32,
    created="2026-11-23T18:00:00Z",
    python="3.12.4",
    bnbenv="0.1.0",
    torch={"version": "2.14.1", "build": "cpu"},
    base=Base(python="/opt/conda/bin/python", packages={"torch": "2.14.1"}, record="cd" * 32),
    findings=({"code": "no-gpu-visible", "severity": "info"},),
    verdict="degraded",
    driver="550.54.15",
)

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_TABLE = st.dictionaries(_TEXT, _JSON, max_size=4)
_STATES = st.builds(
    State,
    name=_TEXT,
    profile=_TEXT,
    request=_TABLE,
    target=_TABLE,
    matrix=_TEXT,
    lock=_TEXT,
    created=_TEXT,
    python=_TEXT,
    bnbenv=_TEXT,
    torch=st.none() | _TABLE,
    bitsandbytes=st.none() | _TABLE,
    base=st.none()
    | st.builds(
        Base, python=_TEXT, packages=st.dictionaries(_TEXT, _TEXT, max_size=3), record=st.none() | _TEXT
    ),
    findings=st.lists(_TABLE, max_size=3).map(tuple),
    verdict=st.sampled_from(["passed", "degraded", "failed", "not-run"]),
    driver=st.none() | _TEXT,
    evidence=_TEXT,
)


@given(value=_STATES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(value: State, tmp_path: Path) -> None:
    state.write(tmp_path / "state.json", value)
    assert state.read(tmp_path / "state.json") == value


@pytest.mark.parametrize("schema", range(1, state.SCHEMA + 1))
def test_every_past_schema_can_still_be_read(schema: int) -> None:
    assert state.read(FIXTURES / f"schema-{schema}.json") == SAMPLE


def test_the_newest_schema_has_its_fixture(tmp_path: Path) -> None:
    state.write(tmp_path / "state.json", SAMPLE)
    written = json.loads((tmp_path / "state.json").read_text())
    assert written == json.loads((FIXTURES / f"schema-{state.SCHEMA}.json").read_text())


def test_an_older_schema_is_brought_up_step_by_step(tmp_path: Path) -> None:
    steps = {
        1: lambda old: {**old, "one": True},
        2: lambda old: {"both": old["one"]},
    }
    assert state.migrated({"schema": 1}, tmp_path, schema=3, migrations=steps) == {"schema": 3, "both": True}
    with pytest.raises(EnvironmentProblem) as caught:
        state.migrated({"schema": 2}, tmp_path, schema=3, migrations=steps)  # lacks what step 2 reads
    assert caught.value.code == "state-broken"


def test_a_newer_schema_names_the_upgrade(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"schema": 99, "bnbenv": "7.0"}')
    with pytest.raises(EnvironmentProblem, match=r"7\.0") as caught:
        state.read(tmp_path / "state.json")
    assert caught.value.code == "state-too-new"
    assert "upgrade" in (caught.value.hint or "")


def test_a_missing_state_is_no_environment(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        state.read(tmp_path / "state.json")
    assert caught.value.code == "no-environment"


def _damaged(**changes: Any) -> bytes:
    document = json.loads((FIXTURES / "schema-1.json").read_text())
    for key, value in changes.items():
        if value is KeyError:
            del document[key]
        else:
            document[key] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"schema": "1"}',
        b'{"schema": true}',
        b'{"schema": 0}',
        b'{"schema": 1}',
        _damaged(name=KeyError),
        _damaged(name=3),
        _damaged(request=[]),
        _damaged(target="x"),
        _damaged(torch=[]),
        _damaged(findings={}),
        _damaged(findings=["x"]),
        _damaged(verdict="fine"),
        _damaged(base="x"),
        _damaged(base={"python": 3}),
        _damaged(base={"python": "x", "packages": {"torch": 2}}),
        _damaged(base={"python": "x", "record": 2}),
    ],
)
def test_a_broken_state_says_how_to_mend_it(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "state.json").write_bytes(data)
    with pytest.raises(EnvironmentProblem) as caught:
        state.read(tmp_path / "state.json")
    assert caught.value.code == "state-broken"
    assert "rollback" in (caught.value.hint or "")


def test_every_prefix_of_a_state_is_broken_not_half_read(tmp_path: Path) -> None:
    whole = (FIXTURES / "schema-1.json").read_bytes().rstrip()
    for size in range(0, len(whole), 7):
        (tmp_path / "state.json").write_bytes(whole[:size])
        with pytest.raises(EnvironmentProblem):
            state.read(tmp_path / "state.json")


def test_a_key_from_the_future_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(_damaged(colour="green"))
    assert state.read(tmp_path / "state.json") == SAMPLE


@pytest.mark.parametrize("text", [None, "not JSON", '{"schema": 1}'])
def test_what_cannot_be_read_counts_for_nothing(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert state.read_whole(path) is None


def test_what_a_newer_bnbenv_wrote_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"schema": state.SCHEMA + 1}), encoding="utf-8")
    with pytest.raises(EnvironmentProblem) as caught:
        state.read_whole(path)
    assert caught.value.code == "state-too-new"
    state.write(path, SAMPLE)
    assert state.read_whole(path) == SAMPLE
