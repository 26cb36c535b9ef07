from __future__ import annotations

import json
import shlex
from functools import lru_cache
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.main import main
from bnbenv.cli.parser import command_parser
from bnbenv.doctor.commands import commands_for
from bnbenv.doctor.diagnosis import diagnose, diagnosis_document
from bnbenv.doctor.facts import Facts
from bnbenv.matrix.load import load
from bnbenv.workflows.diagnose import load_rules

if TYPE_CHECKING:
    from pathlib import Path

    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import Cause

CONFIG = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "torch_dtype": "bfloat16",
}
FIGURES = "--seq 4096 --batch 4 --lora-rank 32"
LOADING = (
    "python finetune.py --base_model org/Small-7B --max_seq_length 4096"
    " --per_device_train_batch_size 4 --lora_r 32\n"
    '  File "/e/lib/python3.11/site-packages/transformers/modeling_utils.py", line 9, in from_pretrained\n'
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of "
    "11.76 GiB of which 1.00 GiB is free.\nNVIDIA GeForce RTX 3060\n"
)
EIGHT_BIT = (
    'model = AutoModelForCausalLM.from_pretrained("./weights/old-40b", load_in_8bit=True)\n'
    "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 112.00 MiB (GPU 0; 39.45 GiB total "
    "capacity; 4.00 GiB already allocated)\n"
)
SPILL = (
    "Windows 11, RTX 4070 (12 GB), QLoRA with per_device_train_batch_size=2\n"
    "No error, but 95.3s/it; the task manager shows 9.4 GB of shared GPU memory in use.\n"
)


@lru_cache(maxsize=1)
def rules() -> Matrix:
    return load_rules()


def told(text: str) -> tuple[str, list[str]]:
    data = diagnosis_document(diagnose([text.encode()], rules()))
    return data["cause"], data["causes"][0]["remedy"]["commands"]


@pytest.mark.parametrize(
    ("text", "cause", "commands"),
    [
        (LOADING, "oom-4bit-load", [
            f"bnbenv memory org/Small-7B --profile qlora {FIGURES} --gpu 'GeForce RTX 3060' --memory 11.76",
            "bnbenv quantize DIRECTORY OUT --type nf4",
        ]),
        (EIGHT_BIT, "oom-4bit-load", [
            "bnbenv memory ./weights/old-40b --profile int8 --memory 39.45",
            "bnbenv quantize ./weights/old-40b OUT --type int8",
        ]),
        (SPILL, "windows-memory-spill", [
            "bnbenv memory MODEL --profile qlora --batch 2 --gpu 'GeForce RTX 4070' --memory 12 --os windows",
        ]),
    ],
    ids=["loading", "in-8-bit", "spill"],
)  # fmt: skip
def test_the_figures_of_the_text_are_in_the_commands(text: str, cause: str, commands: list[str]) -> None:
    named, given = told(text)
    assert named == cause
    assert [command.replace("NVIDIA ", "") for command in given] == commands


@pytest.mark.parametrize("text", [LOADING, EIGHT_BIT, SPILL], ids=["loading", "in-8-bit", "spill"])
def test_the_commands_can_be_typed(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    _, [command, *_] = told(text)
    name, *arguments = shlex.split(command)
    arguments[1] = str(config)
    assert (name, arguments[0]) == ("bnbenv", "memory")
    assert main([*arguments, "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["status"] == "ok"


@pytest.mark.parametrize(
    "text",
    [
        "Windows 11\nSharedMemory segments are used by the data loader; training is slow\n",
        "Ubuntu 22.04\nGPU 0: 80 KB of shared memory a block\n",
        'Windows 11\n  File "C:\\e\\trainer.py", line 1, in training_step\nCUDA out of memory.\n',
    ],
)
def test_what_is_no_spill(text: str) -> None:
    assert diagnose([text.encode()], rules()).cause != "windows-memory-spill"


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("No module named 'triton.ops'", "python -m pip install --upgrade --no-deps bitsandbytes"),
        ("BNB_CUDA_VERSION=999 environment variable detected; loading x", "unset BNB_CUDA_VERSION"),
        ("BNB_ROCM_VERSION=99 environment variable detected; loading x", "unset BNB_ROCM_VERSION"),
        ("C:\\e\\x.py\nBNB_CUDA_VERSION=999 environment variable detected", "set BNB_CUDA_VERSION="),
    ],
)
def test_other_causes_have_commands_of_their_own(text: str, command: str) -> None:
    assert told(text)[1] == [command]


NOT_COMPATIBLE = (
    "NVIDIA GeForce GTX 1070 with CUDA capability sm_61 is not compatible with the current PyTorch "
    "installation.\n"
)
OLD_DRIVER = (
    "PS C:\\e> nvidia-smi\n| NVIDIA-SMI 511.65 Driver Version: 511.65 CUDA Version: 11.6 |\n"
    "| 0 NVIDIA GeForce RTX 3080 WDDM |\n"
    "The NVIDIA driver on your system is too old (found version 11060)\n"
)
IN_WSL = (
    "Linux 5.15.167.4-microsoft-standard-WSL2, NVIDIA GeForce RTX 3080\n"
    "The NVIDIA driver on your system is too old (found version 11060)\n"
)
GFX803 = "torch 2.9.1+rocm6.4, gfx803\nHIP error: invalid device function\n"
SILENT = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."


@pytest.mark.parametrize(
    ("text", "command"),
    [
        (NOT_COMPATIBLE, "bnbenv resolve qlora --gpu 'GeForce GTX 1070'"),
        (OLD_DRIVER, "bnbenv resolve qlora --gpu 'GeForce RTX 3080' --driver 511.65 --os windows"),
        (IN_WSL, "bnbenv resolve qlora --gpu 'GeForce RTX 3080' --os wsl"),
        (GFX803, "bnbenv resolve qlora --gpu gfx803"),
        ("AssertionError: Torch not compiled with CUDA enabled", "bnbenv resolve qlora"),
        (SILENT, "bnbenv detect"),
    ],
    ids=["a-gpu", "a-driver", "wsl", "of-amd", "no-gpu-named", "driver-broken"],
)
def test_another_choice_is_asked_for_the_machine_of_the_text(
    text: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (given,) = told(text)[1]
    assert given.replace("NVIDIA ", "") == command
    assert main([*shlex.split(given)[1:], "--json"]) in (0, 3)
    assert json.loads(capsys.readouterr().out)["status"] in ("ok", "unsolvable")


def test_whatever_is_diagnosed_has_a_command_but_what_asks_for_nothing() -> None:
    matrix = rules()
    named = {row.cause for row in matrix.implications}
    silent = [row for row in matrix.causes if row.id in named and not commands_for(row, Facts(stated={}))]
    assert silent
    assert {row.remedy for row in silent} == {"Nothing need be done."}


@pytest.mark.parametrize("cause", load("causes").causes, ids=lambda row: row.id)
def test_bnbenv_takes_what_it_tells_to_type(cause: Cause) -> None:
    for line in commands_for(cause, Facts(stated={})):
        program, name, *words = shlex.split(line)
        if program == "bnbenv":
            command_parser(name)[0].parse_args(words)
