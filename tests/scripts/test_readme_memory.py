from __future__ import annotations

from typing import TYPE_CHECKING, Any

import _proof
import refresh_readme

if TYPE_CHECKING:
    import pytest


def test_no_record_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh_readme, "_records", dict)
    assert refresh_readme.memory() == "A whole run is not recorded yet.\n"


def test_the_worst_of_each_architecture_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    peak = {"load_error": 0.01, "working_error": -0.04}
    rows: dict[str, dict[str, Any]] = {
        "bytes llama nf4": {"tensors": 3, "wrong": []},
        "bytes llama int8": {"tensors": 3, "wrong": ["a takes 3, not 4"]},
        "train llama nf4": {"kept_errors": [0.0, -0.002], "wrong": []},
        "peak llama nf4": peak,
        "bytes phi nf4": {"tensors": 3, "wrong": []},
    }
    proof = _proof.Proof(name="prove_memory", covered={}, rows=rows, circumstances={"torch": "2.13.0"})
    monkeypatch.setattr(refresh_readme, "_records", lambda: {"prove_memory": proof})
    text = refresh_readme.memory()
    assert "torch 2.13.0" in text
    assert "| `llama` | exact in 1 of 2 schemes | exact | -0.2% | -4.0% |" in text
    assert "| `phi` | exact in 1 of 1 schemes | not measured | not measured | not measured |" in text
