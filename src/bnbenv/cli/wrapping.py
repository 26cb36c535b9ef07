"""Long lines on a terminal: prose is broken between words, what is to be copied never is.

A terminal breaks a line at its edge, also within a word. A line feed of ours inside a command or a path would
be copied along with it, so that those are left to the terminal.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

_ESCAPE = re.compile(r"\x1b\[[\d;]*m")
# A command at the start of a line, or behind the label of a hint.
_COMMAND = re.compile(
    r"\s*(?:next: )?(?:bnbenv|uv|uvx|pip|pipx|python[\d.]*|source|export|unset|cd|sudo|docker|&) "
)
# What stays together: between backticks, or without a space.
_WORD = re.compile(r"`[^`]*`\S*|\S+?`[^`]*`\S*|\S+")
_GAP = re.compile(r"(?<=\S) {2,}(?=\S)")
_LEAST = 24  # columns: below that nothing is gained


def width_of(stream: TextIO) -> int | None:
    """The columns of the terminal that `stream` is; ``None`` where it is none, or does not say."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None if stream.isatty() else None
    except (OSError, ValueError, AttributeError):
        return None


def wrapped(text: str, width: int | None) -> str:
    """`text` with each line of prose broken to `width` columns; unchanged without one."""
    if width is None or width < _LEAST:
        return text
    return "\n".join(part for line in text.split("\n") for part in _lines(line, width))


def _length(text: str) -> int:
    return len(_ESCAPE.sub("", text))


def _lines(line: str, width: int) -> list[str]:
    if _length(line) <= width:
        return [line]
    bare = _ESCAPE.sub("", line)
    indent = len(bare) - len(bare.lstrip())
    gaps = list(_GAP.finditer(bare))
    if _COMMAND.match(bare):
        gap = _GAP.search(line, indent)
        if gap is None:
            return [line]
        return [line[: gap.start()], *_fold(" " * (indent + 4) + line[gap.end() :], width, indent + 4)]
    hanging = gaps[-1].end() if gaps else indent + 2 * bool(indent)
    return _fold(line, width, hanging if hanging <= width // 2 else indent + 2)


def _fold(line: str, width: int, hanging: int) -> list[str]:
    """Break between words; one that has no room in a line of its own stays where it is."""
    found: list[str] = []
    start = len(line) - len(line.lstrip())
    current, end = line[:start], start
    for begin, text in _words(line, start, width - hanging):
        space, end = line[end:begin], begin + len(text)
        fits = _length(current + space + text) <= width
        if fits or not current.strip() or hanging + _length(text) > width:
            current += space + text
        else:
            found.append(current)
            current = " " * hanging + text
    return [*found, current]


def _words(line: str, start: int, room: int) -> Iterator[tuple[int, str]]:
    """Each word and where it begins; a quotation without room falls into its words, a command never."""
    for found in _WORD.finditer(line, start):
        text = found.group()
        if _length(text) <= room or _COMMAND.match(text.lstrip("(`")):
            yield found.start(), text
        else:
            yield from ((found.start() + word.start(), word.group()) for word in re.finditer(r"\S+", text))
