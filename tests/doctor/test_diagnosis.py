from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
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


def test_a_name_that_fits_gpus_of_several_kinds_is_left_open() -> None:
    answer = diagnose([b"RTX 6000, torch==2.9.1, bitsandbytes==0.50.2: nothing happens"], rules())
    assert answer.facts.gpus == ()
    assert "gpu:nvidia" in answer.facts.derived
    assert "gpu" in {row.fact for row in answer.questions}
    answer = diagnose([b"RTX 6000 Ada, torch==2.9.1, bitsandbytes==0.50.2: nothing happens"], rules())
    assert [str(gpu.compute_capability) for gpu in answer.facts.gpus] == ["8.9"]


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


ANSWERS = {
    "torch": "2.8.0+cu128 12.8 None",
    "bitsandbytes": (
        "Name: bitsandbytes\nVersion: 0.46.0\nSummary: k-bit optimizations\n"
        "Location: /e/lib/python3.11/site-packages\nRequires: numpy, torch\nRequired-by:\nFiles:\n"
        "  bitsandbytes/__init__.py"
    ),
    "cuda_available": "True 1",
    "gpu": "name, compute_cap, driver_version\nTesla V100-SXM2-16GB, 7.0, 570.86.15",
    "driver": (
        "| NVIDIA-SMI 570.86.15      Driver Version: 570.86.15      CUDA Version: 12.8     |\n"
        "|   0  Tesla V100-SXM2-16GB           On  |   00000000:1A:00.0 Off |                    0 |"
    ),
    "os": "Linux-5.15.0-91-generic-x86_64-with-glibc2.35 3.11.7",
    "library": (
        "PyTorch settings found: CUDA_VERSION=125, Highest Compute Capability: (8, 0).\n"
        "Library not found: /e/lib/python3.10/site-packages/bitsandbytes/libbitsandbytes_cuda125.so. "
        "Maybe you need to compile it from source?"
    ),
    "environment": "LD_LIBRARY_PATH=/usr/local/cuda/lib64\nCUDA_HOME=/usr/local/cuda",
    "transformers": "Package            Version\n------------------ -------\ntransformers       4.51.0",
}
FAILURE = "RuntimeError: CUDA error: no kernel image is available for execution on the device\n"


@pytest.mark.parametrize("typed", [True, False], ids=["with-the-command", "alone"])
@pytest.mark.parametrize("fact", [row.fact for row in rules().questions if row.command and not row.all])
def test_the_answer_to_every_question_is_read_as_its_command_prints_it(fact: str, typed: bool) -> None:
    (question,) = (row for row in rules().questions if row.fact == fact and not row.all)
    assert question in told(FAILURE).questions
    command = f"$ {question.command}\n" if typed else ""
    found = told(f"{FAILURE}{command}{ANSWERS[fact]}\n")
    assert question not in found.questions
    assert [entry.line for entry in found.symptoms][:1] in ([], [1])


def test_the_answers_together_name_the_cause() -> None:
    found = told("\n".join([FAILURE, *(ANSWERS[fact] for fact in ("torch", "bitsandbytes", "gpu"))]))
    assert found.cause == "no-kernel-image"
    assert found.facts.best("torch_cuda") == "12.8"
    assert found.facts.best("bitsandbytes") == "0.46.0"
    assert found.facts.best("driver") == "570.86.15"


@pytest.mark.parametrize(
    ("answer", "cuda", "hip"),
    [
        ("2.9.1+rocm6.4 None 6.4.43484-123eb5128", None, "6.4.43484-123eb5128"),
        ("2.9.1+cpu None None", "None", None),
        ("2.9.1 13.0 None", "13.0", None),
    ],
)
def test_a_torch_says_what_it_is_built_for(answer: str, cuda: str | None, hip: str | None) -> None:
    facts = told(answer).facts
    assert facts.best("torch") == answer.partition(" ")[0]
    assert (facts.best("torch_cuda"), facts.best("torch_hip")) == (cuda, hip)


def test_what_a_command_looks_for_is_no_evidence() -> None:
    found = told(f'{FAILURE}$ env | grep -E "BNB_|CUDA|LD_LIBRARY_PATH|ROCM"\n')
    assert [entry.line for entry in found.symptoms] == [1]


def test_the_variables_are_asked_for_by_a_command_of_every_system() -> None:
    (question,) = (row for row in rules().questions if row.fact == "environment")
    python, option, program = shlex.split(question.command)
    assert (python, option) == ("python", "-c")
    environ = {"PATH": os.environ["PATH"], "BNB_CUDA_VERSION": "131", "HF_TOKEN": "of nobody's"}
    done = subprocess.run(
        [sys.executable, option, program], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == "BNB_CUDA_VERSION=131\n"
    assert told(done.stdout).facts.best("environment") == "BNB_CUDA_VERSION"


@pytest.mark.parametrize(
    "name",
    [
        "HSA_OVERRIDE_GFX_VERSION",
        "HIP_VISIBLE_DEVICES",
        "ROCR_VISIBLE_DEVICES",
        "PYTORCH_CUDA_ALLOC_CONF",
        "ONEAPI_DEVICE_SELECTOR",
        "ZE_AFFINITY_MASK",
    ],
)
def test_variables_of_every_accelerator_are_asked_for_and_read(name: str) -> None:
    (question,) = (row for row in rules().questions if row.fact == "environment")
    done = subprocess.run(
        [sys.executable, "-c", shlex.split(question.command)[2]],
        env={"PATH": os.environ["PATH"], name: "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told(done.stdout).facts.best("environment") == name


@pytest.mark.parametrize(
    ("machine", "asked"),
    [
        ("It is a CPU-only server.", set()),
        ("There is no GPU in this machine.", set()),
        ("for vm: linux x86_64, no GPU", set()),
        ("a laptop without a dedicated GPU", set()),
        ("on my MacBook M2", set()),
        ("torch 2.9.1+xpu", set()),
        ("torch 2.9.1+rocm6.4", {"rocminfo"}),
        ("RX 7900 XTX", set()),
        ("RTX 4090", {"nvidia-smi"}),
        ("compiled without GPU support", {"nvidia-smi"}),
    ],
)
def test_a_gpu_and_its_driver_are_asked_of_machines_that_may_have_them(machine: str, asked: set[str]) -> None:
    found = told(f"{FAILURE}{machine}\n")
    questions = [row for row in found.questions if row.fact in ("gpu", "driver")]
    assert {row.command.partition(" ")[0] for row in questions} == asked


def test_versions_at_the_end_of_a_sentence() -> None:
    facts = told("Torch: 2.11.0+cu128. CUDA: 8.6. Transformers: 5.21.0. Triton: 3.6.0.\n").facts
    assert facts.best("torch") == "2.11.0+cu128"
    assert facts.best("transformers") == "5.21.0"
