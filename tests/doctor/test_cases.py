"""Every case of cases.jsonl, the corpus beside the checkout where it is, and logs of runs that went well.

The cases were written anew from the definitions of the causes and from the messages in the sources of
bitsandbytes, torch, transformers and pip; those marked `provoked` were printed by real releases of
bitsandbytes on a CPU build of torch, which was told for the occasion that it sees a GPU.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.doctor.diagnosis import diagnose
from bnbenv.workflows.diagnose import load_rules

if TYPE_CHECKING:
    from bnbenv.matrix.matrix import Matrix

HERE = Path(__file__).parent
CORPUS = HERE.parents[1].parent / "shared" / "corpus" / "dev.jsonl"


@lru_cache(maxsize=1)
def rules() -> Matrix:
    return load_rules()


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def cause(text: str) -> str:
    return diagnose([text.encode()], rules()).cause


CASES = read(HERE / "cases.jsonl")
SUCCESSES = sorted((HERE / "successes").iterdir())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_case(case: dict[str, Any]) -> None:
    assert cause(case["text"]) == case["cause"]


DECORATIONS = (
    "> ",
    "2026-11-30T08:00:01.1234567Z ",
    "2026-11-30 08:00:01,123 - stderr - INFO - ",
    "[rank2]: ",
    "Nov 30 08:00:01 gpu01 python[2211]: ",
    "trainer-1  | ",
)


def test_what_a_log_puts_before_every_line_changes_no_answer() -> None:
    wrong = [
        case["id"]
        for number, case in enumerate(CASES)
        if cause("\n".join(DECORATIONS[number % 6] + line for line in case["text"].split("\n")))
        != case["cause"]
    ]
    assert wrong == []


def test_there_are_enough_cases_and_each_cause_has_one() -> None:
    assert len(CASES) >= 120
    told = {rule.cause for rule in rules().implications}
    assert told <= {case["cause"] for case in CASES}
    assert sum(case["cause"] == "unknown" for case in CASES) >= 20


@pytest.mark.parametrize("path", SUCCESSES, ids=lambda path: path.stem)
def test_a_run_that_went_well_has_no_cause(path: Path) -> None:
    found = diagnose([path.read_bytes()], rules())
    assert found.cause == "unknown"
    assert found.suspects == ()


def test_there_are_enough_runs_that_went_well() -> None:
    assert len(SUCCESSES) >= 20


def test_guards_keep_the_rules_quiet() -> None:
    """Without the conditions that must not hold, sound runs are given causes: the test above can fail."""
    matrix = load_rules()
    bare = tuple(rule._replace(none=()) for rule in matrix.implications)
    object.__setattr__(matrix, "implications", bare)
    named = {path.stem for path in SUCCESSES if diagnose([path.read_bytes()], matrix).suspects}
    assert {"rocm-fallback-and-training", "override-that-works"} <= named


def test_the_corpus() -> None:
    if not CORPUS.is_file():
        pytest.skip("the corpus is not beside this checkout")
    rows = read(CORPUS)
    answers = [(row["cause"], cause(row["text"])) for row in rows]
    labelled = [want == got for want, got in answers if want != "unknown"]
    unknown = [got == "unknown" for want, got in answers if want == "unknown"]
    assert sum(labelled) / len(labelled) >= 0.9
    assert sum(unknown) / len(unknown) >= 0.9
    readme = (HERE.parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"{sum(labelled)} of {len(labelled)}" in readme
    assert f"{sum(unknown)} of {len(unknown)}" in readme
