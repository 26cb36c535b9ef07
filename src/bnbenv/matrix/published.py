"""Torch builds that only PyTorch's indexes carry: one row a release out of the hand-made runs of releases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.matrix.rows import TorchBuild
from bnbenv.units import CudaVersion

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bnbenv.matrix.rows import PublishedBuild


def published_rows(runs: Iterable[PublishedBuild]) -> list[TorchBuild]:
    """A row for each release of each run."""
    return [
        TorchBuild(
            version=version,
            build=run.build,
            index=f"pytorch-{run.build}",
            local=run.build,
            os=run.os,
            arch=run.arch,
            pythons=run.pythons,
            cuda=CudaVersion.parse(run.build) if run.build.startswith("cu") else None,
            rocm=run.build.removeprefix("rocm") if run.build.startswith("rocm") else None,
            cubins=run.cubins,
            gfx=run.gfx,
            oneapi=run.oneapi,
            glibc=run.glibc,
            triton=run.triton,
            provenance=run.provenance,
        )
        for run in runs
        for version in run.releases
    ]
