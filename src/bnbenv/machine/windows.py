"""Where Windows keeps driver tools, libraries and the description of its display adapters."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from bnbenv.machine.running import Adapter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnbenv.machine.tree import Tree

_DISPLAY_CLASS = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"
_LIBRARIES = {"libnvidia-ml.so.1": "nvml.dll", "libcuda.so.1": "nvcuda.dll"}


def _system32(environ: Mapping[str, str]) -> str:
    return environ.get("SystemRoot", r"C:\Windows") + r"\System32"


def _program_files(environ: Mapping[str, str]) -> str:
    return environ.get("ProgramFiles", r"C:\Program Files")


def nvidia_smi_places(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Where the driver puts nvidia-smi: today in System32, until R430 or so under Program Files."""
    return (
        _system32(environ) + r"\nvidia-smi.exe",
        _program_files(environ) + r"\NVIDIA Corporation\NVSMI\nvidia-smi.exe",
    )


def driver_library(tree: Tree, environ: Mapping[str, str], name: str) -> str | None:
    """The Windows library with the duty of a Linux one.

    Args:
        tree: where to look.
        environ: the caller's environment.
        name: ``libnvidia-ml.so.1`` or ``libcuda.so.1``.
    """
    library = _LIBRARIES[name]
    return tree.first(
        f"{_system32(environ)}\\{library}",
        f"{_program_files(environ)}\\NVIDIA Corporation\\NVSMI\\{library}",
    )


def adapter_ids(adapter: Adapter) -> tuple[str, str] | None:
    r"""Vendor and device of ``PCI\VEN_10DE&DEV_2684&…``, in lower case."""
    match = re.search(r"VEN_([0-9A-F]{4})&DEV_([0-9A-F]{4})", adapter.device.upper())
    return (match[1].lower(), match[2].lower()) if match else None


def adapters_of(adapters: Sequence[Adapter], vendor: str) -> tuple[tuple[Adapter, str], ...]:
    """The adapters of one PCI vendor, each with its ``vendor:device``."""
    found = []
    for adapter in adapters:
        ids = adapter_ids(adapter)
        if ids is not None and ids[0] == vendor:
            found.append((adapter, f"{ids[0]}:{ids[1]}"))
    return tuple(found)


def read_adapters() -> tuple[Adapter, ...]:
    """Read the display adapters from the registry; none on other systems."""
    found: list[Adapter] = []
    if sys.platform == "win32":
        import winreg

        try:
            parent = winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _DISPLAY_CLASS)
        except OSError:
            return ()
        with parent:
            for number in range(64):
                try:
                    with winreg.OpenKey(parent, f"{number:04d}") as key:
                        name, device, driver = (
                            str(winreg.QueryValueEx(key, value)[0])
                            for value in ("DriverDesc", "MatchingDeviceId", "DriverVersion")
                        )
                except OSError:
                    continue  # gaps in the numbering, and keys that only administrators may read
                found.append(Adapter(name=name, device=device, driver=driver))
    return tuple(found)
