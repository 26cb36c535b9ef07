from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.program import program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name == "nt", reason="paths and quoting of POSIX")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "clone" / ".venv" / "bin" / "bnbenv"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_on_the_path_the_name_is_enough(script: Path, tmp_path: Path) -> None:
    assert program(str(script), {"PATH": str(script.parent)}, tmp_path) == "bnbenv"


def test_another_one_on_the_path_is_not_this_one(script: Path, tmp_path: Path) -> None:
    other = tmp_path / "bin" / "bnbenv"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n", encoding="utf-8")
    other.chmod(0o755)
    clone = tmp_path / "clone"
    assert program(str(script), {"PATH": str(other.parent)}, clone) == ".venv/bin/bnbenv"
    assert program(str(script), {"PATH": "/nowhere"}, tmp_path / "bin") == str(script)


def test_uv_run_is_named(script: Path, tmp_path: Path) -> None:
    environ = {"PATH": str(script.parent), "UV_RUN_RECURSION_DEPTH": "1"}
    assert program(str(script), environ, tmp_path) == "uv run bnbenv"


def test_a_module_is_named(tmp_path: Path) -> None:
    assert program("/x/bnbenv/__main__.py", {"PATH": "/nowhere"}, tmp_path) == f"{sys.executable} -m bnbenv"


def test_a_launcher_of_windows_tells_its_name_without_the_suffix(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: f"{script}.EXE")
    assert program(str(script), {}, tmp_path) == "bnbenv"
    monkeypatch.setattr("shutil.which", lambda *_, **__: "/elsewhere/bnbenv.EXE")
    assert program(str(script), {}, tmp_path) != "bnbenv"
