from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bnbenv.tool import tooling

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("mark", "tool", "upgrade", "alone"),
    [
        ("uv-receipt.toml", "uv", "uv tool upgrade bnbenv", True),
        ("pipx_metadata.json", "pipx", "pipx upgrade bnbenv", True),
        (None, "pip", "'/my py/python' -m pip install --upgrade bnbenv", False),
    ],
)
def test_what_installed_it(mark: str | None, tool: str, upgrade: str, alone: bool, tmp_path: Path) -> None:
    if mark:
        (tmp_path / mark).write_text("", encoding="utf-8")
    found = tooling(tmp_path, "/my py/python")
    assert (found.tool, found.upgrade, found.alone) == (tool, upgrade, alone)
    assert found.uninstall.endswith("uninstall bnbenv")
