from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bnbenv.errors import EnvironmentProblem
from bnbenv.selftest.import_check import import_check

PYTHON = Path(sys.executable)


def test_what_imports_was_still_not_computed() -> None:
    verdict = import_check(PYTHON, ("json", "decimal"), environ=os.environ)
    assert verdict.verdict == "not-run"
    assert verdict.library is None
    assert "does not have" in verdict.notes[0]


def test_what_does_not_import_fails_with_the_error() -> None:
    verdict = import_check(PYTHON, ("json", "bnbenv_nothing"), environ=os.environ)
    assert verdict.verdict == "failed"
    assert "No module named 'bnbenv_nothing'" in (verdict.devices[0].checks[0].detail or "")


def test_what_hangs_is_given_up() -> None:
    verdict = import_check(PYTHON, ("json",), environ=os.environ, timeout=0.0)
    assert verdict.verdict == "failed"


def test_an_interpreter_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="cannot be started: No such file") as caught:
        import_check(tmp_path / "python", ("json",), environ=os.environ)
    assert caught.value.code == "state-broken"
