from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bnbenv.env.base import Base
from bnbenv.lockfile import pylock
from bnbenv.workflows.here import plan, running_python, unreplaceable

if TYPE_CHECKING:
    from pathlib import Path

LOCKED = {"fresh": "3.0", "same": "3.0", "tool": "2.0"}


def base_at(prefix: Path, **facts: object) -> Base:
    site = prefix / "lib" / "python3.12" / "site-packages"
    values: dict[str, object] = {
        "python": prefix / "bin" / "python",
        "version": "3.12",
        "prefix": prefix,
        "paths": (site,),
        "packages": {"tool": "1.0", "same": "3.0"},
        "torch": None,
        "sites": (site,),
        **facts,
    }
    return Base(**values)  # type: ignore[arg-type]


def test_what_is_missing_or_of_another_version_changes(tmp_path: Path) -> None:
    packages = [
        {
            "name": name,
            "version": version,
            "wheels": [
                {
                    "name": f"{name}-{version}-py3-none-any.whl",
                    "path": "x.whl",
                    "hashes": {"sha256": "0" * 64},
                }
            ],
        }
        for name, version in LOCKED.items()
    ]
    lock = pylock.from_document({"lock-version": "1.0", "created-by": "uv", "packages": packages})
    changes = [str(change) for change in plan(lock, base_at(tmp_path))]
    assert changes == ["fresh 3.0", "tool 1.0 → 2.0"]


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


@pytest.mark.parametrize("place", ["bin/python", "Scripts/python.exe", "python.exe"])
def test_here_is_the_activated_environment(tmp_path: Path, place: str) -> None:
    python = tmp_path / place
    python.parent.mkdir(exist_ok=True)
    python.touch()
    assert running_python({"VIRTUAL_ENV": str(tmp_path)}) == python
