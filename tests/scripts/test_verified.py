from __future__ import annotations

from typing import Any

import pytest

from bnbenv.errors import UsageError
from bnbenv.selftest.block import write_block
from refresh_verified import rows_from


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
