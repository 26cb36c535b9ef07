"""Rules on the driver: the floor of torch's CUDA major version, and the branches that know a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.judge import coverage, lookup
from bnbenv.judge.rules.rule import finding, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnbenv.judge.stack import Finding, Stack
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix


@rule("torch", source="NVIDIA CUDA release notes, minor version compatibility")
def driver_runs_cuda(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """The driver is not older than the floor of torch's CUDA major version."""
    cuda = stack.torch.cuda
    if target.accelerator != "cuda" or cuda is None:
        return
    row = lookup.driver_floor(matrix, cuda.major)
    if row is None:
        yield finding(
            "driver-too-old",
            "warning",
            "driver",
            f"the matrix does not know the driver that CUDA {cuda} needs",
            undecided=True,
        )
        return
    floor = lookup.oldest_driver(row, target)
    if target.driver is None:
        yield finding(
            "driver-too-old",
            "warning",
            "driver",
            f"the driver is not known, and torch's CUDA {cuda} needs {floor} or newer",
            undecided=True,
            need=f"driver >= {floor.branch}",
        )
    elif coverage.on_tegra(target) and target.driver.branch >= floor.branch:
        return  # the drivers of JetPack count by their branch alone, such as 580.00
    elif not target.driver.at_least(floor):
        yield finding(
            "driver-too-old",
            "error",
            "driver",
            f"driver {target.driver} is too old for CUDA {cuda}",
            f"CUDA {cuda.major}.x needs {floor} or newer"
            + (" (on WSL2 the Windows driver counts)" if target.wsl else ""),
            need=f"driver >= {floor.branch}",
            remedy="Upgrade the driver, or choose a torch build of an older CUDA major version.",
            source=row.provenance.source,
        )


@rule(source="NVIDIA data centre driver documentation; first tags of NVIDIA/open-gpu-kernel-modules")
def driver_knows_gpus(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """The driver's branch still knows each GPU, and already does."""
    if target.accelerator != "cuda" or target.driver is None:
        return
    branch = lookup.release_branch(matrix, target.driver.branch)
    for position, gpu in enumerate(coverage.seen_gpus(stack, target)):
        if gpu.compute_capability is None:
            continue
        row = lookup.architecture(matrix, gpu.compute_capability)
        if row is None:
            continue
        label = coverage.gpu_label(gpu, position)
        if row.last is not None and branch > row.last:
            yield finding(
                "driver-drops-gpu",
                "error",
                label,
                f"driver {target.driver} no longer knows {row.name}",
                f"{label} is {row.name}; branch {row.last} is the last that knows it",
                need=f"driver {row.last}",
                remedy=f"Install a driver of branch {row.last}.",
                source=row.provenance.source,
            )
        elif row.first is not None and branch < row.first:
            yield finding(
                "driver-drops-gpu",
                "error",
                label,
                f"driver {target.driver} does not know {row.name} yet",
                f"{label} is {row.name}; branch {row.first} is the first that knows it",
                need=f"driver >= {row.first}",
                remedy=f"Install a driver of branch {row.first} or newer.",
                source=row.provenance.source,
            )
