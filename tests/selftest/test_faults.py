"""Known faults explain exactly what they describe."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnbenv.errors import DataError
from bnbenv.matrix.load import load
from bnbenv.matrix.rows import KnownFault, Provenance
from bnbenv.selftest.faults import explain, holds
from bnbenv.selftest.verdict import Check

ROW = KnownFault(
    id="unaligned",
    package="bitsandbytes",
    versions=">=0.49.0,<=0.50.2",
    device="cpu",
    cpu_flags=("avx512f",),
    checks=("dequantize_4bit/*",),
    dtypes=("float32",),
    shapes={"rows": "> 1", "cols": "% 16 == 0 and % blocksize != 0", "count": "> blocksize"},
    summary="",
    workaround="",
    reproduction="",
    provenance=Provenance(how="measured", source="test", checked="2026-11-23"),
)
CHECK = Check(
    name="dequantize_4bit/nf4/b64",
    dtype="float32",
    state="failed",
    error=10.0,
    tolerance=1.0,
    shape={"rows": 2, "cols": 96, "blocksize": 64},
)


def shaped(rows: int, cols: int) -> Check:
    return replace(CHECK, shape={"rows": rows, "cols": cols, "blocksize": 64})


SEEN = {"bitsandbytes": "0.50.2", "torch": "2.13.0+cpu"}


def explained(check: Check = CHECK, **changes: object) -> bool:
    known = {"device": "cpu", "versions": SEEN, "cpu_flags": {"avx512f", "fma"}, "rows": [ROW], **changes}
    return explain(check, **known).state == "known-fault"  # type: ignore[arg-type]


def test_an_exact_match_is_a_known_fault_with_its_id() -> None:
    found = explain(CHECK, device="cpu", versions=SEEN, cpu_flags=["avx512f"], rows=[ROW])
    assert found == replace(CHECK, state="known-fault", fault="unaligned")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"versions": {"bitsandbytes": "0.50.3"}}, id="newer-release"),
        pytest.param({"versions": {"bitsandbytes": "0.48.2"}}, id="older-release"),
        pytest.param({"versions": {"bitsandbytes": "nonsense"}}, id="unreadable-release"),
        pytest.param({"versions": {}}, id="unknown-release"),
        pytest.param({"device": "cuda:0"}, id="other-device"),
        pytest.param({"cpu_flags": {"avx2"}}, id="other-processor"),
        pytest.param({"cpu_flags": None}, id="unknown-processor"),
        pytest.param({"rows": []}, id="no-rows"),
        pytest.param({"check": replace(CHECK, dtype="float16")}, id="other-dtype"),
        pytest.param({"check": replace(CHECK, name="quantize_4bit/nf4/b64")}, id="other-check"),
        pytest.param({"check": shaped(1, 96)}, id="one-row"),
        pytest.param(
            {"check": replace(CHECK, shape={"rows": 2, "cols": 128, "blocksize": 64})}, id="aligned"
        ),
        pytest.param(
            {"check": replace(CHECK, shape={"rows": 2, "cols": 90, "blocksize": 64})}, id="odd-width"
        ),
        pytest.param(
            {"check": replace(CHECK, shape={"rows": 2, "cols": 16, "blocksize": 64})}, id="one-block"
        ),
        pytest.param({"check": replace(CHECK, shape={})}, id="unknown-shape"),
    ],
)
def test_anything_beside_the_row_stays_a_failure(changes: dict[str, object]) -> None:
    assert not explained(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ["passed", "not-offered", "degraded"])
def test_only_failures_are_explained(state: str) -> None:
    check = replace(CHECK, state=state)  # type: ignore[arg-type]
    assert explain(check, device="cpu", versions=SEEN, cpu_flags={"avx512f"}, rows=[ROW]) is check


def test_a_crash_can_be_known_too() -> None:
    assert explained(replace(CHECK, state="crashed"))


@given(
    rows=st.integers(1, 40), cols=st.integers(1, 5000), block=st.sampled_from([32, 64, 128, 256, 512, 1024])
)
def test_the_rule_is_the_arithmetic_it_stands_for(rows: int, cols: int, block: int) -> None:
    check = replace(CHECK, shape={"rows": rows, "cols": cols, "blocksize": block})
    expected = rows > 1 and cols % 16 == 0 and cols % block != 0 and rows * cols > block
    assert explained(check) == expected


@given(st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_each_comparison(left: int, right: int) -> None:
    facts = {"x": left, "y": right}
    for operator, value in (
        ("==", left == right),
        ("!=", left != right),
        ("<", left < right),
        ("<=", left <= right),
        (">", left > right),
        (">=", left >= right),
    ):
        assert holds(f"{operator} {right}", "x", facts) is value
        assert holds(f"{operator} y", "x", facts) is value


@pytest.mark.parametrize("rule", ["", "16", "% 16", "= 1", "> 1 or < 0", "__import__('os')", "> 1 and"])
def test_a_malformed_rule_is_refused(rule: str) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        holds(rule, "rows", {"rows": 0})


def test_text_is_matched_by_what_it_holds() -> None:
    assert holds("~ block_n", "detail", {"detail": "N must be divisible by block_n"})
    assert not holds("~ block_n", "detail", {"detail": None})


def test_an_unknown_fact_fulfils_nothing() -> None:
    assert not holds("!= 3", "rows", {})
    assert not holds("% width == 0", "rows", {"rows": 4})
    assert not holds("% 0 == 0", "rows", {"rows": 4})


def test_every_shipped_row_can_be_read() -> None:
    rows = load("known_faults").known_faults
    assert rows
    for row in rows:
        for name, rule in row.shapes.items():
            holds(rule, name, {})
        assert row.reproduction.strip(), row.id
        assert row.workaround, row.id


@pytest.mark.parametrize(
    ("name", "detail", "shape", "fault"),
    [
        pytest.param(
            "dequantize_4bit/fp4/b128", None, (2, 160, 128), "avx512-dequantize-unaligned", id="dequantise"
        ),
        pytest.param("dequantize_4bit/fp4/b128", None, (2, 256, 128), None, id="aligned"),
        pytest.param("dequantize_4bit/nf4/b2048", None, (2, 2064, 2048), None, id="large-blocks"),
        pytest.param("quantize_4bit/nf4/b64", None, (2, 96, 64), None, id="quantise"),
        pytest.param(
            "linear4bit/nf4/eval",
            "AssertionError: N must be divisible by block_n [functional.py:1]",
            (40, 128, 64),
            "cpu-repack-out-features",
            id="out-features",
        ),
        pytest.param("linear4bit/nf4/eval", None, (40, 128, 64), None, id="wrong-where-it-raises"),
        pytest.param(
            "linear4bit/nf4/train",
            "AssertionError: N must be divisible by block_n",
            (40, 128, 64),
            None,
            id="training-does-not-repack",
        ),
    ],
)
def test_shipped_rows(name: str, detail: str | None, shape: tuple[int, int, int], fault: str | None) -> None:
    rows, cols, block = shape
    check = Check(
        name=name,
        dtype="float32",
        state="failed",
        detail=detail,
        shape={"rows": rows, "cols": cols, "blocksize": block},
    )
    found = explain(
        check,
        device="cpu",
        versions=SEEN,
        cpu_flags=("avx512f", "avx512_bf16"),
        rows=load("known_faults").known_faults,
    )
    assert found.fault == fault
