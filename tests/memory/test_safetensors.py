from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnbenv.errors import UsageError
from bnbenv.memory.safetensors import read_header
from support.safetensors import header_of, write_raw, write_safetensors

if TYPE_CHECKING:
    from pathlib import Path

TWO = {"a": ("BF16", (3, 5)), "b": ("U8", (7,))}


def test_a_header_tells_names_types_shapes_and_sizes(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", TWO, __metadata__={"format": "pt"})
    assert [
        (found.name, found.dtype, found.shape, found.bytes, found.file) for found in read_header(path)
    ] == [
        ("a", "BF16", (3, 5), 30, "x.safetensors"),
        ("b", "U8", (7,), 7, "x.safetensors"),
    ]


def test_types_of_less_than_a_byte_are_counted_in_bits(tmp_path: Path) -> None:
    header = {"a": {"dtype": "F4", "shape": [3, 2], "data_offsets": [0, 3]}}
    [found] = read_header(write_raw(tmp_path / "x", json.dumps(header).encode(), 3))
    assert found.bytes == 3


def entry(**changes: Any) -> bytes:
    return json.dumps({"a": {"dtype": "BF16", "shape": [3, 5], "data_offsets": [0, 30], **changes}}).encode()


@pytest.mark.parametrize(
    ("header", "data", "length", "why"),
    [
        (b"", 0, 10**12, "claims 1000000000000 bytes"),
        (b"{}", 0, 2**63, "claims"),
        (b"[]", 0, None, "not an object"),
        (b"{", 0, None, "not JSON"),
        (b"[" * 100_000, 0, None, "nested too deep"),
        (b'{"a": {}, "a": {}}', 0, None, "holds `a` twice"),
        (entry(shape=[3, float("nan")]), 30, None, "`NaN` is no number"),
        (b'{"a": {"dtype": "BF16", "shape": [' + b"9" * 5000 + b"]}}", 30, None, "not JSON"),
        (b'{"\xff": 1}', 0, None, "not JSON"),
        (b'{"\\u001b[2J": 1}', 0, None, "`.\\[2J` is no tensor"),
        (b'{"a": 1}', 0, None, "no tensor"),
        (b'{"__metadata__": {"format": 1}}', 0, None, "metadata are not texts"),
        (b'{"__metadata__": []}', 0, None, "metadata are not texts"),
        (entry(dtype="Q4"), 30, None, "unknown type"),
        (entry(dtype=["BF16"]), 30, None, "unknown type"),
        (entry(shape=[-3, -5]), 30, None, "impossible shape"),
        (entry(shape=[3.0, 5]), 30, None, "impossible shape"),
        (entry(shape=[True, 15]), 30, None, "impossible shape"),
        (entry(shape=[1] * 65), 30, None, "impossible shape"),
        (entry(shape=[2**62, 2**62]), 30, None, "need"),
        (entry(data_offsets=[0]), 30, None, "no place"),
        (entry(data_offsets=[0, -30]), 30, None, "no place"),
        (entry(data_offsets=[30, 0]), 30, None, "outside"),
        (entry(data_offsets=[0, 10**15]), 30, None, "outside"),
        (entry(), 29, None, "outside"),
        (entry(), 31, None, "cut short or padded"),
        (entry(shape=[3, 4]), 30, None, "need"),
    ],
)
def test_a_header_that_lies_is_refused(
    tmp_path: Path, header: bytes, data: int, length: int | None, why: str
) -> None:
    path = write_raw(tmp_path / "x.safetensors", header, data, length=length)
    with pytest.raises(UsageError, match=why) as raised:
        read_header(path)
    assert raised.value.code == "bad-model"
    assert str(path) in raised.value.message


def test_an_empty_tensor_may_stand_before_its_neighbour(tmp_path: Path) -> None:
    header = header_of({"a": ("U8", (7,)), "b": ("U8", (0,))})
    header["b"]["data_offsets"] = [0, 0]
    names = [it.name for it in read_header(write_raw(tmp_path / "x", json.dumps(header).encode(), 7))]
    assert names == ["b", "a"]


def test_tensors_that_overlap_are_refused(tmp_path: Path) -> None:
    header = header_of(TWO)
    header["b"]["data_offsets"] = [29, 36]
    with pytest.raises(UsageError, match="overlaps"):
        read_header(write_raw(tmp_path / "x", json.dumps(header).encode(), 36))


def test_bytes_that_no_tensor_owns_are_refused(tmp_path: Path) -> None:
    header = header_of(TWO)
    del header["a"]
    with pytest.raises(UsageError, match="a hole before `b`"):
        read_header(write_raw(tmp_path / "x", json.dumps(header).encode(), 37))


@pytest.mark.parametrize("size", [0, 7])
def test_a_stump_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(size))
    with pytest.raises(UsageError, match="too few"):
        read_header(path)


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1) | st.none())
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_bytes_are_answered_or_refused(tmp_path: Path, body: bytes, length: int | None) -> None:
    path = write_raw(tmp_path / "x", body, 0, length=length)
    with suppress(UsageError):
        read_header(path)
