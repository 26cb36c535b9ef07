from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bnbenv.install.sources import Index, Sources
from bnbenv.lockfile import pylock
from bnbenv.workflows.held_back import tell_held_back
from support.index_server import IndexServer
from support.voice import Listener
from support.wheels import write_wheel

if TYPE_CHECKING:
    from pathlib import Path

LOCK = pylock.from_document(
    {
        "lock-version": "1.0",
        "created-by": "test",
        "packages": [
            {
                "name": name,
                "version": "1.0",
                "wheels": [
                    {"name": f"{name}-1.0-py3-none-any.whl", "path": "x", "hashes": {"sha256": "0" * 64}},
                ],
            }
            for name in ("old", "new")
        ],
    }
)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    for name, releases in {"old": ("1.0", "2.5", "3.0rc1"), "new": ("0.9", "1.0")}.items():
        for release in releases:
            write_wheel(tmp_path / "index", name, release)
    return tmp_path / "index"


def told(*asked: str, url: str, offline: bool = False) -> list[str]:
    voice = Listener()
    default = Index(name="pypi", url=url, role="default", origin="a test")
    tell_held_back(asked, LOCK, Sources(indexes=(default,), offline=offline), voice, {})
    return voice.heard


def test_a_package_that_is_not_at_its_newest_is_told(index: Path) -> None:
    with IndexServer() as server:
        url = server.add("main", index)
        (line,) = told("Old", "new", "old-not-there", url=url)
        assert line.startswith("`old` is locked at 1.0, and 2.5 is out")
        assert told("old==1.0", "old @ https://x.invalid/old.zip", "-r what", url=url) == []
        assert told("old", url=url, offline=True) == []


def test_an_index_that_does_not_answer_stops_nobody(index: Path) -> None:
    with IndexServer() as server:
        assert told("old", url=server.add("main", index, mode="broken")) == []
