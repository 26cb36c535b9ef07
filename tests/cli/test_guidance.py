"""Lines that mean nothing here, and what is said to whoever typed them."""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.cli import guidance
from bnbenv.cli.commands import COMMANDS
from bnbenv.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bnbenv.env.generation import Generation

PROFILES = "`qlora`, `int8`, `inference`"


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def answer(capsys: pytest.CaptureFixture[str], line: str, code: int = 2) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["--json", *shlex.split(line)]) == code
    captured = capsys.readouterr()
    assert captured.err == ""  # nothing was begun, and no index was asked
    [problem] = json.loads(captured.out)["problems"]
    return dict(problem)


@pytest.mark.parametrize("line", ["help", "--help", "-h", "help --json", "--help --json"])
def test_help_is_asked_for_in_many_ways(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 0
    assert capsys.readouterr().out.startswith("usage: bnbenv [-h]")


@pytest.mark.parametrize(
    "line", ["help create", "--help create", "-h create", "help create qlora", "create -h"]
)
def test_so_is_that_of_a_command(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 0
    assert capsys.readouterr().out.startswith("usage: bnbenv create [-h]")


def test_the_version_by_one_letter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-V"]) == 0
    assert capsys.readouterr().out.startswith("bnbenv ")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("delete", "bnbenv remove qlora"),
        ("Fix", "bnbenv repair qlora"),
        (
            "uninstall",
            "bnbenv remove qlora (an environment), or bnbenv self uninstall (all that is bnbenv's)",
        ),
        ("version", "bnbenv --version"),
        ("crate", "bnbenv create --help"),
        ("LIST", "bnbenv list --help"),
        ("int8 --dry-run", "bnbenv create int8 --dry-run"),
        ("QLoRA", "bnbenv create qlora"),
        ("frobnicate", "bnbenv --help"),
    ],
)
def test_a_word_that_is_no_command(line: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, line)["hint"] == hint


def test_words_of_other_tools_lead_to_commands_and_hide_none() -> None:
    assert guidance._ELSEWHERE.keys().isdisjoint(COMMANDS)
    named = {
        part.split()[1]
        for line in guidance._ELSEWHERE.values()
        for part in line.split(", or ")
        if part.startswith("bnbenv ")
    }
    assert named <= {*COMMANDS, "--version"}


def test_the_environment_that_is_there_is_named(
    make_environment: Callable[..., Generation], capsys: pytest.CaptureFixture[str]
) -> None:
    make_environment("lab")
    assert answer(capsys, "activate")["hint"] == "bnbenv shell lab"
    make_environment("qlora")
    assert answer(capsys, "activate")["hint"] == "bnbenv shell qlora"


@pytest.mark.parametrize("command", ["info", "path", "remove", "rollback", "run", "shell"])
def test_a_name_that_is_lacking(
    command: str, make_environment: Callable[..., Generation], capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(capsys, command) == {
        "code": "usage",
        "message": "no environment is named, and there is none yet",
        "hint": "bnbenv create qlora",
    }
    make_environment("lab")
    make_environment("other")
    found = answer(capsys, command)
    assert found["message"] == "no environment is named; there are `lab`, `other`"
    assert found["hint"] == f"bnbenv {command} lab" + (" -- python" if command == "run" else "")


def test_other_words_that_are_lacking(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "quantize")
    assert found["message"] == "the following arguments are required: MODEL, OUT"
    assert found["hint"] == "bnbenv quantize --help"


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("run train.py", "bnbenv run lab -- python train.py"),
        ("run train.py --lr 3", "bnbenv run lab -- python train.py --lr 3"),
        ("run python3.11 -c 'a b'", "bnbenv run lab -- python3.11 -c 'a b'"),
        ("run notes.ipynb", "bnbenv run lab -- jupyter lab notes.ipynb"),
        ("run accelerate launch x", "bnbenv run lab -- accelerate launch x"),
    ],
)
def test_a_program_where_an_environment_belongs(
    line: str, hint: str, make_environment: Callable[..., Generation], capsys: pytest.CaptureFixture[str]
) -> None:
    make_environment("lab")
    capsys.readouterr()
    assert main(shlex.split(line)) == 2
    assert capsys.readouterr().err.splitlines()[1] == f"next: {hint}"


def test_another_name_is_an_environment_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "lab", "python"]) == 4
    assert "there is no environment `lab`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("install lab einops 'evo>=1' --dry-run", "bnbenv install einops 'evo>=1' --dry-run --in lab"),
        ("install lab", "bnbenv install einops --in lab"),
        ("upgrade lab --link-mode copy", "bnbenv upgrade --link-mode copy --in lab"),
    ],
)  # fmt: skip
def test_an_environment_where_packages_belong(
    line: str, hint: str, make_environment: Callable[..., Generation], capsys: pytest.CaptureFixture[str]
) -> None:
    """A package of that name may be on an index, and nobody's who types this."""
    make_environment("lab")
    found = answer(capsys, line)
    assert found["message"] == "`lab` is an environment, and stands where packages belong"
    assert found["hint"] == hint


@pytest.mark.parametrize(
    ("word", "message", "hint"),
    [
        ("QLoRA", "there is no profile `QLoRA`; did you mean `qlora`?", "bnbenv create qlora"),
        ("infrence", "there is no profile `infrence`; did you mean `inference`?", "bnbenv create inference"),
        ("./env", "there is no profile `./env`: it is a place", "bnbenv create qlora --path ./env"),
        ("torch==2.9", "there is no profile `torch==2.9`: it is", "bnbenv create qlora --torch 2.9"),
        ("peft", f"there is no profile `peft`; there are {PROFILES}", "bnbenv create qlora"),
        ("lab", f"there is no profile `lab`; there are {PROFILES}", "bnbenv create qlora --name lab"),
        ("a b", f"there is no profile `a b`; there are {PROFILES}", "bnbenv profiles"),
        ("lab/8b", "there is no profile `lab/8b`: a profile says", "bnbenv create qlora, and for"),
    ],
)  # fmt: skip
def test_a_word_that_is_no_profile(
    word: str, message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer(capsys, shlex.join(["create", word]))
    assert found["code"] == "bad-request"
    assert found["message"].startswith(message)
    assert found["hint"].startswith(hint)


def test_where_nothing_is_made_the_profiles_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "resolve lab")["hint"] == "bnbenv profiles"
    assert answer(capsys, "resolve qlra")["hint"] == "bnbenv resolve qlora"


def test_a_second_word_is_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create", "qlora", "lab", "--python", "3.12"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told == ["error: unexpected argument `lab`", "next: bnbenv create qlora --python 3.12 --name lab"]


@pytest.mark.skipif(os.name == "nt", reason="it is a path there")
@pytest.mark.parametrize("line", ["create --path 'C:\\Users\\me'", "info D:/env", "verify 'D:\\env'"])
def test_a_drive_is_no_place_elsewhere(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, line)
    assert "is a path of Windows, and this is another system" in found["message"]
    assert found["hint"].startswith("in WSL that is `/mnt/")
