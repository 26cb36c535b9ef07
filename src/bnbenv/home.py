"""Where bnbenv keeps what it writes for a user."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def data_home(environ: Mapping[str, str]) -> Path:
    """``$BNBENV_HOME``, else the user's data directory of the platform; nothing is looked at or made."""
    if given := environ.get("BNBENV_HOME"):
        return Path(given).expanduser().absolute()
    system: str = sys.platform  # a variable, for the type checker knows but one system
    if system == "linux":  # as platformdirs says, without the time its import takes
        base = environ.get("XDG_DATA_HOME", "")
        return (Path(base) if base.strip() else Path("~/.local/share").expanduser()) / "bnbenv"
    import platformdirs

    return Path(platformdirs.user_data_dir("bnbenv", appauthor=False))
