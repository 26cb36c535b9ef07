"""Find AMD GPUs in the topology that the kernel's compute driver (KFD) publishes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.machine import pci
from bnbenv.machine.found import Found, driver_version
from bnbenv.machine.host import Fact
from bnbenv.machine.target import ON_PROCESSORS, Gpu
from bnbenv.machine.visible import hip_visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnbenv.machine.running import Running
    from bnbenv.machine.tree import Tree

_NODES = "/sys/class/kfd/kfd/topology/nodes"
_NAMES = ("/usr/share/libdrm/amdgpu.ids", "/opt/amdgpu/share/libdrm/amdgpu.ids")

_STRONG_UNITS = 8  # compute units: fewer only drive a display
_FRAME_BUFFER = frozenset({"1", "2"})  # KFD heap types: public and private device memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One GPU node of KFD's topology.

    Attributes:
        number: of the node.
        gfx: such as ``gfx1100``.
        units: compute units.
        integrated: whether it shares the processor's die.
        address: on the PCI bus.
        uuid: as ROCm spells it, ``GPU-`` with sixteen hex digits.
    """

    number: int
    gfx: str
    device: str
    units: int
    integrated: bool
    address: str
    uuid: str | None
    memory_mib: int | None


def parse_gfx(version: int) -> str:
    """Turn KFD's number into the target's name: 90402 is ``gfx942``, 90010 is ``gfx90a``."""
    return f"gfx{version // 10000}{version // 100 % 100}{version % 100:x}"


def parse_node(number: int, properties: str, banks: Sequence[str]) -> Node | None:
    """Read one node; ``None`` for a node of processors only.

    Args:
        number: of the node.
        properties: its ``properties`` file: a name and a number a line.
        banks: the ``properties`` files of its memory banks.
    """
    values = _values(properties)
    version = values.get("gfx_target_version", 0)
    simds = values.get("simd_count", 0)
    if not simds or not version:
        return None
    gfx = parse_gfx(version)
    location = values.get("location_id", 0)
    unique = values.get("unique_id", 0)
    memory = sum(
        int(bank.get("size_in_bytes", 0))
        for bank in map(_texts, banks)
        if bank.get("heap_type") in _FRAME_BUFFER
    )
    return Node(
        number=number,
        gfx=gfx,
        device=f"{values.get('device_id', 0):04x}",
        units=simds // max(values.get("simd_per_cu", 2), 1),
        # A node with both kinds of cores is how older kernels showed such a processor.
        integrated=gfx in ON_PROCESSORS or values.get("cpu_cores_count", 0) > 0,
        address=f"{values.get('domain', 0):04x}:{location >> 8:02x}:{location >> 3 & 31:02x}.{location & 7}",
        uuid=f"GPU-{unique:016x}" if unique else None,
        memory_mib=memory // 2**20 or None,
    )


def _texts(properties: str) -> dict[str, str]:
    pairs = (line.split() for line in properties.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _values(properties: str) -> dict[str, int]:
    return {key: int(value) for key, value in _texts(properties).items() if value.isdigit()}


def product_name(table: str, device: str, revision: str | None) -> str | None:
    """The product's name in libdrm's table: device, revision and name a line, separated by commas.

    Args:
        table: the text of ``amdgpu.ids``.
        device: four hex digits.
        revision: two hex digits; without it, a name is only given if the device has but one.
    """
    names = set()
    for line in table.splitlines():
        parts = [part.strip() for part in line.split(",", 2)]
        if len(parts) == 3 and parts[0].lower() == device:
            if revision and parts[1].lower() == revision:
                return parts[2]
            names.add(parts[2])
    return names.pop() if len(names) == 1 and revision is None else None


def look(
    tree: Tree,
    running: Running,
    environ: Mapping[str, str],
    devices: Sequence[pci.PciDevice],
) -> Found:
    """Describe the AMD GPUs.

    PyTorch's ROCm wheels bring their own user-space libraries: usable is what KFD lists and this user may
    open. A GPU inside the processor that only drives a display is no accelerator by itself.
    """
    if running.os == "windows":
        return _from_adapters(running)
    facts = list(_rocm_facts(tree, environ))
    own = {device.address: device for device in devices if device.vendor == pci.AMD}
    nodes = read_nodes(tree)
    module = tree.text("/sys/module/amdgpu/version", 64)
    driver = driver_version(module)
    if driver is not None:
        facts.append(Fact(name="amd.driver", value=str(driver), source="/sys/module/amdgpu/version"))
    table = next((text for path in _NAMES if (text := tree.text(path, 2**20))), "") if nodes else ""
    visible = hip_visible([(node.uuid or "?",) for node in nodes], environ)
    gpus = []
    for index, (node, seen) in enumerate(zip(nodes, visible, strict=True)):
        device = own.get(node.address)
        name = product_name(table, node.device, device.revision if device else None)
        gpu = Gpu(
            name=name or f"AMD GPU {node.gfx}",
            gfx=node.gfx,
            memory_mib=node.memory_mib,
            index=index,
            uuid=node.uuid,
            pci_id=f"{pci.AMD}:{node.device}",
            visible=seen,
            integrated=node.integrated,
        )
        gpus.append(gpu)
        facts.extend(_gpu_facts(index, gpu, node))
    rocm = any(fact.name == "rocm" for fact in facts)
    strong = any(not node.integrated or rocm or node.units >= _STRONG_UNITS for node in nodes)
    if nodes and not strong:
        facts.append(Fact(name="amd.integrated-only", value="not an accelerator", source=_NODES))
        return Found(accelerator="rocm", facts=tuple(facts))
    if nodes and not tree.usable("/dev/kfd"):
        missing = not tree.exists("/dev/kfd")
        words = "not passed in" if missing else "no permission (group `render` or `video`)"
        facts.append(Fact(name="driver-error", value=f"/dev/kfd: {words}", source="/dev/kfd"))
        return Found(
            accelerator="rocm",
            state="no-devices" if missing else "no-permission",
            driver=driver,
            facts=tuple(facts),
            traces=tuple(f"{gpu.name} ({gpu.gfx}), /dev/kfd {words}" for gpu in gpus),
        )
    listed = {node.address for node in nodes}
    # Without KFD an integrated GPU cannot be told from a card; only bound ones of known kinds would lie.
    traces = tuple(
        f"AMD PCI device {device.id} at {address}, "
        + (f"bound to `{device.driver}`" if device.driver else "no kernel driver bound")
        for address, device in own.items()
        if address not in listed and not nodes and _is_card(tree, device)
    )
    return Found(
        accelerator="rocm",
        state="ok" if nodes else "absent",
        driver=driver,
        gpus=tuple(gpus),
        facts=tuple(facts),
        traces=traces,
    )


def _is_card(tree: Tree, device: pci.PciDevice) -> bool:
    """Whether a GPU has memory of its own, as far as can be told without its driver's compute part."""
    own = tree.text(f"{device.source}/mem_info_vram_total", 32)
    return own is None or not own.isdigit() or int(own) > 2 * 2**30


def read_nodes(tree: Tree) -> tuple[Node, ...]:
    """The GPU nodes, in the order that ROCm numbers them."""
    found = []
    for name in sorted(tree.names(_NODES), key=lambda name: (len(name), name)):
        properties = tree.text(f"{_NODES}/{name}/properties", 8192)
        if properties is None or not name.isdigit():
            continue
        banks = f"{_NODES}/{name}/mem_banks"
        texts = [tree.text(f"{banks}/{bank}/properties", 1024) or "" for bank in tree.names(banks)]
        node = parse_node(int(name), properties, texts)
        if node is not None:
            found.append(node)
    return tuple(found)


def _gpu_facts(index: int, gpu: Gpu, node: Node) -> list[Fact]:
    source = f"{_NODES}/{node.number}"
    values = {
        "name": gpu.name,
        "gfx": gpu.gfx,
        "memory_mib": gpu.memory_mib,
        "uuid": gpu.uuid,
        "pci_id": gpu.pci_id,
        "bus": node.address,
        "integrated": "yes" if node.integrated else "no",
        "compute-units": node.units,
    }
    return [
        Fact(name=f"gpu{index}.{key}", value=str(value), source=source)
        for key, value in values.items()
        if value is not None
    ]


def _rocm_facts(tree: Tree, environ: Mapping[str, str]) -> tuple[Fact, ...]:
    """The ROCm of the system, from ``ROCM_PATH`` or its usual place."""
    for home in (environ.get("ROCM_PATH"), "/opt/rocm"):
        if not home:
            continue
        for file in (f"{home}/.info/version", f"{home}/.info/version-dev"):
            if match := re.match(r"\d+\.\d+(?:\.\d+)?", tree.text(file, 64) or ""):
                return (Fact(name="rocm", value=match[0], source=file),)
    return ()


def _from_adapters(running: Running) -> Found:
    """On Windows the gfx target is unknown from files: the card is named, the judge asks the matrix."""
    from bnbenv.machine.windows import adapters_of

    own = adapters_of(running.adapters, pci.AMD)
    facts = tuple(Fact(name=f"adapter.{ids}", value=adapter.name, source="registry") for adapter, ids in own)
    cards = [
        (adapter, ids) for adapter, ids in own if re.search(r"\b(RX|PRO W|AI PRO|Pro VII)\b", adapter.name)
    ]
    gpus = tuple(
        Gpu(name=adapter.name, index=index, pci_id=ids) for index, (adapter, ids) in enumerate(cards)
    )
    driver = driver_version(cards[0][0].driver) if cards else None
    return Found(accelerator="rocm", state="ok" if gpus else "absent", driver=driver, gpus=gpus, facts=facts)
