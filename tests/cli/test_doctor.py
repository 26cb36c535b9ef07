from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bnbenv.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from bnbenv.env.generation import Generation


def test_what_is_advised_for_another_machine_names_it(
    make_environment: Callable[..., Generation], capsys: pytest.CaptureFixture[str]
) -> None:
    make_environment("lab")
    assert main(["doctor", "lab", "--gpu", "RTX 5090", "--driver", "580", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["data"]["findings"]
    [absent] = [found for found in findings if found["code"] == "torch-not-installed"]
    assert absent["remedy"]["commands"] == ["bnbenv repair lab --gpu 'RTX 5090' --driver 580"]
