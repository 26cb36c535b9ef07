from __future__ import annotations

import json
from typing import TYPE_CHECKING

import score_diagnose
from bnbenv.workflows.diagnose import load_rules

if TYPE_CHECKING:
    from pathlib import Path


def test_the_score_counts_right_wrong_and_unknown(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "cause": "triton-ops-removed", "text": "No module named 'triton.ops'"},
        {"id": "b", "cause": "glibc-too-old", "text": "No module named 'triton.ops'"},
        {"id": "c", "cause": "unknown", "text": "slow"},
    ]
    path = tmp_path / "cases.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    matrix = load_rules()
    cases = score_diagnose.cases_of(path, matrix)
    answers = [score_diagnose.answer(case, matrix) for case in cases]
    told = score_diagnose.report(cases, answers)
    assert "labelled: 1 of 2 right, 1 given a wrong cause" in told
    assert "unknown: 1 of 1 left unknown" in told
    assert "b: glibc-too-old → triton-ops-removed" in told
    rules = score_diagnose.left_out(cases[:1], answers[:1], matrix)
    assert "serve one case alone here (1): triton-ops" in rules


def test_the_halves_share_no_case() -> None:
    rows = [{"id": str(number), "cause": "ab"[number % 2]} for number in range(9)]
    halves = score_diagnose.halves(rows)
    assert sorted(row["id"] for half in halves.values() for row in half) == sorted(row["id"] for row in rows)
    assert abs(len(halves["A"]) - len(halves["B"])) == 1
