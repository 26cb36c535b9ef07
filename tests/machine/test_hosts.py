"""Every host under tests/hosts is probed through the real code; its directory's name is the answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bnbenv.machine.document import target_from_dict, target_to_dict

if TYPE_CHECKING:
    from collections.abc import Callable

    from bnbenv.machine.host import Host

HOSTS = Path(__file__).resolve().parents[1] / "hosts"
DIRECTORIES = sorted(path for path in HOSTS.iterdir() if path.is_dir())


def answer(host: Host) -> str:
    """Accelerator, GPUs, driver and state, as they stand before ``--`` in a directory's name."""
    gpus = "+".join(str(gpu.compute_capability or gpu.gfx or gpu.pci_id or "gpu") for gpu in host.target.gpus)
    parts = (host.target.accelerator, gpus or "none", host.target.driver or "none", host.driver_state)
    return "_".join(map(str, parts)).replace(":", ".")


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
def test_host(directory: Path, machine: Callable[..., object]) -> None:
    built = machine(directory)
    # A hanging tool must be waited for; one that answers may take long on a busy machine.
    hangs = any(
        (directory / name).exists() and "hang" in (directory / name).read_text(encoding="utf-8").split("\n")
        for name in ("nvidia-smi.txt", "nvml.txt")
    )
    host: Host = built.probe(timeout=1.0 if hangs else 60.0)  # type: ignore[attr-defined]
    assert answer(host) == directory.name.partition("--")[0]

    expected = json.loads((directory / "expect.json").read_text(encoding="utf-8"))
    document = target_to_dict(host.target)
    for key, value in expected.pop("target").items():
        assert document.get(key) == value, key
    facts = {fact.name: fact.value for fact in host.facts}
    for key, value in expected.pop("facts", {}).items():
        assert facts.get(key) == value, key
    for key in ("gpu_traces", "container", "slurm", "emulated"):
        default: object = [] if key == "gpu_traces" else None
        found = getattr(host, key)
        assert (list(found) if key == "gpu_traces" else found) == expected.pop(key, default), key
    assert expected == {}

    assert all(fact.source for fact in host.facts)
    assert str(built.root) not in repr(host.facts)  # type: ignore[attr-defined]
    assert target_from_dict(document) == host.target


def test_every_host_says_where_it_comes_from() -> None:
    assert len(DIRECTORIES) >= 25
    for directory in DIRECTORIES:
        source = (directory / "SOURCE").read_text(encoding="utf-8")
        assert re.match(r"(captured|constructed): \S.+\n\Z", source), directory.name


def test_the_hosts_cover_the_kinds() -> None:
    names = "\n".join(directory.name for directory in DIRECTORIES)
    kinds = (
        "rtx5090 rtx4090 rtx3090 rtx2080 gtx1080 t4 v100 a100 h100 h200 b200 gb10 mixed mig wsl2 orin thor "
        "rocm-card rocm-beside-integrated arc none slurm-login container mismatch no-devices "
        "not-communicating timeout library-missing no-permission lost"
    )
    for kind in kinds.split():
        assert re.search(rf"--.*{kind}", names), kind
