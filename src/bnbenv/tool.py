"""How bnbenv itself was installed, and the lines that renew it and take it away."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bnbenv.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

Tool = Literal["uv", "pipx", "pip"]
# What each tool leaves in an environment that it made for one program.
_MARKS: Mapping[str, Tool] = {"uv-receipt.toml": "uv", "pipx_metadata.json": "pipx"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tooling:
    """The tool, and what to type.

    Attributes:
        alone: the environment is bnbenv's alone: nobody means it when no other is named.
    """

    tool: Tool
    upgrade: str
    uninstall: str

    @property
    def alone(self) -> bool:  # noqa: D102 - told above
        return self.tool != "pip"


def tooling(prefix: str | Path = sys.prefix, python: str = sys.executable) -> Tooling:
    """What installed bnbenv into `prefix`, whose interpreter is `python`."""
    found = next((tool for mark, tool in _MARKS.items() if (Path(prefix) / mark).is_file()), "pip")
    if found == "uv":
        return Tooling(tool="uv", upgrade="uv tool upgrade bnbenv", uninstall="uv tool uninstall bnbenv")
    if found == "pipx":
        return Tooling(tool="pipx", upgrade="pipx upgrade bnbenv", uninstall="pipx uninstall bnbenv")
    pip = f"{shlex.quote(python)} -m pip"
    return Tooling(tool="pip", upgrade=f"{pip} install --upgrade bnbenv", uninstall=f"{pip} uninstall bnbenv")
