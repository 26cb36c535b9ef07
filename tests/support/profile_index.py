"""An index on loopback with a stand-in for every package of the profile `qlora`, the only one in reach."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from support.index_server import IndexServer
from support.wheels import write_wheel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}"
PURE = {
    "transformers": "5.20.2" if MINOR == "3.10" else "5.23.0",
    "peft": "0.21.2",
    "accelerate": "1.15.0",
    "trl": "1.14.2" if MINOR == "3.10" else "1.16.0",
    "datasets": "5.0.0",
    "safetensors": "0.8.0",
    "setuptools": "84.2.1",
    "pip": "26.3",
}


def write_bitsandbytes(directory: Path, version: str) -> None:
    """A stand-in that an installer takes on x86-64 Linux."""
    write_wheel(directory, "bitsandbytes", version, tag="py3-none-manylinux_2_24_x86_64")


def write_torch(directory: Path, version: str) -> None:
    """A stand-in for the Python that runs the tests, on x86-64 Linux."""
    write_wheel(directory, "torch", version, tag=f"{TAG}-{TAG}-manylinux_2_28_x86_64")


@contextmanager
def profile_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexServer]:
    """Write the stand-ins into `tmp_path` / ``wheels`` and serve them as pip's only index, ``main``."""
    wheels = tmp_path / "wheels"
    for name, version in PURE.items():
        write_wheel(wheels, name, version)
    write_bitsandbytes(wheels, "0.50.2")
    write_torch(wheels, "2.13.0+cpu")
    with IndexServer() as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.add("main", wheels))
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)  # pip's word for "no configuration files"
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server
