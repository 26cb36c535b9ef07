from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.main import main
from bnbenv.workflows.example import TEMPLATES
from support.schemas import validate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MACHINES = (["--cpu"], ["--gpu", "RTX 4090", "--driver", "570.86"], ["--gpu", "MI300X"])


@pytest.mark.parametrize("profile", TEMPLATES)
@pytest.mark.parametrize("machine", MACHINES, ids=" ".join)
def test_what_is_printed_is_the_script(
    profile: str, machine: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["example", profile, *machine]) == 0
    script = capsys.readouterr().out
    ast.parse(script)
    assert main(["example", profile, *machine, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["script"] == script


def test_a_file_gets_it_as_python_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["example", "qlora", "--cpu"]) == 0
    printed = capsys.readouterr().out
    file = tmp_path / "größe" / "train.py"
    file.parent.mkdir()
    assert main(["example", "qlora", "--cpu", "-o", str(file)]) == 0
    assert capsys.readouterr().out == f"wrote {file}\n"
    assert file.read_bytes() == printed.encode()
    file.unlink()
    assert main(["example", "qlora", "--cpu", "-o", str(file), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    validate(document)
    assert document["data"]["file"] == str(file)


def test_a_file_that_is_there_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "train.py"
    file.write_text("mine\n", encoding="utf-8")
    assert main(["example", "qlora", "--cpu", "-o", str(file)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == "mine\n"
