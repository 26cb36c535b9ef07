"""A short training or inference script whose dtype, attention and optimiser are right for one machine."""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.errors import UsageError
from bnbenv.units import ComputeCapability

if TYPE_CHECKING:
    from bnbenv.machine.target import Target

# The first generation whose arithmetic units take bfloat16; before, PyTorch emulates it.
NATIVE_BF16 = ComputeCapability(8, 0)
# LLM.int8's matrix product needs the integer units of this generation.
INT8_FLOOR = ComputeCapability(7, 5)
# AMD targets with bfloat16 matrix units: CDNA, and RDNA from the third generation.
_BF16_GFX = ("gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")
TEMPLATES = ("qlora", "inference", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the machine decides in a script.

    Attributes:
        device: what it is for, in words.
        dtype: of products and activations, as torch names it.
        dtype_reason: why, a comment line; so are the other reasons.
    """

    device: str
    dtype: str
    dtype_reason: str
    attention: str
    attention_reason: str
    optimiser: str
    optimiser_reason: str
    on_cpu: bool
    device_map: str


def settings_for(target: Target, *, cpu: bool = False) -> Settings:
    """Choose for the weakest visible GPU: a script must run on every one it is given."""
    device = "cpu" if cpu else target.accelerator
    dtype, why = _dtype(target, device)
    optimiser, optimiser_why = _optimiser(target, device)
    return Settings(
        device=_words(target, device),
        dtype=dtype,
        dtype_reason=f"# {why}",
        attention="sdpa",
        attention_reason="# PyTorch's own attention: it picks the fastest kernel that this device has.",
        optimiser=optimiser,
        optimiser_reason=f"# {optimiser_why}",
        on_cpu=device == "cpu",
        device_map={"cpu": '"cpu"', "mps": '{"": "mps"}', "xpu": '{"": "xpu:0"}'}.get(device, '{"": 0}'),
    )


def example(profile: str, target: Target, *, cpu: bool = False) -> str:
    """The script for a profile on a machine.

    Raises:
        UsageError: there is no script for the profile, or the machine cannot run it.
    """
    from importlib.resources import files

    if profile not in TEMPLATES:
        raise UsageError(
            f"there is no example for `{profile}`; they are {', '.join(f'`{it}`' for it in TEMPLATES)}",
            hint="bnbenv example qlora -o train.py",
        )
    weakest = weakest_capability(target)
    if profile == "int8" and not cpu and weakest is not None and weakest < INT8_FLOOR:
        raise UsageError(
            f"LLM.int8 needs compute capability {INT8_FLOOR}, and this machine has a GPU with {weakest}",
            hint="bnbenv example inference, which loads in 4 bits",
        )
    chosen = settings_for(target, cpu=cpu)
    text = (files("bnbenv.workflows") / "examples" / f"{profile}.py.template").read_text(encoding="utf-8")
    return Template(text).substitute(
        device=chosen.device,
        dtype=chosen.dtype,
        dtype_reason=chosen.dtype_reason,
        attention=chosen.attention,
        attention_reason=chosen.attention_reason,
        optimiser=chosen.optimiser,
        optimiser_reason=chosen.optimiser_reason,
        device_map=chosen.device_map,
        batch=2,
        accumulation=1 if chosen.on_cpu else 4,
        checkpointing=not chosen.on_cpu,
        bf16=chosen.dtype == "bfloat16",
        fp16=chosen.dtype == "float16",
        use_cpu="\n            use_cpu=True," if chosen.on_cpu else "",
    )


def weakest_capability(target: Target) -> ComputeCapability | None:
    """The lowest compute capability among the GPUs that a process would see."""
    known = [gpu.compute_capability for gpu in target.visible_gpus if gpu.compute_capability]
    return min(known) if known else None


def _dtype(target: Target, device: str) -> tuple[str, str]:
    weakest = weakest_capability(target)
    match device:
        case "cuda" if weakest is not None and weakest >= NATIVE_BF16:
            return "bfloat16", f"Compute capability {weakest} computes bfloat16 natively."
        case "cuda" if weakest is not None:
            return "float16", f"Compute capability {weakest} only emulates bfloat16, which is slow."
        case "cuda":
            return "float16", "The compute capability is unknown, and float16 runs natively on every GPU."
        case "rocm":
            targets = [gpu.gfx for gpu in target.visible_gpus if gpu.gfx]
            if targets and all(gfx.startswith(_BF16_GFX) for gfx in targets):
                return "bfloat16", f"{', '.join(sorted(set(targets)))} computes bfloat16 natively."
            return "float16", "Not every GPU here is known to compute bfloat16 natively."
        case "xpu":
            return "bfloat16", "Intel's GPUs for PyTorch compute bfloat16 natively."
        case "mps":
            return "float16", "float16 runs natively on every Apple GPU."
        case _:
            return "float32", "On a processor float32 is the only dtype that is fast everywhere."


def _optimiser(target: Target, device: str) -> tuple[str, str]:
    match device:
        case "cuda" if not target.tegra and target.os != "windows":
            return "paged_adamw_8bit", "8-bit states, which move to main memory when the GPU's is full."
        case "cuda" | "rocm" | "cpu" | "xpu":
            return "adamw_8bit", "8-bit states: a quarter of the memory of Adam's own."
        case _:
            return "adamw_torch", "bitsandbytes has no 8-bit optimiser for this device."


def _words(target: Target, device: str) -> str:
    if device == "cpu":
        return "on the processor"
    names = sorted({gpu.name for gpu in target.visible_gpus})
    return f"on {', '.join(names)}" if names else f"on {device}"
