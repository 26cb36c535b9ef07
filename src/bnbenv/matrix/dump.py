"""Writes rows as the files of `compat/` hold them, in one form, so that diffs hold facts only."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from bnbenv.matrix.codec import CODECS
from bnbenv.matrix.load import FILES, SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


_QUOTES = "'''"


def sort_rows(part: str, rows: Iterable[Any]) -> tuple[Any, ...]:
    """Rows in the order of their key, versions as versions."""
    codec = CODECS[part]

    def key(row: Any) -> tuple[Any, ...]:
        data = codec.write(row)
        return tuple(
            _version_key(str(data[name])) if name in ("version", "build") else data[name]
            for name in codec.key
        )

    return tuple(sorted(rows, key=key))


def _version_key(text: str) -> tuple[Any, ...]:
    from packaging.version import InvalidVersion, Version

    try:
        return (0, Version(text))
    except InvalidVersion:  # a build such as rocm6.4
        return (1, text)


def dump_json(part: str, rows: Sequence[Any], *, revision: str) -> str:
    """A script-made file: one row a line, in the order given."""
    codec = CODECS[part]
    lines = [json.dumps(codec.write(row), ensure_ascii=False) for row in rows]
    head = f'{{"schema": {SCHEMA}, "revision": "{revision}", "rows": [\n'
    return head + ",\n".join(lines) + "\n]}\n"


def dump_toml(file_name: str, parts: Mapping[str, Sequence[Any]], *, revision: str, text: str) -> str:
    """A hand-made file, written anew from its rows in the layout and with the comments of `text`.

    Raises:
        ValueError: the layout of `text` is not one that this writer knows.
    """
    expected = [part for part, name in FILES.items() if name == file_name]
    if set(parts) != set(expected):
        raise ValueError(f"{file_name} holds {', '.join(expected)}")
    waiting = {part: iter(rows) for part, rows in parts.items()}
    out: list[str] = []
    inside: str | None = None  # the part whose rows stand one a line
    skipping = False  # inside a table whose lines have been written
    quoted = False  # inside a text of several lines in such a table
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if skipping:
            quoted ^= line.count(_QUOTES) % 2 == 1
        if quoted or (skipping and line == _QUOTES):
            continue
        if line.startswith("#") or not line.strip():
            skipping = False
            out.append(line)
        elif line.startswith("schema ="):
            out.append(f"schema = {SCHEMA}")
        elif line.startswith("revision ="):
            out.append(f'revision = "{revision}"')
        elif line.startswith("[["):
            part = line.strip("[]")
            explicit = _keys(lines[number + 1 :])
            out += [line, *_table(CODECS[part].write(next(waiting[part]), explicit=explicit))]
            skipping = True
        elif line.endswith(" = [") and not skipping:
            inside = line.removesuffix(" = [")
            out.append(line)
        elif line == "]" and inside:
            inside = None
            out.append(line)
        elif inside and line.startswith("  #"):
            out.append(line)
        elif inside:
            out.append(f"  {_value(CODECS[inside].write(next(waiting[inside])))},")
        elif not skipping:
            raise ValueError(f"{file_name}: unexpected line {line!r}")
    for part, rows in waiting.items():
        if next(rows, None) is not None:
            raise ValueError(f"{file_name}: rows of {part} are left over")
    return "\n".join(out) + "\n"


def _keys(lines: Sequence[str]) -> frozenset[str]:
    """The keys of the table that these lines begin with: a hand may write down a default."""
    keys = set()
    for line in lines:
        if line.startswith("["):
            break
        if match := re.match(r"(\w+) = ", line):
            keys.add(match[1])
    return frozenset(keys)


def _table(data: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, value in data.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{name} = [", *(f"  {_value(entry)}," for entry in value), "]"]
        else:
            lines.append(f"{name} = {_value(value)}")
    return lines


def _value(value: Any) -> str:
    if isinstance(value, str) and "\n" in value and _QUOTES not in value:
        return f"{_QUOTES}\n{value}{_QUOTES}"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(name)} = {_value(entry)}" for name, entry in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(entry) for entry in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() else json.dumps(name)
