"""Runs bnbenv as if this machine were one of `tests/hosts`: its drivers, GPUs and files, by the NVML stub.

    python tests/support/stubbed_host.py tests/hosts/<machine> <libnvidia-ml.so.1> <directory> repair ENV

Only the probe is replaced: interpreters, environments and indexes are this machine's own. What a real GPU
would compute is not shown this way.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bnbenv.machine import probe as probing
from bnbenv.machine.running import Adapter, Running
from machine.conftest import write_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.machine.host import Host


def main() -> int:
    """Replace the probe, and go on as the command."""
    directory, library, root = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    from bnbenv.cli.main import main as command

    described, real = stand_in(directory, library, root), probing.probe

    def probe(*, environ: Mapping[str, str] | None = None, **_: Any) -> Host:
        here, there = real(environ=environ), described
        host = real(
            environ={**(environ or os.environ), **there["environ"]},
            root=root,
            timeout=60.0,
            running=there["running"],
        )
        target = replace(host.target, pythons=here.target.pythons, libc=here.target.libc)
        return replace(host, target=target, pythons=here.pythons)

    probing.probe = probe
    return command(sys.argv[4:])


def stand_in(directory: Path, library: Path, root: Path) -> dict[str, Any]:
    """The file tree, and what the interpreter would know, of a machine in `tests/hosts`."""
    root.mkdir(parents=True, exist_ok=True)
    if (tree := directory / "tree.txt").exists() and not any(root.iterdir()):
        write_tree(tree.read_text(encoding="utf-8"), root)
    values: dict[str, Any] = json.loads((directory / "running.json").read_text(encoding="utf-8"))
    environ = values.pop("environ", {})
    values.pop("programs", None)
    adapters = tuple(Adapter(**adapter) for adapter in values.pop("adapters", []))
    running = Running(adapters=adapters, **values)
    if (nvml := directory / "nvml.txt").exists():
        place = root / f"usr/lib/{running.arch}-linux-gnu"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place / library.name)
        os.environ["BNBENV_STUB_NVML"] = environ["BNBENV_STUB_NVML"] = str(nvml)
    return {"running": running, "environ": environ}


if __name__ == "__main__":
    raise SystemExit(main())
