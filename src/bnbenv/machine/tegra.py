"""Recognise a Tegra board (Jetson, DRIVE): release, chip and what its GPU is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bnbenv.machine.host import Fact
from bnbenv.units import ComputeCapability

if TYPE_CHECKING:
    from bnbenv.machine.tree import Tree

_RELEASE = "/etc/nv_tegra_release"
_COMPATIBLE = "/proc/device-tree/compatible"
_MODEL = "/proc/device-tree/model"

# The integrated GPU by the chip's name in the device tree; compute capabilities from NVIDIA's list.
_CHIPS: dict[str, tuple[str, ComputeCapability]] = {
    "tegra210": ("Jetson Nano / TX1", ComputeCapability(5, 3)),
    "tegra186": ("Jetson TX2", ComputeCapability(6, 2)),
    "tegra194": ("Jetson Xavier", ComputeCapability(7, 2)),
    "tegra234": ("Jetson Orin", ComputeCapability(8, 7)),
    "tegra264": ("Jetson Thor", ComputeCapability(11, 0)),
}


def parse_release(text: str | None) -> str | None:
    """Turn ``# R36 (release), REVISION: 4.3, …`` into ``36.4.3``."""
    match = re.search(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*(\d+(?:\.\d+)*)", text or "")
    return f"{match[1]}.{match[2]}" if match else None


def parse_chip(compatible: str | None) -> tuple[str, ComputeCapability] | None:
    """The board family and its GPU's compute capability, from the device tree's ``compatible``."""
    for entry in (compatible or "").split("\0"):
        if entry.startswith("nvidia,tegra") and entry.removeprefix("nvidia,") in _CHIPS:
            return _CHIPS[entry.removeprefix("nvidia,")]
    return None


def look(tree: Tree, kernel: str) -> tuple[Fact, ...]:
    """The facts ``tegra``, ``l4t``, ``board`` and ``tegra.compute_capability``; none on another machine.

    Args:
        tree: where to read.
        kernel: the kernel's release, which ends in ``-tegra`` on every L4T.
    """
    facts = []
    release_text = tree.text(_RELEASE, 4096)
    compatible = tree.text(_COMPATIBLE, 4096)
    chip = parse_chip(compatible)
    if release_text is not None:
        facts.append(Fact(name="tegra", value="yes", source=_RELEASE))
    elif chip is not None:
        facts.append(Fact(name="tegra", value="yes", source=_COMPATIBLE))
    elif kernel.endswith("-tegra"):
        facts.append(Fact(name="tegra", value="yes", source="kernel release"))
    else:
        return ()
    if release := parse_release(release_text):
        facts.append(Fact(name="l4t", value=release, source=_RELEASE))
    if model := tree.text(_MODEL, 256):
        facts.append(Fact(name="board", value=model, source=_MODEL))
    if chip:
        facts.append(Fact(name="tegra.name", value=chip[0], source=_COMPATIBLE))
        facts.append(Fact(name="tegra.compute_capability", value=str(chip[1]), source=_COMPATIBLE))
    return tuple(facts)
