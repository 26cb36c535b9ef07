from __future__ import annotations

import json

import pytest

from bnbenv.cli.findings import findings_text
from bnbenv.cli.main import main
from bnbenv.cli.ui import Ui

PIN = ["why-not", "torch==2.14.1+cu126", "--gpu", "RTX 4090", "--driver", "570"]


@pytest.mark.parametrize(
    "typed",
    [["pytorch==2.9.1"], ["torch", "2.9.1"], ["torch 2.9.1"], ["PyTorch", "v2.9.1"], ["torch==2.9.1"]],
)
def test_a_pin_as_people_write_it(typed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why-not", *typed, "--gpu", "8.9", "--driver", "580", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["pin"] == "torch==2.9.1"


@pytest.mark.parametrize(
    ("typed", "asked"), [("vllm>=0.30", "'vllm>=0.30'"), ("vllm 0.30", "vllm==0.30"), ("vllm", "vllm")]
)
def test_another_package_is_asked_of_create(
    typed: str, asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["why-not", *typed.split(), "--profile", "inference", "--json"]) == 2
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    assert problem["hint"] == f"bnbenv create inference --with {asked} --dry-run"


def test_no_python_is_named_that_the_rest_excludes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why-not", "bitsandbytes==0.50.2", "--python", "3.9", "--gpu", "RTX 4090"]) == 0
    text = capsys.readouterr().out
    assert "has no wheel for Python 3.9" in text
    assert "uv python install" not in text


def test_a_finding_with_commands_alone_has_no_blank_line() -> None:
    remedy = {"summary": "", "commands": ["pip install scipy"]}
    shown = {"severity": "warning", "summary": "scipy is imported", "evidence": [], "remedy": remedy}
    assert findings_text([shown], Ui()) == ["warning: scipy is imported", "    pip install scipy"]


def test_what_is_taken_for_granted_of_the_indexes_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PIN, "--without-index", "pytorch-cu126"]) == 0
    text = capsys.readouterr().out
    assert "it would need the index `pytorch-cu126`" in text
    assert "without the indexes pytorch-cu126" in text
    assert main(PIN) == 0
    assert "every configured index is believed to answer" in capsys.readouterr().out
