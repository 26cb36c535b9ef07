"""Find NVIDIA GPUs: NVML, else nvidia-smi, else what /proc and /sys tell."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from bnbenv.machine import nvidia_text as text
from bnbenv.machine import pci
from bnbenv.machine.found import Found
from bnbenv.machine.host import Fact
from bnbenv.machine.target import Gpu
from bnbenv.machine.visible import cuda_visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnbenv.machine.host import DriverState
    from bnbenv.machine.running import Running
    from bnbenv.machine.tree import Tree
    from bnbenv.units import ComputeCapability

WSL_LIBRARIES = "/usr/lib/wsl/lib"
_PROC = "/proc/driver/nvidia"
_NVML = "NVML"
_SMI = "nvidia-smi --query-gpu"
_LIBRARY_PLACES = (
    WSL_LIBRARIES,
    "/usr/lib/{arch}-linux-gnu",
    "/usr/lib/{arch}-linux-gnu/nvidia",  # L4T 36 and newer
    "/usr/lib/{arch}-linux-gnu/tegra",
    "/usr/lib64",
    "/usr/lib64/nvidia",
    "/usr/lib",
    "/usr/local/nvidia/lib64",  # Google's container-optimised images
    "/.singularity.d/libs",
    "/run/opengl-driver/lib",  # NixOS
)
_MAX_RETRIES = 4


def look(
    tree: Tree,
    running: Running,
    environ: Mapping[str, str],
    devices: Sequence[pci.PciDevice],
    *,
    timeout: float,
    wsl: bool,
    tegra: Mapping[str, str],
) -> Found:
    """Describe the NVIDIA GPUs and their driver.

    Args:
        tree: where to read.
        running: the system.
        environ: the caller's environment, which decides where tools and libraries are found.
        devices: the GPUs on the PCI bus.
        timeout: seconds for each program.
        wsl: whether this is WSL2.
        tegra: the facts of a Tegra board, empty elsewhere.
    """
    facts: list[Fact] = []
    own = [device for device in devices if device.vendor == pci.NVIDIA]
    kernel_driver = text.parse_proc_version(tree.text(f"{_PROC}/version", 4096))
    if kernel_driver is not None:
        facts.append(Fact(name="nvidia.kernel-module", value=str(kernel_driver), source=f"{_PROC}/version"))
    nvml = find_library(tree, running, environ, "libnvidia-ml.so.1")
    smi = find_smi(tree, running, environ)
    report = None
    if nvml is not None:
        report = _ask_nvml(tree, environ, nvml, timeout)
        if report is None:
            facts.append(Fact(name="nvml", value="no answer", source=nvml))
    if smi is not None and (report is None or report.state == "library-missing"):
        report = _ask_smi(smi, environ, timeout)
    libcuda = find_library(tree, running, environ, "libcuda.so.1")
    if libcuda is not None:
        facts.append(Fact(name="libcuda", value=libcuda, source="file look-up"))
    if (
        report is None
        and not own
        and not tree.exists("/dev/nvidiactl")
        and not tegra
        and kernel_driver is None
    ):
        traces = _user_space_traces(tree, environ, wsl=wsl)
        return Found(accelerator="cuda", facts=tuple(facts), traces=traces)
    if report is None or (report.state == "library-missing" and libcuda is not None):
        report = _from_files(tree, libcuda, tegra) or report
    if report is None:
        state: DriverState = "absent" if kernel_driver is None else "library-missing"
        report = text.Report(source=_PROC, state=state, driver=kernel_driver)
    return _assemble(tree, environ, own, report, facts, tegra=tegra, wsl=wsl, smi=smi)


def find_library(tree: Tree, running: Running, environ: Mapping[str, str], name: str) -> str | None:
    """Where the loader would take a driver library from, without loading it.

    Looks through ``LD_LIBRARY_PATH``, the loader's cache and the places known to vendors; on Windows
    for the library of the same duty in System32.
    """
    if running.os == "windows":
        from bnbenv.machine.windows import driver_library

        return driver_library(tree, environ, name)
    if running.os != "linux":
        return None
    for directory in environ.get("LD_LIBRARY_PATH", "").split(":"):
        if directory and os.path.exists(os.path.join(directory, name)):
            return os.path.join(directory, name)
    cache = tree.data("/etc/ld.so.cache", 2**22) or b""
    for match in re.finditer(rb"/[ -~]*/" + re.escape(name.encode()) + rb"(?=\0)", cache):
        path = match[0].decode()
        if not re.search(r"/lib32/|/i386-|/arm-", path) and tree.exists(path):
            return tree.path(path)
    for place in _LIBRARY_PLACES:
        path = f"{place.format(arch=running.arch)}/{name}"
        if tree.exists(path):
            return tree.path(path)
    return None


def find_smi(tree: Tree, running: Running, environ: Mapping[str, str]) -> str | None:
    """The nvidia-smi on ``PATH``, or where Windows and WSL keep it off ``PATH``."""
    if running.os == "windows":
        from bnbenv.machine.windows import nvidia_smi_places

        found = tree.find_program("nvidia-smi.exe", environ.get("PATH"))
        return found or tree.first(*nvidia_smi_places(environ))
    if running.os != "linux":
        return None
    found = tree.find_program("nvidia-smi", environ.get("PATH"))
    if found is None and (known := tree.first(f"{WSL_LIBRARIES}/nvidia-smi", "/usr/bin/nvidia-smi")):
        found = tree.path(known)
    return found


def _ask_nvml(tree: Tree, environ: Mapping[str, str], library: str, timeout: float) -> text.Report | None:
    """Ask through nvidia-ml-py in a child process; ``None`` if it cannot be asked at all."""
    import importlib.util
    import json
    import sys

    from bnbenv.machine.tool import ask

    module = importlib.util.find_spec("pynvml")
    if module is None or module.origin is None:
        return None
    script = os.path.join(os.path.dirname(__file__), "nvml_child.py")
    child = {key: value for key, value in environ.items() if not key.startswith("PYTHON")}
    # nvidia-ml-py names the library without a directory; so the one that was found is put first.
    if os.name != "nt":
        old = child.get("LD_LIBRARY_PATH")
        child["LD_LIBRARY_PATH"] = os.path.dirname(library) + (f":{old}" if old else "")
    command = [sys.executable, "-I", script, os.path.dirname(module.origin)]
    answer = ask(command, environ=child, timeout=timeout)
    if answer.timed_out:
        return text.Report(
            source=_NVML, state="timeout", errors=(f"NVML did not answer within {timeout:g} s",)
        )
    try:
        values = json.loads(answer.output)
    except ValueError:
        return None
    return text.parse_nvml(
        values, f"{_NVML} ({library.removeprefix(tree.root) if not tree.real else library})"
    )


def _ask_smi(program: str, environ: Mapping[str, str], timeout: float) -> text.Report:
    """Query nvidia-smi, leaving out one by one the fields that an older release does not know."""
    from bnbenv.machine.tool import ask

    fields = list(text.SMI_FIELDS)
    child = {**environ, "LC_ALL": "C"}
    for _ in range(_MAX_RETRIES):
        command = [program, f"--query-gpu={','.join(fields)}", "--format=csv"]
        answer = ask(command, environ=child, timeout=timeout)
        if answer.timed_out:
            words = f"nvidia-smi did not answer within {timeout:g} s"
            return text.Report(source=_SMI, state="timeout", errors=(words,))
        field = text.unknown_field(answer.output + answer.errors)
        if field is None or field not in fields:
            break
        fields.remove(field)
    return text.parse_smi(answer.status, answer.output, answer.errors, _SMI)


def _from_files(tree: Tree, libcuda: str | None, tegra: Mapping[str, str]) -> text.Report | None:
    """A container may hold libcuda and the device files without NVML: such a GPU is usable."""
    driver = text.parse_proc_version(tree.text(f"{_PROC}/version", 4096))
    if libcuda is None:
        return None
    cards = [
        text.parse_proc_information(information, index)
        for index, address in enumerate(tree.names(f"{_PROC}/gpus"))
        if (information := tree.text(f"{_PROC}/gpus/{address}/information", 4096)) is not None
    ]
    if cards and any(re.fullmatch(r"nvidia\d+", name) for name in tree.names("/dev")):
        return text.Report(source=f"{_PROC}/gpus", state="ok", driver=driver, cards=tuple(cards))
    if tegra.get("tegra.name") and tree.first("/dev/nvhost-gpu", "/dev/nvgpu", "/dev/nvmap") is not None:
        card = text.Card(index=0, name=tegra["tegra.name"], shared_memory=True)
        return text.Report(source="/proc/device-tree", state="ok", driver=driver, cards=(card,))
    return None


def _assemble(
    tree: Tree,
    environ: Mapping[str, str],
    own: Sequence[pci.PciDevice],
    report: text.Report,
    facts: list[Fact],
    *,
    tegra: Mapping[str, str],
    wsl: bool,
    smi: str | None,
) -> Found:
    by_address = {device.address: device for device in own}
    driver = report.driver or text.parse_proc_version(tree.text(f"{_PROC}/version", 4096))
    if driver is not None:
        facts.append(
            Fact(
                name="driver",
                value=str(driver),
                source=f"{report.source}{', the Windows driver' if wsl else ''}"
                if report.driver
                else f"{_PROC}/version",
            )
        )
    if report.cuda is not None:
        facts.append(Fact(name="driver.cuda", value=str(report.cuda), source=report.source))
    facts.extend(Fact(name="driver-error", value=words, source=report.source) for words in report.errors)
    visible = cuda_visible(
        [card.name for card in report.cards],
        [(card.uuid or "?", *(part.uuid for part in card.mig_devices)) for card in report.cards],
        environ,
    )
    if None in visible:
        facts.append(
            Fact(
                name="visible",
                value="unknown: CUDA_VISIBLE_DEVICES counts in CUDA's order; set CUDA_DEVICE_ORDER=PCI_BUS_ID",
                source="environment",
            )
        )
    gpus = []
    for card, seen in zip(report.cards, visible, strict=True):
        gpu = _gpu(tree, card, by_address, tegra, seen)
        gpus.append(gpu)
        facts.extend(_gpu_facts(card, gpu, report.source))
    traces = _traces(tree, environ, own, report, wsl=wsl, smi=smi, tegra=tegra)
    return Found(
        accelerator="cuda",
        state=report.state,
        driver=driver,
        gpus=tuple(gpus),
        facts=tuple(facts),
        traces=traces,
    )


def _gpu(
    tree: Tree,
    card: text.Card,
    by_address: Mapping[str, pci.PciDevice],
    tegra: Mapping[str, str],
    seen: bool | None,  # noqa: FBT001 - one of a list of answers, not a switch
) -> Gpu:
    device = by_address.get(card.bus_id or "")
    capability: ComputeCapability | None = card.compute_capability
    integrated = True if card.shared_memory else None
    if tegra and device is None:
        integrated = True
        if capability is None and "tegra.compute_capability" in tegra:
            from bnbenv.units import ComputeCapability as Capability

            capability = Capability.parse(tegra["tegra.compute_capability"])
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


def _traces(
    tree: Tree,
    environ: Mapping[str, str],
    own: Sequence[pci.PciDevice],
    report: text.Report,
    *,
    wsl: bool,
    smi: str | None,
    tegra: Mapping[str, str],
) -> tuple[str, ...]:
    """What points to a GPU that the report does not list."""
    listed = {card.bus_id for card in report.cards}
    placed = bool(report.cards) and None not in listed
    traces = []
    for device in own:
        if device.address in listed or (report.cards and not placed):
            continue
        bound = f"bound to `{device.driver}`" if device.driver else "no kernel driver bound"
        traces.append(f"NVIDIA PCI device {device.id} at {device.address}, {bound}")
    if report.cards:
        return tuple(traces)
    if tree.exists(f"{_PROC}/version"):
        traces.append("NVIDIA kernel module loaded")
    if tree.exists("/dev/nvidiactl"):
        traces.append("/dev/nvidiactl")
    if smi is not None:
        traces.append("nvidia-smi is installed")
    if tegra:
        traces.append("Tegra board")
    return (*traces, *_user_space_traces(tree, environ, wsl=wsl))


def _user_space_traces(tree: Tree, environ: Mapping[str, str], *, wsl: bool) -> tuple[str, ...]:
    traces = []
    if wsl and tree.exists(f"{WSL_LIBRARIES}/libcuda.so.1"):
        traces.append(f"{WSL_LIBRARIES}/libcuda.so.1")
    wanted = environ.get("NVIDIA_VISIBLE_DEVICES", "")
    if wanted not in {"", "void", "none"}:
        # Set by NVIDIA's container images and tools: somebody meant a GPU to be passed in.
        traces.append(f"NVIDIA_VISIBLE_DEVICES={wanted}")
    return tuple(traces)
