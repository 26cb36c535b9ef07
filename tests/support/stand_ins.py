"""Metadata-only stand-ins for what PyTorch's own indexes and PyPI carry, made from the matrix.

They have the names, versions and tags of real wheels and nothing in them: good for locking, never installed
as if they were the real thing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.wheels import write_wheel

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import TorchBuild

PURE = {
    "transformers": ("5.23.0", "5.20.2"),
    "peft": ("0.21.2",),
    "accelerate": ("1.15.0",),
    "trl": ("1.16.0", "1.14.2"),
    "datasets": ("5.0.0", "4.8.0"),
    "safetensors": ("0.8.0",),
    "setuptools": ("84.2.1",),
    "pip": ("26.3",),
}
_PLATFORMS = {
    ("linux", "x86_64"): "manylinux_2_28_x86_64",
    ("linux", "aarch64"): "manylinux_2_28_aarch64",
    ("windows", "x86_64"): "win_amd64",
    ("macos", "aarch64"): "macosx_14_0_arm64",
}


def write_stand_ins(
    directory: Path, matrix: Matrix, *, pythons: Iterable[str], torch: Iterable[str]
) -> dict[str, Path]:
    """Index name → directory with its stand-ins, ``pypi`` included.

    Args:
        directory: made if missing.
        matrix: whose builds and wheels are imitated.
        pythons: minor versions for which torch has wheels.
        torch: the releases of torch.
    """
    found: dict[str, Path] = {}
    wanted, releases = frozenset(pythons), frozenset(torch)
    for build in matrix.torch:
        platform = _PLATFORMS.get((build.os, build.arch))
        if build.version not in releases or platform is None:
            continue
        place = found.setdefault(build.index, directory / build.index)
        for python in wanted & frozenset(build.pythons):
            _write_torch(place, build, python, platform)
    pypi = found.setdefault("pypi", directory / "pypi")
    for name, versions in PURE.items():
        for version in versions:
            write_wheel(pypi, name, version)
    for wheel in matrix.bitsandbytes:
        if wheel.version in ("0.50.2", "0.49.2"):
            write_wheel(pypi, "bitsandbytes", wheel.version, tag=wheel.wheel.split("-", 2)[2][:-4])
    return found


def _write_torch(place: Path, build: TorchBuild, python: str, platform: str) -> None:
    tag = f"cp{python.replace('.', '')}"
    version = f"{build.version}+{build.local}" if build.local else build.version
    write_wheel(place, "torch", version, tag=f"{tag}-{tag}-{platform}")
