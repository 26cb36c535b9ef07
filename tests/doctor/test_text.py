from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bnbenv.doctor.text import LONGEST, blocks_of, readings, undecorated, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = "first\nvérité `GLIBC_2.34'\nlast\n"


def lines(data: bytes, size: int = 7) -> list[tuple[int, str]]:
    chunks: Iterator[bytes] = (data[at : at + size] for at in range(0, len(data), size))
    return [
        (number, line)
        for block in blocks_of(chunks)
        for number, line in zip(block.numbers, block.text.split("\n"), strict=False)
        if line
    ]


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.encode("latin-1"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("last", "\x1b[31mlast\x1b[0m").encode(),
        TEXT.replace("last", "\x1b]8;;http://x\x07last\x1b]8;;\x07").encode(),
    ],
    ids=["utf-8", "bom", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "crlf", "colours", "links"],
)
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_encodings_and_escapes(data: bytes, size: int) -> None:
    assert lines(data, size) == [(1, "first"), (2, "vérité `GLIBC_2.34'"), (3, "last")]


def test_a_progress_bar_keeps_its_line_number() -> None:
    assert lines(b"start\n 1%\r 2%\rError here\nend") == [
        (1, "start"),
        (2, " 1%"),
        (2, " 2%"),
        (2, "Error here"),
        (3, "end"),
    ]


def test_many_blocks_number_their_lines() -> None:
    data = b"".join(b"line %d\n" % number for number in range(1, 100_001))
    found = lines(data, 1 << 16)
    assert found[0] == (1, "line 1")
    assert all(text == f"line {number}" for number, text in found)
    assert len(found) == 100_000


def test_a_line_without_end_is_read_in_pieces() -> None:
    held = 0
    for block in blocks_of(b"x" * (1 << 20) for _ in range(8)):
        held = max(held, len(block.text))
        assert set(block.numbers) == {1}
    assert held < 3 << 20
    pieces = readings("a" * (LONGEST * 3))
    assert all(len(piece) <= LONGEST for piece in pieces)


def test_notebook_lines_are_unquoted() -> None:
    cell = json.dumps(["\x1b[0;31mModuleNotFoundError\x1b[0m: No module named 'triton.ops'\n", "next\n"])
    assert readings(f'   "traceback": {cell},') == (
        "traceback",
        "ModuleNotFoundError: No module named 'triton.ops'",
        "next",
    )
    assert readings('{"log": "a \\"b\\"\\nsecond\\n", "stream": "stderr"}')[1:3] == ('a "b"', "second")


def test_frames_and_typeset_quotes_are_plain() -> None:
    assert readings("│ ❱ 12 import bitsandbytes            │") == ("12 import bitsandbytes",)
    assert readings("version ‘GLIBC_2.34’ not found") == ("version 'GLIBC_2.34' not found",)  # noqa: RUF001
    assert readings("No module named &#39;scipy&#39;") == ("No module named 'scipy'",)
    assert readings("╰──────────────────╯") == ()


@pytest.mark.parametrize(
    ("line", "following", "expected"),
    [
        (
            "RuntimeError: Configured CUDA binary not found at",
            "/srv/env/lib/python3.11/site-packages/b",
            True,
        ),
        (">>> torch.cuda.is_available()", "False", True),
        ("short", "line", False),
        ("x" * 75, "libcuda.so: cannot open shared object file", True),
        ("x" * 74 + ".", "libcuda.so: cannot open shared object file", False),
        ("x" * 75, '  File "a.py", line 1', False),
        ("x" * 75, "", False),
    ],
)
def test_what_belongs_together(line: str, following: str, expected: bool) -> None:
    assert wrapped(line, following) is expected


@pytest.mark.parametrize(
    "before",
    [
        "> ",
        "> > ",
        "   12\t",
        "2026-11-30T08:00:01.1234567Z ",
        "2026-11-30 08:00:01,123 - stderr - INFO - ",
        "[2026-11-30 08:00:01] [rank3]: ",
        "[08:00:01] ",
        "Nov 30 08:00:01 gpu01 python[2211]: ",
        "3: ",
        "trainer-1  | ",
        "(Worker pid=2211, ip=10.0.0.3) ",
    ],
)
@pytest.mark.parametrize("line", [">>> import torch", "False", "ERROR: no such release", "    raise err"])
def test_what_a_log_puts_before_a_line(before: str, line: str) -> None:
    assert undecorated(before + line) == line


@pytest.mark.parametrize(
    "line",
    [
        ">>> 2.11.0+cu128",
        "12.4",
        "2.9.1+cu128",
        "|   0  NVIDIA GeForce RTX 4070      WDDM  |",
        "torch | 2.9.1",
        "GPU 0: NVIDIA L4",
        "[rank of the matrix] 4",
        " - torch==2.9.1",
        "2026-11-30",
    ],
)
def test_what_belongs_to_a_line(line: str) -> None:
    assert undecorated(line) == line
