from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from bnbenv.doctor.surroundings import user_site
from bnbenv.env.installed import read_installed
from bnbenv.matrix.pe import MACHINES

if TYPE_CHECKING:
    from pathlib import Path

FRAMEWORK = "Cellar/Python.framework/Versions/3.12"


def _windows(prefix: Path, arch: str) -> Path:
    """A Python as the installer of Windows puts it; returns its interpreter."""
    machine = next(number for number, name in MACHINES.items() if name == arch)
    head = bytearray(0x200)
    head[:2], head[0x80:0x84] = b"MZ", b"PE\0\0"
    struct.pack_into("<I", head, 0x3C, 0x80)
    struct.pack_into("<H", head, 0x84, machine)
    struct.pack_into("<H", head, 0x98, 0x20B)
    (prefix / "Lib" / "site-packages").mkdir(parents=True)
    (prefix / "python312.dll").touch()
    (prefix / "python3.dll").touch()
    (prefix / "python.exe").write_bytes(head)
    return prefix / "python.exe"


def _posix(prefix: Path, framework: Path | None = None) -> Path:
    """A Python as on POSIX, which may lead into a framework; returns its interpreter."""
    (prefix / "lib" / "python3.12" / "site-packages").mkdir(parents=True)
    python = prefix / "bin" / "python3.12"
    python.parent.mkdir()
    if framework is None:
        python.touch()
    else:
        (framework / "bin").mkdir(parents=True, exist_ok=True)
        (framework / "bin" / "python3.12").touch()
        python.symlink_to(framework / "bin" / "python3.12")
    return python


def _see(python: Path, environ: dict[str, str]) -> Path | None:
    return user_site(read_installed(python), python, environ)


@pytest.mark.parametrize(
    ("arch", "variable", "expected"),
    [
        ("x86_64", "APPDATA", "Python/Python312/site-packages"),
        ("aarch64", "APPDATA", "Python/Python312-arm64/site-packages"),
        ("x86_64", "USERPROFILE", "Python/Python312/site-packages"),
        ("x86_64", "PYTHONUSERBASE", "Python312/site-packages"),
    ],
)
def test_on_windows_it_stands_in_the_roaming_profile(
    arch: str, variable: str, expected: str, tmp_path: Path
) -> None:
    python = _windows(tmp_path / "Python312", arch)
    environ = {variable: str(tmp_path / "user")}
    assert _see(python, environ) is None
    (tmp_path / "user" / expected).mkdir(parents=True)
    assert _see(python, environ) == tmp_path / "user" / expected
    assert _see(python, {**environ, "PYTHONNOUSERSITE": "1"}) is None


@pytest.mark.parametrize("framework", [True, False])
@pytest.mark.parametrize("variable", ["HOME", "PYTHONUSERBASE"])
def test_a_framework_of_macos_has_its_own_place(framework: bool, variable: str, tmp_path: Path) -> None:
    python = _posix(tmp_path / "homebrew", tmp_path / FRAMEWORK if framework else None)
    base = tmp_path / "user"
    if variable == "HOME":
        base = base / "Library" / "Python" / "3.12" if framework else base / ".local"
    site = base / "lib" / ("python" if framework else "python3.12") / "site-packages"
    environ = {variable: str(tmp_path / "user")}
    assert _see(python, environ) is None
    site.mkdir(parents=True)
    assert _see(python, environ) == site


def test_a_venv_that_sees_its_base_looks_where_its_base_does(tmp_path: Path) -> None:
    base = _posix(tmp_path / "homebrew", tmp_path / FRAMEWORK)
    python = _posix(tmp_path / "venv")  # a copy, no link
    site = tmp_path / "Library" / "Python" / "3.12" / "lib" / "python" / "site-packages"
    site.mkdir(parents=True)

    def seen(sees: str) -> Path | None:
        (tmp_path / "venv" / "pyvenv.cfg").write_text(
            f"home = {base.parent}\nversion = 3.12.4\ninclude-system-site-packages = {sees}\n"
        )
        return _see(python, {"HOME": str(tmp_path)})

    assert seen("true") == site
    assert seen("false") is None
