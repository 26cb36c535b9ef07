"""What the running interpreter knows of its machine without reading files: the part that tests replace."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Literal

from bnbenv.dataclass import dataclass, field
from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.machine.target import Arch, OsName

_ARCHES: dict[str, Arch] = {
    "x86_64": "x86_64",
    "amd64": "x86_64",
    "x64": "x86_64",
    "i386": "x86_64",  # a 32-bit system on such a processor; `Host.emulated` says so
    "i686": "x86_64",
    "x86": "x86_64",
    "aarch64": "aarch64",
    "arm64": "aarch64",
    "armv7l": "aarch64",
    "armv8l": "aarch64",
}
_THIRTY_TWO = frozenset({"i386", "i686", "x86", "armv7l", "armv8l"})


def arch_called(name: str) -> Arch | None:
    """The architecture that systems of 64 bits call so, in the words of a target: ``AMD64``, ``arm64``."""
    plain = name.lower().replace("-", "_")
    return None if plain in _THIRTY_TWO else _ARCHES.get(plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    r"""A display adapter as the Windows registry describes it.

    Attributes:
        name: ``DriverDesc``.
        device: ``MatchingDeviceId``, such as ``PCI\VEN_1002&DEV_744C``.
        driver: ``DriverVersion``, such as ``32.0.15.6094``.
    """

    name: str
    device: str
    driver: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The system below the interpreter.

    Attributes:
        os: the operating system.
        machine: the processor as the system names it, such as ``x86_64`` or ``AMD64``.
        node: the host's name.
        release: the kernel's release.
        bits: of the interpreter's pointers.
        sysctl: macOS only: the names of `bnbenv.machine.apple.SYSCTLS` that answered.
        adapters: Windows only.
    """

    os: OsName
    machine: str
    node: str
    release: str
    bits: Literal[32, 64] = 64
    sysctl: Mapping[str, str] = field(default_factory=dict)
    adapters: tuple[Adapter, ...] = ()

    @property
    def arch(self) -> Arch:
        """The architecture in the words of a target.

        Raises:
            UsageError: bitsandbytes is published for no such processor.
        """
        arch = _ARCHES.get(self.machine.lower())
        if arch is None:
            raise UsageError(
                f"this machine's processor is `{self.machine}`; bitsandbytes and torch are published "
                "for x86-64 and aarch64 only",
                code="bad-target",
                hint="plan for another machine with `--target FILE` or `--arch`",
            )
        return arch

    @property
    def emulated(self) -> Literal["rosetta", "32-bit"] | None:
        """Whether the interpreter runs on something else than the processor offers."""
        if self.sysctl.get("sysctl.proc_translated") == "1":
            return "rosetta"
        if self.bits == 32 or self.machine.lower() in _THIRTY_TWO:
            return "32-bit"
        return None


def current(environ: Mapping[str, str]) -> Running:
    """Describe the system this interpreter runs on.

    Raises:
        UsageError: the operating system is none that bitsandbytes is published for.
    """
    bits: Literal[32, 64] = 64 if sys.maxsize > 2**32 else 32
    if sys.platform == "win32":
        from bnbenv.machine.windows import read_adapters

        return Running(
            os="windows",
            # A 32-bit process is told the processor's own name in the second variable.
            machine=environ.get("PROCESSOR_ARCHITEW6432") or environ.get("PROCESSOR_ARCHITECTURE", "AMD64"),
            node=environ.get("COMPUTERNAME", "localhost"),
            release=".".join(map(str, sys.getwindowsversion()[:3])),
            bits=bits,
            adapters=read_adapters(),
        )
    names = os.uname()
    if sys.platform == "darwin":
        from bnbenv.machine.apple import read_sysctl

        return Running(
            os="macos",
            machine=names.machine,
            node=names.nodename,
            release=names.release,
            bits=bits,
            sysctl=read_sysctl(),
        )
    if not sys.platform.startswith("linux"):
        raise UsageError(
            f"this system is `{sys.platform}`; bitsandbytes is published for Linux, Windows and macOS only",
            code="bad-target",
            hint="plan for another machine with `--target FILE` or `--os`",
        )
    return Running(os="linux", machine=names.machine, node=names.nodename, release=names.release, bits=bits)
