"""Compares what `memory` tells with what bitsandbytes and the system really take, on the CPU.

For each architecture a small random model is quantised in every scheme, and the bytes of every tensor are
compared; it is adapted and trained, and what autograd keeps of a layer, the adapters and their moments are
compared; then one with layers of real widths is loaded, and the process's peak is compared.

    python scripts/prove_memory.py --env PYTHON              # all of it; resumes where it stopped
    python scripts/prove_memory.py --env PYTHON --sample 7   # one small case, chosen by a number
    python scripts/prove_memory.py --check                   # is the recorded proof still about this code?
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _proof
from bnbenv.env.installed import read_installed
from bnbenv.matrix.load import load
from bnbenv.memory import measure_script
from bnbenv.memory.checkpoint import read_checkpoint
from bnbenv.memory.estimate import Use, estimate, layer_activations
from bnbenv.memory.inventory import take_inventory
from bnbenv.memory.storage import Quantisation, quantised_bytes
from bnbenv.workflows.environment import Located
from bnbenv.workflows.measure_memory import measure
from bnbenv.workflows.memory import Weighed, devices_of, use_for, weigh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnbenv.install.uv import Ran

NAME = "prove_memory"
COVERED = (
    *(f"src/bnbenv/memory/{name}.py" for name in ("inventory", "storage", "estimate", "measure_script")),
    "compat/model_types.toml",
    "scripts/prove_memory.py",
)
SCHEMES = (("nf4", True), ("nf4", False), ("fp4", True), ("int8", False), ("none", False))
PEAK = 0.10  # of the measured peak; what loading a model of real widths may be told wrongly by
KEPT = 0.01  # of what autograd keeps of a layer; the CPU keeps the statistics of a LayerNorm in 16 bits

_SMALL = {
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
}
SMALL: dict[str, dict[str, Any]] = {
    "llama": {**_SMALL, "attention_bias": True, "mlp_bias": True},
    "llama-tied": {**_SMALL, "model_type": "llama", "tie_word_embeddings": True},
    "mistral": _SMALL,
    "qwen2": _SMALL,
    "qwen3": {**_SMALL, "head_dim": 48},
    "gemma": {**_SMALL, "head_dim": 32},
    "gemma2": {**_SMALL, "head_dim": 32},
    "gemma3_text": {**_SMALL, "head_dim": 32},
    "phi": _SMALL,
    "phi-normed": {**_SMALL, "model_type": "phi", "qk_layernorm": True},
    "phi3": {**_SMALL, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2},
    "mixtral": {**_SMALL, "num_local_experts": 4},
    "qwen3_moe": {
        **_SMALL,
        "head_dim": 32,
        "moe_intermediate_size": 96,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "mlp_only_layers": [1],
    },
    "gpt_neox": {key: value for key, value in _SMALL.items() if key != "num_key_value_heads"},
    "gpt2": {
        "n_embd": 128,
        "n_layer": 3,
        "n_head": 4,
        "vocab_size": 1000,
        # On the processor an attention with dropout is written out, on a GPU it is not.
        "attn_pdrop": 0.0,
        "resid_pdrop": 0.0,
    },
}
# What an attention that is written out keeps grows with the square of the length.
NONLINEAR = {"gemma2"}
# The widths of models that people load, with as many layers as take a second to write.
WIDE: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 4096, "intermediate_size": 14336, "num_key_value_heads": 8},
    "mistral": {"hidden_size": 4096, "intermediate_size": 14336, "num_key_value_heads": 8},
    "qwen2": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
    "gemma": {"hidden_size": 3072, "intermediate_size": 24576, "num_attention_heads": 16, "head_dim": 256},
    "phi3": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 6, "pad_token_id": 0},
    "gpt_neox": {"hidden_size": 4096, "intermediate_size": 16384},
    "mixtral": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "num_hidden_layers": 1,
        "num_local_experts": 4,
    },
    "qwen3_moe": {
        "hidden_size": 2048,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_hidden_layers": 2,
    },
}
_WIDE = {"num_hidden_layers": 3, "num_attention_heads": 32, "vocab_size": 32000}

# Adapt as `memory --measure` does, see what autograd keeps of each layer at two lengths, and take one step.
TRAIN = """
import importlib.util, json, sys
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

specification = importlib.util.spec_from_file_location("measure_script", sys.argv[2])
measure = importlib.util.module_from_spec(specification)
specification.loader.exec_module(measure)
dtype, lengths = torch.bfloat16, (64, 192)


def tried(request):
    model = AutoModelForCausalLM.from_pretrained(
        request["model"], dtype=dtype, device_map="cpu", quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype))
    model = measure.adapted(model, request, torch, dtype)
    base = model.get_base_model()
    layers = next(module for module in base.modules()
                  if isinstance(module, torch.nn.ModuleList) and len(module) == base.config.num_hidden_layers)
    known = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        for tensor in (state.absmax, state.code) if state is not None else ():
            known.add(tensor.untyped_storage().data_ptr())
    current, sizes, held = None, [0] * len(layers), []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            known.add(storage.data_ptr())
            held.append(storage)
            if current is not None:
                sizes[current] += storage.nbytes()
        return tensor

    def at(number):
        def hook(*ignored):
            nonlocal current
            current = number
        return hook

    def positions(module, inputs, outputs):  # made once, for all layers
        for tensor in outputs:
            known.add(tensor.untyped_storage().data_ptr())
            held.append(tensor)

    for name, module in base.named_modules():
        if name.endswith("rotary_emb"):
            module.register_forward_hook(positions)
    for number, layer in enumerate(layers):
        layer.register_forward_pre_hook(at(number))
        layer.register_forward_hook(at(None))
    kept = []
    for length in lengths:
        sizes[:] = [0] * len(layers)
        ids = torch.arange(length)[None] * 7919 % base.config.vocab_size
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            with torch.autocast("cpu", dtype):
                loss = model(input_ids=ids, labels=ids).loss
        kept.append(sum(sizes) / len(layers))
    loss.backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = measure.optimiser_of("adamw_8bit")(trained, lr=1e-4)
    optimiser.step()
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    moments = [value for state in optimiser.state.values() for name, value in state.items()
               if name in {"state1", "state2", "absmax1", "absmax2"}]
    size = lambda tensors: sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return {"kept": (kept[1] - kept[0]) / (lengths[1] - lengths[0]),
            "gradients": size(gradients), "optimiser": size(moments)}


json.dump([tried(request) for request in json.load(open(sys.argv[1]))], open(sys.argv[3], "w"))
"""

MAKE = """
import json, sys
import torch
from transformers import AutoConfig, AutoModelForCausalLM
request = json.load(open(sys.argv[1]))
torch.manual_seed(0)
config = AutoConfig.for_model(request["model_type"], **request["config"])
model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
model.save_pretrained(request["out"], max_shard_size="500MB")
"""


class Quiet:
    """Says nothing: satisfies `bnbenv.workflows.voice.Voice`."""

    def progress(self, text: str) -> None:
        del text

    def confirm(self, question: str, *, yes: bool = False) -> bool:
        del question
        return yes

    def ran(self, ran: Ran) -> None:
        del ran


def cases() -> Iterator[str]:
    for name in SMALL:
        for scheme, double in SCHEMES:
            yield f"bytes {name} {scheme}{' double' if double else ''}"
    for name, settings in SMALL.items():
        if settings.get("model_type", name) not in NONLINEAR:
            yield f"train {name} nf4"
    for name in WIDE:
        for scheme in ("nf4", "int8"):
            yield f"peak {name} {scheme}"


def run(key: str, python: Path, root: Path) -> dict[str, Any]:
    kind, name, scheme, *double = key.split()
    settings = {**_WIDE, **WIDE[name]} if kind == "peak" else SMALL[name]
    model_type = str(settings.get("model_type", name))
    model = root / f"{'wide' if kind == 'peak' else 'small'}-{name}"
    if not model.is_dir():
        make(
            model, model_type, {key: value for key, value in settings.items() if key != "model_type"}, python
        )
    if kind == "train":
        return train(model, python)
    located = Located(directory=python.parents[1], kind="venv", why="the proof")
    use = use_for(
        "inference", quantisation=scheme, double=bool(double), sequence=64, cpu=True, dtype="bfloat16"
    )
    from bnbenv.machine.target import Target

    target = Target(name="here", os="linux", arch="x86_64", accelerator="cpu")
    weighed = weigh(
        str(model),
        use,
        devices_of(target, os.environ, here=True, memory=None),
        os.environ,
        transformers=release_of(python),
    )
    measured = measure(weighed, located, Quiet(), os.environ, step=kind == "peak")
    if kind == "bytes":
        wrong = different(weighed, measured.tensors)
        return {"tensors": len(measured.tensors), "wrong": wrong[:5], "right": not wrong}
    errors = measured.document
    worst = max(abs(errors["load_error"]), abs(errors["working_error"]))
    return {
        "load_mib": measured.load >> 20,
        "load_error": round(errors["load_error"], 3),
        "working_mib": (measured.working or 0) >> 20,
        "working_error": round(errors["working_error"], 3),
        "right": worst <= PEAK,
    }


def circumstances(python: Path) -> dict[str, str]:
    """What the figures were measured with."""
    installed = read_installed(python.parents[1])
    names = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors")
    found = {name: installed.find(name) for name in names}
    return {
        "device": "the processor",
        "system": f"{platform.system()} {platform.machine()}",
        **{name: it.version for name, it in found.items() if it is not None and it.version},
    }


def release_of(python: Path) -> str:
    installed = read_installed(python.parents[1]).find("transformers")
    return installed.version if installed and installed.version else "5"


def train(model: Path, python: Path) -> dict[str, Any]:
    """What one step keeps and makes, against what is told: both trainers, with dropout and without."""
    inventory = take_inventory(
        read_checkpoint(model).config, load("model_types").model_types, transformers=release_of(python)
    )
    uses = [
        Use(
            quantisation=Quantisation(scheme="nf4"),
            dropout=dropout,
            checkpointing=False,
            optimiser="adamw_8bit",
            trainer=trainer,
        )
        for trainer in ("trl", "plain")
        for dropout in (0.05, 0.0)
    ]
    asked, answered = model.with_suffix(".train.json"), model.with_suffix(".trained.json")
    requests = [
        {"model": str(model), "rank": use.rank, "dropout": use.dropout, "trainer": use.trainer}
        for use in uses
    ]
    asked.write_text(json.dumps(requests), encoding="utf-8")
    inside(python, TRAIN, str(asked), measure_script.__file__, str(answered))
    errors, wrong = [], []
    for use, measured in zip(uses, json.loads(answered.read_text(encoding="utf-8")), strict=True):
        told = {part.name: part.bytes for part in estimate(inventory, use).parts}
        # On the processor a mask of dropout takes as much as the tensor.
        kept = layer_activations(inventory, use, mask=2 if use.trainer == "trl" else 4)
        errors.append(round(kept / measured["kept"] - 1, 4))
        wrong += [
            f"{name} of {use.trainer} take {measured[name]}, not {told[name]}"
            for name in ("gradients", "optimiser")
            if told[name] != measured[name]
        ]
    right = not wrong and max(map(abs, errors)) <= KEPT
    return {"kept_errors": errors, "wrong": wrong, "right": right}


def different(weighed: Weighed, tensors: dict[str, int] | Any) -> list[str]:
    """The parameters that take otherwise than told, or that are not there."""
    use = weighed.estimate.use
    expected = {item.name: item for item in weighed.inventory.parameters}
    seen = dict.fromkeys(expected, 0)
    wrong = []
    for name, size in tensors.items():
        template = re.sub(r"\.\d+(?=\.)", ".*", name)
        item = expected.get(template)
        if item is None:
            wrong.append(f"{name} is unexpected")
            continue
        seen[template] += 1
        told = item.elements * 2
        if item.role == "quantised" and use.quantisation.scheme != "none":
            rows, columns = item.shape
            told = quantised_bytes((rows, columns), use.quantisation).total
        if told != size:
            wrong.append(f"{name} takes {size}, not {told}")
    wrong += [
        f"{name}: {seen[name]}, not {item.count}"
        for name, item in expected.items()
        if seen[name] != item.count
    ]
    return wrong


def make(model: Path, model_type: str, config: dict[str, Any], python: Path) -> None:
    request = model.with_suffix(".json")
    request.write_text(
        json.dumps({"model_type": model_type, "config": config, "out": str(model)}), encoding="utf-8"
    )
    inside(python, MAKE, str(request))


def inside(python: Path, script: str, *arguments: str) -> None:
    """Run a script with the environment's Python; what it says is shown where it fails."""
    command = [str(python), "-I", "-c", script, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", type=Path, metavar="PYTHON", help="an environment's interpreter")
    parser.add_argument("--sample", type=int, metavar="N")
    parser.add_argument("--only", metavar="CASE")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.check:
        reasons = _proof.check(NAME, COVERED)
        print("\n".join(reasons) or f"{NAME}: the record is about this code")
        return bool(reasons)
    if arguments.env is None:
        parser.error("--env PYTHON is needed")
    every = list(cases())
    small = [key for key in every if not key.startswith("peak")]
    chosen = (
        [arguments.only]
        if arguments.only
        else [small[arguments.sample % len(small)]]
        if arguments.sample is not None
        else every
    )
    record = chosen is every
    proof = _proof.resume(NAME, COVERED) if record else _proof.Proof(name=NAME, covered={})
    with tempfile.TemporaryDirectory(prefix="bnbenv-memory-") as scratch:
        for key in chosen:
            if key in proof.rows:
                continue
            started = time.perf_counter()
            row = run(key, arguments.env, Path(scratch))
            proof.add(key, row, seconds=time.perf_counter() - started)
            print(f"{'right' if row['right'] else 'WRONG'}  {key}  {row}", flush=True)
            if record:
                _proof.save(proof)
            if key.startswith("peak") and key.endswith("int8"):
                shutil.rmtree(Path(scratch, f"wide-{key.split()[1]}"))
    proof.misses = sorted(key for key, row in proof.rows.items() if not row["right"])
    proof.circumstances = circumstances(arguments.env)
    peaks = [row for key, row in proof.rows.items() if key.startswith("peak")]
    steps = [row for key, row in proof.rows.items() if key.startswith("train")]
    proof.counts = {
        "configurations": len({key.split()[1] for key in proof.rows}),
        "tensors": sum(row.get("tensors", 0) for row in proof.rows.values()),
        "steps of training": sum(len(row["kept_errors"]) for row in steps),
        "peaks": len(peaks),
        "percent of error in the worst peak": round(
            100
            * max((abs(row[name]) for row in peaks for name in ("load_error", "working_error")), default=0)
        ),
    }
    proof.complete = True
    if record:
        _proof.save(proof)
    return bool(proof.misses)


if __name__ == "__main__":
    sys.exit(main())
