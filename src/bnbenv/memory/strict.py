"""Reads the JSON of strangers: only what has one meaning, and names that can be shown."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

_SHOWN = 80  # characters of a name in a message


def json_object(text: bytes) -> dict[str, Any]:
    """An object in UTF-8.

    Raises:
        ValueError: it is no JSON object, holds a key twice or a number that is none, or is nested too deep.
    """
    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(document, dict):
        raise ValueError("it is not an object")  # noqa: TRY004 - of the text, not of an argument
    return document


def shown(text: object) -> str:
    """A name from such a file for a message: cut, and without what would steer a terminal."""
    name = str(text)
    cut = name[:_SHOWN] + ("…" if len(name) > _SHOWN else "")
    return "".join(letter if letter.isprintable() else "?" for letter in cut)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"it holds `{shown(twice)}` twice")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"`{text}` is no number")
