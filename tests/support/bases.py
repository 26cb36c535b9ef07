"""Environments of somebody else's to build on or to add to: a real venv, a stand-in for its torch."""

from __future__ import annotations

import venv
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CPU_TORCH = "__version__ = '2.13.0+cpu'\ncuda = None\nhip = None\n"


def put_torch(site: Path) -> None:
    site.joinpath("torch").mkdir(parents=True)
    site.joinpath("torch", "version.py").write_text(CPU_TORCH)
    info = site / "torch-2.13.0+cpu.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0+cpu\n")
    info.joinpath("RECORD").write_text("torch/version.py,,\n")


def a_venv(directory: Path, *, system: bool = False) -> Path:
    venv.create(directory, with_pip=False, symlinks=True, system_site_packages=system)
    return directory


def site_of(directory: Path) -> Path:
    [site] = directory.glob("lib/python*/site-packages")
    return site
