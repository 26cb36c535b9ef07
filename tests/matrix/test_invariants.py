from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bnbenv.matrix.invariants import check_rows
from bnbenv.matrix.load import load

COMPAT = Path(__file__).resolve().parents[2] / "compat"


@pytest.mark.parametrize("field", ["instead", "successor"])
def test_a_hazard_names_profiles_that_there_are(field: str) -> None:
    matrix = load(directory=COMPAT)
    assert not [*check_rows(matrix)]
    changed: dict[str, Any] = {field: "gptqq"}
    row = matrix.hazards[0]._replace(**changed)
    found = [*check_rows(replace(matrix, hazards=(row, *matrix.hazards[1:])))]
    assert found == [f"hazards.toml: {row.package}: there is no profile gptqq"]
