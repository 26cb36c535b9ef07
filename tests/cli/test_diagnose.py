from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.cli.main import main
from bnbenv.workflows.diagnose import diagnose_text, load_rules
from support.sites import PYTHON, make_site

if TYPE_CHECKING:
    import pytest

REPORTS = Path(__file__).parents[1] / "doctor" / "reports"


def test_a_rich_traceback_is_joined(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(REPORTS / "rich-traceback.txt"), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["cause"] == "missing-cuda-binary"
    assert data["causes"][0]["evidence"][0]["line"] == 10
    assert data["facts"]["library"].endswith("libbitsandbytes_cuda129.so")


def test_a_report_of_bnbenv_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = make_site(tmp_path / "env", bitsandbytes="0.45.4")
    assert main(["report", str(environment)]) == 0
    report = capsys.readouterr().out
    [first, *_] = [line.split("`")[1] for line in report.splitlines() if line.startswith("- error `")]
    found = diagnose_text(f"> {report}", load_rules())
    assert found.cause == first == "bnb-too-old"
    assert found.facts.best("python") == PYTHON
    assert found.facts.best("bitsandbytes") == "0.45.4"
    assert found.facts.stated["environment"]
    assert {"os:linux", "os:windows", "os:macos"} & found.facts.derived.keys()
    assert found.questions == ()


def test_a_report_is_asked_for_where_much_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").write_text("CUDA error: no kernel image is available for execution on the device")
    assert main(["diagnose", str(tmp_path / "log")]) == 0
    assert capsys.readouterr().out.endswith(": bnbenv report\n")


def test_nothing_is_asked_about_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").touch()
    assert main(["diagnose", str(tmp_path / "empty")]) == 0
    assert capsys.readouterr().out == "cause: unknown\nthere was no text to read\n"


def test_markdown_is_the_reply_to_post(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(REPORTS / "rich-traceback.txt"), "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("**Cause: `missing-cuda-binary`.**")
    assert "line 10: RuntimeError: Configured CUDA binary not found" in out
    assert "**Fix.** Upgrade bitsandbytes" in out


def test_markdown_asks_where_nothing_is_established(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"UserWarning: The installed version of bitsandbytes was compiled without GPU support.\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert main(["diagnose", "-", "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    assert "does not tell the cause yet" in out
    assert "1. Which build of torch" in out
    assert "line 1: UserWarning" in out


def test_memory_is_named_where_loading_runs_out_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.write_text(
        '  File "/e/transformers/modeling_utils.py", line 9, in from_pretrained\n'
        "torch.OutOfMemoryError: CUDA out of memory.\n"
    )
    assert main(["diagnose", str(log), "--json"]) == 0
    [cause] = json.loads(capsys.readouterr().out)["data"]["causes"]
    assert cause["code"] == "oom-4bit-load"
    assert cause["remedy"]["commands"] == [
        "bnbenv memory MODEL --profile inference",
        "bnbenv quantize DIRECTORY OUT --type nf4",
    ]


def test_a_batch_streams(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        {"id": 1, "text": "No module named 'triton.ops'"},
        {"id": 2, "text": 5},
        {"id": 3, "text": "\ud800 torch"},
        {"text": ""},
    ]
    batch = tmp_path / "batch"
    batch.write_text("\n".join(map(json.dumps, lines)) + "\nnonsense\n", encoding="utf-8")
    assert main(["diagnose", "--batch", str(batch), "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["status"] for answer in answers] == ["ok", "error", "ok", "ok", "error"]
    assert answers[0]["id"] == 1
    assert [answer["data"].get("cause") for answer in answers] == [
        "triton-ops-removed", None, "unknown", "unknown", None,
    ]  # fmt: skip


def test_a_file_and_a_batch_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "a", "--batch", "b"]) == 2
    assert "not both" in capsys.readouterr().err
