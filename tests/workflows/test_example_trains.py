from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from bnbenv.machine.target import Target
from bnbenv.workflows.example import example

if TYPE_CHECKING:
    from pathlib import Path

# The Python of an environment with torch, bitsandbytes, transformers, peft, trl and datasets.
TORCH_PYTHON = os.environ.get("BNBENV_TEST_TORCH_PYTHON")
# A model of the size of a thumb, with a tokenizer that knows every byte.
TINY = """
import sys, torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
torch.manual_seed(0)
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
words = {letter: number for number, letter in enumerate(["<s>", "</s>", *alphabet])}
tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
fast.save_pretrained(sys.argv[1])
AutoModelForCausalLM.from_config(AutoConfig.for_model(
    sys.argv[2], vocab_size=len(words), hidden_size=128, intermediate_size=256, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.1,
    bos_token_id=0, eos_token_id=1, pad_token_id=1,
)).save_pretrained(sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["llama", "mixtral"])
@pytest.mark.skipif(TORCH_PYTHON is None, reason="BNBENV_TEST_TORCH_PYTHON names no Python with torch")
def test_the_printed_script_trains(tmp_path: Path, model_type: str) -> None:
    assert TORCH_PYTHON is not None
    target = Target(name="here", os="linux", arch="x86_64", accelerator="cpu")
    (tmp_path / "train.py").write_text(example("qlora", target), encoding="utf-8")
    environ = {**os.environ, "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}

    def run(*arguments: str) -> str:
        command = [TORCH_PYTHON or "", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-c", TINY, str(tmp_path / "tiny"), model_type)
    said = run("train.py", "--model", "tiny", "--steps", "20", "--length", "64", "--output", "adapter")
    found = re.search(r"loss (\S+) -> (\S+);", said)
    assert found is not None, said
    first, last = float(found[1]), float(found[2])
    assert last < first
    assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size > 0
