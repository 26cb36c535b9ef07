"""No test sees the user's configuration, and none touches the user's environments."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# What changes the behaviour of pip, uv, bitsandbytes or bnbenv. uv's cache stays: it is only a cache.
_PREFIXES = ("PIP_", "UV_", "BNB_", "BNBENV_", "CUDA_VISIBLE", "HIP_VISIBLE", "ROCR_VISIBLE", "SLURM_")
_NAMES = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "NO_COLOR", "FORCE_COLOR", "LD_LIBRARY_PATH")
_KEPT = frozenset({"UV_CACHE_DIR", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS"})


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scrubbed environment with a home of bnbenv's own; returns that home."""
    for name in list(os.environ):
        if (name.startswith(_PREFIXES) or name in _NAMES) and name not in _KEPT:
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("bnbenv-home")
    monkeypatch.setenv("BNBENV_HOME", str(home))
    return home


@pytest.fixture
def network_environment() -> dict[str, str]:
    """The variables of the machine by which pip and uv reach their indexes, for `network` tests alone."""
    return {name: value for name, value in _ORIGINAL.items() if name.startswith(("PIP_", "UV_"))}


_ORIGINAL = dict(os.environ)
