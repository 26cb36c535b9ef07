"""Find Intel GPUs that PyTorch's XPU backend serves, from sysfs and the presence of Level Zero."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bnbenv.machine import pci
from bnbenv.machine.found import Found, driver_version
from bnbenv.machine.host import Fact
from bnbenv.machine.target import Gpu

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnbenv.machine.host import DriverState
    from bnbenv.machine.running import Running
    from bnbenv.machine.tree import Tree

# PCI device ids by family (Linux' include/drm/intel/pciids.h): the generations that XPU wheels serve.
# The second entry says whether the GPU is a part of the processor.
_FAMILIES: tuple[tuple[str, str, bool], ...] = (
    ("56[9ab][0-9a-f]|4f8[0-9a-f]", "Intel Arc A-series", False),
    ("56c[012]", "Intel Data Center GPU Flex", False),
    ("0bd[0-9ab]|0be5", "Intel Data Center GPU Max", False),
    ("e20[0-9a-f]|e21[0-9a-f]|e22[0-9a-f]", "Intel Arc B-series", False),
    ("7d[456d][0-9a-f]", "Intel Arc Graphics (Meteor Lake, Arrow Lake)", True),
    ("64[2ab][0-9a-f]|6420", "Intel Arc Graphics (Lunar Lake)", True),
    ("b0[89ab][0-9a-f]|fd8[0-9a-f]", "Intel Graphics (Panther Lake)", True),
)
_CLOSED = "cannot be opened"
_DRIVERS = frozenset({"i915", "xe"})


def family(device: str) -> tuple[str, bool] | None:
    """The family of a device id and whether it is integrated; ``None`` for a GPU that XPU does not serve."""
    for pattern, name, integrated in _FAMILIES:
        if re.fullmatch(pattern, device):
            return name, integrated
    return None


def look(tree: Tree, running: Running, environ: Mapping[str, str], devices: Sequence[pci.PciDevice]) -> Found:
    """Describe the Intel GPUs: usable with a kernel driver, an accessible render node and Level Zero."""
    if running.os == "windows":
        return _from_adapters(running)
    facts = []
    level_zero = _level_zero(tree, running)
    gpus: list[Gpu] = []
    traces = []
    state: DriverState = "absent"
    for device in (device for device in devices if device.vendor == pci.INTEL):
        known = family(device.device)
        facts.append(Fact(name=f"intel.{device.address}", value=device.id, source=f"{device.source}/device"))
        if known is None:
            continue
        name, integrated = known
        problem = _problem(tree, device, level_zero)
        if problem is not None and problem.endswith(_CLOSED) and state == "absent":
            state = "no-permission"
        if problem is None:
            gpus.append(Gpu(name=name, index=len(gpus), pci_id=device.id, integrated=integrated))
            state = "ok"
        elif not integrated:
            traces.append(f"{name} {device.id} at {device.address}, {problem}")
        else:
            facts.append(Fact(name=f"intel.{device.address}.unused", value=problem, source=device.source))
    if facts and level_zero:
        facts.append(Fact(name="level-zero", value=level_zero, source="file look-up"))
    if mask := environ.get("ZE_AFFINITY_MASK"):
        facts.append(Fact(name="ZE_AFFINITY_MASK", value=mask, source="environment"))
    return Found(
        accelerator="xpu",
        state=state,
        gpus=tuple(gpus),
        facts=tuple(facts),
        traces=tuple(traces),
    )


def _problem(tree: Tree, device: pci.PciDevice, level_zero: str | None) -> str | None:
    """Why a GPU cannot be used, or ``None``."""
    if device.driver not in _DRIVERS:
        return f"bound to `{device.driver}`" if device.driver else "no kernel driver bound"
    if level_zero is None:
        return "Level Zero is not installed"
    nodes = [entry for entry in tree.names(f"{device.source}/drm") if entry.startswith("renderD")]
    if nodes and not tree.usable(f"/dev/dri/{nodes[0]}"):
        return f"/dev/dri/{nodes[0]} {_CLOSED}"
    return None


def _level_zero(tree: Tree, running: Running) -> str | None:
    """The GPU driver of Level Zero; the loader itself comes with PyTorch's wheels."""
    names = ("libze_intel_gpu.so.1", "libze_intel_gpu.so")
    places = (f"/usr/lib/{running.arch}-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib")
    return tree.first(*(f"{place}/{name}" for place in places for name in names))


def _from_adapters(running: Running) -> Found:
    from bnbenv.machine.windows import adapters_of

    own = [
        (adapter, ids, known)
        for adapter, ids in adapters_of(running.adapters, pci.INTEL)
        if (known := family(ids.partition(":")[2])) is not None
    ]
    return Found(
        accelerator="xpu",
        state="ok" if own else "absent",
        driver=driver_version(own[0][0].driver) if own else None,
        gpus=tuple(
            Gpu(name=adapter.name, index=index, pci_id=ids, integrated=known[1])
            for index, (adapter, ids, known) in enumerate(own)
        ),
        facts=tuple(
            Fact(name=f"adapter.{ids}", value=adapter.name, source="registry") for adapter, ids, _ in own
        ),
    )
