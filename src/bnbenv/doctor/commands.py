"""The commands that a remedy names, with the figures that the text states filled in."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnbenv.doctor.facts import Facts
    from bnbenv.machine.target import Gpu
    from bnbenv.matrix.rows import Cause, TypedCommand

_TRAINING = {"sequence": "--seq", "batch": "--batch", "rank": "--lora-rank"}


def commands_for(cause: Cause, facts: Facts) -> tuple[str, ...]:
    """What to type against a cause.

    ``MODEL`` stands where the text names none, ``DIRECTORY`` where it names no directory with weights.
    """
    return tuple(line for typed in cause.typed if (line := _line(typed, cause.id, facts)))


def _line(typed: TypedCommand, code: str, facts: Facts) -> str | None:
    model = facts.best("model") or "MODEL"
    match typed:
        case "install":
            return "python -m pip install bitsandbytes"
        case "upgrade":  # torch stays as it is
            return "python -m pip install --upgrade --no-deps bitsandbytes"
        case "unset":
            name = facts.best("override_name") or "BNB_CUDA_VERSION"
            return f"set {name}=" if "os:windows" in facts.derived else f"unset {name}"
        case "create":
            return "bnbenv create qlora"
        case "resolve":
            return " ".join(("bnbenv resolve qlora", *_machine(facts)))
        case "memory":
            return " ".join(("bnbenv memory", shlex.quote(model), *_options(code, facts)))
        case "quantize":
            source = shlex.quote(model) if model.startswith(("/", "./", "../")) else "DIRECTORY"
            return f"bnbenv quantize {source} OUT --type {'int8' if 'eight_bit' in facts.stated else 'nf4'}"
        case "detect" | "doctor" | "verify":
            return f"bnbenv {typed}"
        case "rollback" | "uninstall":
            return None  # they name an environment of bnbenv's, of which a text says nothing


def _options(code: str, facts: Facts) -> Iterator[str]:
    trains = code == "oom-training" or facts.stated.keys() & {*_TRAINING, "fine_tuning"}
    if "eight_bit" in facts.stated:
        yield "--profile int8"
    else:
        yield f"--profile {'qlora' if trains else 'inference'}"
    for name, option in _TRAINING.items():
        if (figure := facts.best(name)) and int(figure):
            yield f"{option} {int(figure)}"
    gpu = next((gpu for gpu in facts.gpus if gpu.compute_capability), None)
    if gpu:
        yield _named(gpu)
    memory = _gib(facts)
    if memory:
        yield f"--memory {memory}"
    if code == "windows-memory-spill":
        yield "--os windows"


def _machine(facts: Facts) -> Iterator[str]:
    """The options that describe the machine of the text; none where it names no GPU."""
    nvidia = [gpu for gpu in facts.gpus if gpu.compute_capability]
    amd = [gpu for gpu in facts.gpus if gpu.gfx]
    named = nvidia or amd  # one environment serves one vendor
    if not named:
        return
    yield from map(_named, named)
    if nvidia and (driver := facts.best("driver")):
        yield f"--driver {driver}"
    systems = ("windows", "linux")
    system = (
        "wsl" if "wsl" in facts.derived else next((it for it in systems if f"os:{it}" in facts.derived), None)
    )
    if system:
        yield f"--os {system}"
    if "arch:aarch64" in facts.derived:
        yield "--arch aarch64"


def _named(gpu: Gpu) -> str:
    numbered = gpu.name.startswith("compute capability")
    return f"--gpu {shlex.quote(str(gpu.compute_capability) if numbered else gpu.name)}"


def _gib(facts: Facts) -> str | None:
    """Memory of a GPU in GiB, as an error of the allocator or a table of the driver states it."""
    if stated := facts.best("gpu_memory"):
        return stated
    if (table := facts.best("gpu_memory_mib")) and int(table):
        return f"{int(table) / 1024:.1f}"
    return None
