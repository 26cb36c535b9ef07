from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from bnbenv.errors import UsageError
from bnbenv.machine.target import Target
from bnbenv.workflows.environment import Located
from bnbenv.workflows.measure_memory import measure
from bnbenv.workflows.memory import devices_of, use_for, weigh
from support.safetensors import write_model
from support.voice import Listener

if TYPE_CHECKING:
    from pathlib import Path


def test_windows_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The platform is faked: `resource`, by which the script measures, is a module of POSIX alone."""
    target = Target(name="lab", os="windows", arch="x86_64", accelerator="cpu", gpus=())
    use = use_for("qlora", quantisation=None, double=True, cpu=True)
    devices = devices_of(target, {}, here=False, memory=8)
    weighed = weigh(str(write_model(tmp_path)), use, devices, {}, transformers="5.23")
    voice = Listener()
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UsageError, match="Windows"):
        measure(weighed, Located(directory=tmp_path, kind="venv", why="a test"), voice, {})
    assert voice.heard == []
