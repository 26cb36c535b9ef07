"""`memory`: does a model fit this device, and what would make it fit?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass
from bnbenv.errors import UsageError
from bnbenv.home import expanded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.machine.target import Target
    from bnbenv.memory.advice import Fit, Remedy
    from bnbenv.memory.checkpoint import Checkpoint
    from bnbenv.memory.estimate import Estimate, Use
    from bnbenv.memory.inventory import Inventory
    from bnbenv.workflows.environment import Located

# What the newest package set brings; the releases before 5 keep the experts of a layer apart.
NEWEST_TRANSFORMERS = "5.23"
_MIB = 2**20
_MOST = 2**31  # tokens, examples, a rank: nothing real comes near


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device and its memory.

    Attributes:
        free: bytes; ``None`` where they are not known.
        live: `free` was read just now; else it is a share of the whole memory.
    """

    name: str
    free: int | None
    live: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """The answer of `memory`.

    Attributes:
        needed: bytes at the worst moment, without pages of files that the system may take back.
        fit: for the first device; ``None`` where its memory is not known.
        smallest_card: GiB of the smallest card that would do.
        devices_needed: how many such devices would hold it between them.
        notes: what the figures leave out.
    """

    model: str
    checkpoint: Checkpoint
    inventory: Inventory
    estimate: Estimate
    needed: int
    devices: tuple[Device, ...]
    fit: Fit | None
    remedies: tuple[Remedy, ...]
    smallest_card: int | None
    largest_model: int | None
    devices_needed: int | None
    notes: tuple[str, ...]


def weigh(
    model: str,
    use: Use,
    devices: tuple[Device, ...],
    environ: Mapping[str, str],
    *,
    transformers: str,
    offline: bool = False,
) -> Weighed:
    """Estimate `use` of a model on the first of `devices`, which the others may help.

    Args:
        model: a directory, a config.json, or a model's id.

    Raises:
        UsageError: code ``bad-model``.
        ExternalError: the hub was needed, and cannot be reached.
    """
    from bnbenv.matrix.load import load
    from bnbenv.memory.advice import (
        devices_needed,
        judge_fit,
        largest_model,
        needed,
        remedies,
        smallest_card,
    )
    from bnbenv.memory.estimate import estimate
    from bnbenv.memory.inventory import take_inventory

    checkpoint = find_model(model, environ, offline=offline)
    use = _as_stored(checkpoint, use)
    inventory = take_inventory(checkpoint.config, load("model_types").model_types, transformers=transformers)
    wanted = estimate(inventory, use)
    free = tuple(device.free for device in devices if device.free is not None)
    fit = judge_fit(needed(wanted), free[0]) if free else None
    bad = fit is not None and fit != "fits"
    return Weighed(
        model=model,
        checkpoint=checkpoint,
        inventory=inventory,
        estimate=wanted,
        needed=needed(wanted),
        devices=devices,
        fit=fit,
        remedies=remedies(inventory, wanted, free, model=str(checkpoint.directory or "MODEL")) if bad else (),
        smallest_card=smallest_card(wanted),
        largest_model=largest_model(wanted, inventory, free[0]) if fit == "does-not-fit" else None,
        devices_needed=devices_needed(wanted, free[0]) if fit == "does-not-fit" and not use.cpu else None,
        notes=tuple(_notes(checkpoint, inventory, use, transformers)),
    )


def _as_stored(checkpoint: Checkpoint, use: Use) -> Use:
    """The use of a checkpoint that is quantised already: in its own type, without a quantisation at load.

    Raises:
        UsageError: code ``bad-model``; it is quantised by another library.
    """
    from bnbenv.dataclass import replace
    from bnbenv.memory.storage import Quantisation

    settings = checkpoint.config.get("quantization_config")
    if not isinstance(settings, dict):
        return use
    if (method := settings.get("quant_method")) not in ("bitsandbytes", None):
        raise UsageError(
            f"config.json says that the model is quantised by {str(method)[:40]!r}; "
            "`memory` knows the types of bitsandbytes",
            hint="name the directory of the original weights",
            code="bad-model",
        )
    int8 = bool(settings.get("load_in_8bit"))
    scheme: Any = "int8" if int8 else settings.get("bnb_4bit_quant_type", "fp4")
    if scheme not in ("int8", "nf4", "fp4"):
        raise UsageError(
            f"config.json has the quantised type {str(scheme)[:40]!r}, which is not known",
            hint="fetch config.json again",
            code="bad-model",
        )
    double = bool(settings.get("bnb_4bit_use_double_quant", False))
    return replace(use, quantisation=Quantisation(scheme=scheme, double=double), prequantised=True)


def find_model(model: str, environ: Mapping[str, str], *, offline: bool) -> Checkpoint:
    """What a user means by a model's name.

    Raises:
        UsageError, ExternalError: see `weigh`.
    """
    from bnbenv.memory import hub
    from bnbenv.memory.checkpoint import read_checkpoint

    path = expanded(model, "the model")
    if not hub.looks_like_id(model) or path.exists():
        return read_checkpoint(path)
    return hub.find(model, environ, offline=offline)


def use_for(profile: str, *, quantisation: str | None, double: bool, **settings: Any) -> Use:
    """What a profile does with a model; what is ``None`` among `settings` is left to the profile.

    Raises:
        UsageError: the profile does not use bitsandbytes, or a number makes no sense.
    """
    from bnbenv.memory.estimate import Use
    from bnbenv.memory.storage import Quantisation

    schemes: Mapping[str, Any] = {"qlora": "nf4", "int8": "int8", "inference": "nf4"}
    if profile not in schemes:
        raise UsageError(
            f"`memory` knows the profiles {', '.join(f'`{name}`' for name in schemes)}, not `{profile}`",
            hint="bnbenv memory MODEL --profile qlora",
        )
    for name in ("sequence", "batch", "rank"):
        if (value := settings.get(name)) is not None and not 0 < value < _MOST:
            raise UsageError(f"a {name} of {value} makes no sense", hint="bnbenv memory --help")
    scheme: Any = quantisation or schemes[profile]
    given = {name: value for name, value in settings.items() if value is not None}
    return Use(
        quantisation=Quantisation(scheme=scheme, double=double),
        trains=profile == "qlora",
        **given,
    )


def devices_of(
    target: Target, environ: Mapping[str, str], *, here: bool, memory: float | None
) -> tuple[Device, ...]:
    """The devices of a machine, with what is free on each where that can be read.

    Args:
        here: the target is this machine.
        memory: GiB of each device, as the user says.
    """
    if memory is not None:
        if not 0 < memory < _MOST:  # what is no number is neither
            raise UsageError(f"a memory of {memory:g} GiB makes no sense", hint="--memory 24")
        count = max(1, len(target.visible_gpus))
        return tuple(
            Device(name=f"a device with {memory:g} GiB", free=int(memory * 2**30), live=False)
            for _ in range(count)
        )
    if target.accelerator == "cpu":
        return (_processor(here=here),)
    from bnbenv.machine.free_memory import free_on_gpus

    free = free_on_gpus(environ) if here and target.accelerator == "cuda" else {}
    return tuple(
        Device(
            name=gpu.name,
            free=free.get(gpu.index, (gpu.memory_mib or 0) * _MIB or None)
            if gpu.index is not None
            else (gpu.memory_mib or 0) * _MIB or None,
            live=gpu.index in free,
        )
        for gpu in target.visible_gpus
    )


def _processor(*, here: bool) -> Device:
    from bnbenv.machine.free_memory import free_on_host
    from bnbenv.machine.tree import Tree

    free = free_on_host(Tree(root="/")) if here else None
    return Device(name="the processor's memory", free=free, live=free is not None)


def transformers_of(located: Located | None) -> str:
    """The transformers of an environment, else the newest that bnbenv installs."""
    if located is None:
        return NEWEST_TRANSFORMERS
    found = located.read_installed().find("transformers")
    return found.version if found and found.version else NEWEST_TRANSFORMERS


def _notes(checkpoint: Checkpoint, inventory: Inventory, use: Use, transformers: str) -> list[str]:
    notes = []
    if checkpoint.pickles and not checkpoint.tensors:
        notes.append(
            f"the weights are pickles (`{checkpoint.pickles[0]}`), which are never opened: "
            "all figures follow from config.json"
        )
    if inventory.fused_experts and use.quantisation.scheme != "none":
        kept = sum(item.elements * item.count for item in inventory.parameters if len(item.shape) == 3)
        notes.append(
            f"transformers {transformers} keeps the experts of a layer in one parameter, which bitsandbytes "
            f"does not quantise: {kept / 1e9:.1f} of {inventory.elements / 1e9:.1f} billion parameters stay "
            f"in {use.dtype}; transformers 4 quantises them"
        )
    stored = sum(1 for tensor in checkpoint.tensors if tensor.dtype not in {"U8", "I8"})
    if stored and not _is_quantised(checkpoint):
        count = sum(_elements(tensor.shape) for tensor in checkpoint.tensors)
        if count != inventory.elements and abs(count - inventory.elements) > inventory.elements // 1000:
            notes.append(
                f"the files hold {count / 1e9:.2f} billion parameters and the text model has "
                f"{inventory.elements / 1e9:.2f}: what belongs to neither layer nor head is not counted"
            )
    if inventory.eager and use.trains:
        notes.append(
            "the class has no fused attention: what training keeps grows with the square of the length"
        )
    return notes


def _elements(shape: tuple[int, ...]) -> int:
    from math import prod

    return prod(shape)


def _is_quantised(checkpoint: Checkpoint) -> bool:
    return isinstance(checkpoint.config.get("quantization_config"), dict)
