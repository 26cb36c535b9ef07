from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bnbenv.typed_paths import to_type

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("place", "typed"),
    [
        ("team/locks", "."),
        ("team/locks/more", "more"),
        ("team/locks/my more", "'my more'"),
        ("team/locks/-r", "./-r"),
        ("team/locks/~me", "'./~me'"),
        ("team", ".."),
        ("team/other", "../other"),
        ("team/locks/../other", "../other"),
    ],
)
def test_what_lies_near_is_typed_from_there(
    place: str, typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "team" / "locks").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "team" / "locks")
    assert to_type(tmp_path / place) == typed


def test_what_lies_far_off_is_typed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b" / "c")
    root = tmp_path.anchor
    assert to_type(tmp_path.__class__(root) / "x") == os.path.join(root, "x")  # noqa: PTH118 - as text


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_what_leads_over_a_link_is_typed_so_that_it_leads_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far" / "locks").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "far" / "locks")
    monkeypatch.chdir(tmp_path / "here")
    assert to_type(tmp_path / "here" / "link") == "link"
    assert to_type(tmp_path / "here" / "link" / ".." / "x") == f"{tmp_path}/here/link/../x"
