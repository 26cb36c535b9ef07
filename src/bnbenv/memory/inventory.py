"""Which parameters a model has, and which of them bitsandbytes quantises; from its configuration alone."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bnbenv.errors import UsageError
from bnbenv.memory.strict import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnbenv.matrix.rows import ModelModule, ModelType

Role = Literal["quantised", "kept"]
Kind = Literal["embedding", "linear", "norm", "head", "parameter"]

_MOST = 2**31  # no dimension, and no count of layers, of any real model comes near
# How older configurations call what newer ones call otherwise.
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("n_embd", "d_model"),
    "num_hidden_layers": ("n_layer", "num_layers"),
    "num_attention_heads": ("n_head",),
    "intermediate_size": ("n_inner", "ffn_dim"),
    "max_position_embeddings": ("n_positions",),
    "num_local_experts": ("num_experts",),
    "num_experts": ("num_local_experts",),
}
_ATTENTION = "attn."


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter, or several alike.

    Attributes:
        name: with ``*`` for the layer and for the expert.
        role: whether bitsandbytes quantises it.
        kind: the kind of module it belongs to.
        count: how many such parameters there are.
        in_layer: it belongs to the repeated layers.
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    kind: Kind
    count: int = 1
    in_layer: bool = False

    @property
    def elements(self) -> int:
        """Elements of one of them."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """A model's parameters, tied ones once, and the sizes that its activations follow from.

    Attributes:
        model_type: as config.json names it.
        layers, hidden, heads, key_value_heads, head_dim, vocabulary: of the text model.
        experts, experts_per_token: of a layer that has some, and how many of them a token goes through.
        fused_experts: experts stand in parameters that bitsandbytes does not quantise.
        activation: the function of the feed-forward part, as config.json names it.
        parallel: attention and the feed-forward part work on the same input.
        eager: attention is written out, and keeps every score.
    """

    model_type: str
    parameters: tuple[Parameter, ...]
    layers: int
    hidden: int
    heads: int
    key_value_heads: int
    head_dim: int
    vocabulary: int
    experts: int
    experts_per_token: int
    fused_experts: bool
    activation: str
    parallel: bool
    eager: bool

    @property
    def elements(self) -> int:
        """All parameters of the model."""
        return sum(parameter.elements * parameter.count for parameter in self.parameters)

    @property
    def adapted(self) -> tuple[Parameter, ...]:
        """The weights that LoRA adapts: of all layers, and of attention alone where experts are fused.

        peft would unpack such experts at every step, and refuses dropout for them.
        """
        return tuple(
            item
            for item in self.parameters
            if item.kind == "linear"
            and len(item.shape) == 2
            and (not self.fused_experts or _ATTENTION in item.name)
        )


def take_inventory(
    config: Mapping[str, Any], model_types: tuple[ModelType, ...], *, transformers: str
) -> Inventory:
    """What a configuration describes.

    Args:
        config: config.json; of a model with a vision part, its ``text_config`` is read.
        transformers: the release whose classes will hold the model: it decides how experts are kept.

    Raises:
        UsageError: code ``bad-model``; the type is not known, or a value is missing or impossible.
    """
    settings = _Settings(config, model_types, transformers)
    layers = settings.count("num_hidden_layers")
    parameters = tuple(_parameters(settings, layers))
    experts = settings.count("num_experts") if "num_experts_per_tok" in settings.row.defaults else 0
    return Inventory(
        model_type=settings.model_type,
        parameters=parameters,
        layers=layers,
        hidden=settings.count("hidden_size"),
        heads=settings.count("num_attention_heads"),
        key_value_heads=settings.count("num_key_value_heads"),
        head_dim=settings.count("head_dim"),
        vocabulary=settings.count("vocab_size"),
        experts=experts,
        experts_per_token=min(experts, settings.count("num_experts_per_tok")) if experts else 0,
        fused_experts=any(
            parameter.kind == "parameter" and len(parameter.shape) == 3 for parameter in parameters
        ),
        activation=settings.activation,
        parallel=settings.true("use_parallel_residual"),
        eager=settings.row.attention == "eager",
    )


class _Settings:
    """The values of a configuration, with aliases, derived values and the class's defaults behind them."""

    def __init__(
        self, config: Mapping[str, Any], model_types: tuple[ModelType, ...], transformers: str
    ) -> None:
        known = {name for row in model_types for name in row.names}
        inner = config.get("text_config")
        if str(config.get("model_type")) not in known and isinstance(inner, dict):
            config = inner
        self.config = config
        self.model_type = str(config.get("model_type"))
        if self.model_type not in known:
            raise _bad(
                f"the model type `{shown(self.model_type)}` of config.json is not known; "
                f"known are {', '.join(sorted(known))}",
                "there is no estimate of it; bnbenv quantize asks transformers itself, and may still work",
            )
        self.row = _row(self.model_type, model_types, transformers)

    def count(self, key: str) -> int:
        """A whole number above zero.

        Raises:
            UsageError: it is missing or impossible.
        """
        names = (key, *_ALIASES.get(key, ()))
        for name in names:
            if (value := self.config.get(name)) is not None:
                if type(value) is not int or not 0 < value < _MOST:
                    raise _bad(
                        f"`{name}` of config.json is {str(value)[:40]!r}, no size", "fetch the file again"
                    )
                return value
        for name in names:
            if (default := self.row.defaults.get(name)) is not None:
                return int(default)
        match key:
            case "num_key_value_heads":
                return self.count("num_attention_heads")
            case "head_dim" if whole := self.count("hidden_size") // self.count("num_attention_heads"):
                return whole
            case "intermediate_size" if self.model_type == "gpt2":
                return 4 * self.count("hidden_size")
        raise _bad(f"config.json does not tell `{key}`", "fetch the file again")

    @property
    def activation(self) -> str:
        """The activation of the feed-forward part, ``""`` where config.json does not tell."""
        names = ("hidden_act", "hidden_activation", "activation_function")
        return next((str(self.config[name]) for name in names if self.config.get(name)), "")

    def true(self, key: str) -> bool:
        """Whether a switch is on."""
        value = self.config.get(key)
        if value is not None and value not in (False, True):
            raise _bad(f"`{key}` of config.json is {str(value)[:40]!r}, no switch", "fetch the file again")
        return key == "true" or bool(self.row.defaults.get(key, False) if value is None else value)

    def size(self, text: str) -> int:
        """A sum of products of keys and numbers."""
        return sum(
            math.prod(int(factor) if factor.isdigit() else self.count(factor) for factor in term.split("*"))
            for term in text.replace(" ", "").split("+")
        )

    def layers_with(self, when: str, layers: int) -> int:
        """How many layers have a module."""
        if when not in {"sparse", "dense"}:
            return layers if not when or self.true(when) else 0
        step = self.count("decoder_sparse_step")
        alone = self.config.get("mlp_only_layers") or []
        if not isinstance(alone, list):
            raise _bad("`mlp_only_layers` of config.json is no list", "fetch the file again")
        apart = {layer for layer in alone if type(layer) is int and 0 <= layer < layers}
        sparse = layers // step - sum(1 for layer in apart if (layer + 1) % step == 0)
        return sparse if when == "sparse" else layers - sparse


def _row(model_type: str, model_types: tuple[ModelType, ...], transformers: str) -> ModelType:
    from packaging.specifiers import SpecifierSet

    for row in model_types:
        if model_type in row.names and SpecifierSet(row.transformers).contains(
            transformers, prereleases=True
        ):
            return row
    raise _bad(
        f"how transformers {transformers} keeps the `{model_type}` of config.json is not known",
        "name another --transformers",
    )


def _parameters(settings: _Settings, layers: int) -> Iterator[Parameter]:
    tied = settings.true("tie_word_embeddings")
    skipped = _skipped(settings.config)
    for module in settings.row.modules:
        in_layer = ".*." in module.name
        count = (
            settings.layers_with(module.when, layers)
            if in_layer
            else int(not module.when or settings.true(module.when))
        )
        if module.each:
            count *= settings.count(module.each)
        if not count:
            continue
        bare = module.name if module.kind == "parameter" else f"{module.name}.weight"
        shape = tuple(settings.size(text) for text in module.weight)
        role: Role = "quantised" if module.kind == "linear" and not _is_skipped(module, skipped) else "kept"
        if not (module.kind == "head" and tied):
            yield Parameter(
                name=bare, shape=shape, role=role, kind=module.kind, count=count, in_layer=in_layer
            )
        if module.bias and settings.true(module.bias):
            yield Parameter(
                name=f"{module.name}.bias",
                shape=shape[:1],
                role="kept",
                kind=module.kind,
                count=count,
                in_layer=in_layer,
            )


def _skipped(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Modules that the configuration itself keeps out of the quantisation."""
    quantisation = config.get("quantization_config")
    names = quantisation.get("llm_int8_skip_modules") if isinstance(quantisation, dict) else None
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()


def _is_skipped(module: ModelModule, skipped: tuple[str, ...]) -> bool:
    return any(re.search(rf"(^|\.){re.escape(name)}(\.|$)", module.name) for name in skipped)


def _bad(message: str, hint: str) -> UsageError:
    return UsageError(message, hint=hint, code="bad-model")
