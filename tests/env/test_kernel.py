from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bnbenv.env.kernel import (
    Kernel,
    kernel_name,
    kernels_directory,
    kernels_of,
    list_kernels,
    remove_kernel,
    write_kernel,
)

PLACES = [
    ("linux", {"HOME": "/home/a"}, "/home/a/.local/share/jupyter/kernels"),
    ("linux", {"HOME": "/home/a", "XDG_DATA_HOME": "/data"}, "/data/jupyter/kernels"),
    ("darwin", {"HOME": "/Users/a"}, "/Users/a/Library/Jupyter/kernels"),
    ("win32", {"HOME": "/c/a", "APPDATA": "/c/a/Roaming"}, "/c/a/Roaming/jupyter/kernels"),
    ("linux", {"HOME": "/home/a", "JUPYTER_DATA_DIR": "/j"}, "/j/kernels"),
]


@pytest.mark.parametrize(("platform", "environ", "place"), PLACES)
def test_jupyter_looks_there(platform: str, environ: dict[str, str], place: str) -> None:
    assert kernels_directory(environ, platform=platform) == Path(place)


def test_every_environment_gets_a_name_that_jupyter_takes() -> None:
    assert kernel_name("qlora") == "bnbenv-qlora"
    assert kernel_name("lab-2.1_b") == "bnbenv-lab-2.1_b"
    names = {kernel_name(text) for text in ("Lab", "lab", "läb", "лаб", "lab lab")}
    assert len(names) == 5
    assert all(name == kernel_name(name).removeprefix("bnbenv-") for name in names)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    environ = {"JUPYTER_DATA_DIR": str(tmp_path)}
    return Kernel(
        name="bnbenv-lab",
        shown="lab",
        link=tmp_path / "envs" / "lab",
        directory=kernels_directory(environ) / "bnbenv-lab",
    )


def test_on_windows_the_kernel_inherits_jupyters_handles(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[list[str], bool]] = []

    def call(command: list[str], *, close_fds: bool = True) -> int:
        called.append((command, close_fds))
        return 3

    write_kernel(kernel)
    launcher = kernel.directory / "launch.py"
    code = compile(launcher.read_text(encoding="utf-8"), str(launcher), "exec")
    with monkeypatch.context() as there, pytest.raises(SystemExit) as ended:
        there.setattr(subprocess, "call", call)
        there.setattr(sys, "argv", [str(launcher), "-f", "connection.json"])
        there.setattr(os, "environ", dict(os.environ))
        there.setattr(os, "name", "nt")
        exec(code, {})
    python = Path(os.path.realpath(kernel.link)) / "Scripts" / "python.exe"
    assert called == [([str(python), "-m", "ipykernel_launcher", "-f", "connection.json"], False)]
    assert ended.value.code == 3


def test_what_is_written_is_listed_and_removed(kernel: Kernel, tmp_path: Path) -> None:
    environ = {"JUPYTER_DATA_DIR": str(tmp_path)}
    write_kernel(kernel)
    write_kernel(kernel)  # again, as after an upgrade
    other = kernel.directory.parent / "python3"
    other.mkdir()
    (other / "kernel.json").write_text('{"argv": ["python3"], "display_name": "Python"}', encoding="utf-8")
    (kernel.directory.parent / "broken").mkdir()
    assert list_kernels(environ) == (kernel,)
    assert not kernel.works
    assert kernels_of(kernel.link, environ) == (kernel,)
    assert kernels_of(tmp_path / "envs" / "other", environ) == ()
    spec = json.loads((kernel.directory / "kernel.json").read_text(encoding="utf-8"))
    assert spec["argv"][0] == str(kernel.link / "bin" / "python")
    assert spec["argv"][-2:] == ["-f", "{connection_file}"]
    remove_kernel(kernel)
    assert list_kernels(environ) == ()
    assert other.is_dir()
