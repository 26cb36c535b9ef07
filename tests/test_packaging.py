from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.network, pytest.mark.slow]

ASK = """
from bnbenv.matrix.load import compat_directory
from importlib.resources import files
import bnbenv
print(bnbenv.__file__)
print(compat_directory())
print(len([one for one in compat_directory().iterdir() if one.suffix in {".json", ".toml"}]))
print(len([one for one in files("bnbenv").joinpath("schemas").iterdir() if one.name.endswith(".json")]))
"""

HASHES = """
from bnbenv.matrix.invariants import check_hashes, file_hashes, shipped_hashes
from bnbenv.matrix.load import compat_directory
shipped = shipped_hashes(compat_directory())
assert shipped
print(list(check_hashes(file_hashes(compat_directory()), shipped)))
"""


def python(executable: str | Path, *words: str, environ: dict[str, str] | None = None) -> list[str]:
    ran = subprocess.run(
        [str(executable), *words],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        cwd=Path(executable).anchor,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def expected() -> tuple[int, int]:
    data = [one for one in (ROOT / "compat").iterdir() if one.suffix in {".json", ".toml"}]
    return len(data), len(list((ROOT / "src" / "bnbenv" / "schemas").glob("*.json")))


@pytest.fixture(scope="module")
def machine() -> dict[str, str]:
    """The machine's own way to its package indexes: these tests install for real."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("BNB", "PYTHON"))}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory, machine: dict[str, str]) -> Path:
    """An sdist, and the wheel built *from it*, as `python -m build` does."""
    directory = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(directory), str(ROOT)],
        check=True,
        env=machine,
        stdout=subprocess.DEVNULL,
    )
    return directory


def install(directory: Path, what: list[str], environ: dict[str, str]) -> Path:
    """A fresh venv with bnbenv and the reader of its data: what these tests look at needs nothing else."""
    import venv

    venv.create(directory, with_pip=True)
    executable = directory / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run(
        [str(executable), "-m", "pip", "install", "--quiet", "--no-deps", "tomli", *what],
        check=True,
        env=environ,
    )
    return executable


def test_the_archives_hold_every_file(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    data = {one.name for one in (ROOT / "compat").iterdir() if one.is_file()}
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"bnbenv/_compat/{Path(name).stem}.json" for name in data} <= names
    sources = (ROOT / "src" / "bnbenv").rglob("*")
    package = {
        path.relative_to(ROOT / "src").as_posix()
        for path in sources
        if path.is_file() and path.suffix != ".pyc" and path.name != "__pycache__"
    }
    assert package <= names
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"compat/{name}" for name in data} <= inside
    assert {
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "bootstrap.py",
        "hatch_build.py",
        "tests/conftest.py",
        ".ci/run",
    } <= inside


def test_a_wheel_finds_its_data(dist: Path, tmp_path: Path, machine: dict[str, str]) -> None:
    (wheel,) = dist.glob("*.whl")
    executable = install(tmp_path / "venv", [str(wheel)], machine)
    module, directory, data, schemas = python(executable, "-I", "-c", ASK)
    assert Path(module).is_relative_to(tmp_path)
    assert Path(directory).name == "_compat"
    assert Path(directory).is_relative_to(tmp_path)
    assert (int(data), int(schemas)) == expected()
    assert python(executable, "-I", "-c", HASHES) == [str([])]
    with Path(directory, "profiles.json").open("a", encoding="utf-8") as file:
        file.write("\n")
    assert python(executable, "-I", "-c", HASHES) == [
        "['profiles.json: is not the file that bnbenv shipped']"
    ]


def test_an_sdist_finds_its_data(dist: Path, tmp_path: Path, machine: dict[str, str]) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    executable = install(tmp_path / "venv", [str(sdist)], machine)
    _, directory, data, schemas = python(executable, "-I", "-c", ASK)
    assert Path(directory).is_relative_to(tmp_path)
    assert (int(data), int(schemas)) == expected()


def test_an_editable_install_finds_the_checkout(tmp_path: Path, machine: dict[str, str]) -> None:
    executable = install(tmp_path / "venv", ["--editable", str(ROOT)], machine)
    module, directory, data, schemas = python(executable, "-I", "-c", ASK)
    assert Path(module).is_relative_to(ROOT / "src")
    assert Path(directory).resolve() == ROOT / "compat"
    assert (int(data), int(schemas)) == expected()


def test_a_bare_checkout_finds_its_data(machine: dict[str, str]) -> None:
    environ = {**machine, "PYTHONPATH": str(ROOT / "src")}
    _, directory, data, schemas = python(sys.executable, "-c", ASK, environ=environ)
    assert Path(directory).resolve() == ROOT / "compat"
    assert (int(data), int(schemas)) == expected()
