"""Whether there is anything of NVIDIA on this machine, and where its library and tool are."""

# pathlib would double the time of a probe that touches some hundred files.
# ruff: noqa: PTH110, PTH118

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from bnbenv.machine import pci
from bnbenv.machine.found import Found
from bnbenv.machine.host import Fact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnbenv.machine.running import Running
    from bnbenv.machine.tree import Tree

WSL_LIBRARIES = "/usr/lib/wsl/lib"
PROC = "/proc/driver/nvidia"
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
    """Describe the NVIDIA GPUs and their driver; nothing is started where there is no trace of one.

    Args:
        tree: where to read.
        running: the system.
        environ: the caller's environment, which decides where tools and libraries are found.
        devices: the GPUs on the PCI bus.
        timeout: seconds for each program.
        wsl: whether this is WSL2.
        tegra: the facts of a Tegra board, empty elsewhere.
    """
    own = tuple(device for device in devices if device.vendor == pci.NVIDIA)
    nvml = find_library(tree, running, environ, "libnvidia-ml.so.1")
    smi = find_smi(tree, running, environ)
    libcuda = find_library(tree, running, environ, "libcuda.so.1")
    facts = (
        () if libcuda is None else (Fact(name="libcuda", value=tree.name(libcuda), source="file look-up"),)
    )
    traces = (*_adapter_traces(running), *_user_space_traces(tree, environ, wsl=wsl))
    kernel = tree.exists(f"{PROC}/version") or tree.exists("/dev/nvidiactl")
    if nvml is None and smi is None and not own and not kernel and not tegra:
        return Found(accelerator="cuda", facts=facts, traces=traces)
    from bnbenv.machine.nvidia_driver import inspect

    return inspect(
        tree,
        environ,
        own,
        nvml=nvml,
        smi=smi,
        libcuda=libcuda,
        facts=facts,
        traces=traces,
        timeout=timeout,
        wsl=wsl,
        tegra=tegra,
    )


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


def _adapter_traces(running: Running) -> tuple[str, ...]:
    """The cards that Windows knows, whatever their driver's tools say."""
    if not running.adapters:
        return ()
    from bnbenv.machine.windows import adapters_of

    cards = adapters_of(running.adapters, pci.NVIDIA)
    return tuple(f"{adapter.name} ({ids}), driver {adapter.driver}" for adapter, ids in cards)


def _user_space_traces(tree: Tree, environ: Mapping[str, str], *, wsl: bool) -> tuple[str, ...]:
    traces = []
    if wsl and tree.exists(f"{WSL_LIBRARIES}/libcuda.so.1"):
        traces.append(f"{WSL_LIBRARIES}/libcuda.so.1")
    wanted = environ.get("NVIDIA_VISIBLE_DEVICES", "")
    if wanted not in {"", "void", "none"}:
        # Set by NVIDIA's container images and tools: somebody meant a GPU to be passed in.
        traces.append(f"NVIDIA_VISIBLE_DEVICES={wanted}")
    return tuple(traces)
