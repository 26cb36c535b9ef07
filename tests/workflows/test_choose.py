from __future__ import annotations

from typing import Any

import pytest

from bnbenv.install.availability import Availability
from bnbenv.install.sources import Sources
from bnbenv.matrix.load import load
from bnbenv.workflows.choose import ask_indexes
from bnbenv.workflows.request import Wanted
from support.judge_facts import target
from support.voice import Listener

BOARD: dict[str, Any] = {"arch": "aarch64", "tegra": True}


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (target("9.0", arch="aarch64"), set()),
        (target(arch="aarch64"), set()),
        (target("8.7", **BOARD, l4t="36.4.3"), {"jetson-jp6-cu126"}),
        (target("8.7", **BOARD, l4t="38.2"), set()),
        (target("12.1", os="windows", arch="aarch64"), {"nvidia"}),
        (target("12.0", os="windows"), set()),
    ],
    ids=["server", "cpu", "jetpack-6", "jetpack-7", "windows-arm", "windows"],
)
def test_only_machines_that_an_index_serves_ask_it(
    machine: Any, expected: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    asked: list[set[str]] = []

    def probe(_sources: Any, names: set[str], **_: Any) -> Availability:
        asked.append(names)
        return Availability()

    monkeypatch.setattr("bnbenv.install.availability.probe", probe)
    matrix = load("torch", "indexes")
    ask_indexes(
        Wanted(profile="qlora"), [machine], matrix, Sources(indexes=()), Listener(), {"HOME": str(tmp_path)}
    )
    (names,) = asked
    assert {name for name in names if not name.startswith("pytorch-")} - {"pypi"} == expected
