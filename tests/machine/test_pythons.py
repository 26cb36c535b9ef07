from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from bnbenv.machine.pythons import find_pythons, minor_versions, scripts_on_path

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="builds symbolic links and mode bits")


def program(path: Path, content: bytes = b"\x7fELF") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def link(path: Path, target: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return path


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def found(root: Path, **environ: str) -> dict[str, tuple[str, str]]:
    """Path below the root → version and source."""
    environ = {"PATH": "", "HOME": str(root / "home"), **environ}
    pythons = find_pythons(environ, root)
    return {os.path.relpath(python.path, root): (python.version, python.source) for python in pythons}


def test_the_system_s_interpreter_is_listed_once_under_its_real_name(tmp_path: Path) -> None:
    program(tmp_path / "usr/bin/python3.11")
    link(tmp_path / "usr/bin/python3", "python3.11")
    link(tmp_path / "usr/bin/python", "python3")
    program(tmp_path / "usr/bin/python3.11-config")
    program(tmp_path / "usr/bin/python2.7")
    text(tmp_path / "usr/include/python3.11/patchlevel.h", '#define PY_VERSION \t "3.11.2"\n')
    assert found(tmp_path) == {"usr/bin/python3.11": ("3.11.2", "system")}


def test_a_header_of_another_minor_version_tells_nothing(tmp_path: Path) -> None:
    program(tmp_path / "usr/bin/python3.9")
    text(tmp_path / "usr/include/python3.9/patchlevel.h", '#define PY_VERSION "3.11.2"\n')
    assert found(tmp_path) == {"usr/bin/python3.9": ("3.9", "system")}


def test_pyenv_with_its_shims_first_on_the_path(tmp_path: Path) -> None:
    home = tmp_path / "home/.pyenv"
    for version in ("3.10.13", "3.13.0", "3.13.0t", "pypy3.10-7.3.15", "3.14-dev", "2.7.18"):
        minor = ".".join(version.split(".")[:2])
        program(home / f"versions/{version}/bin/python{minor}")
        link(home / f"versions/{version}/bin/python3", f"python{minor}")
    for name in ("python", "python3", "python3.10", "python3.12"):
        program(home / f"shims/{name}", b"#!/usr/bin/env bash\nexec pyenv exec\n")
    assert found(tmp_path, PATH=str(home / "shims")) == {
        "home/.pyenv/versions/3.10.13/bin/python3.10": ("3.10.13", "pyenv"),
        "home/.pyenv/versions/3.13.0/bin/python3.13": ("3.13.0", "pyenv"),
    }


@pytest.mark.parametrize(("kept", "source"), [("versions", "pyenv"), ("installs/python", "shims")])
def test_behind_shims_are_the_interpreters_of_their_manager(kept: str, source: str, tmp_path: Path) -> None:
    root = tmp_path / "opt/manager"
    program(root / kept / "3.12.4/bin/python3.12")
    link(root / kept / "3.12.4/bin/python3", "python3.12")
    link(root / kept / "3.12", "3.12.4")
    program(root / "shims/python3.12", b"#!/bin/sh\n")
    assert found(tmp_path, PATH=f"{root}/shims/") == {
        f"opt/manager/{kept}/3.12.4/bin/python3.12": ("3.12", source)
    }
    assert scripts_on_path({"PATH": f"{root}/shims"}, "3.12") == ()


def test_scripts_that_may_start_a_python_are_named(tmp_path: Path) -> None:
    for name, content in (
        ("a/python3.12", b"#!/bin/sh\n"),
        ("a/python3.11", b"#!/bin/sh\n"),
        ("b/python3", b"#!/bin/sh\n"),
        ("b/python3.12", b"\x7fELF"),
    ):
        program(tmp_path / name, content)
    (tmp_path / "b/python").touch()
    paths = [str(tmp_path / name) for name in ("a", "b", "a")]
    assert scripts_on_path({"PATH": os.pathsep.join(["", *paths])}, "3.12") == (
        f"{tmp_path}/a/python3.12",
        f"{tmp_path}/b/python3",
    )


def test_a_link_to_a_launcher_is_a_shim(tmp_path: Path) -> None:
    program(tmp_path / "tools/mise")
    link(tmp_path / "shims/python3.12", str(tmp_path / "tools/mise"))
    assert found(tmp_path, PATH=str(tmp_path / "shims")) == {}


def test_uv_s_managed_interpreters(tmp_path: Path) -> None:
    place = tmp_path / "home/.local/share/uv/python"
    for name in (
        "cpython-3.12.4-linux-x86_64-gnu",
        "cpython-3.13.1+freethreaded-linux-x86_64-gnu",
        "cpython-3.15.0a1-linux-x86_64-gnu",
        "pypy-3.10.14-linux-x86_64-gnu",
    ):
        program(place / name / "bin/python3.12")
        link(place / name / "bin/python3", "python3.12")
    link(
        tmp_path / "home/.local/bin/python3.12", str(place / "cpython-3.12.4-linux-x86_64-gnu/bin/python3.12")
    )
    assert found(tmp_path) == {
        "home/.local/share/uv/python/cpython-3.12.4-linux-x86_64-gnu/bin/python3.12": ("3.12.4", "uv")
    }
    assert found(tmp_path, UV_PYTHON_INSTALL_DIR=str(tmp_path / "elsewhere")) == {}


def test_conda_tells_the_version_by_its_records(tmp_path: Path) -> None:
    for directory, version in (("miniconda3", "3.12.4"), ("miniconda3/envs/work", "3.10.14")):
        prefix = tmp_path / "home" / directory
        minor = version.rpartition(".")[0]
        program(prefix / f"bin/python{minor}")
        link(prefix / "bin/python", f"python{minor}")
        text(prefix / f"conda-meta/python-{version}-h955ad1f_1.json", "{}")
        text(prefix / "conda-meta/python-dateutil-2.9.0-py312.json", "{}")
    assert found(tmp_path) == {
        "home/miniconda3/bin/python3.12": ("3.12.4", "conda"),
        "home/miniconda3/envs/work/bin/python3.10": ("3.10.14", "conda"),
    }
    active = found(tmp_path, CONDA_PREFIX=str(tmp_path / "home/miniconda3/envs/work"))
    assert len(active) == 2


def test_a_virtual_environment_stands_for_its_interpreter(tmp_path: Path) -> None:
    base = program(tmp_path / "opt/python/bin/python3.12")
    environment = tmp_path / "project/.venv"
    link(environment / "bin/python", str(base))
    text(environment / "pyvenv.cfg", f"home = {base.parent}\nversion_info = 3.12.7\n")
    assert found(tmp_path, VIRTUAL_ENV=str(environment), PATH=str(environment / "bin")) == {
        "opt/python/bin/python3.12": ("3.12.7", "VIRTUAL_ENV")
    }


def test_a_virtual_environment_whose_interpreter_has_been_replaced(tmp_path: Path) -> None:
    """The link's target knows better than the configuration that was written once."""
    base = program(tmp_path / "opt/python/bin/python3.13")
    environment = tmp_path / ".venv"
    link(environment / "bin/python", str(base))
    text(environment / "pyvenv.cfg", "version = 3.12.7\n")
    assert found(tmp_path, VIRTUAL_ENV=str(environment)) == {
        "opt/python/bin/python3.13": ("3.13", "VIRTUAL_ENV")
    }


def test_a_bare_name_is_known_by_the_one_library_beside_it(tmp_path: Path) -> None:
    program(tmp_path / "opt/one/bin/python3")
    text(tmp_path / "opt/one/lib/python3.12/os.py", "")
    program(tmp_path / "opt/two/bin/python3")
    for minor in ("3.11", "3.12"):
        text(tmp_path / f"opt/two/lib/python{minor}/os.py", "")
    path = os.pathsep.join(str(tmp_path / f"opt/{name}/bin") for name in ("one", "two"))
    assert found(tmp_path, PATH=path) == {"opt/one/bin/python3": ("3.12", "PATH")}


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n"], ids=["store-alias", "script"])
def test_what_is_no_program_is_left_out(tmp_path: Path, content: bytes) -> None:
    program(tmp_path / "usr/bin/python3.12", content)
    link(tmp_path / "usr/bin/python3", "nowhere")
    assert found(tmp_path) == {}


def test_windows_installers(tmp_path: Path) -> None:
    for name in ("Python310", "Python312", "Launcher"):
        program(tmp_path / f"Local/Programs/Python/{name}/python.exe", b"MZ")
    # The separator is a part of the names here; what is tested is the choice, not Windows' paths.
    local = tmp_path / "Local"
    (local / "Programs/Python").rename(f"{local}\\Programs\\Python")
    pythons = find_pythons(
        {"LOCALAPPDATA": str(local), "ProgramFiles": str(tmp_path / "none"), "PATH": ""},
        tmp_path,
        os_name="windows",
    )
    assert [(python.version, python.source) for python in pythons] == [
        ("3.10", "installer"),
        ("3.12", "installer"),
    ]
    assert minor_versions(pythons) == ("3.10", "3.12")


def test_windows_programs_on_the_path_are_known_by_the_library_beside_them(tmp_path: Path) -> None:
    for place, libraries in (
        ("scoop", ["python3.dll", "python312.dll"]),
        ("tools", ["Python310.DLL", "python310t.dll"]),
        ("two", ["python311.dll", "python312.dll"]),
        ("store", []),
    ):
        program(tmp_path / place / "python.exe", b"MZ")
        for library in libraries:
            text(tmp_path / place / library, "MZ")
    path = os.pathsep.join(str(tmp_path / place) for place in ("scoop", "tools", "two", "store"))
    pythons = find_pythons({"PATH": path, "ProgramFiles": "none"}, tmp_path, os_name="windows")
    versions = {python.path: (python.version, python.source) for python in pythons}
    assert versions == {
        str(tmp_path / "tools" / "python.exe"): ("3.10", "PATH"),
        str(tmp_path / "scoop" / "python.exe"): ("3.12", "PATH"),
    }


def test_windows_conda_in_the_profile(tmp_path: Path) -> None:
    program(tmp_path / "miniconda3/envs/ml/python.exe", b"MZ")
    text(tmp_path / "miniconda3/envs/ml/conda-meta/python-3.12.4-h5148396_1.json", "{}")
    environ = {"PATH": "", "ProgramFiles": "none", "USERPROFILE": str(tmp_path)}
    pythons = find_pythons(environ, tmp_path, os_name="windows")
    assert [(python.version, python.source) for python in pythons] == [("3.12.4", "conda")]


def test_no_process_is_needed_to_know_the_running_interpreter() -> None:
    pythons = find_pythons(os.environ)
    versions = {python.version for python in pythons if python.source == "running"}
    assert versions == {".".join(map(str, sys.version_info[:3]))}
