from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from bnbenv import memory

SCRIPT = Path(memory.__file__).with_name("quantize_script.py")


@pytest.mark.parametrize("there", [True, False], ids=["POSIX", "Windows"])
def test_the_peak_of_memory_is_unknown_where_the_system_does_not_tell(
    monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    if not there:
        monkeypatch.setitem(sys.modules, "resource", None)
    elif sys.platform == "win32":
        pytest.skip("it does not tell")
    peak = runpy.run_path(str(SCRIPT))["peak_memory"]()
    assert (peak is not None) is there
