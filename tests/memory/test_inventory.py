from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnbenv.errors import UsageError
from bnbenv.matrix.load import load
from bnbenv.memory.inventory import Inventory, take_inventory
from support.safetensors import LLAMA

ROWS = load("model_types").model_types

# Published sizes: what the authors of the models call them, to the last parameter.
LLAMA_31_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
MIXTRAL_8X7B = {
    "model_type": "mixtral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "num_local_experts": 8,
}


def take(config: dict[str, Any], transformers: str = "5.23") -> Inventory:
    return take_inventory(config, ROWS, transformers=transformers)


@pytest.mark.parametrize(
    ("config", "elements"),
    [(LLAMA_31_8B, 8_030_261_248), (MIXTRAL_8X7B, 46_702_792_704)],
    ids=["Llama-3.1-8B", "Mixtral-8x7B"],
)
@pytest.mark.parametrize("transformers", ["4.57.6", "5.23.0"])
def test_the_whole_is_what_the_authors_say(config: dict[str, Any], elements: int, transformers: str) -> None:
    assert take(config, transformers).elements == elements


def test_experts_are_quantised_by_transformers_4_alone() -> None:
    def quantised(inventory: Inventory) -> int:
        return sum(item.elements * item.count for item in inventory.parameters if item.role == "quantised")

    old, new = take(MIXTRAL_8X7B, "4.57.6"), take(MIXTRAL_8X7B, "5.23.0")
    assert not old.fused_experts
    assert new.fused_experts
    assert quantised(old) > 46_000_000_000
    assert quantised(new) == 32 * (2 * 4096 * 4096 + 2 * 1024 * 4096)


def test_the_head_is_never_quantised_and_counts_once_where_it_is_tied() -> None:
    apart, tied = take(dict(LLAMA)), take({**LLAMA, "tie_word_embeddings": True})
    assert apart.elements - tied.elements == 100 * 64
    assert {item.role for item in apart.parameters if item.kind in {"head", "embedding", "norm"}} == {"kept"}


def test_a_layer_that_the_configuration_excludes_is_kept() -> None:
    config = {**LLAMA, "quantization_config": {"llm_int8_skip_modules": ["down_proj", "lm_head"]}}
    kept = {item.name for item in take(config).parameters if item.kind == "linear" and item.role == "kept"}
    assert kept == {"model.layers.*.mlp.down_proj.weight"}


def test_the_text_model_of_a_model_with_more_parts_is_read() -> None:
    assert take({"model_type": "llava", "text_config": dict(LLAMA)}).elements == take(dict(LLAMA)).elements


def test_layers_with_and_without_experts_are_counted_apart() -> None:
    config = {
        **LLAMA,
        "model_type": "qwen3_moe",
        "num_hidden_layers": 6,
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "decoder_sparse_step": 2,
        "mlp_only_layers": [1],
    }
    counts = {item.name: item.count for item in take(config).parameters}
    assert counts["model.layers.*.mlp.experts.down_proj"] == 2
    assert counts["model.layers.*.mlp.down_proj.weight"] == 4


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model_type": "unheard"}, "`unheard` of config.json is not known; known are"),
        ({"model_type": None}, "is not known"),
        ({"model_type": ["llama"]}, "is not known"),
        ({"hidden_size": "64"}, "no size"),
        ({"hidden_size": -64}, "no size"),
        ({"hidden_size": True}, "no size"),
        ({"num_hidden_layers": 10**30}, "no size"),
        ({"vocab_size": None}, "does not tell `vocab_size`"),
        ({"num_attention_heads": 10**6}, "does not tell `head_dim`"),
        ({"tie_word_embeddings": "no"}, "no switch"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why) as raised:
        take({**LLAMA, **change})
    assert raised.value.code == "bad-model"


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*LLAMA, "head_dim", "tie_word_embeddings"]), st.integers() | st.text() | st.none()
    )
)
def test_no_configuration_ends_otherwise(change: dict[str, Any]) -> None:
    with suppress(UsageError):
        assert take({**LLAMA, **change}).elements > 0


def test_layers_beyond_counting_are_counted() -> None:
    """A list of layers and a number of them that no loop should go through."""
    config = {
        **LLAMA,
        "model_type": "qwen3_moe",
        "num_hidden_layers": 2**31 - 1,
        "mlp_only_layers": [1, "x", 3],
    }
    counts = {item.name: item.count for item in take({**config, "decoder_sparse_step": 2}).parameters}
    assert counts["model.layers.*.mlp.experts.down_proj"] == 2**30 - 1 - 2


def test_every_row_names_only_keys_that_a_configuration_has() -> None:
    full = {**LLAMA, "max_position_embeddings": 64, "num_local_experts": 2, "moe_intermediate_size": 8}
    for row in ROWS:
        for name in row.names:
            version = "4.57" if row.transformers == "<5" else "5.23"
            assert take({**full, "model_type": name}, version).elements > 0
