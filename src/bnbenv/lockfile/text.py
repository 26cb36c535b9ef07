"""Reads TOML that somebody else may have written: bounded, printable, and refused with reasons."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bnbenv import toml
from bnbenv.env import durable
from bnbenv.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

MAKE_AGAIN = "make it again with the tool that wrote it"
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
    """The values of a TOML text; none of them, nor any key, holds what a terminal would obey.

    Raises:
        DataError: code ``lock-invalid``.
    """
    if _LONG_KEY.search(_QUOTED.sub("q", text)):
        raise invalid(origin, "a dotted key has more than 64 parts")
    try:
        document = toml.loads(text)
    except toml.TOMLDecodeError as error:
        raise invalid(origin, f"it is not TOML: {error}") from error
    except (RecursionError, ValueError) as error:
        raise invalid(origin, f"its TOML cannot be read ({type(error).__name__})") from error
    if _may_hide(text):
        _refuse_unprintable(document, origin)
    return document


def printable(text: str) -> bool:
    """Whether a text can be shown as it is: in one line, and without what a terminal obeys."""
    return text.replace("\t", " ").isprintable()


def _may_hide(text: str) -> bool:
    """Whether a value may be unprintable: by an escape, over several lines, or as it stands there.

    Few locks have any of these; to look at each value takes as long as to read them.
    """
    lines = text.replace("\r\n", "").replace("\n", "")
    return not printable(lines) or any(mark in text for mark in ("\\", '"""', "'''"))


def _refuse_unprintable(document: dict[str, Any], origin: str) -> None:
    """Look at every key and value; what other tools keep for themselves is never shown.

    Raises:
        DataError: code ``lock-invalid``.
    """
    rest: list[tuple[str, Any]] = [("", document)]
    while rest:
        where, value = rest.pop()
        if isinstance(value, list):
            rest += [(f"{where}[{number}]", inner) for number, inner in enumerate(value)]
        elif isinstance(value, dict):
            for key, inner in value.items():
                if not printable(key):
                    raise invalid(origin, f"a key in `{where}` holds control characters: {key!r}")
                own = key == "tool" and isinstance(inner, dict)
                rest.append((f"{where}.{key}".lstrip("."), {"bnbenv": inner.get("bnbenv")} if own else inner))
        elif isinstance(value, str) and not printable(value):
            raise invalid(origin, f"`{where}` holds control characters: {value!r}")


def invalid(origin: str, why: str, *, hint: str | None = None) -> DataError:
    """The error for a file that is no lock."""
    return DataError(
        f"`{origin}` is not a valid lock: {why}",
        hint=hint or MAKE_AGAIN,
        code="lock-invalid",
    )
