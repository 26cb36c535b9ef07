from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.main import main
from bnbenv.cli.options import add_target, description_words

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "typed",
    [
        [],
        ["--target", "lab a.json"],
        ["--gpu", "RTX 4090", "--gpu", "6.1", "--driver", "550", "--os", "linux", "--glibc", "2.35"],
    ],
    ids=["this machine", "a file", "described"],
)
def test_what_describes_another_machine_is_given_back(typed: list[str]) -> None:
    parser = ArgumentParser()
    add_target(parser)
    assert description_words(parser.parse_args(typed)) == tuple(typed)


@pytest.mark.parametrize("command", ["resolve", "create", "sync", "check", "why-not", "detect", "doctor"])
def test_a_second_target_is_not_taken_instead_of_the_first(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        target = {"schema": 1, "name": name, "os": "linux", "arch": "x86_64", "accelerator": "cpu"}
        (tmp_path / f"{name}.json").write_text(json.dumps(target))
    words = {"check": ["--torch", "2.9.1", "--bitsandbytes", "0.50.2"], "why-not": ["torch==2.9.1"]}.get(
        command, []
    )
    files = [word for name in ("a", "b") for word in ("--target", str(tmp_path / f"{name}.json"))]
    assert main([command, *words, *files, "--json"]) == 2
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    assert "`--target` is given 2 times" in problem["message"]
    assert "bnbenv lock" in problem["hint"]
