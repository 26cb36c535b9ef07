from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.cli.main import main

if TYPE_CHECKING:
    import pytest


def test_a_build_that_an_index_keeps_back_is_told_by_explain_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine = ["--os", "linux", "--arch", "x86_64", "--glibc", "2.39", "--python", "3.12"]
    asked = ["resolve", "qlora", "--without-index", "pytorch-cpu", *machine]
    assert main([*asked, "--explain"]) == 0
    [told] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("passed over: ")]
    assert told.endswith(" (cpu): `pytorch-cpu` is left out, as was asked")
    assert main(asked) == 0
    assert "passed over" not in capsys.readouterr().out
