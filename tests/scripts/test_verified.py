from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

import refresh_verified
from bnbenv.cli.main import main
from bnbenv.errors import UsageError
from bnbenv.matrix.load import compat_directory
from bnbenv.selftest.block import write_block
from refresh_verified import rows_from

if TYPE_CHECKING:
    from pathlib import Path


def block(**changes: Any) -> str:
    facts: dict[str, Any] = {
        "schema": 1, "script": "0" * 64, "level": "full", "date": "2026-11-25", "driver": "580.95.05",
        "platform": "Linux-6.1-x86_64-with-glibc2.36", "verdict": "passed",
        "library": "libbitsandbytes_cuda128.so",
        "versions": {"python": "3.12.4", "torch": "2.9.1+cu128", "bitsandbytes": "0.50.2"},
        "devices": [{"device": "cuda:0", "name": "A card", "capability": "8.9", "crashed_in": None,
                     "counts": {"passed": 9}, "failures": []}],
    }  # fmt: skip
    return write_block({**facts, **changes})


def test_a_block_becomes_a_row() -> None:
    (row,) = rows_from(f"some words\n{block()}more words\n")
    assert (row.torch, row.build, row.bitsandbytes, row.python) == ("2.9.1", "cu128", "0.50.2", "3.12")
    assert (row.os, row.arch, row.accelerator, row.capability) == ("linux", "x86_64", "cuda", "8.9")
    assert row.digest in block()


@pytest.mark.parametrize("verdict", ["failed", "not-run", None])
def test_what_did_not_pass_is_left_out(verdict: str | None) -> None:
    assert list(rows_from(block(verdict=verdict))) == []


def test_a_changed_block_is_refused() -> None:
    with pytest.raises(UsageError):
        list(rows_from(block().replace("8.9", "9.0")))


def test_a_block_from_a_users_machine_becomes_the_evidence_of_resolve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compat = tmp_path / "compat"
    shutil.copytree(compat_directory(), compat)
    monkeypatch.setenv("BNBENV_COMPAT", str(compat))
    monkeypatch.setattr(refresh_verified, "PATH", compat / "verified.json")
    (tmp_path / "seen.txt").write_text(block(), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["refresh_verified.py", str(tmp_path / "seen.txt"), "--write"])
    refresh_verified.main()
    capsys.readouterr()
    machine = [
        "--driver",
        "580.95.05",
        "--os",
        "linux",
        "--arch",
        "x86_64",
        "--glibc",
        "2.35",
        "--python",
        "3.12",
    ]

    def resolved(*words: str) -> tuple[str, str]:
        assert main(["resolve", "qlora", *machine, *words, "--json"]) == 0
        data = json.loads(capsys.readouterr().out)["data"]
        return data["torch"]["version"], data["evidence"]

    assert resolved("--gpu", "8.9", "--prefer", "verified") == ("2.9.1", "verified")
    assert resolved("--gpu", "8.6", "--torch", "==2.9.1", "--cuda", "12.8") == ("2.9.1", "neighbour")
    assert resolved("--gpu", "8.9")[1] == "none"  # the newest, which nobody has verified
