"""Whether a model fits a device, and what would make it fit, tried in order on the estimate itself."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

from bnbenv.dataclass import dataclass, replace
from bnbenv.memory.estimate import estimate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bnbenv.memory.estimate import Estimate, Phase, Use
    from bnbenv.memory.inventory import Inventory

Fit = Literal["fits", "tight", "does-not-fit"]

# Below this share of the free memory nothing of what is only estimated can matter.
_COMFORT = 0.9
_SHORTEST = 256  # tokens; below it training on text makes little sense
# transformers keeps a tenth of each `max_memory` for the buffers of quantisation.
_KEPT_BACK = 0.9
# Memory of cards that are sold, in GiB, which their vendors print as GB.
_CARDS = (8, 12, 16, 20, 24, 32, 40, 48, 80, 96, 141, 192)
_GIB = 2**30
# What a process finds free of it: the driver keeps a part, and a desktop another.
_USABLE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """One thing to change.

    Attributes:
        name: stable, such as ``shorter-sequence``.
        setting: what to type into a script.
        peak: bytes once this and the remedies before it are taken.
        fit: what is reached then.
    """

    name: str
    words: str
    setting: str
    peak: int
    fit: Fit


def judge_fit(peak: int, free: int) -> Fit:
    """Compare a peak with free memory, both in bytes."""
    if peak <= free * _COMFORT:
        return "fits"
    return "tight" if peak <= free else "does-not-fit"


def needed(estimated: Estimate, phase: Phase | None = None) -> int:
    """Bytes that must be there, at the worst moment or of a phase.

    Pages of files do not count: the system takes them back when it needs them.
    """
    files = [part for part in estimated.parts if part.name.endswith("-files")]
    phases: tuple[Phase, ...] = (phase,) if phase else ("load", estimated.working_phase)
    return max(estimated.at(it) - sum(part.bytes for part in files if it in part.phases) for it in phases)


def remedies(
    inventory: Inventory, wanted: Estimate, free: Sequence[int], *, model: str = "MODEL"
) -> tuple[Remedy, ...]:
    """What would make it fit the first device, cheapest first; each builds upon those before it.

    Args:
        free: bytes of each device; the first is the one that is used.
        model: the directory of the weights, as it is typed.

    Returns:
        Up to the first remedy after which it fits, and none where it fits already.
    """
    found: list[Remedy] = []
    for remedy in _in_order(inventory, wanted, free, model):
        found.append(remedy)
        if remedy.fit == "fits":
            break
    return tuple(found)


def _in_order(inventory: Inventory, wanted: Estimate, free: Sequence[int], model: str) -> Iterator[Remedy]:
    here, use = free[0], wanted.use
    if judge_fit(needed(wanted), here) == "fits":
        return

    def tried(name: str, words: str, setting: str, changed: Use) -> Remedy:
        # What the driver may move to the host does not count once nothing else helps.
        after = estimate(inventory, changed)
        paged = sum(part.bytes for part in after.parts if part.pageable and part.name == "optimiser")
        peak = max(needed(after, "load"), needed(after, after.working_phase) - (0 if use.cpu else paged))
        return Remedy(name=name, words=words, setting=setting, peak=peak, fit=judge_fit(peak, here))

    if use.trains and not use.optimiser.startswith("paged"):
        use = replace(use, optimiser="paged_adamw_8bit")
        yield tried(
            "paged-optimiser",
            "a paged optimiser, whose states may move to the host",
            'optim="paged_adamw_8bit"',
            use,
        )
    if use.trains and use.batch > 1:
        use = replace(use, batch=1)
        yield tried(
            "smaller-batch",
            "one example at a time, gradients accumulated",
            "per_device_train_batch_size=1",
            use,
        )
    while use.sequence // 2 >= _SHORTEST and needed(estimate(inventory, use)) > here * _COMFORT:
        use = replace(use, sequence=use.sequence // 2)
        attempt = tried(
            "shorter-sequence", f"sequences of {use.sequence} tokens", f"max_length={use.sequence}", use
        )
        if attempt.fit == "fits" or use.sequence // 2 < _SHORTEST:
            yield attempt
    if use.trains and not use.checkpointing:
        use = replace(use, checkpointing=True)
        yield tried(
            "checkpointing", "layers computed again instead of kept", "gradient_checkpointing=True", use
        )
    now = estimate(inventory, use)
    if needed(now, "load") > here * _COMFORT >= needed(now, now.working_phase):
        load = needed(now, "load") - sum(part.bytes for part in now.parts if part.name == "load-buffer")
        yield Remedy(
            name="prequantised",
            words="quantised once, on disk: then no weight is on the device before it is packed",
            setting=_quantize_command(use, model),
            peak=max(load, needed(now, now.working_phase)),
            fit=judge_fit(max(load, needed(now, now.working_phase)), here),
        )
    if len(free) > 1:
        yield _spread(now, free)


def _quantize_command(use: Use, model: str) -> str:
    """Writes what loading would make, into a new directory here."""
    scheme = use.quantisation.scheme
    words = ["bnbenv", "quantize", model, f"{PurePath(model).name}-{scheme}", "--type", scheme]
    if use.quantisation.double and scheme != "int8":
        words.append("--double-quant")
    if use.dtype != "bfloat16":
        words += ["--dtype", use.dtype]
    return shlex.join(words)


def _spread(now: Estimate, free: Sequence[int]) -> Remedy:
    """The weights over all devices; what is not weights is needed on each."""
    beside = _beside(now)
    room = [max(0, int((bytes_ - beside) / _KEPT_BACK)) for bytes_ in free]
    figures = ", ".join(f'{index}: "{size / _GIB:.1f}GiB"' for index, size in enumerate(room))
    peak = beside + now.weights * free[0] // sum(free)
    fits = now.weights <= sum(max(0, bytes_ - beside) for bytes_ in free)
    return Remedy(
        name="max-memory",
        words=f"the layers over {len(free)} GPUs",
        setting=f'device_map="auto", max_memory={{{figures}}}',
        peak=peak,
        fit=judge_fit(peak, free[0]) if fits else "does-not-fit",
    )


def smallest_card(estimated: Estimate) -> int | None:
    """GiB of the smallest card on which it fits; ``None`` where none is large enough."""
    return next(
        (size for size in _CARDS if judge_fit(needed(estimated), int(size * _GIB * _USABLE)) == "fits"), None
    )


def devices_needed(estimated: Estimate, free: int) -> int | None:
    """How many such devices would hold the layers; ``None`` where each is too small for the rest."""
    room = int(free * _COMFORT) - _beside(estimated)
    return -(-estimated.weights // room) if room > 0 else None


def largest_model(estimated: Estimate, inventory: Inventory, free: int) -> int:
    """Parameters, roughly, of the largest model of this kind that fits: its weights scaled, all else kept."""
    room = max(0, int(free * _COMFORT) - _beside(estimated))
    return int(inventory.elements * room / estimated.weights) if estimated.weights else 0


def _beside(estimated: Estimate) -> int:
    """What is not weights, and is needed on each device."""
    return needed(estimated) - estimated.weights
