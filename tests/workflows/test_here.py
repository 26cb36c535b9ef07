from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bnbenv.errors import UsageError
from bnbenv.workflows.here import Change, heal, running_python, set_aside

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = "1.0", "2.0"


class Listener:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def progress(self, text: str) -> None:
        self.heard.append(text)

    def confirm(self, question: str, *, yes: bool = False) -> bool:
        del question
        return yes

    def ran(self, ran: object) -> None:
        del ran


def install(site: Path, version: str, *, files: tuple[str, ...] = ("tool/core.py",)) -> None:
    """What an installer does: the old files are unlinked, the new ones are written, RECORD names them."""
    for old in site.glob("tool-*.dist-info"):
        for name in [*old.iterdir()]:
            name.unlink()
        old.rmdir()
    info = site / f"tool-{version}.dist-info"
    info.mkdir(parents=True)
    rows = [*files, "../../bin/tool", f"{info.name}/METADATA", f"{info.name}/RECORD"]
    for row in rows[:-1]:
        path = site / row
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(f"{row} of {version}")
    info.joinpath("RECORD").write_text("".join(f"{row},,\n" for row in rows))


def content(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()
    }


@pytest.fixture
def site(tmp_path: Path) -> Path:
    directory = tmp_path / "lib" / "python3.12" / "site-packages"
    directory.mkdir(parents=True)
    directory.joinpath("users_own.py").write_text("kept")
    install(directory, OLD)
    return directory


CHANGES = (Change(name="tool", version=NEW, present=OLD), Change(name="fresh", version="3.0", present=None))


def test_a_failure_puts_every_file_back(site: Path, tmp_path: Path) -> None:
    before = content(tmp_path)
    with pytest.raises(RuntimeError, match="uv"), set_aside(site, CHANGES):
        install(site, NEW, files=("tool/core.py", "tool/added.py"))
        assert (site / "tool" / "core.py").read_text().endswith(NEW)
        raise RuntimeError("uv failed")
    assert content(tmp_path) == before


def test_success_leaves_the_new_files_and_no_journal(site: Path) -> None:
    with set_aside(site, CHANGES):
        install(site, NEW)
    assert (site / "tool" / "core.py").read_text().endswith(NEW)
    assert not [*site.glob(".bnbenv-here*")]


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_the_next_call_heals_what_a_kill_left(site: Path, tmp_path: Path, moment: str) -> None:
    before = content(tmp_path)
    child = os.fork()
    if child == 0:
        with set_aside(site, CHANGES):
            if moment != "before":
                install(site, NEW, files=("tool/core.py", "tool/added.py"))
            if moment == "between":
                (site / "tool" / "core.py").unlink()
            os._exit(9)
    os.waitpid(child, 0)
    listener = Listener()
    heal(site, listener)
    assert content(tmp_path) == before
    assert listener.heard


def test_nothing_to_heal_is_silent(site: Path) -> None:
    listener = Listener()
    heal(site, listener)
    assert listener.heard == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_environment_is_refused(site: Path) -> None:
    site.chmod(0o555)
    try:
        with pytest.raises(UsageError, match="cannot be changed"), set_aside(site, CHANGES):
            pass
    finally:
        site.chmod(0o755)


def test_here_is_the_activated_environment(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.touch()
    assert running_python({"VIRTUAL_ENV": str(tmp_path)}) == python
