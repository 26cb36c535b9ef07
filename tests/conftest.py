"""No test sees the user's configuration, and none touches the user's environments."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bnbenv.env.generation import Generation

# No test asserts a wall-clock time: a busy machine is slow, not wrong.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# What changes the behaviour of pip, uv, bitsandbytes or bnbenv. uv's cache stays: it is only a cache.
_PREFIXES = ("PIP_", "UV_", "BNB_", "BNBENV_", "CUDA_VISIBLE", "HIP_VISIBLE", "ROCR_VISIBLE", "SLURM_")
_NAMES = (
    "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "PYTHONPATH", "NO_COLOR", "FORCE_COLOR",
    "LD_LIBRARY_PATH",
)  # fmt: skip
_KEPT = frozenset({"UV_CACHE_DIR", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS"})

# The machine that the environments of `make_environment` were made for.
_MACHINE: dict[str, Any] = {
    "schema": 1,
    "name": "lab-a",
    "os": "linux",
    "arch": "x86_64",
    "libc": {"family": "glibc", "version": "2.35"},
    "wsl": False,
    "tegra": False,
    "accelerator": "cpu",
    "driver": None,
    "gpus": [],
    "pythons": ["3.12"],
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scrubbed environment with a home of bnbenv's own; returns that home."""
    for name in list(os.environ):
        if (name.startswith(_PREFIXES) or name in _NAMES) and name not in _KEPT:
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("bnbenv-home")
    monkeypatch.setenv("BNBENV_HOME", str(home))
    monkeypatch.setenv("JUPYTER_DATA_DIR", f"{home}-jupyter")
    return home


@pytest.fixture
def network_environment() -> dict[str, str]:
    """The variables of the machine by which pip and uv reach their indexes, for `network` tests alone."""
    return {name: value for name, value in _ORIGINAL.items() if name.startswith(("PIP_", "UV_"))}


_ORIGINAL = dict(os.environ)


@pytest.fixture
def make_environment(clean_environment: Path) -> Callable[..., Generation]:
    """Make an environment of bnbenv's own without installing anything: generation, state, switch."""
    from bnbenv.env import generation as generations
    from bnbenv.env import state, switch
    from bnbenv.env.layout import Layout

    def make(
        name: str = "qlora", *, path: Path | None = None, digest: str = "ab" * 6, **changes: Any
    ) -> Generation:
        layout = Layout(home=clean_environment)
        place = layout.named(name) if path is None else layout.at(path)
        made = generations.begin(place, digest)
        made.python.parent.mkdir(parents=True, exist_ok=True)
        if not made.python.exists():
            made.python.symlink_to(sys.executable)
        (made.directory / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.12.4\n", encoding="utf-8")
        facts: dict[str, Any] = {
            "name": place.name,
            "profile": "qlora",
            "request": {"profile": "qlora"},
            "target": _MACHINE,
            "matrix": "2026.11.23",
            "lock": digest * 5,
            "created": "2026-11-23T12:00:00+00:00",
            "python": "3.12.4",
            "bnbenv": "0.1.0",
            "torch": {"version": "2.14.1", "build": "cpu", "index": "pytorch-cpu"},
            "bitsandbytes": {
                "version": "0.50.2",
                "wheel": "bitsandbytes-0.50.2-py3-none-manylinux_2_24_x86_64.whl",
                "sha256": "ab" * 32,
                "library": "libbitsandbytes_cpu.so",
            },
            "verdict": "passed",
        }
        state.write(made.state_file, state.State(**{**facts, **changes}))
        made.lock_file.write_text('lock-version = "1.0"\n', encoding="utf-8")
        layout.remember(place)
        generations.mark_ready(place, made)
        switch.switch(place, made)
        return made

    return make
