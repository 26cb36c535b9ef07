"""Quantise a checkpoint file by file, or compare two checkpoints; run by the environment's own Python.

Started as ``python -I -B quantize_script.py REQUEST EVENTS``: a JSON file with what is wanted, and a file
that grows by one JSON object a line. Standard library, torch, transformers, safetensors, bitsandbytes only.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

try:
    import resource
except ImportError:  # Windows has none
    resource = None

PACKAGES = ("torch", "transformers", "safetensors", "bitsandbytes")
# Elements that are quantised at once: bitsandbytes on a processor holds up to 14 bytes for each.
CHUNK = 2**24
BLOCK, NESTED_BLOCK = 64, 256
# The widest half gap between neighbouring levels, as a share of the block's scale.
HALF_GAP = {"nf4": 0.152, "fp4": 0.167}
SAMPLED = 64  # blocks, or rows, that are compared with the definition
TOKENS = 24


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        request = json.load(file)
    with open(sys.argv[2], "a", encoding="utf-8") as events:

        def tell(**event):
            events.write(json.dumps(event) + "\n")
            events.flush()

        {"plan": plan, "quantize": quantize, "logits": logits}[request["action"]](request, tell)


def plan(request, tell):
    """The layers that transformers would quantise, from the class itself."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            tell(event="missing", package=package)
            return
    try:
        tell(event="plan", layers=sorted(layers(request)))
    except (ValueError, KeyError, TypeError, AttributeError, OSError, ImportError) as error:
        # transformers makes the model from what config.json says; what it says of that may be pages long.
        why = str(error).strip().splitlines() or [type(error).__name__]
        tell(event="refused", why=why[0][:300])


def layers(request):
    """Module path -> whether its weight stands transposed, of each layer that transformers would quantise."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    try:
        from transformers.quantizers.base import get_keys_to_not_convert
    except ImportError:  # before transformers 5
        from transformers.integrations.bitsandbytes import get_keys_to_not_convert
    config = AutoConfig.from_pretrained(request["model"], local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    skipped = set(get_keys_to_not_convert(model))
    found = {}
    for name, module in model.named_modules():
        if type(module) not in (torch.nn.Linear, Conv1D):
            continue
        if any(name == skip or name.endswith("." + skip) or name.startswith(skip + ".") for skip in skipped):
            continue
        found[name] = isinstance(module, Conv1D)
    prefix = getattr(model, "base_model_prefix", "")
    # Files of some models leave out the name of the model inside.
    return {**{name.removeprefix(prefix + "."): turned for name, turned in found.items()}, **found}


def quantize(request, tell):
    from safetensors import safe_open
    from safetensors.torch import save_file

    wanted = layers(request)
    out = Path(request["out"])
    for name in request["files"]:
        target = out / name
        if target.exists():
            tell(event="kept", file=name)
            continue
        written, worst, count = {}, 0.0, 0
        with safe_open(Path(request["model"]) / name, "pt") as source:
            for key in sorted(source.keys()):
                path = key.removesuffix(".weight")
                tensor = source.get_tensor(key)
                if not key.endswith(".weight") or path not in wanted or tensor.dim() != 2:
                    written[key] = kept(tensor, request)
                    continue
                if wanted[path]:
                    tensor = tensor.T.contiguous()
                parts = quantized(tensor, request)
                worst = max(worst, compare(tensor, parts, request))
                count += 1
                written |= {path + suffix: part for suffix, part in parts.items()}
        half_made = out / (name + ".partial")
        save_file(written, half_made, metadata={"format": "pt"})
        with open(half_made, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(half_made, target)
        tell(event="written", file=name, layers=count, worst=worst, peak=peak_memory())
    tell(event="config", quantization=settings(request).to_dict())


def peak_memory():
    """Bytes of memory at most so far; ``None`` where the system does not tell."""
    if resource is None:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def kept(tensor, request):
    import torch

    return tensor.to(getattr(torch, request["dtype"])) if tensor.is_floating_point() else tensor


def quantized(tensor, request):
    """The tensors that stand for a quantised weight, by what is appended to its layer's name."""
    return quantized_int8(tensor) if request["type"] == "int8" else quantized_4bit(tensor, request)


def quantized_int8(tensor):
    import torch
    from bitsandbytes import functional

    rows = max(1, CHUNK // tensor.shape[1])
    codes, scales = [], []
    for start in range(0, tensor.shape[0], rows):
        part, scale, _ = functional.int8_vectorwise_quant(tensor[start : start + rows].contiguous().half())
        codes.append(part)
        scales.append(scale)
    return {
        ".weight": torch.cat(codes),
        ".SCB": torch.cat(scales),
        ".weight_format": torch.tensor(0, dtype=torch.uint8),
    }


def quantized_4bit(tensor, request):
    """As bitsandbytes does it at once: blocks are independent, their scales are quantised together."""
    import torch
    from bitsandbytes import functional

    flat = tensor.contiguous().to(getattr(torch, request["dtype"])).reshape(-1)
    packed, scales, state = [], [], None
    for start in range(0, flat.numel(), CHUNK):
        part, state = functional.quantize_4bit(
            flat[start : start + CHUNK],
            blocksize=BLOCK,
            compress_statistics=False,
            quant_type=request["type"],
        )
        packed.append(part.reshape(-1, 1))
        scales.append(state.absmax)
    absmax = torch.cat(scales)
    described = {
        "quant_type": request["type"],
        "blocksize": BLOCK,
        "dtype": request["dtype"],
        "shape": list(tensor.shape),
    }
    parts = {".weight": torch.cat(packed), ".weight.quant_map": state.code.clone()}
    if request["double"]:
        offset = absmax.mean()
        coded, nested = functional.quantize_blockwise(absmax - offset, blocksize=NESTED_BLOCK)
        parts |= {
            ".weight.absmax": coded,
            ".weight.nested_absmax": nested.absmax,
            ".weight.nested_quant_map": nested.code.clone(),
        }
        described |= {
            "nested_blocksize": NESTED_BLOCK,
            "nested_dtype": "float32",
            "nested_offset": offset.item(),
        }
    else:
        parts[".weight.absmax"] = absmax
    text = json.dumps(described).encode()
    parts[f".weight.quant_state.bitsandbytes__{request['type']}"] = torch.tensor(
        list(text), dtype=torch.uint8
    )
    return parts


def compare(tensor, parts, request):
    """The worst error of sampled blocks, as a share of what the type allows; above 1 is wrong."""
    import torch

    if request["type"] == "int8":
        rows = torch.linspace(0, tensor.shape[0] - 1, min(SAMPLED, tensor.shape[0])).long()
        original = tensor[rows].half().double()
        step = parts[".SCB"][rows].double()[:, None] / 127
        error = (parts[".weight"][rows].double() * step - original).abs()
        return float((error / (step * 0.5 + 1e-12)).max()) - 1e-3
    levels = (
        reference(request).nf4_levels() if request["type"] == "nf4" else parts[".weight.quant_map"].tolist()
    )
    levels = torch.tensor([float(level) for level in levels], dtype=torch.float64)
    flat = tensor.to(getattr(torch, request["dtype"])).reshape(-1).double()
    blocks = flat.numel() // BLOCK
    chosen = torch.linspace(0, blocks - 1, min(SAMPLED, blocks)).long()
    scale = parts[".weight.absmax"][chosen].double()
    if request["double"]:
        table = torch.tensor(
            [float(level) for level in reference(request).dynamic_map()], dtype=torch.float64
        )
        offset = json.loads(bytes(parts[state_key(request)].tolist()))["nested_offset"]
        nested = parts[".weight.nested_absmax"][chosen // NESTED_BLOCK].double()
        scale = table[parts[".weight.absmax"][chosen].long()] * nested + offset
    codes = parts[".weight"].reshape(-1, BLOCK // 2)[chosen].long()
    codes = torch.stack((codes >> 4, codes & 15), dim=-1).reshape(len(chosen), BLOCK)
    original = flat[: blocks * BLOCK].reshape(blocks, BLOCK)[chosen]
    true_scale = original.abs().amax(dim=1)
    error = (levels[codes] * scale[:, None] - original).abs()
    allowed = HALF_GAP[request["type"]] * true_scale + (scale - true_scale).abs() + 1e-12
    return float((error / allowed[:, None]).max())


def state_key(request):
    return f".weight.quant_state.bitsandbytes__{request['type']}"


def reference(request):
    """The self-test, for its code books written from the published definitions."""
    if "reference" not in sys.modules:
        specification = importlib.util.spec_from_file_location("reference", request["reference"])
        module = importlib.util.module_from_spec(specification)
        sys.modules["reference"] = module
        specification.loader.exec_module(module)
    return sys.modules["reference"]


def settings(request):
    import torch
    from transformers import BitsAndBytesConfig

    if request["type"] == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=request["type"],
        bnb_4bit_use_double_quant=request["double"],
        bnb_4bit_compute_dtype=getattr(torch, request["dtype"]),
    )


def logits(request, tell):
    """How far scores of the model quantised while loading are from those of what was written."""
    import torch
    from transformers import AutoModelForCausalLM

    scores = []
    for path, extra in ((request["model"], {"quantization_config": settings(request)}), (request["out"], {})):
        model = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=getattr(torch, request["dtype"]),
            device_map="cpu",
            local_files_only=True,
            trust_remote_code=False,
            **extra,
        )
        vocabulary = model.config.get_text_config().vocab_size
        ids = torch.arange(TOKENS)[None] * 7919 % vocabulary
        # With a gradient wanted the plain kernels are used: those of inference repack the weights.
        model.enable_input_require_grads()
        scores.append(model(input_ids=ids).logits.detach().float())
        del model
    left, right = scores
    distance = float((left - right).abs().max())
    tell(
        event="logits",
        distance=distance,
        largest=float(left.abs().max()),
        finite=bool(right.isfinite().all()),
    )


if __name__ == "__main__":
    main()
