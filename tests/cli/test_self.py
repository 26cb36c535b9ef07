from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from bnbenv import __version__
from bnbenv.cli.main import main
from support.schemas import SCHEMAS

if TYPE_CHECKING:
    from pathlib import Path


def test_a_schema_is_whole_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """A program that reads answers needs no file of the package beside it."""
    assert main(["self", "schema", "list"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert main(["list", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    Draft202012Validator(schema).validate(answer)
    with pytest.raises(ValidationError):
        Draft202012Validator(schema).validate({**answer, "problems": [{"code": "no-such-code"}]})


def test_the_schemas_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["self", "schema"]) == 0
    assert set(capsys.readouterr().out.split()) == set(SCHEMAS) - {"common"}


@pytest.mark.parametrize("name", ["matrix show", "matrix-show", "bnbenv.matrix-show/1"])
def test_a_schema_is_asked_for_as_it_is_met(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["self", "schema", name, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)["data"]["document"]
    assert document["$id"] == "urn:bnbenv:schema:matrix-show.json"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["schema", "creat"], "there is no answer `creat`; did you mean `create`?"),
        (["schema", "zzz"], "there is no answer `zzz`\n"),
        (["upgrade", "now"], "`self upgrade` takes no word: `now`"),
    ],
)
def test_what_is_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["self", *words]) == 2
    assert told in capsys.readouterr().err


def test_how_it_is_renewed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["self", "upgrade", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["version"] == __version__
    assert data["tool"] == "pip"
    assert sys.executable in data["command"]


def test_how_the_program_itself_goes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["self", "uninstall", "--dry-run", "--json"]) == 0
    line = json.loads(capsys.readouterr().out)["data"]["program"]
    assert line == f"{sys.executable} -m pip uninstall bnbenv"
    assert main(["self", "uninstall", "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith(f"The program itself goes by:\n  {line}\n")


def test_many_logs_are_counted(clean_environment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = clean_environment / "runs"
    runs.mkdir(parents=True)
    for number in range(5):
        (runs / f"20261130T12000{number}-7.log").touch()
    assert main(["self", "uninstall", "--dry-run"]) == 0
    assert f"5 of them in {runs}\n" in capsys.readouterr().out
