"""Compares what `memory` tells with what bitsandbytes and the system really take, on the CPU.

For each architecture a small random model is quantised in every scheme, and the bytes of every tensor are
compared; then one with layers of real widths is loaded, and the process's peak is compared.

    python scripts/prove_memory.py --env PYTHON              # all of it; resumes where it stopped
    python scripts/prove_memory.py --env PYTHON --sample 7   # one small case, chosen by a number
    python scripts/prove_memory.py --check                   # is the recorded proof still about this code?
"""

from __future__ import annotations

import argparse
import json
import os
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
from bnbenv.memory.storage import quantised_bytes
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
        "mlp_only_layers": [1],
    },
    "gpt_neox": {key: value for key, value in _SMALL.items() if key != "num_key_value_heads"},
    "gpt2": {"n_embd": 128, "n_layer": 3, "n_head": 4, "vocab_size": 1000},
}
# The widths of models that people load, with as many layers as take a second to write.
WIDE: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 4096, "intermediate_size": 14336, "num_key_value_heads": 8},
    "mistral": {"hidden_size": 4096, "intermediate_size": 14336, "num_key_value_heads": 8},
    "qwen2": {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28},
    "gemma": {"hidden_size": 3072, "intermediate_size": 24576, "num_attention_heads": 16, "head_dim": 256},
    "phi3": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 6, "pad_token_id": 0},
    "gpt_neox": {"hidden_size": 4096, "intermediate_size": 16384},
}
_WIDE = {"num_hidden_layers": 3, "num_attention_heads": 32, "vocab_size": 32000}

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
    for name in WIDE:
        for scheme in ("nf4", "int8"):
            yield f"peak {name} {scheme}"


def run(key: str, python: Path, root: Path) -> dict[str, Any]:
    kind, name, scheme, *double = key.split()
    settings = SMALL[name] if kind == "bytes" else {**_WIDE, **WIDE[name]}
    model_type = str(settings.get("model_type", name))
    model = root / f"{kind}-{name}"
    if not model.is_dir():
        make(
            model, model_type, {key: value for key, value in settings.items() if key != "model_type"}, python
        )
    located = Located(directory=python.parents[1], kind="venv", why="the proof")
    installed = read_installed(located.directory).find("transformers")
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
        transformers=installed.version if installed else "5",
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
    subprocess.run(
        [str(python), "-I", "-c", MAKE, str(request)], check=True, capture_output=True, timeout=600
    )


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
    small = [key for key in every if key.startswith("bytes")]
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
                shutil.rmtree(Path(scratch, f"peak-{key.split()[1]}"))
    proof.misses = sorted(key for key, row in proof.rows.items() if not row["right"])
    peaks = [row for key, row in proof.rows.items() if key.startswith("peak")]
    proof.counts = {
        "architectures": len({key.split()[1] for key in proof.rows}),
        "tensors": sum(row.get("tensors", 0) for row in proof.rows.values()),
        "peaks": len(peaks),
        "largest_peak_error_percent": round(
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
