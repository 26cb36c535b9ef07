"""Event lines tell which checks ended and which one a process died in."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from bnbenv.selftest.events import crashed, read_events
from bnbenv.selftest.verdict import Check

BEGIN = {
    "event": "begin",
    "index": 7,
    "name": "quantize_4bit/nf4/b64",
    "dtype": "float32",
    "shape": {"rows": 2},
}
END = {
    **BEGIN,
    "event": "end",
    "state": "passed",
    "error": 1e-7,
    "tolerance": 1e-5,
    "ms": 0.5,
    "detail": None,
}


def lines(*events: object) -> list[str]:
    return [json.dumps(event) for event in events]


def test_a_whole_story() -> None:
    loaded = {"event": "loaded", "library": "libbitsandbytes_cpu.so"}
    story = read_events(lines({"event": "start"}, loaded, BEGIN, END, {"event": "done"}))
    assert story.done
    assert story.open is None
    assert story.index == 7
    assert story.loaded["library"] == "libbitsandbytes_cpu.so"
    assert story.checks == (
        Check(
            name="quantize_4bit/nf4/b64",
            dtype="float32",
            state="passed",
            error=1e-7,
            tolerance=1e-5,
            ms=0.5,
            shape={"rows": 2},
        ),
    )


def test_a_check_without_an_end_is_the_guilty_one() -> None:
    story = read_events(lines(BEGIN, END, {**BEGIN, "index": 8, "name": "matmul_4bit/nf4"}))
    assert not story.done
    assert crashed(story, "killed by SIGBUS") == Check(
        name="matmul_4bit/nf4", dtype="float32", state="crashed", shape={"rows": 2}, detail="killed by SIGBUS"
    )


def test_a_death_between_checks_names_the_last_one() -> None:
    found = crashed(read_events(lines(BEGIN, END)), "killed by SIGSEGV")
    assert (found.name, found.detail) == ("process", "killed by SIGSEGV, after quantize_4bit/nf4/b64")
    assert crashed(read_events([]), "killed by SIGSEGV").detail == "killed by SIGSEGV, after the start"


def test_a_state_that_does_not_exist_is_a_failure() -> None:
    assert read_events(lines({**END, "state": "splendid"})).checks[0].state == "failed"


def test_infinite_and_wrongly_typed_numbers_are_left_out() -> None:
    (check,) = read_events(lines({**END, "error": "big", "tolerance": True, "ms": None})).checks
    assert (check.error, check.tolerance, check.ms) == (None, None, None)


@given(st.lists(st.one_of(st.text(), st.recursive(st.none() | st.integers(), st.lists).map(json.dumps))))
def test_foreign_lines_are_left_out(noise: list[str]) -> None:
    story = read_events([*noise, *lines(BEGIN, END)])
    assert [check.name for check in story.checks] == [BEGIN["name"]]


@given(st.integers(1, 400))
def test_a_file_cut_anywhere_can_be_read(keep: int) -> None:
    text = "\n".join(lines(BEGIN, END, {**BEGIN, "index": 8}, {**END, "index": 8}))
    story = read_events(text[:keep].splitlines())
    assert len(story.checks) <= 2
    assert all(check.state == "passed" for check in story.checks)
