"""The platform is faked: no shell of Windows has read these lines."""

from __future__ import annotations

import io
import shlex
import sys

import pytest

from bnbenv.cli.outcome import Outcome, Problem, envelope
from bnbenv.cli.program import program
from bnbenv.cli.spelling import spelt
from bnbenv.cli.ui import Ui

WORDS = [
    ("qlora", "qlora"),
    (r".venv\Scripts\bnbenv", r".venv\Scripts\bnbenv"),
    (r"C:\Users\Jörg\env", r"C:\Users\Jörg\env"),
    (r"C:\Users\Jörg Müller\env", r'"C:\Users\Jörg Müller\env"'),
    ("D:\\a b\\", '"D:\\a b\\\\"'),
    (r"C:\Users\O'Brien\env", r""" "C:\Users\O'Brien\env" """.strip()),
    ("peft>=0.17,<1", '"peft>=0.17,<1"'),
    ("", '""'),
    ('peft; python_version < "3.12"', """ "peft; python_version < '3.12'" """.strip()),
]


@pytest.fixture(autouse=True)
def _windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")


@pytest.mark.parametrize(("word", "there"), WORDS)
def test_a_quoted_word_is_quoted_as_both_shells_of_windows_read_it(word: str, there: str) -> None:
    assert spelt(f"bnbenv info {shlex.quote(word)}") == f"bnbenv info {there}"
    assert spelt(f"`bnbenv info {shlex.quote(word)}` tells") == f"`bnbenv info {there}` tells"


@pytest.mark.parametrize(
    ("command", "there"),
    [
        ("unset PYTHONHOME", "in cmd: set PYTHONHOME=; in PowerShell: $env:PYTHONHOME = $null"),
        ("set PYTHONHOME=", "in cmd: set PYTHONHOME=; in PowerShell: $env:PYTHONHOME = $null"),
        (
            "export PYTHONNOUSERSITE=1",
            "in cmd: set PYTHONNOUSERSITE=1; in PowerShell: $env:PYTHONNOUSERSITE = '1'",
        ),
    ],
)
def test_a_variable_is_set_as_each_shell_sets_it(command: str, there: str) -> None:
    assert spelt(command) == there


def test_hints_are_told_so() -> None:
    err = io.StringIO()
    hint = shlex.join(["bnbenv", "info", r"D:\my envs\qlora"])
    Ui(err=err).problem(Problem(code="no-environment", message="gone", hint=hint), error=True)
    assert err.getvalue().splitlines()[1] == r'next: bnbenv info "D:\my envs\qlora"'


def test_json_has_one_spelling() -> None:
    """A program splits hints and next steps in one way, on every platform."""
    hint = shlex.join(["bnbenv", "info", r"D:\my envs\qlora"])
    outcome = Outcome(problems=(Problem(code="notice", message="m", hint=hint),))
    assert envelope("info", outcome)["problems"][0]["hint"] == hint
    assert program("/my envs/bnbenv", {"PATH": ""}) == "'/my envs/bnbenv'"


def test_prose_is_left_alone() -> None:
    text = "the environment's lock and bnbenv's own; `bnbenv create PROFILE` makes it anew"
    assert spelt(text) == text


def test_elsewhere_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    command = shlex.join(["unset", "a b"])
    assert spelt(command) == command
    assert spelt("unset PYTHONHOME") == "unset PYTHONHOME"
