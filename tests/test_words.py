from __future__ import annotations

import pytest

from bnbenv.words import counted


@pytest.mark.parametrize(("number", "told"), [(0, "0 locks"), (1, "1 lock"), (2, "2 locks")])
def test_a_noun_goes_with_its_number(number: int, told: str) -> None:
    assert counted(number, "lock") == told
