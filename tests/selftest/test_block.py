"""What a self-test found travels as text, and comes back as it was or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from bnbenv.errors import UsageError
from bnbenv.selftest.block import facts_of, read_blocks, write_block
from bnbenv.selftest.verdict import Check, Device, Verdict

VERDICT = Verdict(
    verdict="degraded",
    level="quick",
    library="libbitsandbytes_cuda128.so",
    devices=(
        Device(
            device="cuda:0",
            name="NVIDIA H100",
            judged=True,
            capability="9.0",
            checks=(
                Check(name="matmul_4bit/nf4", dtype="float16", state="passed", error=0.0, tolerance=1.0),
                Check(name="a", dtype="", state="known-fault", error=2.0, tolerance=1.0, fault="listed"),
                Check(name="b", dtype="", state="crashed", detail="killed by SIGSEGV"),
            ),
        ),
    ),
    versions={"torch": "2.13.0", "bitsandbytes": "0.50.2"},
)


def facts() -> dict[str, Any]:
    return facts_of(VERDICT, script="ab" * 32, date="2026-11-25", platform="Linux", driver="580.95.05")


def test_what_was_found_comes_back() -> None:
    text = f"Hello,\n\n{write_block(facts())}\nand\n{write_block({**facts(), 'level': 'full'})}"
    first, second = read_blocks(text)
    assert first == facts()
    assert second["level"] == "full"
    assert read_blocks(text.replace("\n", "\r\n")) == (first, second)


def test_a_block_tells_the_stack_the_gpu_the_driver_and_what_failed() -> None:
    told = facts()
    assert (told["driver"], told["date"], told["verdict"]) == ("580.95.05", "2026-11-25", "degraded")
    assert told["versions"]["bitsandbytes"] == "0.50.2"
    (device,) = told["devices"]
    assert (device["name"], device["capability"]) == ("NVIDIA H100", "9.0")
    assert device["counts"] == {"passed": 1, "known-fault": 1, "crashed": 1}
    assert device["crashed_in"] == "b"
    assert [failure["fault"] for failure in device["failures"]] == ["listed", None]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nothing", "holds no block"),
        (write_block(facts()).replace("degraded", "passed"), "was changed"),
        (write_block({**facts(), "schema": 2}), "not of schema 1"),
    ],
)
def test_what_is_no_block_of_ours_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_blocks(text)
