from __future__ import annotations

import os
from pathlib import Path

import pytest

from bnbenv.env.aside import is_half_done, set_aside
from bnbenv.env.base import Base
from bnbenv.errors import UsageError
from bnbenv.workflows.here import (
    Change,
    files_of_trial,
    heal,
    replaced_files,
    running_python,
    unreplaceable,
)
from support.voice import Listener

OLD, NEW = "1.0", "2.0"


def install(site: Path, version: str, *, files: tuple[str, ...] = ("tool/core.py",)) -> None:
    """What an installer does: the old files are unlinked, the new ones are written, RECORD names them."""
    for old in site.glob("tool-*.dist-info"):
        for name in [*old.iterdir()]:
            name.unlink()
        old.rmdir()
    info = site / f"tool-{version}.dist-info"
    info.mkdir(parents=True)
    rows = [*files, "../../../bin/tool", f"{info.name}/METADATA", f"{info.name}/RECORD"]
    for row in rows[:-1]:
        path = Path(os.path.normpath(site / row))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(f"{row} of {version}")
    info.joinpath("RECORD").write_text("".join(f"{row},,\n" for row in rows))


def install_fresh(site: Path, *, whole: bool) -> None:
    """A package that was not there; an installer that dies has written no RECORD yet."""
    site.joinpath("fresh", "__pycache__").mkdir(parents=True)
    site.joinpath("fresh", "__init__.py").write_text("")
    site.joinpath("fresh", "__pycache__", "__init__.cpython-312.pyc").write_bytes(b"")
    if whole:
        site.joinpath("fresh-3.0.dist-info").mkdir()
        site.joinpath("fresh-3.0.dist-info", "RECORD").write_text("fresh/__init__.py,,\n")
        site.joinpath("fresh-3.0.dist-info", "unasked").write_text("")


def content(root: Path) -> dict[str, str | None]:
    return {
        str(path.relative_to(root)): path.read_text() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def base_at(prefix: Path, **facts: object) -> Base:
    site = prefix / "lib" / "python3.12" / "site-packages"
    values: dict[str, object] = {
        "python": prefix / "bin" / "python",
        "version": "3.12",
        "prefix": prefix,
        "paths": (site,),
        "packages": {"tool": OLD},
        "torch": None,
        "sites": (site,),
        "scripts": prefix / "bin",
        **facts,
    }
    return Base(**values)  # type: ignore[arg-type]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    directory = tmp_path / "lib" / "python3.12" / "site-packages"
    directory.mkdir(parents=True)
    directory.joinpath("users_own.py").write_text("kept")
    directory.joinpath("orphan-1.0.dist-info").mkdir()
    directory.joinpath("orphan-1.0.dist-info", "METADATA").write_text("no RECORD beside it")
    install(directory, OLD)
    return directory


CHANGES = (Change(name="tool", version=NEW, present=OLD), Change(name="fresh", version="3.0", present=None))
PARTS = (
    "tool/core.py",
    "tool/added.py",
    "bin/tool",
    "tool-2.0.dist-info/METADATA",
    "tool-2.0.dist-info/RECORD",
    "fresh/__init__.py",
    "fresh-3.0.dist-info/RECORD",
)


@pytest.fixture
def written(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> set[Path]:
    trial = tmp_path_factory.mktemp("trial")
    for part in PARTS:
        (trial / part).parent.mkdir(parents=True, exist_ok=True)
        (trial / part).touch()
    return files_of_trial(trial, base_at(tmp_path))


def test_a_trial_tells_where_commands_will_stand(tmp_path: Path, site: Path, written: set[Path]) -> None:
    assert {tmp_path / "bin" / "tool", site / "tool" / "added.py"} <= written


def test_what_is_replaced_is_read_from_the_record(tmp_path: Path, site: Path) -> None:
    replaced = replaced_files(base_at(tmp_path), CHANGES)
    assert {site / "tool" / "core.py", tmp_path / "bin" / "tool"} <= replaced
    assert not [path for path in replaced if "orphan" in str(path) or "users_own" in str(path)]


def test_a_failure_puts_every_file_back(site: Path, tmp_path: Path, written: set[Path]) -> None:
    before = content(tmp_path)
    replaced = replaced_files(base_at(tmp_path), CHANGES)
    with pytest.raises(RuntimeError, match="uv"), set_aside(site, replaced=replaced, written=written):
        install(site, NEW, files=("tool/core.py", "tool/added.py"))
        install_fresh(site, whole=True)
        assert (site / "tool" / "core.py").read_text().endswith(NEW)
        raise RuntimeError("uv failed")
    assert content(tmp_path) == before


def test_success_leaves_the_new_files_and_no_journal(site: Path, tmp_path: Path, written: set[Path]) -> None:
    with set_aside(site, replaced=replaced_files(base_at(tmp_path), CHANGES), written=written):
        install(site, NEW)
    assert (site / "tool" / "core.py").read_text().endswith(NEW)
    assert not [*site.glob(".bnbenv-here*")]


@pytest.mark.parametrize("moment", ["before", "between", "half-fresh", "after"])
def test_the_next_call_heals_what_a_kill_left(
    site: Path, tmp_path: Path, moment: str, written: set[Path]
) -> None:
    before = content(tmp_path)
    replaced = replaced_files(base_at(tmp_path), CHANGES)
    child = os.fork()
    if child == 0:
        with set_aside(site, replaced=replaced, written=written):
            if moment != "before":
                install(site, NEW, files=("tool/core.py", "tool/added.py"))
            if moment == "between":
                (site / "tool" / "core.py").unlink()
            if moment in {"half-fresh", "after"}:
                install_fresh(site, whole=moment == "after")
            os._exit(9)
    os.waitpid(child, 0)
    assert is_half_done(site)
    listener = Listener()
    heal(site, listener, dry_run=True)
    assert is_half_done(site), "a dry run changes nothing"
    heal(site, listener)
    assert content(tmp_path) == before
    assert len(listener.heard) == 2


def test_nothing_to_heal_is_silent(site: Path) -> None:
    listener = Listener()
    heal(site, listener)
    assert listener.heard == []


def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.joinpath("file").touch()
    site = tmp_path / "file" / "site-packages"
    with pytest.raises(UsageError, match="cannot be changed"), set_aside(site, replaced=(), written=()):
        pass


def test_what_no_installer_can_replace_stays(tmp_path: Path) -> None:
    site, front, behind = tmp_path / "site", tmp_path / "module", tmp_path / "system"
    base = base_at(
        tmp_path,
        paths=(front, site, behind),
        sites=(site,),
        unmanaged=frozenset({"editable"}),
        locations={"shadowing": front, "tool": site, "editable": site, "system": behind},
    )
    assert unreplaceable(base) == {"editable", "shadowing"}


def test_here_is_the_activated_environment(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.touch()
    assert running_python({"VIRTUAL_ENV": str(tmp_path)}) == python
