"""Where bnbenv keeps what it writes for a user."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


def expanded(text: str, what: str) -> Path:
    """A path as a user gives it, with the home directory that a `~` at its start stands for.

    Args:
        text: the path.
        what: the option, argument or variable that it was given with, for the message.

    Raises:
        UsageError: there is no such user, or none whose home directory is known; or it names a drive, where
            no system but Windows has any.
    """
    drive, colon, rest = text[:1], text[1:2], text[2:]
    if os.name != "nt" and drive.isalpha() and colon == ":" and rest[:1] in ("\\", "/"):
        there = f"/mnt/{drive.lower()}{rest}".replace("\\", "/")
        raise UsageError(
            f"{what}: `{text}` is a path of Windows, and this is another system",
            hint=f"in WSL that is `{there}`; `./` goes before a name that really begins so",
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"{what}: the home directory in `{text}` cannot be told",
            hint="type the path in full; `./` goes before a name that begins with `~`",
        ) from error


def unknown() -> UsageError | None:
    """The error for a user of whom the system knows no home, as of a number in a container; else ``None``."""
    if os.path.expanduser("~") != "~":  # noqa: PTH111 - `Path` raises where there is none
        return None
    return UsageError(
        "the home directory is not known: `HOME` is not set, and the system knows no user of this number",
        hint="set `HOME` to a directory that this user may write to",
    )


def data_home(environ: Mapping[str, str]) -> Path:
    """``$BNBENV_HOME``, else the user's data directory of the platform; nothing is looked at or made.

    Raises:
        UsageError: the home directory in it, or the user's, cannot be told.
    """
    if given := environ.get("BNBENV_HOME"):
        return expanded(given, "`BNBENV_HOME`").absolute()
    system: str = sys.platform  # a variable, for the type checker knows but one system
    if system == "linux":  # as platformdirs says, without the time its import takes
        base = environ.get("XDG_DATA_HOME", "")
        if not base.strip() and (problem := unknown()):
            raise problem
        return (Path(base) if base.strip() else Path("~/.local/share").expanduser()) / "bnbenv"
    import platformdirs

    return Path(platformdirs.user_data_dir("bnbenv", appauthor=False))
