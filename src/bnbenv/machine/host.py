"""What a probe of the running machine found: the target, and each fact with its source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bnbenv.dataclass import dataclass

if TYPE_CHECKING:
    from bnbenv.machine.target import Target

DriverState = Literal[
    "ok",  # the driver answers and lists at least one device
    "absent",  # no trace of a driver
    "mismatch",  # user-space library and kernel module differ: reboot after an upgrade
    "no-devices",  # the driver answers and lists none
    "not-communicating",  # the tool is there, the kernel module is not
    "timeout",  # the tool did not answer in time
    "library-missing",  # kernel module loaded, user-space library not found (a container without it)
    "no-permission",  # device files cannot be opened
    "failed",  # anything else; the fact `driver-error` holds the words
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing a probe saw: a stable name, the value as text, and where it was read."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Python:
    """One interpreter found by looking at files, not by running it.

    Attributes:
        path: the executable.
        version: ``3.12`` or ``3.12.4``, as far as the files tell.
        source: how it was found, such as ``PATH``, ``pyenv``, ``uv``, ``system``.
    """

    path: str
    version: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The running machine.

    Attributes:
        target: what the judge needs of it.
        driver_state: how the accelerator's driver answered.
        facts: everything seen, each with its source, in the order it was seen.
        gpu_traces: signs of an accelerator that could not be used (PCI devices, device files, loaded
            modules, Slurm's tools): non-empty with ``target.gpus`` empty means "login node or broken driver".
        pythons: interpreters at hand.
        container: the kind of container, where there is one.
        slurm: ``"login"`` when Slurm's tools are present outside a job, ``"job"`` inside one.
        emulated: ``"rosetta"`` when an x86-64 Python runs on Apple silicon, ``"32-bit"`` for a 32-bit one.
    """

    target: Target
    driver_state: DriverState
    facts: tuple[Fact, ...]
    gpu_traces: tuple[str, ...] = ()
    pythons: tuple[Python, ...] = ()
    container: str | None = None
    slurm: Literal["login", "job"] | None = None
    emulated: Literal["rosetta", "32-bit"] | None = None
