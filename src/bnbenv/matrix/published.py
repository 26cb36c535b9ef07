"""Torch builds that PyPI does not carry: one row a release out of the hand-made runs of releases."""

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
            index=run.index or f"pytorch-{run.build}",
            local=run.local if run.index else run.build,
            os=run.os,
            arch=run.arch,
            pythons=run.pythons,
            cuda=cuda_of(run.build),
            rocm=run.build.removeprefix("rocm") if run.build.startswith("rocm") else None,
            cubins=run.cubins,
            gfx=run.gfx,
            oneapi=run.oneapi,
            glibc=run.glibc,
            triton=run.triton,
            l4t=run.l4t,
            provenance=run.provenance,
        )
        for run in runs
        for version in run.releases
    ]


def cuda_of(build: str) -> CudaVersion | None:
    """The CUDA version in a build's name: of ``cu126``, and of ``jp6.cu126``."""
    toolkit = build.rpartition(".")[2]
    return CudaVersion.parse(toolkit) if toolkit.startswith("cu") else None
