"""Compiled sources are kept by the hash of the source: a changed one is compiled anew, whatever its date."""

from __future__ import annotations

import hashlib
import marshal
import os
import py_compile
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bnbenv.selftest.runner import LAUNCHER

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import library
print(library.VALUE, library.where(), __name__, sys.argv[1:], sys.dont_write_bytecode)
"""
LIBRARY = "VALUE = 'one'\ndef where():\n    return where.__code__.co_filename\n"


def launched(tmp_path: Path, directory: Path, store: Path) -> list[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", "-B", str(LAUNCHER), str(store), str(script), str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(maxsplit=2)


def library_in(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / "library.py"
    path.write_text(LIBRARY, encoding="utf-8")
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    directory = tmp_path / "store"
    directory.mkdir()
    return directory


def test_the_script_runs_as_if_it_were_started_itself(tmp_path: Path, store: Path) -> None:
    directory = library_in(tmp_path / "a").parent
    value, where, rest = launched(tmp_path, directory, store)
    assert (value, where) == ("one", str(directory / "library.py"))
    assert rest.strip() == f"__main__ {[str(directory)]} True"
    assert sorted(path.name for path in directory.iterdir()) == ["library.py"]


def test_the_same_source_elsewhere_is_not_compiled_again_and_knows_its_place(
    tmp_path: Path, store: Path
) -> None:
    library_in(tmp_path / "a")
    library_in(tmp_path / "b")
    launched(tmp_path, tmp_path / "a", store)
    kept = {path.name for path in store.iterdir()}
    _, where, _ = launched(tmp_path, tmp_path / "b", store)
    assert where == str(tmp_path / "b" / "library.py")
    assert {path.name for path in store.iterdir()} == kept


def test_a_change_that_keeps_size_and_date_is_seen(tmp_path: Path, store: Path) -> None:
    path = library_in(tmp_path / "a")
    before = path.stat()
    assert launched(tmp_path, path.parent, store)[0] == "one"
    path.write_text(LIBRARY.replace("one", "two"), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert launched(tmp_path, path.parent, store)[0] == "two"


def test_stale_byte_code_beside_the_source_is_not_believed(tmp_path: Path, store: Path) -> None:
    """An interpreter by itself would: it compares size and date alone."""
    path = library_in(tmp_path / "a")
    before = path.stat()
    py_compile.compile(str(path), doraise=True)
    path.write_text(LIBRARY.replace("one", "two"), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    plain = subprocess.run(
        [sys.executable, "-c", "import library; print(library.VALUE)"],
        cwd=path.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert plain.stdout == "one\n"
    assert launched(tmp_path, path.parent, store)[0] == "two"


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 500])
def test_a_damaged_entry_is_compiled_anew(tmp_path: Path, store: Path, damage: bytes) -> None:
    path = library_in(tmp_path / "a")
    launched(tmp_path, path.parent, store)
    for entry in store.iterdir():
        entry.write_bytes(damage)
    assert launched(tmp_path, path.parent, store)[0] == "one"
    assert all(len(entry.read_bytes()) > 32 and entry.read_bytes() != damage for entry in store.iterdir())


def test_a_store_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    path = library_in(tmp_path / "a")
    assert launched(tmp_path, path.parent, tmp_path / "nowhere" / "store")[0] == "one"


def _plant(store: Path) -> Path:
    """Other code under the hash of the library, sealed as an entry is."""
    [entry] = [path for path in store.iterdir() if b"library.py" in path.read_bytes()]
    body = marshal.dumps(compile(LIBRARY.replace("one", "two"), "library.py", "exec"))
    entry.write_bytes(hashlib.sha256(body).digest() + body)
    return entry


@pytest.mark.parametrize(("mode", "runs"), [(0o600, "two"), (0o644, "two"), (0o664, "one"), (0o646, "one")])
def test_what_another_user_may_write_is_not_run(tmp_path: Path, store: Path, mode: int, runs: str) -> None:
    path = library_in(tmp_path / "a")
    launched(tmp_path, path.parent, store)
    _plant(store).chmod(mode)
    assert launched(tmp_path, path.parent, store)[0] == runs


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
def test_what_another_user_wrote_is_not_run(tmp_path: Path, store: Path) -> None:
    path = library_in(tmp_path / "a")
    launched(tmp_path, path.parent, store)
    os.chown(_plant(store), 54321, 54321)
    assert launched(tmp_path, path.parent, store)[0] == "one"


def test_what_is_kept_is_for_its_writer_whatever_the_umask(tmp_path: Path, store: Path) -> None:
    path = library_in(tmp_path / "a")
    before = os.umask(0)
    try:
        launched(tmp_path, path.parent, store)
    finally:
        os.umask(before)
    assert {entry.stat().st_mode & 0o777 for entry in store.iterdir()} == {0o644}
