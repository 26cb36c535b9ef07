"""What loading and training a model takes, part by part: exact where tensors are known, estimated elsewhere.

The weights, scales, adapters and optimiser states are exact: they follow from shapes. Activations follow from
what autograd keeps, measured layer by layer on the stack of the `qlora` profile (scripts/prove_memory.py).
What a CUDA context takes is assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bnbenv.memory.storage import (
    DTYPES,
    Optimiser,
    Quantisation,
    optimiser_bytes,
    quantised_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnbenv.memory.inventory import Inventory, Parameter

Certainty = Literal["exact", "estimated", "assumed"]
Phase = Literal["load", "train", "infer"]
Trainer = Literal["trl", "plain"]

# A context, the libraries' kernels and the allocator's rounding; `--measure` replaces it by the truth.
CONTEXT = 600 * 2**20
# A Python that has imported torch, transformers and bitsandbytes. Measured on torch 2.13, CPU build.
INTERPRETER = 367 * 2**20
# Bytes an element that bitsandbytes' quantisation on the CPU holds for a moment, mostly float32 copies.
# Measured 2026-11-25 on weights of 45 million elements, bitsandbytes 0.50.2.
_CONVERSION = {"nf4": 14.0, "fp4": 14.0, "int8": 8.5}
# What trl's fused head projects at a time: tokens, and entries of the vocabulary.
_HEAD_TOKENS, _HEAD_VOCABULARY = 4096, 32768
_FLOAT = 4
# Bytes of a score that an attention written out keeps: its softmax, and what comes before and after it.
_EAGER_SCORE = 8
# An activation written out as a formula keeps four tensors, one with a kernel of its own keeps one.
_UNFUSED, _UNFUSED_ACTIVATIONS = 4, frozenset({"gelu_new", "gelu_fast", "quick_gelu"})
# Layers whose input another one of the same layer keeps already, or the attention as its result.
_SHARING_INPUT = tuple(
    f".{name}.weight" for name in ("k_proj", "v_proj", "up_proj", "w3", "self_attn.dense", "attn.c_proj")
)
# Of an expert: how its module is named where each has one of its own, and its parameter where they are fused.
_EXPERT, _FUSED_EXPERTS = ".experts.*.", ".experts.gate_up_proj"
_INDEX = 8
# A fused product whose parts reach the attention as views of it.
_VIEWED = ".attn.c_attn."


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What is done with the model.

    Attributes:
        trains: with LoRA on the layers that `Inventory.adapted` names; else it writes text.
        dtype: of what is not quantised, and of activations.
        sequence: tokens of an example, or of a prompt and its answer.
        trainer: ``trl`` keeps adapters in the activations' dtype and never holds all logits;
            ``plain`` is a loop of one's own over peft's defaults.
        cpu: the device is the processor, and its memory the machine's.
        prequantised: the files hold the quantised weights already.
    """

    quantisation: Quantisation
    trains: bool = True
    dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
    sequence: int = 2048
    batch: int = 1
    rank: int = 16
    dropout: float = 0.05
    checkpointing: bool = True
    optimiser: Optimiser = "paged_adamw_8bit"
    trainer: Trainer = "trl"
    cpu: bool = False
    prequantised: bool = False

    @property
    def tokens(self) -> int:
        """Tokens that are in work at once."""
        return self.sequence * self.batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the memory.

    Attributes:
        name: stable, such as ``weights-quantised``.
        words: for people.
        bytes: on the device.
        pageable: the driver may move it to the host when the device is full.
    """

    name: str
    words: str
    bytes: int
    certainty: Certainty
    phases: tuple[Phase, ...]
    pageable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """All parts, and their sums."""

    use: Use
    parts: tuple[Part, ...]

    def at(self, phase: Phase) -> int:
        """Bytes that the device holds at the worst moment of a phase."""
        return sum(part.bytes for part in self.parts if phase in part.phases)

    @property
    def working_phase(self) -> Phase:
        """What comes after loading."""
        return "train" if self.use.trains else "infer"

    @property
    def peak(self) -> int:
        """Bytes at the worst moment of all."""
        return max(self.at("load"), self.at(self.working_phase))

    @property
    def weights(self) -> int:
        """Bytes of the loaded model."""
        return sum(part.bytes for part in self.parts if part.name.startswith("weights-"))


def estimate(inventory: Inventory, use: Use) -> Estimate:
    """What `use` of a model takes of one device that holds it all."""
    width = DTYPES[use.dtype]
    quantised = tuple(
        parameter
        for parameter in inventory.parameters
        if parameter.role == "quantised" and use.quantisation.scheme != "none"
    )
    experts = tuple(parameter for parameter in inventory.parameters if _is_fused(parameter))
    kept = tuple(it for it in inventory.parameters if it not in quantised and it not in experts)
    every: tuple[Phase, ...] = ("load", "train", "infer")
    parts = [
        Part(
            name="weights-quantised",
            words=f"layers in {use.quantisation.scheme}, with their scales",
            bytes=sum(_quantised(parameter, use.quantisation) for parameter in quantised),
            certainty="exact",
            phases=every,
        ),
        Part(
            name="weights-kept",
            words=f"embeddings, head, norms and what else stays in {use.dtype}",
            bytes=_plain(kept, width),
            certainty="exact",
            # On the processor they stay in the mapped files until they are used.
            phases=("train", "infer") if use.cpu else every,
        ),
        Part(
            name="weights-experts",
            words=f"experts that transformers keeps in one parameter, in {use.dtype}",
            bytes=_plain(experts, width),
            certainty="exact",
            phases=every,
        ),
        *_surroundings(inventory, use, quantised),
        *(_training(inventory, use) if use.trains else _inference(inventory, use)),
    ]
    return Estimate(use=use, parts=tuple(part for part in parts if part.bytes))


def _surroundings(inventory: Inventory, use: Use, quantised: tuple[Parameter, ...]) -> tuple[Part, ...]:
    """What is there beside the weights: the process itself, and what loading needs for a moment."""
    width = DTYPES[use.dtype]
    every: tuple[Phase, ...] = ("load", "train", "infer")
    original = () if use.prequantised else quantised
    largest = max((parameter.elements for parameter in original), default=0)
    if not use.cpu:
        return (
            Part(
                name="load-buffer",
                words="the largest weight before it is quantised",
                bytes=max(largest * width, _fused_experts(inventory, width)),
                certainty="estimated",
                phases=("load",),
            ),
            Part(
                name="context",
                words="the driver's context and libraries",
                bytes=CONTEXT,
                certainty="assumed",
                phases=every,
            ),
        )
    return (
        Part(
            name="load-buffer",
            words="the largest weight while it is quantised, or experts while they are merged",
            bytes=max(
                int(largest * _CONVERSION.get(use.quantisation.scheme, 0)), _last_merged(inventory, width)
            ),
            certainty="estimated",
            phases=("load",),
        ),
        Part(
            name="mapped-files",
            words="pages of the weight files, which the system takes back when it needs them",
            bytes=_plain(original, width),
            certainty="estimated",
            phases=every,
            pageable=True,
        ),
        Part(
            name="merged-files",
            words="the same of the files that experts are merged from",
            bytes=_plain(tuple(filter(_is_fused, inventory.parameters)), width),
            certainty="estimated",
            phases=("load",),
            pageable=True,
        ),
        Part(
            name="interpreter",
            words="Python with torch, transformers and bitsandbytes",
            bytes=INTERPRETER,
            certainty="estimated",
            phases=every,
        ),
    )


def _plain(parameters: tuple[Parameter, ...], width: int) -> int:
    return sum(parameter.elements * parameter.count * width for parameter in parameters)


def _is_fused(parameter: Parameter) -> bool:
    return parameter.kind == "parameter" and len(parameter.shape) == 3


def _quantised(parameter: Parameter, quantisation: Quantisation) -> int:
    rows, columns = parameter.shape
    return quantised_bytes((rows, columns), quantisation).total * parameter.count


def _fused_experts(inventory: Inventory, width: int) -> int:
    """Experts are collected one by one and then copied into one parameter: both stand there for a moment."""
    return max((item.elements * width for item in inventory.parameters if _is_fused(item)), default=0)


def _last_merged(inventory: Inventory, width: int) -> int:
    """On the processor the parts of the last one count; what is put together in one step has none.

    Before it, what is not yet merged leaves as much room.
    """
    fused = [item for item in inventory.parameters if _is_fused(item)]
    return fused[-1].elements * width if fused and fused[-1].name.endswith(_FUSED_EXPERTS) else 0


def _training(inventory: Inventory, use: Use) -> list[Part]:
    width = DTYPES[use.dtype]
    adapter_width = width if use.trainer == "trl" else _FLOAT
    # For each layer, one matrix of rank by inputs and one of outputs by rank.
    matrices = [
        (use.rank * side, item.count) for item in inventory.adapted for side in (item.shape[1], item.shape[0])
    ]
    elements = sum(size * count for size, count in matrices)
    layer = layer_activations(inventory, use)
    casts = elements * width if adapter_width != width else 0
    kept = inventory.layers * (inventory.hidden * width if use.checkpointing else layer) * use.tokens
    worst_layer = layer * use.tokens if use.checkpointing else 0
    return [
        Part(
            name="adapters",
            words=f"LoRA of rank {use.rank} on every "
            + ("attention; not on experts" if inventory.fused_experts else "layer"),
            bytes=elements * adapter_width + casts,
            certainty="exact",
            phases=("train",),
        ),
        Part(
            name="gradients",
            words="their gradients",
            bytes=elements * adapter_width,
            certainty="exact",
            phases=("train",),
        ),
        Part(
            name="optimiser",
            words=f"moments of {use.optimiser}",
            bytes=sum(optimiser_bytes(size, use.optimiser) * count for size, count in matrices),
            certainty="exact",
            phases=("train",),
            pageable=use.optimiser.startswith("paged"),
        ),
        Part(
            name="activations",
            words="inputs of the layers" if use.checkpointing else "what every layer keeps for its gradient",
            bytes=kept,
            certainty="estimated",
            phases=("train",),
        ),
        Part(
            name="recomputation",
            words="one layer computed again, with its gradients",
            bytes=2 * worst_layer,
            certainty="estimated",
            phases=("train",),
        ),
        Part(
            name="head",
            words="scores of the vocabulary",
            bytes=_head(inventory, use),
            certainty="estimated",
            phases=("train",),
        ),
        Part(
            name="dequantised",
            words="the largest weight, unpacked for a product",
            bytes=_unpacked(inventory, use),
            certainty="estimated",
            phases=("train",),
        ),
    ]


def _inference(inventory: Inventory, use: Use) -> list[Part]:
    width = DTYPES[use.dtype]
    cache = 2 * inventory.layers * inventory.key_value_heads * inventory.head_dim * width * use.tokens
    widest = max((max(item.shape) for item in inventory.parameters if item.in_layer), default=0)
    return [
        Part(
            name="cache",
            words="keys and values of the context",
            bytes=cache,
            certainty="exact",
            phases=("infer",),
        ),
        Part(
            name="activations",
            words="one layer at work on the prompt",
            bytes=4 * widest * width * use.tokens,
            certainty="estimated",
            phases=("infer",),
        ),
        Part(
            name="dequantised",
            words="the largest weight, unpacked for a product",
            bytes=_unpacked(inventory, use),
            certainty="estimated",
            phases=("infer",),
        ),
    ]


def layer_activations(inventory: Inventory, use: Use, *, mask: int = 1) -> int:
    """Bytes a token that autograd keeps of one layer: what each operation needs again for its gradient.

    Args:
        mask: bytes of an element of the dropout's mask; a GPU keeps one, the CPU a number.
    """
    width = DTYPES[use.dtype]
    adapted, total = inventory.adapted, 0.0
    for item, each in _per_layer(inventory, "linear"):
        if item in adapted:
            shared = use.trainer == "trl" and not use.dropout and _shares_input(inventory, item.name)
            inputs = 0 if shared else item.shape[1] * (width + (mask if use.dropout else 0))
            total += (inputs + use.rank * width) * each
    total += _norms(inventory, width) + _feed_forward(inventory) * width + _routing(inventory, width)
    queries = inventory.heads * inventory.head_dim
    keys = inventory.key_value_heads * inventory.head_dim
    total += (2 * queries + 2 * keys) * width
    if any(_VIEWED in item.name for item in inventory.parameters):
        total += (queries + keys) * width  # values that are a view keep queries and keys alive beside them
    total += inventory.heads * (use.sequence * _EAGER_SCORE if inventory.eager else _FLOAT)
    return int(total)


def _shares_input(inventory: Inventory, name: str) -> bool:
    if name.endswith(".o_proj.weight"):
        # What a fused product was cut into for the attention comes out in another order.
        return not any(".qkv_proj" in item.name for item in inventory.parameters)
    return name.endswith(_SHARING_INPUT)


def _norms(inventory: Inventory, width: int) -> float:
    """Bytes a token that the norms of a layer keep."""
    names = {item.name for item in inventory.parameters}
    total = 0.0
    for item, each in _per_layer(inventory, "norm"):
        rows = 1
        if item.shape[0] != inventory.hidden:  # one for each head
            rows = inventory.key_value_heads if ".k_" in item.name else inventory.heads
        if item.name.replace(".weight", ".bias") in names:  # a LayerNorm keeps its input as it came
            inputs = item.shape[0] * width * (0 if inventory.parallel and total else 1)
            total += rows * (inputs + 2 * _FLOAT) * each
        else:  # the others work in float32
            total += rows * (item.shape[0] + 1) * _FLOAT * each
    return total


def _per_layer(inventory: Inventory, kind: str) -> Iterator[tuple[Parameter, float]]:
    """The weights of a kind in the layers, and how many of each a token meets in an average layer."""
    for item in inventory.parameters:
        if item.in_layer and item.kind == kind and item.name.endswith(".weight"):
            yield item, _met(inventory, item)


def _met(inventory: Inventory, item: Parameter) -> float:
    share = inventory.experts_per_token / inventory.experts if _EXPERT in item.name else 1
    return share * item.count / inventory.layers


def _feed_forward(inventory: Inventory) -> float:
    """Elements a token that the feed-forward parts keep between their products."""
    widths = 0.0
    for item in inventory.parameters:
        if not item.in_layer or len(item.shape) < 2:
            continue
        name, outputs, each = item.name, item.shape[-2], _met(inventory, item)
        if "gate_up" in name:  # gate and up in one, and the gate after its activation
            chosen = inventory.experts_per_token if name.endswith(_FUSED_EXPERTS) else 1
            widths += (outputs + outputs // 2) * chosen * each
        elif any(part in name for part in (".gate_proj", ".w1")):
            widths += 3 * outputs * each
        elif any(part in name for part in (".fc1", "h_to_4h", ".c_fc")):
            widths += outputs * (_UNFUSED if inventory.activation in _UNFUSED_ACTIVATIONS else 1) * each
    return widths


def _routing(inventory: Inventory, width: int) -> float:
    """Bytes a token that the choice of experts keeps, and the sum of what they answer."""
    total = 0.0
    for item in inventory.parameters:
        if item.name.endswith(_FUSED_EXPERTS):
            # An answer before it is weighted, its weight, and its places in three orders.
            answer, layers = inventory.hidden * width + _FLOAT + 3 * _INDEX, item.count
        elif _EXPERT in item.name and item.shape[0] == inventory.hidden:  # the last product of an expert
            # Before and after its weight, and two places in the tokens.
            answer = 2 * inventory.hidden * width + width + 2 * _INDEX
            layers = item.count // inventory.experts
        else:
            continue
        scores = (inventory.experts + inventory.experts_per_token + 1) * _FLOAT
        choice = inventory.experts_per_token * (answer + _INDEX) + scores
        total += choice * layers / inventory.layers
    return total


def _unpacked(inventory: Inventory, use: Use) -> int:
    if use.quantisation.scheme == "none":
        return 0
    largest = max((item.elements for item in inventory.parameters if item.role == "quantised"), default=0)
    return largest * DTYPES[use.dtype]


def _head(inventory: Inventory, use: Use) -> int:
    width = DTYPES[use.dtype]
    if use.trainer == "trl":
        tile = min(use.tokens, _HEAD_TOKENS) * min(inventory.vocabulary, _HEAD_VOCABULARY) * width
        return tile + use.tokens * inventory.hidden * _FLOAT
    # The scores, their float32 copy, its logarithm of probabilities, and the gradient of both.
    return use.tokens * inventory.vocabulary * (2 * width + 2 * _FLOAT)
