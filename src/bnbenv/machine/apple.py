"""Describe the GPU of a Mac from what the kernel answers to sysctl."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from bnbenv.machine.found import Found
from bnbenv.machine.host import Fact
from bnbenv.machine.target import Gpu

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.machine.running import Running

_TEXTS = ("machdep.cpu.brand_string", "kern.osproductversion", "machdep.cpu.features", "hw.model")
_NUMBERS = ("hw.memsize", "sysctl.proc_translated", "hw.optional.arm64")
SYSCTLS = (*_TEXTS, *_NUMBERS)


def look(running: Running) -> Found:
    """The GPU of an Apple chip; nothing on an Intel Mac, and nothing usable through Rosetta."""
    values = running.sysctl
    facts = tuple(Fact(name=name, value=values[name], source="sysctl") for name in SYSCTLS if name in values)
    silicon = running.machine == "arm64" or values.get("hw.optional.arm64") == "1"
    if not silicon:
        return Found(accelerator="mps", facts=facts)
    name = values.get("machdep.cpu.brand_string", "Apple GPU")
    if running.emulated == "rosetta":
        return Found(accelerator="mps", facts=facts, traces=(f"{name}, hidden by Rosetta",))
    memory = values.get("hw.memsize", "")
    gpu = Gpu(
        name=name,
        memory_mib=int(memory) // 2**20 if memory.isdigit() else None,
        index=0,
        visible=True,
        integrated=True,
    )
    return Found(accelerator="mps", state="ok", gpus=(gpu,), facts=facts)


def cpu_flags(values: Mapping[str, str]) -> frozenset[str] | None:
    """The flags of an Intel Mac's processor in the kernel's lower-case names."""
    text = values.get("machdep.cpu.features")
    return frozenset(text.lower().split()) if text else None


def read_sysctl() -> dict[str, str]:
    """Ask the kernel for `SYSCTLS`; those that it does not know are left out. Empty on other systems."""
    found: dict[str, str] = {}
    if sys.platform == "darwin":
        import ctypes

        try:
            function = ctypes.CDLL(None).sysctlbyname
        except (OSError, AttributeError):
            return {}
        for name in SYSCTLS:
            size = ctypes.c_size_t(512)
            buffer = ctypes.create_string_buffer(512)
            if function(name.encode(), buffer, ctypes.byref(size), None, 0) == 0:
                found[name] = sysctl_text(name, buffer.raw[: size.value])
    return found


def sysctl_text(name: str, raw: bytes) -> str:
    """The bytes of an answer as text; numbers come in the processor's own order."""
    if name in _NUMBERS:
        return str(int.from_bytes(raw, sys.byteorder))
    return raw.rstrip(b"\0").decode("utf-8", "replace")
