"""The commands that a remedy names, with the figures that the text states filled in."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnbenv.doctor.facts import Facts
    from bnbenv.machine.target import Gpu

_MEMORY = ("oom-4bit-load", "oom-training", "windows-memory-spill")
_UPGRADED = frozenset({
    "bnb-too-old", "broken-release", "glibc-too-old", "legacy-cuda-setup", "macos-unsupported",
    "missing-cuda-binary", "missing-python-dep", "rocm-unsupported-bnb", "triton-ops-removed",
    "windows-no-binary",
})  # fmt: skip
"""Causes that a newer bitsandbytes ends."""
_CHOSEN_ANEW = frozenset({
    "cuda-runtime-not-found", "cuda-too-old-for-bnb", "driver-drops-gpu", "driver-too-old",
    "gpu-below-minimum", "hf-stack-version-mismatch", "installer-replaced-torch", "mixed-gpu-arch",
    "no-kernel-image", "numpy-abi", "rocm-arch-unsupported", "rocm-fallback-abi", "rocm-hip-version-skew",
    "torch-arch-unsupported", "torch-cpu-build",
})  # fmt: skip
"""Causes that another choice of releases ends."""
_ALWAYS = {
    "bnb-not-installed": ("python -m pip install bitsandbytes", "bnbenv doctor"),
    "cwd-shadowing": ("bnbenv doctor",),
    "driver-broken": ("bnbenv detect",),
    "externally-managed": ("bnbenv create qlora",),
    "file-damaged": ("bnbenv doctor",),
    "no-gpu-visible": ("bnbenv detect",),
    "source-build-no-native-lib": ("bnbenv doctor",),
    "torch-cuda-unavailable": ("bnbenv detect",),
    "user-check-invalid": ("bnbenv verify",),
    "wrong-env-install": ("bnbenv doctor",),
}
_TRAINING = {"sequence": "--seq", "batch": "--batch", "rank": "--lora-rank"}


def commands_for(code: str, facts: Facts) -> tuple[str, ...]:
    """What to type against a cause.

    ``MODEL`` stands where the text names none, ``DIRECTORY`` where it names no directory with weights.
    """
    if code in _UPGRADED:  # torch stays as it is
        return ("python -m pip install --upgrade --no-deps bitsandbytes",)
    if code == "bnb-cuda-override-wrong":
        name = facts.best("override_name") or "BNB_CUDA_VERSION"
        return (f"set {name}=" if "os:windows" in facts.derived else f"unset {name}",)
    if code in _CHOSEN_ANEW:
        return (" ".join(("bnbenv resolve qlora", *_machine(facts))),)
    if code not in _MEMORY:
        return _ALWAYS.get(code, ())
    model = facts.best("model") or "MODEL"
    commands = [" ".join(("bnbenv memory", shlex.quote(model), *_options(code, facts)))]
    if code == "oom-4bit-load":
        source = shlex.quote(model) if model.startswith(("/", "./", "../")) else "DIRECTORY"
        kind = "int8" if "eight_bit" in facts.stated else "nf4"
        commands.append(f"bnbenv quantize {source} OUT --type {kind}")
    return tuple(commands)


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
    for system in ("windows", "linux"):
        if f"os:{system}" in facts.derived:
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
