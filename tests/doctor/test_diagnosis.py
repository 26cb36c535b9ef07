from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

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
