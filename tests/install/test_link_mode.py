from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bnbenv.errors import ExternalError, UsageError
from bnbenv.install import link_mode
from bnbenv.install.link_mode import choose_link_mode, wanted_link_mode

if TYPE_CHECKING:
    from pathlib import Path


def places(tmp_path: Path) -> tuple[Path, Path]:
    cache, target = tmp_path / "cache", tmp_path / "target"
    target.mkdir()
    return cache, target


def test_what_is_chosen_works_and_leaves_nothing_behind(tmp_path: Path) -> None:
    cache, target = places(tmp_path)
    chosen = choose_link_mode(cache, target)
    # One file system with hard links or reflinks holds the temporary directory on every platform in use.
    assert chosen.mode in {"clone", "hardlink"}
    assert list(cache.iterdir()) == []
    assert list(target.iterdir()) == []


def test_a_reflink_is_only_claimed_where_the_file_system_makes_one(tmp_path: Path) -> None:
    cache, target = places(tmp_path)
    source = tmp_path / "source"
    source.write_bytes(b"content" * 1000)
    chosen = choose_link_mode(cache, target)
    done = link_mode._clones(source, target / "copy")
    assert (chosen.mode == "clone") == done
    if done:
        assert (target / "copy").read_bytes() == source.read_bytes()


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system")  # noqa: PTH112
def test_two_file_systems_mean_copies_and_that_is_said(tmp_path: Path) -> None:
    import tempfile
    from pathlib import Path as RealPath

    with tempfile.TemporaryDirectory(dir="/dev/shm") as shared:
        cache = RealPath(shared)
        if cache.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("one file system after all")
        chosen = choose_link_mode(cache, tmp_path)
        assert chosen.mode == "copy"
        assert "different file systems" in chosen.reason
        assert str(cache) in chosen.reason


def test_a_file_system_without_hard_links_means_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, target = places(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    # Stands for exFAT and some network homes, which no test machine has at hand.
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(link_mode, "_clones", lambda *_: False)
    chosen = choose_link_mode(cache, target)
    assert (chosen.mode, chosen.reason) == ("copy", "the file system has no hard links")


def test_the_users_choice_is_kept(tmp_path: Path) -> None:
    cache, target = places(tmp_path)
    assert choose_link_mode(cache, target, requested="copy").mode == "copy"
    with pytest.raises(UsageError, match="symlink"):
        choose_link_mode(cache, target, requested="symlink")


def test_uv_is_followed_where_nothing_is_asked_of_bnbenv() -> None:
    assert wanted_link_mode("auto", "copy") == "copy"
    assert wanted_link_mode("hardlink", "copy") == "hardlink"
    assert wanted_link_mode("auto", "symlink") is None
    assert wanted_link_mode("auto", None) is None


def test_a_cache_that_is_no_directory_is_told(tmp_path: Path) -> None:
    cache, target = places(tmp_path)
    cache.write_bytes(b"")
    with pytest.raises(ExternalError) as caught:
        choose_link_mode(cache, target)
    assert caught.value.code == "permission"
    assert str(cache) in caught.value.message
