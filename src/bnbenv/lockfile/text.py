"""Reads TOML that somebody else may have written: bounded in size and depth, and refused with reasons."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bnbenv import toml
from bnbenv.env import durable
from bnbenv.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST = 32 << 20  # bytes; a lock of a thousand packages has about two million

# Python's TOML reader needs time that grows with the square of a key's parts: 50 000 take a minute.
_QUOTED = re.compile(r""""[^"\n]*"|'[^'\n]*'""")
_LONG_KEY = re.compile(r"(?:\.[ \t]*[\w-]*[ \t]*){64}")


def read_bytes(path: Path) -> bytes:
    """The whole of a file that is no larger than a lock can be.

    Raises:
        DataError: code ``lock-invalid``.
        ExternalError: the file cannot be read.
    """
    with durable.told(path, "read"):
        if path.stat().st_size > _LARGEST:
            raise invalid(str(path), f"it is larger than {_LARGEST >> 20} MiB")
        return path.read_bytes()


def decode(data: bytes, origin: str) -> str:
    """The text of a lock.

    Raises:
        DataError: code ``lock-invalid``.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid(origin, f"it is not UTF-8 (byte {error.start})") from error


def parse(text: str, origin: str) -> dict[str, Any]:
    """The values of a TOML text.

    Raises:
        DataError: code ``lock-invalid``.
    """
    if _LONG_KEY.search(_QUOTED.sub("q", text)):
        raise invalid(origin, "a dotted key has more than 64 parts")
    try:
        return toml.loads(text)
    except toml.TOMLDecodeError as error:
        raise invalid(origin, f"it is not TOML: {error}") from error
    except (RecursionError, ValueError) as error:
        raise invalid(origin, f"its TOML cannot be read ({type(error).__name__})") from error


def invalid(origin: str, why: str, *, hint: str | None = None) -> DataError:
    """The error for a file that is no lock."""
    return DataError(
        f"`{origin}` is not a valid lock: {why}",
        hint=hint or "make it again with the tool that wrote it",
        code="lock-invalid",
    )
