"""Look at the running machine and say what it is; broken drivers are facts, never exceptions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bnbenv.machine import amd, apple, intel, nvidia, pci, system, tegra
from bnbenv.machine.host import Fact, Host
from bnbenv.machine.pythons import find_pythons, minor_versions
from bnbenv.machine.running import current
from bnbenv.machine.surroundings import find_container, find_slurm, wsl_version
from bnbenv.machine.target import Target
from bnbenv.machine.tree import Tree
from bnbenv.machine.visible import CUDA_VARIABLES, HIP_VARIABLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import PurePath

    from bnbenv.machine.found import Found
    from bnbenv.machine.host import DriverState
    from bnbenv.machine.running import Running
    from bnbenv.units import DriverVersion

_VARIABLES = (*CUDA_VARIABLES, *HIP_VARIABLES, "LD_LIBRARY_PATH", "BNB_CUDA_VERSION", "BNB_ROCM_VERSION")


def probe(
    *,
    environ: Mapping[str, str] | None = None,
    root: PurePath | str = os.sep,
    timeout: float = 5.0,
    running: Running | None = None,
) -> Host:
    """Describe this machine.

    No process is started unless a GPU driver's library or tool is found.

    Args:
        environ: the environment to read; the process's own by default. Tools are looked up on its ``PATH``.
        root: where the file tree is; another place than the root stands for another machine.
        timeout: seconds granted to each driver tool.
        running: the system below the interpreter; asked of the interpreter by default.

    Raises:
        UsageError: the processor or the operating system is none that bitsandbytes is published for.
    """
    environ = os.environ if environ is None else environ
    running = running or current(environ)
    tree = Tree(root=str(root))
    arch = running.arch
    facts = [
        Fact(name="os", value=f"{running.os} {running.release}", source="kernel"),
        Fact(name="arch", value=running.machine, source="kernel"),
    ]
    if running.emulated:
        facts.append(Fact(name="emulated", value=running.emulated, source="interpreter"))
    linux = running.os == "linux"
    wsl = wsl_version(running.release) if linux else None
    if wsl:
        facts.append(Fact(name="wsl", value=str(wsl), source="kernel release"))
    libc = system.find_libc(tree, running) if linux else None
    libstdcxx = system.find_libstdcxx(tree, running) if linux else None
    flags, processor = system.find_processor(tree) if linux else (apple.cpu_flags(running.sysctl), ())
    distribution = system.find_distribution(tree) if linux else None
    facts.extend(processor)
    facts.extend(part[1] for part in (libc, libstdcxx) if part is not None)
    if distribution is not None:
        facts.append(distribution)
    board = tegra.look(tree, running.release) if linux else ()
    facts.extend(board)
    board_values = {fact.name: fact.value for fact in board}
    container = find_container(tree, environ) if linux else None
    if container is not None:
        facts.append(container)
    slurm = find_slurm(tree, environ) if linux else None
    if slurm is not None:
        facts.append(slurm[1])
    facts.extend(
        Fact(name=name, value=environ[name], source="environment") for name in _VARIABLES if name in environ
    )

    found = _look_for_gpus(tree, running, environ, timeout=timeout, wsl=wsl == 2, board=board_values)
    chosen = _choose(found)
    for part in found:
        facts.extend(part.facts)
    traces = [trace for part in found for trace in part.traces]
    if slurm is not None and chosen is None:
        traces.append("Slurm job without a GPU" if slurm[0] == "job" else "Slurm's tools outside a job")
    pythons = find_pythons(environ, tree.root, os_name=running.os)
    target = Target(
        name=running.node.partition(".")[0] or "localhost",
        os=running.os,
        arch=arch,
        accelerator=chosen.accelerator if chosen else "cpu",
        libc=libc[0] if libc else None,
        wsl=wsl == 2,
        tegra=bool(board),
        driver=_driver(found, chosen),
        gpus=chosen.gpus if chosen else (),
        pythons=minor_versions(pythons),
        rocm=next((fact.value for fact in facts if fact.name == "rocm"), None),
        l4t=board_values.get("l4t"),
        cpu_flags=flags,
        libstdcxx=libstdcxx[0] if libstdcxx else None,
    )
    return Host(
        target=target,
        driver_state=_state(found, chosen),
        facts=tuple(facts),
        gpu_traces=tuple(traces),
        pythons=pythons,
        container=container.value if container else None,
        slurm=slurm[0] if slurm else None,
        emulated=running.emulated,
    )


def _look_for_gpus(
    tree: Tree,
    running: Running,
    environ: Mapping[str, str],
    *,
    timeout: float,
    wsl: bool,
    board: Mapping[str, str],
) -> tuple[Found, ...]:
    if running.os == "macos":
        return (apple.look(running),)
    devices = pci.scan(tree) if running.os == "linux" else ()
    return (
        nvidia.look(tree, running, environ, devices, timeout=timeout, wsl=wsl, tegra=board),
        amd.look(tree, running, environ, devices),
        intel.look(tree, running, environ, devices),
    )


def _choose(found: Sequence[Found]) -> Found | None:
    """The vendor whose GPUs are used: NVIDIA before AMD before Intel, a card before a processor's part.

    A broken card is not made up for by the small GPU of the processor beside it.
    """
    usable = [part for part in found if part.gpus]
    broken = any(part.traces and not part.gpus for part in found)
    for part in usable:
        if not all(gpu.integrated for gpu in part.gpus) or part.accelerator == "cuda":
            return part
    return usable[0] if usable and not broken else None


def _driver(found: Sequence[Found], chosen: Found | None) -> DriverVersion | None:
    if chosen is not None:
        return chosen.driver
    return next((part.driver for part in found if part.driver is not None), None)


def _state(found: Sequence[Found], chosen: Found | None) -> DriverState:
    """The chosen driver's state, else that of the first which is there but does not serve."""
    if chosen is not None:
        return chosen.state
    return next((part.state for part in found if part.state not in {"absent", "ok"}), "absent")
