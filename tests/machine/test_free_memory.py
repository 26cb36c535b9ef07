from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bnbenv.machine.free_memory import free_on_gpus, free_on_host
from bnbenv.machine.tree import Tree

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif("os.name == 'nt'", reason="the stand-in is a shell script")


def stand_in(directory: Path, body: str) -> dict[str, str]:
    tool = directory / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    tool.chmod(0o755)
    return {"PATH": f"{directory}:/usr/bin:/bin"}


def test_every_gpu_that_tells_is_there(tmp_path: Path) -> None:
    # The form of `nvidia-smi --query-gpu=index,memory.free --format=csv,noheader,nounits`.
    environ = stand_in(tmp_path, 'printf "0, 23028\\n1, [N/A]\\n2, 512\\n"')
    assert free_on_gpus(environ) == {0: 23028 * 2**20, 2: 512 * 2**20}


@pytest.mark.parametrize("body", ["exit 9", "echo NVIDIA-SMI has failed because it could not communicate"])
def test_a_driver_that_does_not_answer_tells_nothing(tmp_path: Path, body: str) -> None:
    assert free_on_gpus(stand_in(tmp_path, body)) == {}


def test_a_missing_tool_tells_nothing(tmp_path: Path) -> None:
    assert free_on_gpus({"PATH": str(tmp_path)}) == {}


def test_the_machine_tells_what_is_available(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    text = "MemTotal:       24683980 kB\nMemFree:         1000 kB\nMemAvailable:   20588544 kB\n"
    (tmp_path / "proc" / "meminfo").write_text(text, encoding="utf-8")
    assert free_on_host(Tree(root=str(tmp_path))) == 20588544 * 1024
    assert free_on_host(Tree(root=str(tmp_path / "proc"))) is None
