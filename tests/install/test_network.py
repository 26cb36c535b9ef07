from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bnbenv.install.availability import probe
from bnbenv.install.build import create_venv, sync, venv_python
from bnbenv.install.compile import CompileRequest, compile_lock
from bnbenv.install.sources import read_sources
from bnbenv.install.uv import find_uv

if TYPE_CHECKING:
    from bnbenv.install.sources import Sources

pytestmark = pytest.mark.network


@pytest.fixture
def configured(environ: dict[str, str], network_environment: dict[str, str]) -> dict[str, str]:
    """The user's own way to the network, with a home and a cache of the test's."""
    import os

    ways = {
        name: value
        for name, value in os.environ.items()
        if name.upper().endswith("_PROXY") or name.startswith(("SSL_CERT", "REQUESTS_CA"))
    }
    cache = environ["UV_CACHE_DIR"]
    return {**ways, **environ, **network_environment, "HOME": os.environ["HOME"], "UV_CACHE_DIR": cache}


@pytest.fixture
def sources(configured: dict[str, str], tmp_path: Path) -> Sources:
    return read_sources(environ=configured, cwd=tmp_path, home=Path(configured["HOME"]))


def test_the_default_index_answers_with_torch(configured: dict[str, str], sources: Sources) -> None:
    from bnbenv.install.availability import collect

    answers = {answer.index: answer for answer in collect(sources, environ=configured, timeout=30)}
    assert answers["pypi"].problem is None
    assert any(name.startswith("torch-2.") for name, _ in answers["pypi"].files)
    assert probe(sources, environ=configured, timeout=30).problems == ()


def test_bitsandbytes_is_locked_with_its_hash_and_a_small_package_is_installed(
    configured: dict[str, str], sources: Sources, tmp_path: Path, minor: str
) -> None:
    uv = find_uv(configured)
    compiled = compile_lock(
        uv,
        CompileRequest(
            python=minor, requirements=("bitsandbytes>=0.50", "idna"), provided=frozenset({"torch", "numpy"})
        ),
        sources,
        tmp_path / "pylock.full.toml",
        environ=configured,
    )
    assert {"bitsandbytes", "idna"} <= set(compiled.packages)
    compile_lock(
        uv,
        CompileRequest(python=minor, requirements=("idna",)),
        sources,
        tmp_path / "pylock.toml",
        environ=configured,
    )
    create_venv(uv, tmp_path / "venv", Path(sys.executable), environ=configured)
    sync(uv, tmp_path / "pylock.toml", tmp_path / "venv", sources, "hardlink", environ=configured)
    subprocess.run([venv_python(tmp_path / "venv"), "-I", "-c", "import idna"], check=True)
