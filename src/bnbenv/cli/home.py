"""Where bnbenv keeps what is its own: environments, logs, reports, configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def home(environ: Mapping[str, str] | None = None) -> Path:
    """``BNBENV_HOME``, else the platform's data directory."""
    given = (os.environ if environ is None else environ).get("BNBENV_HOME")
    if given:
        return Path(given).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("bnbenv", appauthor=False))
