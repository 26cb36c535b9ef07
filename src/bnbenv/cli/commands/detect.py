"""`detect`: what this machine is, and how it is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bnbenv.cli.options import add_target, other_target
from bnbenv.cli.outcome import Outcome, Problem

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui
    from bnbenv.machine.host import Host
    from bnbenv.machine.target import Gpu, Target

EPILOG = """\
Examples:
  bnbenv detect                        this machine, each fact with its source
  bnbenv detect --json > lab-a.json    a target, for `bnbenv create --target lab-a.json` elsewhere
  bnbenv detect --gpu "RTX 4090" --driver 550 --json    a target that is not at hand
"""

# What to do about each state in which a GPU cannot be used.
_STATES = {
    "mismatch": (
        "the driver's library and its kernel module differ in version",
        "reboot, or reload the nvidia module",
    ),
    "no-devices": ("the driver answers and lists no device", "pass a GPU to this container or job"),
    "not-communicating": ("the driver's tool cannot reach the kernel module", "reinstall or load the driver"),
    "timeout": ("the driver's tool does not answer in time", "look at `dmesg`; a GPU may have hung"),
    "library-missing": (
        "the kernel module is loaded, but its library is missing here",
        "start the container with GPU support",
    ),
    "no-permission": ("the GPU's device files cannot be opened", "ask for access to them"),
    "failed": ("the driver fails", "bnbenv detect -v"),
}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_target(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Look."""
    from bnbenv.machine.document import target_to_dict

    described = other_target(args)
    if described is not None:
        return Outcome(
            data={"target": target_to_dict(described), "host": None}, text=_target_text(described, ui)
        )
    from bnbenv.machine.probe import probe

    host = probe()
    return Outcome(
        data={"target": target_to_dict(host.target), "host": host_to_dict(host)},
        text=_host_text(host, ui),
        problems=_problems(host),
    )


def host_to_dict(host: Host) -> dict[str, Any]:
    """What the probe saw beside the target."""
    return {
        "driver_state": host.driver_state,
        "gpu_traces": list(host.gpu_traces),
        "container": host.container,
        "slurm": host.slurm,
        "emulated": host.emulated,
        "pythons": [{"path": it.path, "version": it.version, "source": it.source} for it in host.pythons],
        "facts": [{"name": it.name, "value": it.value, "source": it.source} for it in host.facts],
    }


def _problems(host: Host) -> tuple[Problem, ...]:
    problems = []
    if host.driver_state in _STATES:
        message, hint = _STATES[host.driver_state]
        problems.append(Problem(code="no-usable-gpu", message=message, hint=hint))
    if host.slurm == "login":
        problems.append(
            Problem(
                code="notice",
                message="Slurm's tools are here and no job is running: this looks like a login node",
                hint="in a job: bnbenv detect --json > FILE; then here: bnbenv create --target FILE",
            )
        )
    return tuple(problems)


def _host_text(host: Host, ui: Ui) -> str:
    lines = [_target_text(host.target, ui)]
    if host.container:
        lines.append(f"container  {host.container}")
    if host.gpu_traces and not host.target.gpus:
        lines.append(f"traces     {'; '.join(host.gpu_traces)}")
    lines += ["", ui.paint("How it is known", "bold")]
    lines.append(ui.table([(fact.name, fact.value, fact.source) for fact in _shown(host, ui)]))
    return "\n".join(lines)


def _shown(host: Host, ui: Ui) -> list[Any]:
    # The flags of a processor fill a screen.
    return [fact for fact in host.facts if ui.verbosity or len(fact.value) <= 100]


def _target_text(target: Target, ui: Ui) -> str:
    system = f"{target.os} {target.arch}"
    if target.libc:
        system += f", {target.libc.family} {target.libc.version}"
    if target.wsl:
        system += ", WSL2"
    if target.l4t:
        system += f", L4T {target.l4t}"
    lines = [
        f"{ui.paint('machine', 'bold')}    {target.name}: {system}",
        f"{ui.paint('computes', 'bold')}   on {target.accelerator}"
        + (f", driver {target.driver}" if target.driver else "")
        + (f", ROCm {target.rocm}" if target.rocm else ""),
    ]
    lines += [f"{ui.paint('GPU', 'bold')}        {_gpu_text(gpu)}" for gpu in target.gpus]
    lines.append(f"{ui.paint('pythons', 'bold')}    {', '.join(target.pythons) or 'none found'}")
    return "\n".join(lines)


def _gpu_text(gpu: Gpu) -> str:
    parts = [gpu.name if gpu.index is None else f"{gpu.index}: {gpu.name}"]
    if gpu.compute_capability:
        parts.append(f"compute capability {gpu.compute_capability}")
    if gpu.gfx:
        parts.append(gpu.gfx)
    if gpu.memory_mib:
        parts.append(f"{gpu.memory_mib} MiB")
    if gpu.mig:
        parts.append("MIG")
    if gpu.integrated:
        parts.append("integrated")
    if gpu.visible is False:
        parts.append("hidden by an environment variable")
    return ", ".join(parts)
