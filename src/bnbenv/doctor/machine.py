"""The machine below an environment: its driver and GPUs, and what of them changed since it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.judge.candidates import without_accelerator
from bnbenv.judge.rules.rule import finding
from bnbenv.units import DriverVersion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnbenv.env.state import State
    from bnbenv.judge.stack import Finding
    from bnbenv.machine.host import DriverState, Host
    from bnbenv.machine.target import Target

_SOURCE = "the probe of this machine"
_STATE = "the state of the environment and the probe of this machine"

# What each state of a driver that does not serve means, and what mends it.
_DRIVER: dict[DriverState, tuple[str, str, tuple[str, ...]]] = {
    "mismatch": (
        "the driver's library and its kernel module are of different versions",
        "The driver was upgraded while the old one was loaded: reboot, or reload the kernel module.",
        ("sudo reboot",),
    ),
    "no-devices": (
        "the driver answers and lists no device",
        "Pass a GPU to this container or job; on the host itself look at `dmesg`.",
        ("nvidia-smi -L",),
    ),
    "not-communicating": (
        "the driver's tool cannot reach the kernel module",
        "Load the kernel module, or install the driver for the running kernel.",
        ("sudo modprobe nvidia",),
    ),
    "timeout": (
        "the driver's tool does not answer in time",
        "A GPU may hang: look at `dmesg` for Xid messages, and reboot.",
        ("dmesg | grep -i xid",),
    ),
    "library-missing": (
        "the kernel module is loaded, and the driver's library is missing here",
        "Start the container with GPU support (`--gpus all`), or install the driver's user-space part.",
        (),
    ),
    "no-permission": (
        "the GPU's device files cannot be opened",
        "Ask for access to them: the groups `video` or `render`, or a job that holds a GPU.",
        ("ls -l /dev/nvidia*",),
    ),
    "failed": ("the driver fails", "See what it says.", ("bnbenv detect -v",)),
}


def judged_target(host: Host, state: State | None) -> Target:
    """The machine that an environment's stack is judged for.

    That is this one; but of an environment made for the CPU only the processor counts, and one whose
    accelerator is not visible here is judged for the machine that it was made for.
    """
    from bnbenv.errors import UsageError
    from bnbenv.machine.document import target_from_dict

    if state is None:
        return host.target
    if state.request.get("cpu"):
        return without_accelerator(host.target)
    made_for = state.target.get("accelerator", "cpu")
    if made_for in {"cpu", host.target.accelerator} or host.target.gpus:
        return host.target
    try:
        return target_from_dict(dict(state.target))
    except UsageError:
        return host.target


def check_machine(host: Host, state: State | None, *, wants: str | None) -> Iterator[Finding]:
    """What this machine does to an environment.

    Args:
        host: this machine.
        state: what an environment of bnbenv's own was made for.
        wants: the accelerator of its torch build; ``None`` without torch.
    """
    made_for = "cpu" if state is not None and state.request.get("cpu") else wants
    if state is not None and made_for != "cpu":
        made_for = str(state.target.get("accelerator", made_for))
    lost = made_for not in {None, "cpu", "mps"} and host.target.accelerator != made_for
    if lost:
        yield from _lost(host, state, str(made_for))
    elif host.target.accelerator != "cpu" and host.driver_state == "ok":
        yield from _hidden(host)
    if state is not None and not lost and made_for != "cpu":
        yield from _driver_changed(host, state)
        yield from _gpus_changed(host, state)
    yield from _emulated(host)


def _lost(host: Host, state: State | None, made_for: str) -> Iterator[Finding]:
    broken = _DRIVER.get(host.driver_state)
    facts = (*host.gpu_traces, *(f"container: {host.container}" for _ in [0] if host.container))
    was_here = state is not None and state.verdict in {"passed", "degraded"}
    if broken is not None:
        what, remedy, commands = broken
        yield finding(
            "driver-broken",
            "error",
            "driver",
            f"{what}, so that no {made_for.upper()} device can be used",
            *(f"{fact.name}: {fact.value}" for fact in host.facts if "driver" in fact.name),
            *facts,
            remedy=remedy,
            commands=commands,
            source=_SOURCE,
        )
    elif was_here or host.gpu_traces:
        yield finding(
            "no-gpu-visible",
            "error",
            "GPUs",
            f"no {made_for.upper()} device is visible here, and the environment computes on one",
            *facts,
            *hiding_variables(host),
            *_made_for(state),
            remedy="Run where the GPU is, pass it into the container or job, or unset what hides it. "
            "The environment itself is left as it is.",
            commands=("bnbenv detect",),
            source=_STATE if state is not None else _SOURCE,
        )
    else:
        yield finding(
            "no-gpu-visible",
            "info",
            "GPUs",
            f"no {made_for.upper()} device is visible here; the environment is judged without it",
            *_made_for(state),
            source=_SOURCE,
        )


def hiding_variables(host: Host) -> tuple[str, ...]:
    """The variables that choose among the GPUs, as they are set: ``NAME=VALUE``."""
    return tuple(
        f"{fact.name}={fact.value}"
        for fact in host.facts
        if fact.source == "environment" and fact.name.endswith("_DEVICES")
    )


def _hidden(host: Host) -> Iterator[Finding]:
    """GPUs are there, and a variable hides all of them."""
    if host.target.gpus and not host.target.visible_gpus:
        variables = hiding_variables(host)
        yield finding(
            "no-gpu-visible",
            "error",
            variables[0].partition("=")[0] if variables else "GPUs",
            f"all {len(host.target.gpus)} GPUs are hidden from this process",
            *variables,
            remedy="Unset the variable.",
            commands=tuple(f"unset {text.partition('=')[0]}" for text in variables),
            source=_SOURCE,
        )


def _made_for(state: State | None) -> tuple[str, ...]:
    names = _gpu_names(state) if state is not None else []
    return (f"it was made for {', '.join(names)}",) if names else ()


def _gpu_names(state: State) -> list[str]:
    return sorted(str(gpu.get("name", "?")) for gpu in state.target.get("gpus", ()) if isinstance(gpu, dict))


def _driver_changed(host: Host, state: State) -> Iterator[Finding]:
    now = host.target.driver
    # The target's driver is the one that the stack was chosen for, wherever the environment was built.
    told = state.target.get("driver") or state.driver
    if now is None or not told:
        return
    try:
        was = DriverVersion.parse(str(told))
    except ValueError:
        return
    if str(was) == str(now) or (len(str(was).split(".")) == 1 and was.branch == now.branch):
        return  # `--driver 550` names a branch
    newer = now.at_least(was)
    yield finding(
        "driver-changed",
        "info",
        "driver",
        f"the driver was {was} when the environment was made, and is {now} now",
        "a newer driver runs everything that an older one ran: nothing need change"
        if newer
        else "it went back: whether it still serves the stack is judged by itself",
        source=_STATE,
    )


def _gpus_changed(host: Host, state: State) -> Iterator[Finding]:
    was = _gpu_names(state)
    now = sorted(gpu.name for gpu in host.target.gpus)
    described = {gpu.get("uuid") for gpu in state.target.get("gpus", ()) if isinstance(gpu, dict)} == {None}
    if was == now or not was or (described and set(was) & set(now)):
        return
    yield finding(
        "gpu-changed",
        "info",
        "GPUs",
        "the GPUs are not those that the environment was made for",
        f"made for {', '.join(was)}",
        f"here: {', '.join(now) or 'none'}",
        "whether the stack serves them is judged by itself",
        source=_STATE,
    )


def _emulated(host: Host) -> Iterator[Finding]:
    if host.emulated == "rosetta":
        yield finding(
            "emulated-interpreter",
            "error",
            "python",
            "this Python is an x86-64 one under Rosetta, for which no torch is published any more",
            remedy="Install a Python for arm64, and make the environment with it.",
            commands=("uv python install cpython-3.12-macos-aarch64",),
            source=_SOURCE,
        )
    elif host.emulated == "32-bit":
        yield finding(
            "emulated-interpreter",
            "error",
            "python",
            "this Python is a 32-bit one, for which no torch and no bitsandbytes are published",
            remedy="Install a 64-bit Python, and make the environment with it.",
            source=_SOURCE,
        )
