"""`verify` on the command line: what it answers, what it records, what it writes for other machines."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.main import main
from bnbenv.cli.ui import Ui
from bnbenv.cli.verdicts import details
from bnbenv.selftest.block import read_blocks
from bnbenv.selftest.export import export_script
from bnbenv.selftest.verdict import Check, Device, Verdict
from cli.test_schemas import ask

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bnbenv.env.generation import Generation

TEST_ENV = os.environ.get("BNBENV_TEST_ENV")


def test_a_record_is_appended_and_keeps_to_its_schema(
    make_environment: Callable[..., Generation], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = make_environment()
    seen = tmp_path / "seen.txt"
    seen.write_text("a user's own notes\n", encoding="utf-8")
    for _ in range(2):
        code, document = ask(capsys, "verify", "qlora", "--cpu", "--record", str(seen))
        assert (code, document["status"], document["data"]["verdict"]) == (1, "findings", "failed")
        assert document["data"]["record"] == str(seen)
        assert document["data"]["environment"]["path"] == str(made.directory)
    text = seen.read_text(encoding="utf-8")
    assert text.startswith("a user's own notes\n")
    first, second = read_blocks(text)
    assert first == second
    assert first["devices"][0]["failures"]  # no torch there


def test_what_cannot_start_is_told_once_with_the_next_step(
    make_environment: Callable[..., Generation], capsys: pytest.CaptureFixture[str]
) -> None:
    make_environment()
    assert main(["verify", "qlora", "--cpu"]) == 1
    captured = capsys.readouterr()
    first, reason = captured.out.splitlines()
    assert first == "failed: no native library was loaded"
    assert "ModuleNotFoundError" in reason  # the stand-in's Python has nothing
    assert captured.err.splitlines()[-1] == "next: bnbenv doctor qlora"


def test_a_degraded_verdict_says_that_it_can_be_used() -> None:
    check = Check(name="matmul_4bit", dtype="float32", state="known-fault", fault="cpu-repack-in-features")
    device = Device(device="cpu", name="cpu", judged=True, checks=(check,))
    verdict = Verdict(
        verdict="degraded",
        level="quick",
        library="lib.so",
        devices=(device,),
        faults=("cpu-repack-in-features",),
    )
    lines = details(verdict, Ui(environ={}))
    assert lines[0] == "  cpu: 1 known-fault"
    assert lines[1].startswith("  it can be used:")


def test_what_was_not_run_is_not_recorded(
    make_environment: Callable[..., Generation], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    make_environment(target={"schema": 1, "accelerator": "xpu"}, verdict="not-run")
    code, document = ask(capsys, "verify", "qlora", "--record", str(tmp_path / "seen.txt"))
    assert (code, document["problems"][0]["code"]) == (2, "usage")
    assert list(tmp_path.iterdir()) == []
    code, document = ask(capsys, "verify", "qlora")
    assert (code, document["status"], document["data"]["verdict"]) == (0, "ok", "not-run")
    assert ask(capsys, "verify", "qlora", "--strict")[0] == 1
    code, document = ask(capsys, "verify", "qlora", "--require-accelerator")
    assert (code, document["problems"][0]["code"]) == (3, "no-usable-gpu")


def test_the_script_is_written_once_and_overwrites_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "selftest.py"
    code, document = ask(capsys, "verify", "--export-script", str(file))
    assert (code, document["data"]) == (0, {"script": str(file)})
    assert file.read_text(encoding="utf-8") == export_script()
    file.write_text("mine", encoding="utf-8")
    code, document = ask(capsys, "verify", "--export-script", str(file))
    assert (code, document["problems"][0]["code"]) == (2, "usage")
    assert file.read_text(encoding="utf-8") == "mine"
    assert ask(capsys, "verify", "--export-script", str(tmp_path / "no" / "where.py"))[0] == 5


@pytest.mark.slow
@pytest.mark.skipif(
    TEST_ENV is None, reason="BNBENV_TEST_ENV names no interpreter with torch and bitsandbytes"
)
def test_a_real_answer_keeps_to_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert TEST_ENV is not None
    code, document = ask(capsys, "verify", TEST_ENV)
    assert (code, document["status"]) == (0, "ok")
    assert document["data"]["library"].startswith("libbitsandbytes_")
    assert document["data"]["devices"][0]["checks"]
