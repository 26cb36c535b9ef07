from __future__ import annotations

import subprocess
import sys
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

import pypi_simple
import pytest

from bnbenv.install import uv_files
from bnbenv.install.sources import Sources

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT = pypi_simple.PYPI_SIMPLE_ENDPOINT.rstrip("/")


def test_the_default_index_is_named_without_loading_the_client_library() -> None:
    code = (
        "import sys\n"
        "from bnbenv.install.uv_files import default_address\n"
        "print(default_address(), 'pypi_simple' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == [DEFAULT, "False"]


@pytest.mark.parametrize("source", ["from .constants import *\n", None], ids=["moved", "unreadable"])
def test_where_its_source_does_not_tell_the_library_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | None
) -> None:
    origin = tmp_path / "__init__.py"
    if source is not None:
        origin.write_text(source, encoding="utf-8")
    spec = ModuleSpec("pypi_simple", None, origin=str(origin))
    monkeypatch.setattr(uv_files, "find_spec", lambda _name: spec)
    assert uv_files.default_address.__wrapped__() == DEFAULT


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"REQUESTS_CA_BUNDLE": "/site.pem"}, "/site.pem"),  # which pip reads, and uv does not
        ({"CURL_CA_BUNDLE": "/curl.pem", "REQUESTS_CA_BUNDLE": "/site.pem"}, "/site.pem"),
        ({"SSL_CERT_FILE": "/own.pem", "REQUESTS_CA_BUNDLE": "/site.pem"}, None),  # uv reads it itself
        ({}, None),
    ],
)
def test_uv_trusts_the_certificates_that_pip_trusts(
    environ: dict[str, str], expected: str | None, tmp_path: Path
) -> None:
    for name in ("site.pem", "curl.pem", "own.pem"):
        (tmp_path / name).touch()
    there = {variable: f"{tmp_path}{name}" for variable, name in environ.items()}
    found = uv_files.uv_variables(Sources(indexes=()), there).get("SSL_CERT_FILE")
    assert found == (expected and f"{tmp_path}{expected}")


def test_a_directory_of_certificates_is_handed_on_as_one(tmp_path: Path) -> None:
    sources = Sources(indexes=())
    found = uv_files.uv_variables(sources, {"REQUESTS_CA_BUNDLE": str(tmp_path)})
    assert found == {"SSL_CERT_DIR": str(tmp_path)}
    assert uv_files.uv_variables(sources, {"REQUESTS_CA_BUNDLE": str(tmp_path / "none")}) == {}
    kept = {"SSL_CERT_DIR": "/own", "REQUESTS_CA_BUNDLE": str(tmp_path)}
    assert uv_files.uv_variables(sources, kept) == {}
