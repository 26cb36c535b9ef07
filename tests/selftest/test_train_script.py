from __future__ import annotations

import ast
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bnbenv.selftest import train_script
from bnbenv.selftest.train_script import Events, NotOfferedError, Outcome

SCRIPT = Path(train_script.__file__)
# The Python of an environment with torch, bitsandbytes, transformers, peft and accelerate.
TORCH_PYTHON = os.environ.get("BNBENV_TEST_TORCH_PYTHON")
# Listed faults of bitsandbytes 0.49 and 0.50 on processors with AVX512-BF16.
AFTER_EVAL = {"train/merge-4bit-after-eval", "train/train-after-eval"}


def run(python: str, events: Path) -> list[dict[str, Any]]:
    command = [python, "-I", "-B", str(SCRIPT), "--device", "cpu", "--events", str(events)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]


def recorded(outcome: Outcome | Exception) -> dict[str, Any]:
    """The end event of one check that came to `outcome`."""
    stream = io.StringIO()

    def body() -> Outcome:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    Events(stream, "float32").check("it", body)
    begin, end = (json.loads(line) for line in stream.getvalue().splitlines())
    assert begin == {"event": "begin", "name": "train/it", "dtype": "float32", "shape": {}}
    assert end["event"] == "end"
    return dict(end)


@pytest.mark.parametrize(
    ("outcome", "state", "error"),
    [
        pytest.param(Outcome(0.5, 1.0), "passed", 0.5, id="within"),
        pytest.param(Outcome(1.0, 1.0), "passed", 1.0, id="at the limit"),
        pytest.param(Outcome(1.5, 1.0), "failed", 1.5, id="beyond"),
        pytest.param(Outcome(math.nan, 1.0), "failed", None, id="not a number"),
        pytest.param(Outcome(math.inf, 1.0), "failed", None, id="infinite"),
        pytest.param(NotOfferedError("no such thing"), "not-offered", None, id="not offered"),
        pytest.param(RuntimeError("boom"), "failed", None, id="an exception"),
    ],
)
def test_what_a_check_comes_to(outcome: Outcome | Exception, state: str, error: float | None) -> None:
    end = recorded(outcome)
    assert (end["state"], end["error"]) == (state, error)
    if isinstance(outcome, Exception):
        assert str(outcome) in end["detail"]


def test_a_crash_leaves_the_guilty_check_open(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    program = (
        "import os, sys\n"
        f"sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        "from train_script import Events\n"
        f"with open({str(events)!r}, 'w') as stream:\n"
        "    Events(stream, '').check('guilty', os.abort)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, check=False)
    assert done.returncode != 0
    (line,) = events.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["name"] == "train/guilty"


def test_without_the_packages_nothing_is_passed(tmp_path: Path) -> None:
    start, _, end, done = run(sys.executable, tmp_path / "events.jsonl")
    assert start["event"] == "start"
    assert end["state"] == "not-offered"
    assert "peft" in end["detail"]
    assert done["states"] == {"not-offered": 1}


def test_the_script_asks_nothing_of_zip_that_python_39_lacks() -> None:
    calls = [node for node in ast.walk(ast.parse(SCRIPT.read_text("utf-8"))) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if ast.unparse(call.func) == "zip" and call.keywords]


@pytest.mark.slow
@pytest.mark.skipif(TORCH_PYTHON is None, reason="BNBENV_TEST_TORCH_PYTHON names no Python with torch")
def test_a_tiny_model_really_trains(tmp_path: Path) -> None:
    assert TORCH_PYTHON is not None
    ends = [event for event in run(TORCH_PYTHON, tmp_path / "events.jsonl") if event["event"] == "end"]
    failed = {event["name"] for event in ends if event["state"] == "failed"}
    assert failed <= AFTER_EVAL
    falls = next(event for event in ends if event["name"] == "train/loss-falls")
    assert falls["shape"]["last"] < falls["shape"]["first"] / 4
