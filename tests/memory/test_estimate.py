from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnbenv.matrix.load import load
from bnbenv.memory.estimate import Use, estimate, layer_activations
from bnbenv.memory.inventory import Inventory, take_inventory
from bnbenv.memory.storage import Quantisation

ROWS = load("model_types").model_types
NF4 = Quantisation(scheme="nf4")
SMALL = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 1000,
}


def inventory(model_type: str, **changes: int | str) -> Inventory:
    return take_inventory({**SMALL, "model_type": model_type, **changes}, ROWS, transformers="5.23")


# Bytes a token and layer that autograd kept on the CPU, where a mask takes as much as its tensor:
# transformers 5.23, peft 0.21.2, rank 16, bfloat16 under autocast. Read by saved_tensors_hooks.
MEASURED = [
    ("llama", 0.05, "trl", 17032),
    ("llama", 0.05, "plain", 21512),
    ("llama", 0.0, "trl", 10504),
    ("llama", 0.0, "plain", 12552),
    ("qwen3", 0.05, "trl", 18616),
    ("qwen3", 0.0, "plain", 14136),
    ("gemma", 0.05, "trl", 17032),
    ("phi", 0.05, "trl", 15844),
    ("phi", 0.0, "plain", 11876),
    ("phi3", 0.05, "trl", 13864),
    ("phi3", 0.05, "plain", 16808),
    ("gpt_neox", 0.05, "trl", 10024),
    ("gpt_neox", 0.0, "plain", 7080),
]
SPECIAL: dict[str, dict[str, int | str]] = {
    "qwen3": {"head_dim": 32},
    "gemma": {"head_dim": 32, "hidden_act": "gelu_pytorch_tanh"},
    "phi": {"hidden_act": "gelu_new"},
    "gpt_neox": {"hidden_act": "gelu", "num_key_value_heads": 8},
}


@pytest.mark.parametrize(("model_type", "dropout", "trainer", "measured"), MEASURED)
def test_activations_of_a_layer_are_those_measured(
    model_type: str, dropout: float, trainer: str, measured: int
) -> None:
    use = Use(quantisation=NF4, dropout=dropout, checkpointing=False, trainer=trainer)  # type: ignore[arg-type]
    found = layer_activations(
        inventory(model_type, **SPECIAL.get(model_type, {})), use, mask=2 if trainer == "trl" else 4
    )
    assert found == pytest.approx(measured, rel=0.002)


EXPERTS: dict[str, dict[str, int | bool]] = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {
        "head_dim": 32,
        "moe_intermediate_size": 96,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "norm_topk_prob": True,
    },
}
# As above, of a hidden size of 128; transformers 4.57 with peft 0.18.1. By dropout, and by trainer in it.
MEASURED_EXPERTS = [
    ("mixtral", "5.23", (8444, 9468, 6652, 7420)),
    ("mixtral", "4.57", (14280, 17864, 9416, 10696)),
    ("qwen3_moe", "5.23", (7430, 8454, 5638, 6406)),
    ("qwen3_moe", "4.57", (13230, 16622, 8302, 9838)),
]


@pytest.mark.parametrize(("model_type", "transformers", "measured"), MEASURED_EXPERTS)
def test_activations_of_a_layer_with_experts_are_those_measured(
    model_type: str, transformers: str, measured: tuple[int, ...]
) -> None:
    sizes = {"hidden_size": 128, "intermediate_size": 320, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = {**SMALL, **sizes, **EXPERTS[model_type], "model_type": model_type}
    model = take_inventory(config, ROWS, transformers=transformers)
    found = [
        layer_activations(
            model,
            Use(quantisation=NF4, dropout=dropout, trainer=trainer),
            mask=2 if trainer == "trl" else 4,
        )
        for dropout in (0.05, 0.0)
        for trainer in ("trl", "plain")
    ]
    assert found == pytest.approx(measured, rel=0.002)


def test_experts_in_one_parameter_get_no_adapters() -> None:
    def trained(transformers: str) -> int:
        config = {**SMALL, **EXPERTS["mixtral"], "model_type": "mixtral"}
        model = take_inventory(config, ROWS, transformers=transformers)
        return next(
            part.bytes for part in estimate(model, Use(quantisation=NF4)).parts if part.name == "adapters"
        )

    attention = 2 * (256 + 256) + 2 * (256 + 128)
    assert trained("5.23") == 3 * 16 * 2 * attention
    # As modules of their own, the experts and the choice among them are adapted like any other.
    experts = 4 * 3 * (256 + 704) + (256 + 4)
    assert trained("4.57") == 3 * 16 * 2 * (attention + experts)


@pytest.mark.parametrize("name", sorted({name for row in ROWS for name in row.names}))
@pytest.mark.parametrize("transformers", ["4.57", "5.23"])
@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("scheme", ["nf4", "int8", "none"])
def test_every_type_is_weighed_for_every_use(name: str, transformers: str, trains: bool, scheme: str) -> None:
    switches = {"attention_bias": True, "mlp_bias": True, "qk_layernorm": True}
    config = {**SMALL, **switches, "max_position_embeddings": 64, "model_type": name}
    config |= {"moe_intermediate_size": 96, "num_experts": 4}
    model = take_inventory(config, ROWS, transformers=transformers)
    for cpu in (True, False):
        use = Use(quantisation=Quantisation(scheme=scheme), trains=trains, cpu=cpu)  # type: ignore[arg-type]
        assert estimate(model, use).peak > estimate(model, use).weights > 0


def test_what_is_quantised_already_needs_no_buffer_to_be_loaded() -> None:
    names = {
        part.name for part in estimate(inventory("llama"), Use(quantisation=NF4, prequantised=True)).parts
    }
    assert "load-buffer" not in names


def test_checkpointing_keeps_the_inputs_of_the_layers_alone() -> None:
    model = inventory("llama")
    with_it = estimate(model, Use(quantisation=NF4))
    without = estimate(model, Use(quantisation=NF4, checkpointing=False))
    inputs = next(part.bytes for part in with_it.parts if part.name == "activations")
    assert inputs == 3 * 256 * 2 * 2048
    assert without.at("train") > with_it.at("train")


def test_phases_hold_only_their_parts() -> None:
    both = estimate(inventory("llama"), Use(quantisation=NF4))
    assert both.working_phase == "train"
    assert {part.name for part in both.parts if part.phases == ("load",)} == {"load-buffer"}
    infer = estimate(inventory("llama"), Use(quantisation=NF4, trains=False))
    assert "optimiser" not in {part.name for part in infer.parts}
    assert infer.peak == max(infer.at("load"), infer.at("infer"))


def test_nothing_quantised_is_all_kept() -> None:
    plain = estimate(inventory("llama"), Use(quantisation=Quantisation(scheme="none")))
    assert plain.weights == inventory("llama").elements * 2


def test_on_the_processor_the_mapped_files_count_and_a_driver_does_not() -> None:
    names = {part.name for part in estimate(inventory("llama"), Use(quantisation=NF4, cpu=True)).parts}
    assert {"mapped-files", "interpreter"} <= names
    assert "context" not in names


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.integers(1, 4096), st.integers(1, 8), st.integers(1, 64), st.booleans())
def test_more_of_anything_takes_no_less(sequence: int, batch: int, rank: int, checkpointing: bool) -> None:
    model = inventory("llama")
    use = Use(quantisation=NF4, sequence=sequence, batch=batch, rank=rank, checkpointing=checkpointing)
    here = estimate(model, use).peak
    # Not the rank: moments of tensors from 4,096 elements on take a quarter of those below.
    for more in ({"sequence": sequence + 1}, {"batch": batch + 1}):
        assert estimate(model, replace(use, **more)).peak >= here  # type: ignore[arg-type]
