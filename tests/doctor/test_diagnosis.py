from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING

import pytest

from bnbenv.doctor.diagnosis import diagnose
from bnbenv.workflows.diagnose import load_rules

if TYPE_CHECKING:
    from bnbenv.doctor.diagnosis import Diagnosis
    from bnbenv.matrix.matrix import Matrix


@lru_cache(maxsize=1)
def rules() -> Matrix:
    return load_rules()


def told(text: str | bytes) -> Diagnosis:
    return diagnose([text if isinstance(text, bytes) else text.encode()], rules())


def test_facts_alone_go_to_the_judge() -> None:
    found = told("torch 2.5.1+cu121 on an RTX 5090\nRuntimeError: CUDA error\n")
    assert found.cause == "torch-arch-unsupported"
    assert any("12.0" in finding.summary for finding in found.suspects[0].findings)


def test_an_unknown_cause_says_what_is_missing() -> None:
    found = told(
        "UserWarning: The installed version of bitsandbytes was compiled without GPU support.\n"
        "libbitsandbytes_cpu.so: undefined symbol: cadam32bit_grad_fp32\n"
    )
    assert found.cause == "unknown"
    assert {row.fact for row in found.questions} >= {"torch", "bitsandbytes", "gpu"}
    assert [entry.line for entry in found.symptoms] == [1, 2]


LINE = "OSError: libnvJitLink.so.13: cannot open shared object file: No such file or directory"
RED = LINE.replace(".so", "\x1b[0m.so")
BOX = f"╭── Traceback ──╮\n│ ❱ 3 import bitsandbytes │\n╰───────╯\n{LINE}\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"start\n\x1b[31m{RED}\n".encode(), 2),
        (f"start\n{LINE}\n".encode("utf-16"), 2),
        (f"start\r\n{LINE}\r\n".encode("utf-16-le"), 2),
        (f"start\n 10%|#   |\r 20%|##  |\r{LINE}\n".encode(), 2),
        (BOX.encode(), 4),
        (f"│ {LINE} │\n".encode(), 1),
        (json.dumps({"cells": [{"outputs": [{"traceback": ["start", LINE]}]}]}, indent=1).encode(), 8),
        (json.dumps({"log": f"{LINE}\n", "stream": "stderr"}).encode(), 1),
        (b"\xe9\xff start\n" + LINE.encode() + b"\n", 2),
    ],
    ids=["colours", "utf-16", "utf-16-crlf", "bars", "box", "framed", "notebook", "container", "latin"],
)
def test_any_form_of_a_text_says_the_same(text: bytes, line: int) -> None:
    found = told(text)
    assert found.cause == "cuda-runtime-not-found"
    assert found.suspects[0].evidence[0].line == line
