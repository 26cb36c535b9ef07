"""A uv with a cache of its own, and an index server, for tests that never leave this machine."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from bnbenv.install.uv import find_uv
from support.index_server import IndexServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bnbenv.install.uv import Uv


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The variables of a user with an empty home and an empty cache of uv."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TMPDIR", "TEMP") if name in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "UV_CACHE_DIR": str(tmp_path / "uv-cache"),
        "NO_PROXY": "127.0.0.1,localhost",
    }


@pytest.fixture
def server() -> Iterator[IndexServer]:
    with IndexServer() as running:
        yield running


@pytest.fixture
def uv(environ: dict[str, str]) -> Uv:
    return find_uv(environ)


@pytest.fixture(scope="session")
def minor() -> str:
    """The minor version of the Python that runs the tests."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"
