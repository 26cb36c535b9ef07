"""What tests of workflows share: bnbenv's home, a login node, and somebody who uses an environment."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bnbenv.env.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def layout(clean_environment: Path) -> Layout:
    return Layout(home=clean_environment)


@pytest.fixture
def login_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with Slurm's tools, outside a job: that its GPUs are elsewhere is told by their presence."""
    tool = tmp_path / "slurm" / "srun"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


@pytest.fixture
def sleeper() -> Iterator[Callable[[Path], int]]:
    """Start a process that sits in a directory; it is ended with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(directory: Path) -> int:
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        started.append(process)
        return process.pid

    yield start
    for process in started:
        process.communicate()
