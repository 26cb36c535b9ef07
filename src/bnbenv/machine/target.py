"""The facts about a machine that decide what runs on it, as one value that travels in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bnbenv.dataclass import dataclass
from bnbenv.words import counted

if TYPE_CHECKING:
    from bnbenv.units import ComputeCapability, DottedVersion, DriverVersion

OsName = Literal["linux", "windows", "macos"]
Arch = Literal["x86_64", "aarch64"]
Accelerator = Literal["cuda", "rocm", "xpu", "mps", "cpu"]

# AMD's targets of processors with a GPU inside (LLVM's AMDGPU usage, column "APU").
ON_PROCESSORS = frozenset(
    {
        *("gfx801", "gfx902", "gfx909", "gfx90c"),
        *("gfx1013", "gfx1033", "gfx1035", "gfx1036", "gfx1037"),
        *("gfx1103", "gfx1150", "gfx1151", "gfx1152", "gfx1153"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Libc:
    """The C library of a Linux host."""

    family: Literal["glibc", "musl"]
    version: DottedVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One accelerator. ``None`` means unknown, never no.

    Attributes:
        name: the vendor's product name.
        compute_capability: NVIDIA only.
        gfx: the AMD target, such as ``gfx1100``.
        memory_mib: total memory in MiB.
        index: the vendor tool's index.
        uuid: the vendor's unique id.
        pci_id: ``vendor:device`` in lower-case hex, such as ``10de:2684``.
        visible: whether the environment variables of the calling process leave it visible.
        mig: whether MIG is enabled on it.
        integrated: whether it shares the processor's die and memory.
    """

    name: str
    compute_capability: ComputeCapability | None = None
    gfx: str | None = None
    memory_mib: int | None = None
    index: int | None = None
    uuid: str | None = None
    pci_id: str | None = None
    visible: bool | None = None
    mig: bool | None = None
    integrated: bool | None = None

    def __str__(self) -> str:
        """Its name, and its kind where the name does not tell it."""
        kind = str(self.compute_capability or self.gfx or "")
        return self.name if kind in self.name else f"{self.name} ({kind})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the judge knows of a machine. ``None`` means unknown, except where said otherwise.

    Attributes:
        name: how the user calls the machine.
        libc: ``None`` off Linux.
        driver: ``None`` when there is none. On WSL2, the Windows driver.
        pythons: minor versions at hand, such as ``("3.11", "3.12")``, oldest first.
        rocm: the version under ``/opt/rocm``, or of the SDK, as written there.
        l4t: the L4T release of a Tegra board, such as ``36.4.3``.
        cpu_flags: flags as the kernel names them.
        libstdcxx: the highest GLIBCXX version of the system's libstdc++.
    """

    name: str
    os: OsName
    arch: Arch
    accelerator: Accelerator
    libc: Libc | None = None
    wsl: bool = False
    tegra: bool = False
    driver: DriverVersion | None = None
    gpus: tuple[Gpu, ...] = ()
    pythons: tuple[str, ...] = ()
    rocm: str | None = None
    l4t: str | None = None
    cpu_flags: frozenset[str] | None = None
    libstdcxx: DottedVersion | None = None

    def __str__(self) -> str:
        """In a line: its name, the platform, the GPUs that a process would see, the driver."""
        gpus = " + ".join(map(str, self.visible_gpus))
        if not gpus:
            none = "an Apple chip" if self.accelerator == "mps" else "no GPU"
            gpus = f"{counted(len(self.gpus), 'GPU')}, hidden from this process" if self.gpus else none
        driver = f", driver {self.driver}" if self.driver else ""
        system = "WSL2" if self.wsl else self.os
        return f"{self.name}: {system} {self.arch}, {gpus}{driver}"

    @property
    def visible_gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that a process would see; one whose visibility is unknown counts as visible."""
        return tuple(gpu for gpu in self.gpus if gpu.visible is not False)
