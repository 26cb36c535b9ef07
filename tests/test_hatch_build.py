from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bnbenv.errors import DataError
from bnbenv.matrix.invariants import check, check_hashes, file_hashes
from bnbenv.matrix.load import FILES, load
from bnbenv.matrix.matrix import PARTS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of a wheel that hatchling builds from this checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    return directory / "bnbenv" / "_compat"


@pytest.mark.parametrize("part", PARTS)
def test_a_wheel_holds_the_rows_of_the_checkout(part: str, packaged: Path) -> None:
    there, here = load(part, directory=packaged), load(part, directory=ROOT / "compat")
    assert getattr(there, part) == getattr(here, part)
    assert there.revision == here.revision


def test_a_wheel_holds_json_alone_and_nothing_against_it(packaged: Path) -> None:
    assert {path.name for path in packaged.iterdir()} == {
        Path(name).stem + ".json" for name in FILES.values()
    }
    assert check(packaged) == []


def test_a_packaged_file_that_was_changed_is_named(packaged: Path, tmp_path: Path) -> None:
    shipped = file_hashes(packaged)
    assert len(shipped) == len(set(FILES.values()))
    for path in packaged.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    causes = tmp_path / "causes.json"
    causes.write_text(
        causes.read_text(encoding="utf-8").replace('"definition"', '"definiton"', 1), encoding="utf-8"
    )
    assert list(check_hashes(file_hashes(tmp_path), shipped)) == [
        "causes.json: is not the file that bnbenv shipped"
    ]
    with pytest.raises(DataError, match=r"causes\.json: causes row 1 \(.+\): `definition`: is missing"):
        load("causes", directory=tmp_path)


def test_the_build_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    assert list((tmp_path / "scratch").iterdir()) == []
