"""Ask NVIDIA's driver: NVML, else nvidia-smi, else what /proc and /sys tell."""

# pathlib would double the time of a probe that touches some hundred files.
# ruff: noqa: PTH118, PTH120

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from bnbenv.dataclass import replace
from bnbenv.machine import nvidia_text as text
from bnbenv.machine.found import Found
from bnbenv.machine.host import Fact
from bnbenv.machine.nvidia import PROC
from bnbenv.machine.target import Gpu
from bnbenv.machine.visible import cuda_visible
from bnbenv.units import ComputeCapability

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnbenv.machine.host import DriverState
    from bnbenv.machine.pci import PciDevice
    from bnbenv.machine.tree import Tree
    from bnbenv.units import DriverVersion

_NVML = "NVML"
_SMI = "nvidia-smi --query-gpu"
_MAX_RETRIES = 4  # how many fields an older nvidia-smi may lack


def inspect(
    tree: Tree,
    environ: Mapping[str, str],
    own: Sequence[PciDevice],
    *,
    nvml: str | None,
    smi: str | None,
    libcuda: str | None,
    facts: Sequence[Fact],
    traces: Sequence[str],
    timeout: float,
    wsl: bool,
    tegra: Mapping[str, str],
) -> Found:
    """Ask whoever answers first, and put the cards together with what the files tell.

    Args:
        tree: where to read.
        environ: the environment of the tools.
        own: NVIDIA's GPUs on the PCI bus.
        nvml: the place of NVML's library, where there is one.
        smi: the place of nvidia-smi.
        libcuda: the place of the driver's CUDA library.
        facts: already known.
        traces: already known; told only where no GPU can be used.
        timeout: seconds for each program.
        wsl: whether this is WSL2.
        tegra: the facts of a Tegra board.
    """
    told = list(facts)
    kernel = text.parse_proc_version(tree.text(f"{PROC}/version", 4096))
    if kernel is not None:
        told.append(Fact(name="nvidia.kernel-module", value=str(kernel), source=f"{PROC}/version"))
    report = _report(tree, environ, nvml=nvml, smi=smi, timeout=timeout)
    # On a Tegra board NVML, where it is there at all, need not know the GPU that CUDA uses.
    if libcuda is not None and (report is None or not report.answered or (tegra and not report.cards)):
        report = _from_files(tree, kernel, tegra) or report
    if report is None:
        state: DriverState = "absent" if kernel is None else "library-missing"
        report = text.Report(source=PROC, state=state)
    driver = report.driver or kernel
    if driver is not None:
        source = f"{PROC}/version" if report.driver is None else report.source
        told.append(Fact(name="driver", value=f"{driver} (Windows)" if wsl else str(driver), source=source))
    if report.cuda is not None:
        told.append(Fact(name="driver.cuda", value=str(report.cuda), source=report.source))
    told.extend(Fact(name="driver-error", value=words, source=report.source) for words in report.errors)
    gpus = _gpus(tree, environ, report, {device.address: device for device in own}, tegra)
    if any(gpu.visible is None for gpu in gpus):
        words = "unknown: indices count in CUDA's order unless CUDA_DEVICE_ORDER=PCI_BUS_ID"
        told.append(Fact(name="visible", value=words, source="environment"))
    for card, gpu in zip(report.cards, gpus, strict=True):
        told.extend(_gpu_facts(card, gpu, report.source))
    unlisted = _unlisted(own, report)
    return Found(
        accelerator="cuda",
        state=report.state,
        driver=driver,
        gpus=gpus,
        facts=tuple(told),
        traces=unlisted if gpus else (*unlisted, *_signs(tree, smi, tegra), *traces),
    )


def _report(
    tree: Tree, environ: Mapping[str, str], *, nvml: str | None, smi: str | None, timeout: float
) -> text.Report | None:
    """NVML's answer; nvidia-smi's only where NVML cannot be asked: whatever breaks one breaks the other."""
    report = _ask_nvml(tree, environ, nvml, timeout) if nvml is not None else None
    if smi is None or (report is not None and report.answered):
        return report
    second = _ask_smi(smi, environ, timeout)
    return second if report is None else replace(second, errors=(*report.errors, *second.errors))


def _ask_nvml(tree: Tree, environ: Mapping[str, str], library: str, timeout: float) -> text.Report:
    """Ask through nvidia-ml-py in a child process, which may hang or crash."""
    import importlib.util
    import json
    import sys

    from bnbenv.machine.tool import ask

    module = importlib.util.find_spec("pynvml")
    if module is None or module.origin is None:
        return _no_answer("nvidia-ml-py is not installed")
    script = os.path.join(os.path.dirname(__file__), "nvml_child.py")
    command = [sys.executable, "-I", script, os.path.dirname(module.origin), library]
    answer = ask(command, environ=environ, timeout=timeout)
    if answer.timed_out:
        words = f"NVML did not answer within {timeout:g} s"
        return text.Report(source=_NVML, state="timeout", errors=(words,))
    try:
        values = json.loads(answer.output)
    except ValueError:
        return _no_answer(f"NVML ended the process that asked it (exit status {answer.status})")
    return text.parse_nvml(values, f"{_NVML} ({tree.name(library)})")


def _no_answer(words: str) -> text.Report:
    return text.Report(source=_NVML, state="failed", errors=(words,), answered=False)


def _ask_smi(program: str, environ: Mapping[str, str], timeout: float) -> text.Report:
    """Query nvidia-smi, leaving out one by one the fields that an older release does not know."""
    from bnbenv.machine.tool import Answer, ask

    fields = list(text.SMI_FIELDS)
    child = {**environ, "LC_ALL": "C"}
    answer = Answer(status=None)
    for _ in range(_MAX_RETRIES + 1):
        command = [program, f"--query-gpu={','.join(fields)}", "--format=csv"]
        answer = ask(command, environ=child, timeout=timeout)
        if answer.timed_out:
            words = f"nvidia-smi did not answer within {timeout:g} s"
            return text.Report(source=_SMI, state="timeout", errors=(words,))
        field = text.unknown_field(answer.output + answer.errors)
        if field not in fields:
            break
        fields.remove(field)
    return text.parse_smi(answer.status, answer.output, answer.errors, _SMI)


def _from_files(tree: Tree, driver: DriverVersion | None, tegra: Mapping[str, str]) -> text.Report | None:
    """A container may hold libcuda and the device files without NVML: such a GPU is usable."""
    cards = [
        text.parse_proc_information(information, index)
        for index, address in enumerate(tree.names(f"{PROC}/gpus"))
        if (information := tree.text(f"{PROC}/gpus/{address}/information", 4096)) is not None
    ]
    if cards and any(re.fullmatch(r"nvidia\d+", name) for name in tree.names("/dev")):
        return text.Report(source=f"{PROC}/gpus", state="ok", driver=driver, cards=tuple(cards))
    if tegra.get("tegra.name") and tree.first("/dev/nvhost-gpu", "/dev/nvgpu", "/dev/nvmap") is not None:
        card = text.Card(index=0, name=tegra["tegra.name"], shared_memory=True)
        return text.Report(source="/proc/device-tree", state="ok", driver=driver, cards=(card,))
    return None


def _gpus(
    tree: Tree,
    environ: Mapping[str, str],
    report: text.Report,
    by_address: Mapping[str, PciDevice],
    tegra: Mapping[str, str],
) -> tuple[Gpu, ...]:
    visible = cuda_visible(
        [card.name for card in report.cards],
        [(card.uuid or "?", *(part.uuid for part in card.mig_devices)) for card in report.cards],
        environ,
    )
    return tuple(
        _gpu(tree, card, by_address.get(card.bus_id or ""), tegra, seen)
        for card, seen in zip(report.cards, visible, strict=True)
    )


def _gpu(
    tree: Tree,
    card: text.Card,
    device: PciDevice | None,
    tegra: Mapping[str, str],
    seen: bool | None,  # noqa: FBT001 - one of a list of answers, not a switch
) -> Gpu:
    capability: ComputeCapability | None = card.compute_capability
    integrated = True if card.shared_memory and not card.mig else None
    if tegra and device is None:
        integrated = True
        if capability is None and "tegra.compute_capability" in tegra:
            capability = ComputeCapability.parse(tegra["tegra.compute_capability"])
    memory = card.memory_mib
    if memory is None and integrated:
        memory = total_memory_mib(tree)
    return Gpu(
        name=card.name,
        compute_capability=capability,
        memory_mib=memory,
        index=card.index,
        uuid=card.uuid,
        pci_id=card.pci_id or (device.id if device else None),
        visible=seen,
        mig=card.mig,
        integrated=integrated,
    )


def total_memory_mib(tree: Tree) -> int | None:
    """The physical memory of the host in MiB, from ``/proc/meminfo``."""
    match = re.match(r"MemTotal:\s+(\d+) kB", tree.text("/proc/meminfo", 256) or "")
    return int(match[1]) // 1024 if match else None


def _gpu_facts(card: text.Card, gpu: Gpu, source: str) -> list[Fact]:
    name = f"gpu{card.index}"
    values = {
        "name": gpu.name,
        "compute_capability": gpu.compute_capability,
        "memory_mib": gpu.memory_mib,
        "uuid": gpu.uuid,
        "pci_id": gpu.pci_id,
        "bus": card.bus_id,
        "mig": None if gpu.mig is None else "enabled" if gpu.mig else "disabled",
    }
    sources = {
        "compute_capability": source if card.compute_capability else "/proc/device-tree",
        "memory_mib": source if card.memory_mib else "/proc/meminfo",
        "pci_id": source if card.pci_id else "/sys/bus/pci",
    }
    facts = [
        Fact(name=f"{name}.{key}", value=str(value), source=sources.get(key, source))
        for key, value in values.items()
        if value is not None
    ]
    facts.extend(
        Fact(
            name=f"{name}.mig{number}",
            value=f"{part.name} {part.uuid}" + (f" {part.memory_mib} MiB" if part.memory_mib else ""),
            source=source,
        )
        for number, part in enumerate(card.mig_devices)
    )
    return facts


def _unlisted(own: Sequence[PciDevice], report: text.Report) -> tuple[str, ...]:
    """The GPUs on the bus that the driver does not list: lost, too old for it, or given to another driver."""
    listed = {card.bus_id for card in report.cards}
    if None in listed:
        return ()
    return tuple(
        f"NVIDIA PCI device {device.id} at {device.address}, "
        + (f"bound to `{device.driver}`" if device.driver else "no kernel driver bound")
        for device in own
        if device.address not in listed
    )


def _signs(tree: Tree, smi: str | None, tegra: Mapping[str, str]) -> tuple[str, ...]:
    signs = []
    if tree.exists(f"{PROC}/version"):
        signs.append("NVIDIA kernel module loaded")
    if tree.exists("/dev/nvidiactl"):
        signs.append("/dev/nvidiactl")
    if smi is not None:
        signs.append("nvidia-smi is installed")
    if tegra:
        signs.append("Tegra board")
    return tuple(signs)
