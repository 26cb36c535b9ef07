"""How an environment's scripts name it: read, and written as installers write them."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Of a first line, `#!` and newline included: older kernels read no more, and pip and uv write no longer one.
_LONGEST_BYTES = 127
_HEAD_BYTES = 8192  # a path has at most 4096, and stands in the second line where it is long
_PLAIN = re.compile(r"#![ \t]*(/.*/python[\w.]*)[ \t]*([^\n]*)(?:\n|\Z)")
_BY_SHELL = re.compile(r"#![ \t]*/bin/sh\n'''exec' ([^\n]+)\n(?:' '''\n?|\Z)")
_OF_A_NAME = re.compile(r"[\w.-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How a script starts its interpreter.

    Attributes:
        interpreter: its absolute path.
        options: what stands between the interpreter and the script; mostly nothing.
        lines: the text that says so, from `#!` on.
        runs: the system can start it; a first line with a blank in the path, or too long, it cannot.
    """

    interpreter: str
    options: str
    lines: str
    runs: bool


def start_of(script: Path) -> Start | None:
    """How a script starts its Python; ``None`` for a binary, `env`, or what finds its Python by itself."""
    try:
        if not script.is_file():
            return None
        with script.open("rb") as stream:
            return _start(stream.read(_HEAD_BYTES).decode("utf-8", "surrogateescape"))
    except OSError:
        return None


def first_lines(interpreter: str, options: str = "") -> str:
    """The lines with which a script starts its interpreter, the last newline included, as uv writes them."""
    plain = f"#!{interpreter} {options}".rstrip() + "\n"
    if _fits(plain, interpreter):
        return plain
    words = " ".join(filter(None, ("'" + _quoted(interpreter, "'") + "'", options, '"$0" "$@"')))
    return f"#!/bin/sh\n'''exec' {words}\n' '''\n"


def restarted(content: bytes, old: str, new: str) -> bytes:
    """A script of the environment at `old`, started by the interpreter at `new`; the rest stays."""
    head, rest = _restarted(content, old, new)
    return (head + rest).encode("utf-8", "surrogateescape")


def pointed(content: bytes, old: str, new: str) -> bytes:
    """The same, and `new` is named in the rest too; also of a file that is sourced, not started."""
    head, rest = _restarted(content, old, new)
    if "\0" not in rest:  # else the rest is an archive, or all of it a program
        rest = "\n".join(_renamed(line, old, new) for line in rest.split("\n"))
    return (head + rest).encode("utf-8", "surrogateescape")


def _restarted(content: bytes, old: str, new: str) -> tuple[str, str]:
    """The first lines, changed where they name `old`, and the rest."""
    text = content.decode("utf-8", "surrogateescape")
    start = _start(text)
    if start is None:
        head = text.partition("\n")[0] if text.startswith("#!") else ""
        return head.replace(old + os.sep, new + os.sep), text[len(head) :]
    rest = text[len(start.lines) :]
    if not start.interpreter.startswith(old + os.sep):
        return start.lines, rest
    return first_lines(new + start.interpreter[len(old) :], start.options), rest


def _start(text: str) -> Start | None:
    if match := _BY_SHELL.match(text):
        try:
            interpreter, *options, script, arguments = shlex.split(match[1])
        except ValueError:
            return None
        known = (script, arguments) == ("$0", "$@") and re.search(r"^/.*/python[^/]*$", interpreter)
        if not known:
            return None
        return Start(interpreter=interpreter, options=shlex.join(options), lines=match[0], runs=True)
    if match := _PLAIN.match(text):
        return Start(
            interpreter=match[1], options=match[2].strip(), lines=match[0], runs=_fits(match[0], match[1])
        )
    return None


def _fits(line: str, interpreter: str) -> bool:
    return not re.search(r"\s", interpreter) and len(os.fsencode(line)) <= _LONGEST_BYTES


def _renamed(line: str, old: str, new: str) -> str:
    """`old` replaced by `new` where it stands as a whole path, quoted as it must be there."""
    if not any(_quoted(old, within) in line for within in ("", "'", '"')):
        return line
    parts: list[str] = []
    quote, at = "", 0
    while at < len(line):
        form = _quoted(old, quote)
        before, after = line[at - 1 : at], line[at + len(form) : at + len(form) + 1]
        if line.startswith(form, at) and not (_OF_A_NAME.match(before) or _OF_A_NAME.match(after)):
            parts.append(_quoted(new, quote))
            at += len(form)
            continue
        if line[at] == quote:
            quote = ""
        elif not quote and line[at] in "'\"":
            quote = line[at]
        parts.append(line[at])
        at += 1
    return "".join(parts)


def _quoted(path: str, within: str) -> str:
    """A path as a shell reads it within single quotes, double quotes, or none."""
    if within == "'":
        return path.replace("'", "'\"'\"'")
    return re.sub(r'([\\"$`])', r"\\\1", path) if within else shlex.quote(path)
