from __future__ import annotations

import subprocess
import sys
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

import pypi_simple
import pytest

from bnbenv.install import uv_files

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
