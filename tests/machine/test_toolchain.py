"""Where a toolkit is looked for, and what it lacks: the places and their order are torch's own."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from bnbenv.machine.toolchain import find_toolchain
from support.toolkit import put_compiler, put_toolkit

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-ins are shell scripts")
NOWHERE = Path("/nowhere")


@pytest.mark.parametrize(("name", "variables"), [("c++", {}), ("clang++", {"CXX": "clang++ -O2"})])
def test_the_compiler_is_cxx_or_the_one_that_torch_runs(
    tmp_path: Path, name: str, variables: dict[str, str]
) -> None:
    put_compiler(tmp_path / "bin", name)
    environ = {"PATH": str(tmp_path / "bin"), **variables}
    assert find_toolchain(environ, usual=NOWHERE).compiler == str(tmp_path / "bin" / name)
    assert find_toolchain({"PATH": str(tmp_path)}, usual=NOWHERE).compiler is None


@pytest.mark.parametrize(
    ("said", "status", "found"), [("D:\\VS\n", 0, r"D:\VS"), ("", 0, None), ("D:\\VS", 1, None)]
)
def test_visual_studio_is_asked_where_its_compiler_is_not_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, status: int, found: str | None
) -> None:
    def which(name: str, *, path: str) -> str | None:
        return str(Path(path, name)) if Path(path, name).exists() else None

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(shutil, "which", which)
    environ = {"PATH": str(tmp_path / "bin"), "ProgramFiles(x86)": str(tmp_path)}
    assert find_toolchain(environ, usual=NOWHERE).compiler is None
    installer = tmp_path / "Microsoft Visual Studio" / "Installer" / "vswhere.exe"
    installer.parent.mkdir(parents=True)
    installer.write_text(f"#!/bin/sh\nprintf '%s' '{said}'\nexit {status}\n", encoding="utf-8")
    installer.chmod(0o755)
    assert find_toolchain(environ, usual=NOWHERE).compiler == found
    put_compiler(tmp_path / "bin", "cl")
    assert find_toolchain(environ, usual=NOWHERE).compiler == str(tmp_path / "bin" / "cl")


def test_the_first_place_that_is_named_decides(tmp_path: Path) -> None:
    put_toolkit(tmp_path / "named", cuda="12.9")
    put_toolkit(tmp_path / "on-path", cuda="13.0")
    put_toolkit(tmp_path / "usual", cuda="13.2")
    on_path = str(tmp_path / "on-path" / "bin")
    seen = [
        str(find_toolchain(environ, usual=tmp_path / "usual").cuda)
        for environ in (
            {"PATH": on_path, "CUDA_PATH": str(tmp_path / "named")},
            {"PATH": on_path, "CUDA_HOME": str(tmp_path / "usual"), "CUDA_PATH": str(tmp_path / "named")},
            {"PATH": on_path, "CUDA_HOME": ""},
            {"PATH": str(tmp_path)},
        )
    ]
    assert seen == ["12.9", "13.2", "13.0", "13.2"]


def test_a_named_place_without_a_compiler_hides_the_toolkit_on_path(tmp_path: Path) -> None:
    put_toolkit(tmp_path / "cuda")
    environ = {"PATH": str(tmp_path / "cuda" / "bin"), "CUDA_HOME": "/nowhere"}
    found = find_toolchain(environ)
    assert (found.nvcc, found.cuda) == (None, None)
    assert found.lacks_toolkit == "a CUDA toolkit in `/nowhere` (CUDA_HOME)"


def test_a_program_that_only_starts_nvcc_is_no_toolkit(tmp_path: Path) -> None:
    put_toolkit(tmp_path / "local", headers=())
    found = find_toolchain({"PATH": str(tmp_path / "local" / "bin")}, usual=NOWHERE)
    assert found.lacks_toolkit is not None
    assert "headers" in found.lacks_toolkit
    assert "(the nvcc on PATH)" in found.lacks_toolkit
    assert found.hidden is None


def test_a_toolkit_in_the_usual_place_is_seen_behind_what_hides_it(tmp_path: Path) -> None:
    put_toolkit(tmp_path / "local", headers=())
    put_toolkit(tmp_path / "usual")
    environ = {"PATH": str(tmp_path / "local" / "bin")}
    assert find_toolchain(environ, usual=tmp_path / "usual").hidden == tmp_path / "usual"
    put_toolkit(tmp_path / "whole")
    environ = {"PATH": str(tmp_path / "whole" / "bin")}
    assert find_toolchain(environ, usual=tmp_path / "usual").hidden is None


def test_the_compiler_of_pips_wheels_is_no_toolkit(tmp_path: Path) -> None:
    put_toolkit(tmp_path / "cu13")
    library = tmp_path / "cu13" / "lib64" / "libcudart.so"
    library.rename(library.with_name("libcudart.so.13"))
    found = find_toolchain({"PATH": "", "CUDA_HOME": str(tmp_path / "cu13")})
    assert found.lacks_toolkit == f"libcudart.so of the CUDA toolkit in `{tmp_path / 'cu13'}` (CUDA_HOME)"
    debian = tmp_path / "cu13" / "lib" / "x86_64-linux-gnu"
    debian.mkdir(parents=True)
    (debian / "libcudart.so").touch()
    assert find_toolchain({"PATH": "", "CUDA_HOME": str(tmp_path / "cu13")}).lacks_toolkit is None


def test_headers_by_target_count(tmp_path: Path) -> None:
    put_toolkit(tmp_path / "cuda", headers=())
    include = tmp_path / "cuda" / "targets" / "x86_64-linux" / "include"
    include.mkdir(parents=True)
    (include / "cuda_runtime.h").touch()
    found = find_toolchain({"PATH": "", "CUDA_HOME": str(tmp_path / "cuda")})
    assert (found.lacks_toolkit, found.library_headers) == (None, False)


def test_without_any_there_is_none(tmp_path: Path) -> None:
    found = find_toolchain({"PATH": str(tmp_path)}, usual=NOWHERE)
    assert (found.home, found.lacks_toolkit) == (None, "the CUDA toolkit (nvcc)")
