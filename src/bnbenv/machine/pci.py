"""Read the display and accelerator devices on the PCI bus from sysfs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass

if TYPE_CHECKING:
    from bnbenv.machine.tree import Tree

NVIDIA = "10de"
AMD = "1002"
INTEL = "8086"

_DEVICES = "/sys/bus/pci/devices"
_VENDORS = frozenset({NVIDIA, AMD, INTEL})
_DISPLAY = "0x03"  # VGA, XGA and 3D controllers
_ACCELERATOR = "0x12"  # processing accelerators: how AMD's Instinct cards announce themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class PciDevice:
    """One GPU on the bus.

    Attributes:
        address: such as ``0000:01:00.0``.
        vendor, device: four lower-case hex digits each.
        revision: two lower-case hex digits, where known.
        driver: the kernel module bound to it, such as ``nvidia``, ``nouveau`` or ``vfio-pci``.
    """

    address: str
    vendor: str
    device: str
    revision: str | None = None
    driver: str | None = None

    @property
    def id(self) -> str:
        """Vendor and device, such as ``10de:2684``."""
        return f"{self.vendor}:{self.device}"

    @property
    def source(self) -> str:
        """Where it was read."""
        return f"{_DEVICES}/{self.address}"


def scan(tree: Tree) -> tuple[PciDevice, ...]:
    """List the GPUs of the three vendors, in the order of their addresses."""
    found = []
    for address in tree.names(_DEVICES):
        directory = f"{_DEVICES}/{address}"
        if not (tree.text(f"{directory}/class", 16) or "").startswith((_DISPLAY, _ACCELERATOR)):
            continue
        vendor = (tree.text(f"{directory}/vendor", 16) or "").removeprefix("0x").lower()
        device = (tree.text(f"{directory}/device", 16) or "").removeprefix("0x").lower()
        if vendor not in _VENDORS or not device:
            continue
        driver = tree.link(f"{directory}/driver")
        revision = tree.text(f"{directory}/revision", 16)
        found.append(
            PciDevice(
                address=address,
                vendor=vendor,
                device=device,
                revision=revision.removeprefix("0x").lower() if revision else None,
                driver=driver.rpartition("/")[2] if driver else None,
            )
        )
    return tuple(found)
