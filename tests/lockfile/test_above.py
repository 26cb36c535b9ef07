from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from bnbenv.lockfile.above import nearest, only_ours

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="owners and modes of POSIX")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a directory deep in it."""
    home = tmp_path / "home"
    (home / "project" / "src" / "deep").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    return home


def lock_in(directory: Path) -> None:
    (directory / "bnbenv.lock").touch()


def test_the_one_here_comes_first_and_then_the_nearest_above(home: Path) -> None:
    deep = home / "project" / "src" / "deep"
    assert nearest(deep) is None
    for place in (home, home / "project", deep):
        lock_in(place)
        assert nearest(deep) == place
    (deep / "bnbenv.lock").unlink()
    (deep / "bnbenv.lock").symlink_to("nowhere")
    assert nearest(deep) == deep  # it is told what is wrong with it


def test_locks_whose_index_is_lost_are_not_passed_over(home: Path) -> None:
    lock_in(home)
    (home / "project" / "pylock.cpu.toml").write_text('lock-version = "1.0"\n\n[tool.bnbenv]\n')
    assert nearest(home / "project") == home / "project"


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_none_above_the_root_of_a_repository(kind: str, home: Path) -> None:
    lock_in(home)
    root = home / "project"
    if kind == "directory":
        (root / ".git").mkdir()
    else:  # a worktree's, or a submodule's
        (root / ".git").write_text("gitdir: elsewhere")
    assert nearest(root / "src") is None
    lock_in(root)
    assert nearest(root / "src") == root


def test_outside_of_home_only_a_repositorys(tmp_path: Path, home: Path) -> None:
    (tmp_path / "data" / "src").mkdir(parents=True)
    lock_in(tmp_path)
    lock_in(tmp_path / "data")
    assert nearest(tmp_path / "data" / "src") is None
    lock_in(home)
    (tmp_path / "data" / ".git").mkdir()
    assert nearest(tmp_path / "data" / "src") == tmp_path / "data"


def test_none_where_others_can_write(home: Path) -> None:
    lock_in(home / "project")
    lock_in(home)
    (home / "project").chmod(0o777)
    assert not only_ours(home / "project")
    assert nearest(home / "project" / "src") is None  # nor a lock that it hides
    assert nearest(home / "project") == home / "project"  # who stands there has seen it


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_none_of_another_user_or_of_a_group_with_others(home: Path) -> None:
    lock_in(home / "project")
    os.chown(home / "project", 12345, -1)
    assert nearest(home / "project" / "src") is None
    os.chown(home / "project", 0, 0)
    (home / "project").chmod(0o775)
    assert nearest(home / "project" / "src") == home / "project"  # the group is the user's own
    os.chown(home / "project", 0, 1)
    assert nearest(home / "project" / "src") is None
