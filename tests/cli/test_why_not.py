from __future__ import annotations

import json

import pytest

from bnbenv.cli.findings import findings_text
from bnbenv.cli.main import main
from bnbenv.cli.ui import Ui

PIN = ["why-not", "torch==2.14.1+cu126", "--gpu", "RTX 4090", "--driver", "570"]


@pytest.mark.parametrize(
    "typed",
    [
        ["pytorch==2.9.1"],
        ["torch", "2.9.1"],
        ["torch 2.9.1"],
        ["PyTorch", "v2.9.1"],
        ["torch==2.9.1"],
        ["torch2.9.1"],
        ["torch=2.9.1"],
        ["torch-2.9.1"],
        ["2.9.1"],
    ],
)
def test_a_pin_as_people_write_it(typed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why-not", *typed, "--gpu", "8.9", "--driver", "580", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["pin"] == "torch==2.9.1"


@pytest.mark.parametrize(
    ("typed", "pin"),
    [
        ("bnb=0.50.2", "bitsandbytes==0.50.2"),
        ("bnb 0.50.x", "bitsandbytes==0.50.*"),
        ("torch 2.9.1 cu128", "torch==2.9.1+cu128"),
        ("torch 2.9.1 (CUDA 12.8)", "torch==2.9.1+cu128"),
        ("torch>=2.9, <2.11", "torch>=2.9, <2.11"),
    ],
)
def test_a_build_and_a_range_as_people_write_them(
    typed: str, pin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["why-not", typed, "--gpu", "8.9", "--driver", "580", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["pin"] == pin


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("cuda 12.1", "bnbenv resolve qlora --cuda 12.1 --gpu 8.9"),
        ("CUDA==12.1", "bnbenv resolve qlora --cuda 12.1 --gpu 8.9"),
        ("python3.14", "bnbenv resolve qlora --python 3.14 --gpu 8.9"),
        ("driver 550", "bnbenv resolve qlora --driver 550 --gpu 8.9"),
        ("torch==2.9.1 bnb==0.45.0", "bnbenv check --torch 2.9.1 --bitsandbytes 0.45.0 --gpu 8.9"),
        ("rocm 6.4", "such as `bnbenv why-not torch==2.9.1+rocm6.4`"),
        ("troch==2.9.1", "bnbenv why-not torch==2.9.1 --gpu 8.9"),
        ("torchvision==0.24", "bnbenv create qlora --with torchvision==0.24 --dry-run"),
    ],
)
def test_what_is_no_release_is_answered_with_the_command_for_it(
    typed: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["why-not", typed, "--gpu", "8.9", "--json"]) == 2
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    assert problem["hint"] == hint


def test_a_version_that_is_none_is_answered_with_how_they_are_spelt(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["why-not", "bitsandbytes>=0.4x"]) == 2
    assert "`bitsandbytes==0.46.*`" in capsys.readouterr().err


def test_a_word_that_is_no_version_is_given_back_as_it_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why-not", "torch", "nightly"]) == 2
    assert "`torch nightly` names no release" in capsys.readouterr().err


def test_every_way_to_a_pin_is_told_and_none_that_asks_for_more(capsys: pytest.CaptureFixture[str]) -> None:
    machine = ["--gpu", "RTX 5090", "--driver", "560", "--os", "linux", "--arch", "x86_64"]
    assert main(["why-not", "torch==2.9", *machine]) == 0
    text = capsys.readouterr().out
    assert "it would need driver >= 570: torch 2.9.0 (cu129)" in text
    assert "driver >= 580" not in text
    assert main(["why-not", "torch==2.9.1+cu130", *machine]) == 0
    text = capsys.readouterr().out
    assert "it would need driver >= 580: torch 2.9.1 (cu130)\n" in text
    assert "or another build of it, driver >= 570: torch 2.9.1 (cu129)\n" in text


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
