"""Rules on the purpose: what a profile needs of the GPU, and what upstream is known to do wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.judge import coverage, lookup
from bnbenv.judge.ranges import within
from bnbenv.judge.rules.rule import finding, rule
from bnbenv.units import ComputeCapability

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnbenv.judge.stack import Finding, Stack
    from bnbenv.machine.target import Gpu, Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import KnownFault

_NATIVE_BF16 = ComputeCapability(8, 0)


@rule(source="compat/profiles.toml; bitsandbytes' documentation and diagnostics")
def gpus_suit_profile(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """Each visible GPU is as new as the profile's product needs."""
    if target.accelerator != "cuda":
        return
    gpus = coverage.seen_gpus(stack, target)
    if not stack.profile:
        yield from _profiles_out_of_reach(gpus, matrix)
        return
    row = lookup.profile(matrix, stack.profile)
    if row.min_capability is None:
        return
    for position, gpu in enumerate(gpus):
        if gpu.compute_capability is not None and gpu.compute_capability < row.min_capability:
            label = coverage.gpu_label(gpu, position)
            yield finding(
                "gpu-cc-too-low-int8",
                "error",
                label,
                f"{row.name} needs compute capability {row.min_capability}, and {label} is older",
                need=f"drop {label}" if len(gpus) > 1 else f"a GPU of {row.min_capability} or newer",
                remedy="Quantise to 4 bits instead.",
                source=row.provenance.source,
            )


def _profiles_out_of_reach(gpus: tuple[Gpu, ...], matrix: Matrix) -> Iterator[Finding]:
    """Where no purpose is named: the purposes that a GPU is too old for, as a notice."""
    for position, gpu in enumerate(gpus):
        for row in matrix.profiles:
            floor = row.min_capability
            if floor is not None and gpu.compute_capability is not None and gpu.compute_capability < floor:
                label = coverage.gpu_label(gpu, position)
                yield finding(
                    "gpu-cc-too-low-int8",
                    "info",
                    label,
                    f"{label} is too old for the profile {row.name}, which needs {floor}",
                    source=row.provenance.source,
                )


@rule(source="compat/profiles.toml")
def profile_runs_without_gpu(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """The profile is of use on the machine's kind of accelerator."""
    if target.accelerator != "cpu" or not stack.profile:
        return
    row = lookup.profile(matrix, stack.profile)
    if row.devices == "gpu":
        yield finding(
            "no-gpu-visible",
            "error",
            "machine",
            f"the profile {row.name} needs a GPU, and the machine has none",
            need="a GPU",
            source=row.provenance.source,
        )


@rule("bitsandbytes", source="bitsandbytes' changelog of 0.39.0; nn/modules.py at the tags")
def four_bits_are_there(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """Before 0.39.0 bitsandbytes has no 4-bit layers, and only the 8-bit profile does without."""
    del target
    wheel = stack.bitsandbytes
    if wheel is None or not within(wheel.version, "<0.39.0"):
        return
    meant = bool(stack.profile) and lookup.profile(matrix, stack.profile).name != "int8"
    yield finding(
        "bnb-too-old",
        "error" if meant else "info",
        "bitsandbytes",
        f"bitsandbytes {wheel.version} has no 4-bit layers",
        "`Linear4bit` came with 0.39.0",
        need="bitsandbytes >= 0.39.0",
    )


_HOPPER = ComputeCapability(9, 0)


@rule("bitsandbytes", source="bitsandbytes#538 and changelog of 0.45.0; autograd/_functions.py at the tags")
def int8_products_work(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """LLM.int8 before 0.45 fails on Hopper, and refuses the GTX 16 cards, which have no tensor cores."""
    wheel = stack.bitsandbytes
    if wheel is None or target.accelerator != "cuda" or not within(wheel.version, "<0.46"):
        return
    gpus = coverage.seen_gpus(stack, target)
    meant = bool(stack.profile) and lookup.profile(matrix, stack.profile).name == "int8"
    for position, gpu in enumerate(gpus):
        label = coverage.gpu_label(gpu, position)
        hopper = gpu.compute_capability == _HOPPER and within(wheel.version, "<0.45")
        if hopper or "GTX 16" in gpu.name:
            why = "fails on Hopper" if hopper else "is not used on cards without tensor cores"
            yield finding(
                "bnb-too-old",
                "error" if meant and hopper else "warning" if meant else "info",
                label,
                f"LLM.int8 of bitsandbytes {wheel.version} {why}",
                need=f"bitsandbytes >= {'0.45.0' if hopper else '0.46.0'}",
            )


@rule("bitsandbytes", source="compat/broken.toml, each row with its own")
def release_does_right_here(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """The release does nothing wrong on this kind of accelerator."""
    wheel = stack.bitsandbytes
    if wheel is None:
        return
    purpose = lookup.profile(matrix, stack.profile).name if stack.profile else ""
    for row in matrix.caveats:
        concerned = row.accelerator in ("", target.accelerator) and row.profile in ("", purpose)
        if concerned and within(wheel.version, row.versions):
            yield finding(
                "broken-release",
                row.severity,
                "bitsandbytes",
                f"bitsandbytes {wheel.version}: {row.reason}",
                need=f"bitsandbytes >= {row.mended}",
                remedy=f"Take bitsandbytes {row.mended} or newer.",
                source=row.provenance.source,
            )


@rule(source="CUDA C++ Programming Guide, arithmetic of bfloat16; trl turns bf16 on by default")
def bf16_is_native(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """Below compute capability 8.0 bfloat16 is emulated: right, and slow."""
    del matrix
    if target.accelerator != "cuda":
        return
    for position, gpu in enumerate(coverage.seen_gpus(stack, target)):
        if gpu.compute_capability is not None and gpu.compute_capability < _NATIVE_BF16:
            label = coverage.gpu_label(gpu, position)
            yield finding(
                "slow-emulation",
                "info",
                label,
                f"{label} only emulates bfloat16: compute in float16",
                remedy="Load models with `dtype=torch.float16`, 4-bit ones with "
                "`bnb_4bit_compute_dtype=torch.float16`, and train with `fp16=True`.",
            )


@rule("torch", "bitsandbytes", source="compat/known_faults.toml, each row with its own")
def known_faults_are_told(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """Faults of upstream that the stack has on such a machine; a notice, as the self-test judges them."""
    releases = {"torch": stack.torch.version}
    if stack.bitsandbytes is not None:
        releases["bitsandbytes"] = stack.bitsandbytes.version
    for row in matrix.known_faults:
        release = releases.get(row.package)
        if release is not None and within(release, row.versions) and _shows_on(row, target):
            yield finding(
                "known-fault",
                "info",
                row.package,
                f"{row.package} {release}: {row.summary}",
                remedy=row.workaround,
                source=row.provenance.source,
            )


def _shows_on(row: KnownFault, target: Target) -> bool:
    if row.device and row.device != target.accelerator:
        return False
    return not row.cpu_flags or (target.cpu_flags is not None and set(row.cpu_flags) <= set(target.cpu_flags))
