"""The paste-ready report of an unexpected exception."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv import __version__
from bnbenv.cli.redact import redact
from bnbenv.env.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence


def report_text(error: BaseException, words: Sequence[str]) -> str:
    """Everything a maintainer needs first: versions, platform, the line, the traceback; no credentials."""
    lines = [
        f"bnbenv {__version__}",
        f"Python {platform.python_version()} ({sys.executable})",
        f"{platform.platform()} {platform.machine()}",
        f"command: bnbenv {' '.join(words)}",
        "variables set: "
        + (", ".join(sorted(name for name in os.environ if name.startswith("BNB"))) or "none"),
        "",
        *traceback.format_exception(type(error), error, error.__traceback__),
    ]
    return redact("\n".join(lines))


def write_report(error: BaseException, words: Sequence[str]) -> Path | None:
    """Write the report under bnbenv's home, else where temporary files go; ``None`` if neither takes it."""
    name = f"bug-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.txt"
    for directory in _places():
        try:
            directory.mkdir(parents=True, exist_ok=True)
            path = directory / name
            path.write_text(report_text(error, words), encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return path
    return None


def _places() -> list[Path]:
    places = []
    with suppress(Exception):  # the report must come out whatever else is broken
        places.append(Layout.find(os.environ).reports)
    return [*places, Path(tempfile.gettempdir())]
