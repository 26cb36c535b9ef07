from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.cli.main import main

if TYPE_CHECKING:
    import pytest

PIN = ["why-not", "torch==2.14.1+cu126", "--gpu", "RTX 4090", "--driver", "570"]


def test_what_is_taken_for_granted_of_the_indexes_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PIN, "--without-index", "pytorch-cu126"]) == 0
    text = capsys.readouterr().out
    assert "it would need the index `pytorch-cu126`" in text
    assert "without the indexes pytorch-cu126" in text
    assert main(PIN) == 0
    assert "every configured index is believed to answer" in capsys.readouterr().out
