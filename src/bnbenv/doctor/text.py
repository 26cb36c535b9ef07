"""Bytes of a log, in any usual encoding and of any size, as numbered blocks of clean lines."""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

LONGEST = 16_384
"""Characters of a line that are looked at together; a longer line is cut, with an overlap."""
_OVERLAP = 512
_BLOCK = 1 << 18  # characters a block
_SNIFFED = 4096
_ESCAPES = re.compile(
    r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]"  # colours and cursor moves
    r"|\x1b\][^\x07\x1b]{0,2048}(?:\x07|\x1b\\)?"  # titles and links
    r"|\x1b[@-Z\\-_]"
)
_TYPESET = str.maketrans(
    {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0xA0: " ", 0x200B: "", 0xFEFF: "", 0x2013: "-"}
)
_BOX_LEFT = re.compile(r"^\s{0,20}[│┃║╎❱|]{1,2}\s?(?:❱\s?)?")
_BOX_RIGHT = re.compile(r"\s{0,400}[│┃║╎]\s{0,20}$")
_RULE = re.compile(r"^[\s─━═╭╮╰╯┌┐└┘├┤┏┓┗┛+]{3,}")
# What goes before the words of a program in a log or an answer: quotation marks, the time, who says it.
_DECORATION = re.compile(
    r"(?:>(?!>) ?"  # not Python's prompt
    r"|\s{0,6}\d{1,6}\t"  # the number of the line
    r"|[\[(]?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?[\])]?:?(?: |$)"
    r"(?:- (?:\w{2,12} - ){0,3})?"
    r"|[\[(]?\d\d:\d\d:\d\d(?:[.,]\d{1,9})?[\])]? (?:- )?"
    r"|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d [\w.-]{1,64} [\w./@-]{1,40}(?:\[\d{1,8}\])?: "  # the journal
    r"|\[(?:rank|node)?\d{1,5}(?::\d{1,4})?\]:? |\d{1,4}: "  # torchrun, srun
    r"|[\w.-]{1,40}-\d{1,3} {1,20}\| "  # Docker Compose
    r"|\([\w. ]{1,40} pid=\d{1,8}(?:, ip=[\d.]{7,15})?\) )+"  # Ray
)
_STARTS = frozenset("0123456789[{(")
_PROMPTS = (">>> ", "In [", "$ ")
_NARROWEST, _WIDEST = 72, 400  # columns of a terminal
_PROSE = re.compile(r"[A-Za-z]\w{2,}[ :]{1,2}\w{3,}")
_LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"?')


def _as_latin(error: UnicodeError) -> tuple[str, int]:
    """Bytes that are no UTF-8 are read one by one as Latin-1, as old Windows consoles wrote them."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error("bnbenv-latin", _as_latin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Some whole lines.

    Attributes:
        text: lines ended by newlines, without escape sequences. What a carriage return overwrote on a
            terminal is a line of its own.
        numbers: the number of each line in the file, counted from 1.
    """

    text: str
    numbers: Sequence[int]


def blocks_of(chunks: Iterable[bytes]) -> Iterator[Block]:
    """Decode a stream of bytes into blocks of lines, holding no more than a block at a time.

    Args:
        chunks: the bytes in order, cut anywhere.
    """
    number, pending = 1, ""
    for text in _decoded(chunks):
        pending += text
        if len(pending) < _BLOCK:
            continue
        cut = 1 + max(pending.rfind("\n"), pending.rfind("\r", 0, -1))  # the last may belong to a newline
        if cut:
            yield _block(pending[:cut], number)
            number += pending.count("\n", 0, cut)
            pending = pending[cut:]
        elif len(pending) >= 4 * _BLOCK:  # one line without an end: looked at piece by piece
            yield _block(pending, number)
            pending = pending[-_OVERLAP:]
    if pending:
        yield _block(pending, number)


def _block(text: str, first: int) -> Block:
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    if "\r" not in text:
        return Block(text=text, numbers=range(first, first + text.count("\n") + 1))
    lines = [line.removesuffix("\r").split("\r") for line in text.split("\n")]
    numbers = [first + place for place, parts in enumerate(lines) for _ in parts]
    return Block(text="\n".join(part for parts in lines for part in parts), numbers=numbers)


def _decoded(chunks: Iterable[bytes]) -> Iterator[str]:
    stream = iter(chunks)
    head = b""
    for chunk in stream:
        head += chunk
        if len(head) >= _SNIFFED:
            break
    decoder = codecs.getincrementaldecoder(_encoding(head[:_SNIFFED]))(errors="bnbenv-latin")
    yield decoder.decode(head)
    for chunk in stream:
        yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)


def _encoding(head: bytes) -> str:
    """By the byte-order mark, else by where the zero bytes stand: PowerShell's ``>`` writes UTF-16."""
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    pairs = len(head) // 2
    if pairs >= 4:
        if head[1::2].count(0) > pairs * 0.6:
            return "utf-16-le"
        if head[::2].count(0) > pairs * 0.6:
            return "utf-16-be"
    return "utf-8"


def undecorated(line: str) -> str:
    """A line without what a log or an answer puts before it."""
    match = _DECORATION.match(line)
    return line[match.end() :] if match else line


def readings(line: str) -> tuple[str, ...]:
    """A line as a person reads it: one text, or several where it is long, or holds strings of JSON.

    Frames of boxes are taken off, typeset quotes are made plain, and the strings in a line of JSON (a
    notebook, a container's log) are unquoted.
    """
    parts: list[str] = []
    for piece in _pieces(line):
        bare = piece.lstrip(" \t,[")
        if bare.startswith('"') or (bare.startswith("{") and "\\" in piece):
            parts += _unquoted(piece)
            if _PROSE.search(_LITERAL.sub("", bare)):  # only its first word is quoted
                parts.append(_framed(piece))
        else:
            parts.append(_framed(piece))
    return tuple(part for part in parts if part.strip())


def _pieces(line: str) -> Iterator[str]:
    if len(line) <= LONGEST:
        yield line
        return
    for start in range(0, len(line), LONGEST - _OVERLAP):
        yield line[start : start + LONGEST]


def _framed(text: str) -> str:
    text = text.translate(_TYPESET) if not text.isascii() else text
    if "&" in text and ";" in text:
        import html

        text = html.unescape(text)
    if not text.isascii() or text.lstrip().startswith("|"):
        text = _BOX_RIGHT.sub("", _BOX_LEFT.sub("", _RULE.sub("", text)))
    return text


def _unquoted(text: str) -> list[str]:
    found: list[str] = []
    for match in _LITERAL.finditer(text):
        try:
            value = json.loads(f'"{match[1]}"')
        except ValueError:
            value = match[1]
        lines = _ESCAPES.sub("", value).splitlines()
        found.extend(_framed(line) for line in lines if 2 < len(line) <= LONGEST)
    return found


def wrapped(line: str, following: str) -> bool:
    """Whether the two belong together: broken by a terminal or a box, or a question and its answer."""
    if not following.strip() or following.startswith(("  File ", "Traceback ", ">>>")):
        return False
    if line.startswith(_PROMPTS):
        return len(line) < 200
    if line.startswith("Name: "):  # as pip shows a package
        return following.startswith("Version: ")
    if following[0] in _STARTS:  # a line with a time or a level of its own
        return False
    if line.rstrip().endswith("."):  # a sentence ends
        return False
    first = following.split(maxsplit=1)[0]
    return len(line.rstrip()) + len(first) + 1 >= _NARROWEST and len(line) <= _WIDEST
