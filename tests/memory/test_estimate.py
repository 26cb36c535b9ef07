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
