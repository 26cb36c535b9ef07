"""The training self-test: a tiny QLoRA run, watched step by step, inside the environment's own Python.

A file of its own that needs nothing of bnbenv:
``python -I -B train_script.py --device cuda:0 --events FILE``.
Each check writes a ``begin`` and an ``end`` event as one flushed line of JSON: a crash names its check.
The exit code is 0 whenever the events tell the story; they, not the code, say whether it computes rightly.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import math
import os
import platform
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCHEMA = 1  # of the event lines, which are those of the other self-test script
VOCABULARY = 64
HIDDEN = 128
STEPS = 30
BATCH, LENGTH = 16, 24
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.5  # far above any default, so that a run without it differs visibly
RANK = 32  # 32 * 128 = 4096 values: the smallest tensor for which bitsandbytes keeps 8-bit states
PACKAGES = ("torch", "bitsandbytes", "transformers", "peft", "accelerate")

# Half of NF4's widest gap, between -1 and -0.6962, is 0.152 of the block's largest value. Quantising the
# block scales adds a step of the 8-bit map, which counts the more the smaller the block: 0.023 was seen.
HALF_GAP = 0.20
# Loss falls to well under a tenth in a healthy run; a model that learns nothing stays at one.
LOSS_RATIO = 0.25
# Largest deviation from the reference, by the width of the numbers the products are computed in.
LOSS_DEVIATION = {"float32": 0.02, "bfloat16": 0.35, "float16": 0.15}
LOGIT_DEVIATION = {"float32": 1e-4, "bfloat16": 6e-2, "float16": 1e-2}


class NotOfferedError(Exception):
    """This version or device does not offer what a check is about."""


@dataclass
class Outcome:
    """What a check found: `error` above `tolerance` fails."""

    error: float
    tolerance: float
    detail: str = ""
    shape: dict[str, Any] = field(default_factory=dict)


class Events:
    """Writes the event lines; flushed one by one, as the next native call may be the last."""

    def __init__(self, stream: TextIO, dtype: str) -> None:
        self.stream = stream
        self.dtype = dtype
        self.states: dict[str, int] = {}

    def write(self, event: str, **keys: object) -> None:
        """One line, on disk before this returns."""
        self.stream.write(json.dumps({"event": event, **keys}) + "\n")
        self.stream.flush()
        with contextlib.suppress(OSError, ValueError):
            os.fsync(self.stream.fileno())

    def check(self, name: str, run: Callable[[], Outcome]) -> bool:
        """Run one check between its two events; an exception is a failed check, not an end."""
        check: dict[str, Any] = {"name": f"train/{name}", "dtype": self.dtype, "shape": {}}
        self.write("begin", **check)
        check |= {"error": None, "tolerance": None, "detail": None}
        started = time.perf_counter()
        try:
            outcome = run()
        except NotOfferedError as error:
            check |= {"state": "not-offered", "detail": str(error)}
        except Exception as error:  # noqa: BLE001 -- whatever the stack raises is this check's result
            check |= {"state": "failed", "detail": f"{type(error).__name__}: {error}"[:500]}
        else:
            within = outcome.error <= outcome.tolerance  # False for NaN, as it must be
            check |= {
                "state": "passed" if within else "failed",
                "error": outcome.error if math.isfinite(outcome.error) else None,
                "tolerance": outcome.tolerance,
                "shape": outcome.shape,
                "detail": outcome.detail or None,
            }
        check["ms"] = round((time.perf_counter() - started) * 1000, 3)
        self.states[check["state"]] = self.states.get(check["state"], 0) + 1
        self.write("end", **check)
        return bool(check["state"] == "passed")


def compute_dtype(torch: Any, device: str) -> Any:
    """The dtype in which this device multiplies without emulation."""
    kind = device.split(":", 1)[0]
    if kind == "cuda":
        if getattr(torch.version, "hip", None):
            return torch.bfloat16
        major, _ = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if major >= 8 else torch.float16
    return {"xpu": torch.bfloat16, "mps": torch.float16}.get(kind, torch.float32)


def deviation(torch: Any, got: Any, expected: Any) -> float:
    """Largest difference, as a share of the largest expected value; NaN if anything is not finite."""
    got, expected = got.detach().double().cpu(), expected.detach().double().cpu()
    if got.shape != expected.shape or not torch.isfinite(got).all():
        return float("nan")
    return float((got - expected).abs().max() / expected.abs().max())


class Training:
    """The run and what its checks look at; each step is made once, on first need."""

    def __init__(self, device: str, directory: Path) -> None:
        import bitsandbytes
        import peft
        import torch
        import transformers

        self.torch, self.bnb, self.peft, self.transformers = torch, bitsandbytes, peft, transformers
        self.device, self.directory = device, directory
        self.dtype = compute_dtype(torch, device)
        self.dtype_name = str(self.dtype).rpartition(".")[2]
        # Inference on such processors multiplies in bfloat16 whatever dtype was asked for.
        packs = getattr(bitsandbytes.functional, "has_avx512bf16", None)
        self.packs = device == "cpu" and packs is not None and bool(packs())
        self.eval_tolerance = LOGIT_DEVIATION["bfloat16" if self.packs else self.dtype_name]
        self.losses: list[float] = []
        self.reference_losses: list[float] = []

    def circumstances(self) -> dict[str, Any]:
        """What was loaded, and from where."""
        library = getattr(getattr(self.bnb.cextension.lib, "_lib", None), "_name", None)
        name = self.device
        if self.device.startswith("cuda"):
            name = self.torch.cuda.get_device_name(self.device)
        elif self.device.startswith("xpu"):
            name = self.torch.xpu.get_device_name(self.device)
        versions = {package: metadata.version(package) for package in PACKAGES if installed(package)}
        return {
            "name": name,
            "library": Path(str(library)).name if library else None,
            "versions": {"python": platform.python_version(), **versions},
            "files": {"torch": self.torch.__file__, "bitsandbytes": self.bnb.__file__},
            "cpu_flags": cpu_flags(),
            "cuda": self.torch.version.cuda,
            "hip": getattr(self.torch.version, "hip", None),
        }

    # -- the model ------------------------------------------------------------------------------------

    def write_model(self) -> None:
        """A Llama of random weights, whose rows differ in size: equal ones would hide swapped scales."""
        torch = self.torch
        torch.manual_seed(0)
        config = self.transformers.LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=HIDDEN,
            intermediate_size=2 * HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.1,
            tie_word_embeddings=False,
        )
        model = self.transformers.LlamaForCausalLM(config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "_proj" in name:
                    weight.mul_(torch.logspace(-0.4, 0.3, weight.shape[0])[:, None])
        model.save_pretrained(str(self.directory / "model"))
        self.original = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    def load(self, directory: str = "model") -> Any:
        """The model from disk, quantised on the way (or already)."""
        keys: dict[str, Any] = {"device_map": {"": self.device}}
        if directory == "model":
            keys["quantization_config"] = self.transformers.BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=self.dtype,
            )
        return self.from_pretrained(directory, **keys)

    def from_pretrained(self, directory: str, **keys: Any) -> Any:
        """Load in float32; the name of that argument changed with transformers 5."""
        modern = int(self.transformers.__version__.split(".")[0]) >= 5
        keys["dtype" if modern else "torch_dtype"] = self.torch.float32
        return self.transformers.AutoModelForCausalLM.from_pretrained(str(self.directory / directory), **keys)

    def quantised_layers(self, model: Any) -> dict[str, Any]:
        """Name in the original model → its 4-bit layer, without what peft wraps around it."""
        return {
            name.replace("base_model.model.", "").replace(".base_layer", ""): module
            for name, module in model.named_modules()
            if isinstance(module, self.bnb.nn.Linear4bit) and not hasattr(module, "base_layer")
        }

    def dequantised(self, layer: Any) -> Any:
        """The weights that a 4-bit layer stands for."""
        weight = layer.weight
        return self.bnb.functional.dequantize_4bit(weight.data, weight.quant_state).float()

    def plain_model(self, weights: dict[str, Any]) -> Any:
        """The same model without bitsandbytes: float32 layers that hold `weights`."""
        model = self.from_pretrained("model").to(self.device)
        parameters = dict(model.named_parameters())
        with self.torch.no_grad():
            for name, weight in weights.items():
                parameters[f"{name}.weight"].copy_(weight)
        return model

    def adapt(self, model: Any) -> Any:
        """Adapters of a fixed start on every linear layer."""
        self.torch.manual_seed(3)
        config = self.peft.LoraConfig(
            r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        return self.peft.get_peft_model(self.prepared(model), config)

    def prepared(self, model: Any) -> Any:
        """Made ready for adapters, as training scripts do."""
        return self.peft.prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False}
        )

    # -- the run --------------------------------------------------------------------------------------

    def batches(self) -> Iterator[Any]:
        """Walks along one fixed permutation of the vocabulary: learnable, and never twice the same."""
        torch = self.torch
        generator = torch.Generator().manual_seed(1)
        successor = torch.randperm(VOCABULARY, generator=generator)
        for _ in range(STEPS):
            column = torch.randint(VOCABULARY, (BATCH,), generator=generator)
            columns = [column]
            for _ in range(LENGTH - 1):
                column = successor[column]
                columns.append(column)
            yield torch.stack(columns, 1).to(self.device)

    def fit(self, model: Any, optimiser: Any) -> list[float]:
        """Train through all batches; the loss of each."""
        model.train()
        losses = []
        for batch in self.batches():
            loss = model(input_ids=batch, labels=batch).loss
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            losses.append(float(loss.detach()))
        return losses

    def trainable(self, model: Any) -> list[Any]:
        """The adapters' weights."""
        return [weight for weight in model.parameters() if weight.requires_grad]

    def logits(self, model: Any, tokens: Any = None) -> Any:
        """What the model answers, to the probe unless told otherwise."""
        with self.torch.no_grad():
            return model(input_ids=self.probe if tokens is None else tokens, use_cache=False).logits.float()

    def base_hashes(self, model: Any) -> dict[str, str]:
        """Everything the adapters must leave alone, as hashes of the bytes that are stored."""
        hashes = {}
        for name, module in self.quantised_layers(model).items():
            state = module.weight.quant_state
            tensors = {"codes": module.weight.data, "absmax": state.absmax, "code": state.code}
            if state.nested:
                tensors |= {"offset": state.offset, "absmax2": state.state2.absmax}
            for part, tensor in tensors.items():
                hashes[f"{name}.{part}"] = self.digest(tensor)
        for name, weight in model.named_parameters():
            if "lora_" not in name and weight.is_floating_point():
                hashes[name] = self.digest(weight)
        return hashes

    def digest(self, tensor: Any) -> str:
        """Hash of the stored bytes."""
        data = tensor.detach().cpu().contiguous().reshape(-1).view(self.torch.uint8)
        return hashlib.sha256(data.numpy().tobytes()).hexdigest()

    # -- the checks, in order -------------------------------------------------------------------------

    def loads(self) -> Outcome:
        """Every layer but the head is 4-bit, and holds the weights of the file to within half a step."""
        self.write_model()
        self.probe = next(iter(self.batches()))
        base = self.load()
        layers = self.quantised_layers(base)
        expected = {name[:-7] for name in self.original if "_proj" in name}
        if set(layers) != expected:
            raise RuntimeError(f"{len(layers)} of {len(expected)} layers are 4-bit")
        self.weights = {name: self.dequantised(layer) for name, layer in layers.items()}
        for name, layer in layers.items():
            if not layer.weight.quant_state.nested:
                raise RuntimeError(f"{name}: the block scales are not quantised")
        error = max(
            self.step_error(got, self.original[f"{name}.weight"]) for name, got in self.weights.items()
        )
        self.model = self.adapt(base)
        return Outcome(error, HALF_GAP, f"{len(layers)} layers, largest error as a share of the block scale")

    def step_error(self, got: Any, expected: Any) -> float:
        """Largest error in units of the largest value of its block of 64."""
        got, expected = got.double().cpu().reshape(-1, 64), expected.double().cpu().reshape(-1, 64)
        return float(((got - expected).abs() / expected.abs().amax(1, keepdim=True)).max())

    def trains(self) -> Outcome:
        """Thirty steps, in which the loss falls."""
        self.before = self.base_hashes(self.model)
        self.adapters = {n: w.detach().clone() for n, w in self.model.named_parameters() if w.requires_grad}
        self.optimiser = self.new_optimiser()
        self.losses = self.fit(self.model, self.optimiser)
        end = sum(self.losses[-3:]) / 3
        shape = {"steps": STEPS, "first": round(self.losses[0], 4), "last": round(end, 4)}
        kind = type(self.optimiser).__name__
        detail = f"{kind}: loss {self.losses[0]:.3f} → {end:.3f} in {STEPS} steps"
        return Outcome(end / self.losses[0], LOSS_RATIO, detail, shape)

    def new_optimiser(self) -> Any:
        """The 8-bit optimiser, paged where there is something to page; torch's own where none is offered."""
        weights = self.trainable(self.model)
        if not self.offers_8bit_optimisers():
            return self.torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        paged = self.device.startswith("cuda") and hasattr(self.bnb.optim, "PagedAdamW8bit")
        kind = self.bnb.optim.PagedAdamW8bit if paged else self.bnb.optim.AdamW8bit
        return kind(weights, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def offers_8bit_optimisers(self) -> bool:
        """By the release, not by trying: one that ought to offer them and fails must fail the check."""
        release = tuple(int(part) for part in self.bnb.__version__.split(".")[:2])
        return {"cpu": release >= (0, 50), "mps": False}.get(self.device.split(":")[0], True)

    def optimiser_states(self) -> Outcome:
        """The optimiser really keeps bytes: both moments of every tensor of at least 4096 values."""
        if not self.offers_8bit_optimisers():
            raise NotOfferedError(f"bitsandbytes {self.bnb.__version__} has none on this device")
        wrong = []
        for weight in self.trainable(self.model):
            states = self.optimiser.state[weight]
            if weight.numel() >= 4096:
                wrong += [k for k in ("state1", "state2") if states[k].dtype != self.torch.uint8]
        return Outcome(len(wrong), 0, "moments that are not kept in 8 bits")

    def follows_reference(self) -> Outcome:
        """The same run on float32 copies of the same weights under torch's AdamW gives the same losses."""
        torch = self.torch
        plain = self.adapt(self.plain_model(self.weights))
        optimiser = torch.optim.AdamW(self.trainable(plain), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        self.reference_losses = self.fit(plain, optimiser)
        if not self.losses or len(self.losses) != len(self.reference_losses):
            raise RuntimeError("the 4-bit run did not finish")
        pairs = zip(self.losses, self.reference_losses)  # noqa: B905 - Python 3.9 has no `strict`
        errors = [abs(a - b) for a, b in pairs]
        detail = f"largest distance of two losses, at step {errors.index(max(errors)) + 1} of {STEPS}"
        return Outcome(max(errors), LOSS_DEVIATION[self.dtype_name], detail)

    def base_unchanged(self) -> Outcome:
        """No byte of the quantised base moved."""
        after = self.base_hashes(self.model)
        wrong = sorted(name for name in {*after, *self.before} if after.get(name) != self.before.get(name))
        return Outcome(len(wrong), 0, ", ".join(wrong[:3]) or f"{len(after)} tensors compared")

    def adapters_changed(self) -> Outcome:
        """Every adapter moved."""
        now = dict(self.model.named_parameters())
        still = [name for name, old in self.adapters.items() if self.torch.equal(old, now[name].detach())]
        return Outcome(len(still), 0, ", ".join(still[:3]) or f"{len(self.adapters)} tensors moved")

    def eval_agrees(self) -> Outcome:
        """Inference takes other kernels than training; both give one answer."""
        self.model.train()
        training = self.logits(self.model)
        self.model.eval()
        self.answer = self.logits(self.model)
        return Outcome(deviation(self.torch, self.answer, training), self.eval_tolerance)

    def one_token(self) -> Outcome:
        """A single token takes the matrix-vector kernel; the first position of a batch must agree with it."""
        error = max(
            deviation(
                self.torch, self.logits(self.model, self.probe[row : row + 1, :1])[0, 0], self.answer[row, 0]
            )
            for row in range(4)
        )
        return Outcome(error, self.eval_tolerance)

    def adapter_reloads(self) -> Outcome:
        """Adapters saved, and loaded onto a base loaded anew, answer as before."""
        self.model.save_pretrained(str(self.directory / "adapter"))
        return Outcome(deviation(self.torch, self.logits(self.reloaded().eval()), self.answer), 1e-5)

    def reloaded(self) -> Any:
        """A base loaded anew with the adapters that were saved."""
        return self.peft.PeftModel.from_pretrained(
            self.prepared(self.load()), str(self.directory / "adapter")
        )

    def merges(self) -> Outcome:
        """Adapters merged into the float32 copies answer as the 4-bit model with its adapters does."""
        plain = self.plain_model(self.weights)
        merged = self.peft.PeftModel.from_pretrained(
            plain, str(self.directory / "adapter")
        ).merge_and_unload()
        error = deviation(self.torch, self.logits(merged.eval()), self.answer)
        return Outcome(error, self.eval_tolerance)

    def merges_4bit(self, *, after_eval: bool = False) -> Outcome:
        """Adapters merged into the 4-bit layers: each new weight is right to within half a step."""
        model = self.reloaded()
        if after_eval:
            self.logits(model.eval())
        changes = {
            name.replace("base_model.model.", ""): module.get_delta_weight("default").detach().float()
            for name, module in model.named_modules()
            if hasattr(module, "get_delta_weight") and hasattr(module, "base_layer")
        }
        layers = self.quantised_layers(model.merge_and_unload())
        if not layers or set(layers) != set(self.weights):
            raise NotOfferedError("this peft does not merge into 4-bit layers")
        errors = [
            self.step_error(self.dequantised(layer), self.weights[name] + changes[name])
            for name, layer in layers.items()
        ]
        return Outcome(max(errors), HALF_GAP, shape={"after_eval": after_eval})

    def trains_after_eval(self) -> Outcome:
        """An evaluation between two steps, as every trainer makes, leaves the gradients as they are."""
        gradients = []
        for evaluate in (False, True):
            model = self.reloaded()
            if evaluate:
                self.logits(model.eval())
            model.train()
            weights = [weight for name, weight in model.named_parameters() if "lora_" in name]
            for weight in weights:
                weight.requires_grad_(requires_grad=True)
            model(input_ids=self.probe, labels=self.probe).loss.backward()
            gradients.append([weight.grad for weight in weights])
        lost = sum(gradient is None for gradient in gradients[1])
        shape = {"after_eval": True}
        if lost:
            return Outcome(float("inf"), self.eval_tolerance, f"{lost} adapters get no gradient", shape)
        flat = [self.torch.cat([gradient.reshape(-1) for gradient in run]) for run in gradients]
        return Outcome(deviation(self.torch, flat[1], flat[0]), self.eval_tolerance, "", shape)

    def prequantised(self) -> Outcome:
        """A quantised model saved and loaded again answers the same, bit for bit."""
        base = self.load()
        quantizer = getattr(base, "hf_quantizer", None)
        offered = getattr(quantizer, "is_serializable", True)
        if not (offered() if callable(offered) else offered):
            raise NotOfferedError("this transformers does not save 4-bit models")
        expected = self.logits(base.eval())
        self.load().save_pretrained(str(self.directory / "quantised"))
        got = self.logits(self.load("quantised").eval())
        files = (self.directory / "quantised").glob("*.safetensors")
        size = sum(file.stat().st_size for file in files)
        return Outcome(deviation(self.torch, got, expected), 0.0, f"{size} bytes on disk")


def run(events: Events, device: str, directory: Path) -> None:
    """All checks; those that need a trained model are left out, and fail, where there is none."""
    missing = [name for name in ("transformers", "peft", "accelerate") if not installed(name)]
    if missing:
        text = f"needs {', '.join(missing)}"

        def absent() -> Outcome:
            raise NotOfferedError(text)

        events.check("import", absent)
        return
    made: list[Training] = []

    def imports() -> Outcome:
        made.append(Training(device, directory))
        return Outcome(0, 0)

    if not events.check("import", imports):
        return
    test = made[0]
    events.dtype = test.dtype_name
    events.write("loaded", **test.circumstances())
    events.check("load", test.loads)
    if not hasattr(test, "model"):
        return
    events.check("loss-falls", test.trains)
    if not test.losses:
        return
    for name, check in (
        ("optimiser-8bit", test.optimiser_states),
        ("follows-reference", test.follows_reference),
        ("base-unchanged", test.base_unchanged),
        ("adapters-changed", test.adapters_changed),
        ("eval-agrees", test.eval_agrees),
        ("one-token", test.one_token),
        ("reload-adapter", test.adapter_reloads),
        ("merge", test.merges),
        ("merge-4bit", test.merges_4bit),
        ("merge-4bit-after-eval", functools.partial(test.merges_4bit, after_eval=True)),
        ("train-after-eval", test.trains_after_eval),
        ("prequantised", test.prequantised),
    ):
        events.check(name, check)


def installed(package: str) -> bool:
    """Whether the environment has the package, by its metadata."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        metadata.version(package)
        return True
    return False


def cpu_flags() -> list[str]:
    """The processor's features as Linux names them; empty elsewhere."""
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(("flags", "Features")):
                return sorted(line.partition(":")[2].split())
    return []


def main() -> int:
    """Run all checks on one device."""
    parser = argparse.ArgumentParser(description="Train a tiny QLoRA model and check every step of it.")
    parser.add_argument("--device", default="cpu", help="cpu, cuda:0, xpu:0, mps")
    parser.add_argument(
        "--events", type=Path, help="file that the event lines are appended to (default: stdout)"
    )
    arguments = parser.parse_args()

    # Nothing here may ask a hub, draw progress bars or start worker processes.
    for variable, value in (
        ("HF_HUB_OFFLINE", "1"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("TOKENIZERS_PARALLELISM", "false"),
    ):
        os.environ[variable] = value
    warnings.simplefilter("ignore")
    with contextlib.ExitStack() as stack:
        stream = sys.stdout
        if arguments.events:
            stream = stack.enter_context(arguments.events.open("a", encoding="utf-8"))
        events = Events(stream, "")
        events.write("start", schema=SCHEMA, level="train", device=arguments.device)
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bnbenv-train-"))
        started = time.perf_counter()
        run(events, arguments.device, Path(directory))
        events.write("done", seconds=round(time.perf_counter() - started, 2), states=events.states)
    return 0


if __name__ == "__main__":
    sys.exit(main())
