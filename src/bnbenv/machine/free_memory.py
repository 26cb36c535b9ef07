"""How much memory is free right now: of each GPU and of the machine. Read live, and no part of a target."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bnbenv.machine.tool import ask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.machine.tree import Tree

_MIB = 2**20
_TIMEOUT = 5.0  # seconds; nvidia-smi takes under one where the driver is well
_QUERY = ("nvidia-smi", "--query-gpu=index,memory.free", "--format=csv,noheader,nounits")


def free_on_gpus(environ: Mapping[str, str]) -> Mapping[int, int]:
    """Free bytes by nvidia-smi's index; a GPU that does not tell is absent."""
    answer = ask(_QUERY, environ=environ, timeout=_TIMEOUT)
    if answer.status != 0:
        return {}
    lines = (re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", line) for line in answer.output.splitlines())
    return {int(line[1]): int(line[2]) * _MIB for line in lines if line}


def free_on_host(tree: Tree) -> int | None:
    """Bytes that a new process can have without swapping; ``None`` where the system does not tell."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", tree.text("/proc/meminfo") or "", re.MULTILINE)
    return int(found[1]) * 1024 if found else None
