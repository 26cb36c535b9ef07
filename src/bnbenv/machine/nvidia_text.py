"""Read what NVML, nvidia-smi and the kernel module say about NVIDIA GPUs: text in, values out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass
from bnbenv.machine.found import driver_version
from bnbenv.units import ComputeCapability, CudaVersion, DriverVersion

if TYPE_CHECKING:
    from bnbenv.machine.host import DriverState

# Asked for in this order. Releases before R495 do not know `compute_cap`, before R450 no `mig.mode.current`.
SMI_FIELDS = (
    "index",
    "uuid",
    "name",
    "driver_version",
    "memory.total",
    "pci.bus_id",
    "pci.device_id",
    "compute_cap",
    "mig.mode.current",
)

# nvmlReturn_t, from nvml.h.
_NVML_STATES: dict[int | None, DriverState] = {
    4: "no-permission",
    9: "not-communicating",
    10: "timeout",
    12: "library-missing",
    18: "mismatch",
}
_NOT_SUPPORTED = 3

# The words of nvidia-smi, lower-cased, most telling first.
_SMI_WORDS: tuple[tuple[str, DriverState], ...] = (
    ("version mismatch", "mismatch"),
    ("no devices were found", "no-devices"),
    ("no devices found", "no-devices"),
    ("couldn't communicate with the nvidia driver", "not-communicating"),
    ("driver not loaded", "not-communicating"),
    ("couldn't find libnvidia-ml", "library-missing"),
    ("couldn't find nvml", "library-missing"),
    ("nvml: library not found", "library-missing"),
    ("insufficient permissions", "no-permission"),
    ("insufficient user permissions", "no-permission"),
)
_UNKNOWN_FIELD = re.compile(r'Field "([^"]+)" is not a valid field')
_KERNEL_MODULE = re.compile(r"Kernel Module(?:\s+for\s+\S+)?\s+(\d+(?:\.\d+)+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class MigDevice:
    """One MIG instance."""

    name: str
    uuid: str
    memory_mib: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One GPU as the driver describes it; ``None`` means that the driver would not say.

    Attributes:
        bus_id: the PCI address in sysfs' spelling, such as ``0000:01:00.0``.
        pci_id: ``vendor:device``.
        shared_memory: the driver says that it has no memory of its own.
    """

    index: int
    name: str
    uuid: str | None = None
    compute_capability: ComputeCapability | None = None
    memory_mib: int | None = None
    bus_id: str | None = None
    pci_id: str | None = None
    mig: bool | None = None
    mig_devices: tuple[MigDevice, ...] = ()
    shared_memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One answer about all the GPUs of the host.

    Attributes:
        source: who answered.
        cuda: the CUDA version the driver reports.
        errors: what went wrong, in the driver's words.
        answered: whether it was the driver that spoke; if not, somebody else may be asked.
    """

    source: str
    state: DriverState
    driver: DriverVersion | None = None
    cuda: CudaVersion | None = None
    cards: tuple[Card, ...] = ()
    errors: tuple[str, ...] = ()
    answered: bool = True


def parse_nvml(answer: dict[str, Any], source: str) -> Report:
    """Read the object that `nvml_child` prints."""
    errors = [str(answer["message"])] if answer.get("message") else []
    cards = []
    denied = False
    for device in answer.get("devices", []):
        if "error" in device:
            errors.append(f"GPU {device['index']}: {device.get('message', device['error'])}")
            denied = denied or device["error"] == 4
        else:
            cards.append(_nvml_card(device))
    state: DriverState
    if "error" in answer:
        state = _NVML_STATES.get(answer["error"], "failed")
    elif cards:
        state = "ok"
    elif errors:
        state = "no-permission" if denied else "failed"
    else:
        state = "no-devices"
    number = answer.get("cuda")
    return Report(
        answered=state != "library-missing",
        source=source,
        state=state,
        driver=driver_version(answer.get("driver")),
        cuda=CudaVersion(number // 1000, number % 1000 // 10) if isinstance(number, int) else None,
        cards=tuple(cards),
        errors=tuple(errors),
    )


def _nvml_card(device: dict[str, Any]) -> Card:
    capability = device.get("compute_capability")
    combined = device.get("pci_device_id")
    mode = device.get("mig_mode")
    memory = device.get("memory")
    return Card(
        index=int(device["index"]),
        name=str(device.get("name") or "NVIDIA GPU"),
        uuid=device.get("uuid"),
        compute_capability=ComputeCapability(*capability) if capability else None,
        memory_mib=memory // 2**20 if memory else None,
        bus_id=bus_address(device.get("bus_id")),
        pci_id=pci_id(combined) if combined else None,
        mig=bool(mode[0]) if mode else None,
        mig_devices=tuple(
            MigDevice(
                name=str(part.get("name", "")),
                uuid=str(part.get("uuid", "")),
                memory_mib=part["memory"] // 2**20 if part.get("memory") else None,
            )
            for part in device.get("mig_devices", [])
        ),
        shared_memory=device.get("errors", {}).get("memory") == _NOT_SUPPORTED or memory == 0,
    )


def unknown_field(text: str) -> str | None:
    """The field that this release of nvidia-smi does not know, if that is what it complains of."""
    match = _UNKNOWN_FIELD.search(text)
    return match[1] if match else None


def parse_smi(status: int | None, output: str, errors: str, source: str) -> Report:
    """Read the answer to ``--query-gpu=… --format=csv``: a table, or words about a broken driver."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    header = next((number for number, line in enumerate(lines) if line.startswith("index,")), None)
    cards: list[Card] = []
    rest = lines
    driver = None
    if header is not None:
        keys = [key.strip().partition(" ")[0] for key in lines[header].split(",")]
        rest = lines[:header]
        for line in lines[header + 1 :]:
            values = [value.strip() for value in line.split(",")]
            if len(values) != len(keys) or not values[0].isdigit():
                rest.append(line)
                continue
            row = {key: value for key, value in zip(keys, values, strict=True) if _is_known(value)}
            cards.append(_smi_card(row, dict(zip(keys, values, strict=True))))
            driver = driver or driver_version(row.get("driver_version"))
    words: tuple[str, ...] = (*rest, *(line.strip() for line in errors.splitlines() if line.strip()))
    state: DriverState = "ok" if cards else _smi_state(" ".join(words).lower())
    if not cards and not words:
        words = (f"exit status {status}, no output",) if status else ()
        state = "failed" if status else "no-devices"
    return Report(source=source, state=state, driver=driver, cards=tuple(cards), errors=words)


def _smi_state(words: str) -> DriverState:
    return next((state for phrase, state in _SMI_WORDS if phrase in words), "failed")


def _is_known(value: str) -> bool:
    # [N/A], [Not Supported], [Insufficient Permissions], [Unknown Error], N/A, ERR!
    return bool(value) and not value.startswith("[") and value not in {"N/A", "ERR!", "Not Supported"}


def _smi_card(row: dict[str, str], raw: dict[str, str]) -> Card:
    memory = re.match(r"\d+", row.get("memory.total", ""))
    device = row.get("pci.device_id", "")
    capability = row.get("compute_cap", "")
    return Card(
        index=int(row["index"]),
        name=row.get("name", "NVIDIA GPU"),
        uuid=row.get("uuid"),
        compute_capability=(
            ComputeCapability.parse(capability) if re.fullmatch(r"\d+\.\d", capability) else None
        ),
        memory_mib=int(memory[0]) or None if memory else None,
        bus_id=bus_address(row.get("pci.bus_id")),
        pci_id=pci_id(int(device, 16)) if re.fullmatch(r"0x[0-9A-Fa-f]{8}", device) else None,
        mig={"Enabled": True, "Disabled": False}.get(row.get("mig.mode.current", "")),
        shared_memory=raw.get("memory.total", "") in {"[N/A]", "[Not Supported]", "N/A", "Not Supported"},
    )


def parse_proc_version(text: str | None) -> DriverVersion | None:
    """The kernel module's version out of ``/proc/driver/nvidia/version``."""
    match = _KERNEL_MODULE.search(text or "")
    return DriverVersion.parse(match[1]) if match else None


def parse_proc_information(text: str, index: int) -> Card:
    """One ``/proc/driver/nvidia/gpus/<address>/information``."""
    pairs = (line.partition(":") for line in text.splitlines())
    values = {key.strip(): value.strip() for key, _, value in pairs}
    uuid = values.get("GPU UUID", "")
    return Card(
        index=index,
        name=values.get("Model") or "NVIDIA GPU",
        uuid=uuid if uuid and "?" not in uuid else None,  # question marks until somebody has opened it
        bus_id=bus_address(values.get("Bus Location")),
    )


def pci_id(combined: int) -> str:
    """Turn NVML's number (device in the upper half, vendor in the lower) into ``10de:2684``."""
    return f"{combined & 0xFFFF:04x}:{combined >> 16:04x}"


def bus_address(text: str | None) -> str | None:
    """Turn ``00000000:01:00.0`` into sysfs' ``0000:01:00.0``."""
    match = re.fullmatch(
        r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])", (text or "").strip().lower()
    )
    return f"{int(match[1], 16):04x}:{match[2]}:{match[3]}.{match[4]}" if match else None
