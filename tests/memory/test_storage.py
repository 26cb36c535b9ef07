from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnbenv.memory.storage import Quantisation, optimiser_bytes, quantised_bytes

# Read off bitsandbytes 0.50.2: the tensors of a weight of 128 by 320.
MEASURED = [
    (Quantisation(scheme="nf4", double=True), (20480, 640, 12 + 4, 64 + 1024)),
    (Quantisation(scheme="fp4", double=True), (20480, 640, 12 + 4, 64 + 1024)),
    (Quantisation(scheme="nf4", double=False), (20480, 2560, 0, 64)),
    (Quantisation(scheme="int8"), (40960, 512, 0, 0)),
]


@pytest.mark.parametrize(("quantisation", "parts"), MEASURED, ids=lambda value: str(value)[:40])
def test_parts_are_those_of_bitsandbytes(quantisation: Quantisation, parts: tuple[int, ...]) -> None:
    found = quantised_bytes((128, 320), quantisation)
    assert (found.packed, found.absmax, found.nested, found.tables) == parts
    assert found.total == sum(parts)


def test_nothing_is_no_scheme() -> None:
    with pytest.raises(ValueError, match="nothing"):
        quantised_bytes((2, 2), Quantisation(scheme="none"))


def test_small_tensors_keep_their_moments_in_32_bits() -> None:
    assert optimiser_bytes(4095, "adamw_8bit") == 4095 * 8
    assert optimiser_bytes(4096, "adamw_8bit") == 2 * (4096 + 16 * 4)
    assert optimiser_bytes(4096, "paged_adamw_32bit") == 4096 * 8


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_double_quantisation_saves_on_all_but_tiny_weights(rows: int, columns: int) -> None:
    double = quantised_bytes((rows, columns), Quantisation(scheme="nf4", double=True)).total
    plain = quantised_bytes((rows, columns), Quantisation(scheme="nf4", double=False)).total
    if rows * columns > 64 * 400:
        assert double < plain
