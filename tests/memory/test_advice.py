from __future__ import annotations

from typing import Any

import pytest

from bnbenv.matrix.load import load
from bnbenv.memory.advice import devices_needed, judge_fit, largest_model, needed, remedies, smallest_card
from bnbenv.memory.estimate import Use, estimate
from bnbenv.memory.inventory import take_inventory
from bnbenv.memory.storage import Quantisation

GIB = 2**30
_LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
# Few layers, whose weights are large while they are quantised.
_WIDE = {**_LLAMA, "intermediate_size": 131072, "num_hidden_layers": 2, "vocab_size": 1000}
MODEL, WIDE = (
    take_inventory(config, load("model_types").model_types, transformers="5.23") for config in (_LLAMA, _WIDE)
)


def wanted(**changes: Any) -> Use:
    return Use(quantisation=Quantisation(scheme="nf4"), **changes)


@pytest.mark.parametrize(
    ("peak", "free", "fit"),
    [(9, 10, "fits"), (10, 10, "tight"), (11, 10, "does-not-fit"), (0, 0, "fits"), (1, 0, "does-not-fit")],
)
def test_the_three_verdicts(peak: int, free: int, fit: str) -> None:
    assert judge_fit(peak, free) == fit


def test_what_fits_needs_no_remedy() -> None:
    assert remedies(MODEL, estimate(MODEL, wanted()), [24 * GIB]) == ()


def test_remedies_come_in_order_and_end_with_the_first_that_does() -> None:
    asked = wanted(optimiser="adamw_32bit", batch=4, checkpointing=False)
    found = remedies(MODEL, estimate(MODEL, asked), [12 * GIB])
    assert [remedy.name for remedy in found][:2] == ["paged-optimiser", "smaller-batch"]
    assert found[-1].fit == "fits"
    assert all(remedy.fit != "fits" for remedy in found[:-1])


def test_a_remedy_keeps_its_word() -> None:
    found = remedies(MODEL, estimate(MODEL, wanted(batch=8)), [12 * GIB])
    assert found[-1].name == "smaller-batch"
    again = estimate(MODEL, wanted(batch=1))
    assert found[-1].peak <= again.peak
    assert judge_fit(again.peak, 12 * GIB) == "fits"


@pytest.mark.parametrize(
    ("quantisation", "dtype", "options"),
    [
        (Quantisation(scheme="nf4"), "bfloat16", "nf4 --double-quant"),
        (Quantisation(scheme="int8"), "float16", "int8 --dtype float16"),
    ],
    ids=["nf4", "int8"],
)
def test_what_is_quantised_on_disk_is_what_loading_would_make(
    quantisation: Quantisation, dtype: Any, options: str
) -> None:
    asked = estimate(WIDE, Use(quantisation=quantisation, dtype=dtype, cpu=True, trains=False, sequence=256))
    [found] = remedies(WIDE, asked, [needed(asked, "load")], model="/models/my llama")
    scheme = quantisation.scheme
    assert found.name == "prequantised"
    assert found.setting == f"bnbenv quantize '/models/my llama' 'my llama-{scheme}' --type {options}"


def test_two_devices_get_figures_for_max_memory() -> None:
    found = remedies(MODEL, estimate(MODEL, wanted(sequence=256)), [5 * GIB, 5 * GIB])
    assert found[-1].name == "max-memory"
    assert 'device_map="auto", max_memory={0: "' in found[-1].setting


def test_a_device_that_is_too_small_for_anything_is_said_to_be() -> None:
    found = remedies(MODEL, estimate(MODEL, wanted()), [4 * GIB])
    assert all(remedy.fit == "does-not-fit" for remedy in found)
    assert smallest_card(estimate(MODEL, wanted())) == 12
    assert largest_model(estimate(MODEL, wanted()), MODEL, 12 * GIB) > MODEL.elements


def test_pages_of_files_do_not_decide() -> None:
    on_cpu = estimate(MODEL, wanted(cpu=True, trains=False))
    pages = next(part.bytes for part in on_cpu.parts if part.name == "mapped-files")
    assert pages > 10 * GIB
    assert needed(on_cpu) == on_cpu.peak - pages
    assert remedies(MODEL, on_cpu, [10 * GIB]) == ()


def test_devices_that_would_hold_it_between_them() -> None:
    asked = estimate(MODEL, wanted())
    beside = asked.peak - asked.weights
    free = asked.weights // 2 + beside
    count = devices_needed(asked, free)
    assert count is not None
    assert count > 1
    assert count * (free * 0.9 - beside) >= asked.weights > (count - 1) * (free * 0.9 - beside)
    assert devices_needed(asked, 1) is None
