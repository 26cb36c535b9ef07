from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.main import main
from bnbenv.workflows.example import TEMPLATES

if TYPE_CHECKING:
    from collections.abc import Sequence

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
