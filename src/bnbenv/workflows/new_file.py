"""A program that the user gets as a file: written where nothing stands yet, as Python reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def write_new(file: Path, text: str) -> None:
    """Write it in UTF-8 with plain line ends, whatever the platform's are.

    Raises:
        UsageError: something stands there.
        ExternalError: it cannot be written.
    """
    from bnbenv.env import durable

    with durable.told(file, "write"):
        try:
            stream = file.open("x", encoding="utf-8", newline="\n")
        except FileExistsError as error:
            raise UsageError(
                f"`{file}` is there already; it was left as it is", hint="name another file"
            ) from error
        try:
            with stream:
                stream.write(text)
        except BaseException:
            file.unlink(missing_ok=True)
            raise
