"""What pip and uv say to `--dry-run`, in captured words."""

from __future__ import annotations

import prove_guard

PIP = "Would install auto_gptq-0.7.1 nvidia-cublas-13.0 nvidia-cudnn-9.9 torch-2.14.1 xxhash-3.7.0\n"
UV = """\
Resolved 198 packages in 4.01s
Would download 122 packages
Would uninstall 3 packages
Would install 161 packages
 + nvidia-cublas==13.0
 - torch==2.13.0+cpu
 + torch==2.14.0
 + vllm==0.33.0
"""


def test_what_pip_would_bring() -> None:
    assert prove_guard._announced(PIP, 0) == [
        "would bring auto_gptq-0.7.1",
        "would bring torch-2.14.1",
        "would bring 2 CUDA packages",
    ]


def test_what_uv_would_bring_stands_below_its_number() -> None:
    assert prove_guard._announced(UV, 0) == [
        "would bring torch-2.14.0",
        "would bring vllm-0.33.0",
        "would bring 1 CUDA packages",
    ]


def test_nothing_is_said_as_nothing_and_a_failure_as_its_last_line() -> None:
    assert prove_guard._announced("Would make no changes\n", 0) == ["would change nothing that matters"]
    assert prove_guard._announced("error: no\n", 1) == ["fails by itself: error: no"]
