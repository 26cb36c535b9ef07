"""Looks for symptoms in blocks of lines: by literal substrings first, then by patterns."""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, field
from bnbenv.doctor.prose import is_statement, is_told
from bnbenv.doctor.text import readings, undecorated, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bnbenv.doctor.text import Block
    from bnbenv.matrix.rows import Symptom

_MOST_HITS = 24  # of one symptom: what comes later adds nothing
_MOST_SHAPES = 200_000
_REPEATS = 3  # of one shape of line, digits aside, where it says nothing
_FRUITLESS = 2_000  # tries of a symptom that only tells facts
_SHOWN = 240
_SPLIT = str.maketrans("0123456789", " " * 10)
_VARYING = str.maketrans("", "", "0123456789abcdef.,:%|/ \t#")  # numbers, and names made of hex digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One line that says a symptom.

    Attributes:
        line: its number, from 1.
        text: the line, shortened.
        facts: the pattern's named groups.
    """

    line: int
    text: str
    facts: Mapping[str, str]


@dataclass(slots=True)
class Seen:
    """What was found: the hits by symptom, in the order of lines, and how many lines there were."""

    hits: dict[str, list[Hit]] = field(default_factory=dict)
    lines: int = 0


@dataclass(frozen=True, slots=True)
class _Ready:
    symptom: Symptom
    pattern: re.Pattern[str]


class Scanner:
    """Reads a text once, in bounded memory.

    A block is searched for literals in two steps: the parts of literals that hold no space and no digit are
    looked for among the block's distinct words, which are few, and only the literals whose part is there are
    looked for in the block.
    """

    def __init__(self, symptoms: Sequence[Symptom]) -> None:
        self._by_literal: dict[str, list[_Ready]] = {}
        for row in symptoms:
            ready = _Ready(row, re.compile(row.pattern, re.IGNORECASE))
            for literal in row.literals:
                self._by_literal.setdefault(literal, []).append(ready)
        self._parts = {literal: _part(literal) for literal in self._by_literal}
        self._shapes: dict[int, int] = {}
        self._fruitless: dict[str, int] = {}
        self._seen = Seen()

    def scan(self, blocks: Iterable[Block]) -> Seen:
        """All symptoms of a text."""
        for block in blocks:
            self._block(block)
        return self._seen

    def _block(self, block: Block) -> None:
        seen, text = self._seen, block.text
        seen.lines = block.numbers[-1] - text.endswith("\n")
        low = _lower(text).replace("\n", " ")  # a literal may be broken at a space
        words = "\n".join(set(low.translate(_SPLIT).split()))
        literals = [
            literal for literal, part in self._parts.items() if (not part or part in words) and literal in low
        ]
        if not literals:
            return
        lines = text.split("\n")
        starts = list(accumulate((len(line) + 1 for line in lines), initial=0))
        places = _places(low, literals, starts)

        def bare(place: int) -> str:
            return undecorated(lines[place]) if place < len(lines) else ""

        broken = {place - 1 for place in places if place and wrapped(bare(place - 1), bare(place))}
        for place in sorted(broken.union(places)):
            if place and is_statement(bare(place - 1), bare(place)):
                continue
            self._line(block.numbers[place], bare(place), bare(place + 1), bare(place + 2), literals)

    def _line(self, number: int, line: str, following: str, after: str, literals: Sequence[str]) -> None:
        shape = hash(line.translate(_VARYING)) if len(line) < 4000 else hash(line)
        known = self._shapes.get(shape, 0)
        if known >= _REPEATS:
            return
        if len(self._shapes) >= _MOST_SHAPES:
            self._shapes.clear()
        self._shapes[shape] = known + 1
        found = False
        for text in readings(line):
            known_literals = (
                literals if text is line else tuple(self._by_literal)
            )  # unquoting may make others
            found |= self._match(number, text, known_literals)
        if following and len(line) <= 400:
            last = (readings(line) or ("",))[-1].rstrip()
            follows = "".join(readings(following)[:1])
            if last and wrapped(line, follows):
                joints = [f"{last} {follows.lstrip()}", last + follows.lstrip()]
                third = "".join(readings(after)[:1])
                if wrapped(following, third):
                    joints = [joint + between + third.lstrip() for joint in joints for between in ("", " ")]
                for joint in joints:
                    found |= self._match(number, joint, literals, joint=len(last))
        if found:  # the same words with other numbers may be other facts
            self._shapes[shape] = known

    def _match(self, number: int, text: str, literals: Sequence[str], *, joint: int = 0) -> bool:
        low = _lower(text)
        found = False
        candidates = {
            id(ready): ready
            for literal in literals
            if literal in low
            for ready in self._by_literal.get(literal, ())
        }
        for ready in candidates.values():
            row = ready.symptom
            hits = self._seen.hits.setdefault(row.id, [])
            if len(hits) >= _MOST_HITS or self._fruitless.get(row.id, 0) >= _FRUITLESS:
                self._retire(ready)
                continue
            before = len(hits)
            for match in ready.pattern.finditer(text):
                if joint and not match.start() < joint < match.end():
                    continue  # one of the lines says it by itself
                if row.kind in ("failure", "symptom") and is_told(low, match.start(), match.end()):
                    continue
                facts = {name: value for name, value in match.groupdict().items() if value}
                hits.append(Hit(line=number, text=_shown(text, match), facts=facts))
                found = True
                if row.kind != "fact" or len(hits) >= _MOST_HITS:
                    break
            if row.kind == "fact" and len(hits) == before:
                self._fruitless[row.id] = self._fruitless.get(row.id, 0) + 1
        return found

    def _retire(self, ready: _Ready) -> None:
        for literal in ready.symptom.literals:
            users = self._by_literal.get(literal, [])
            if ready in users:
                users.remove(ready)
            if not users:
                self._by_literal.pop(literal, None)
                self._parts.pop(literal, None)


def _part(literal: str) -> str:
    """The longest stretch of a literal without space or digit; ``""`` where there is none of two letters."""
    longest = max(re.findall(r"[^\s\d]+", literal), key=len, default="")
    return longest if len(longest) > 1 else ""


def _lower(text: str) -> str:
    low = text.lower()
    if len(low) == len(text):
        return low
    # A few letters have lower forms of another length, which would shift every position behind them.
    return "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)


def _places(low: str, literals: Sequence[str], starts: Sequence[int]) -> set[int]:
    """The indexes of the lines that hold one of the literals."""
    places: set[int] = set()
    for literal in literals:
        at = low.find(literal)
        while at >= 0:
            place = bisect_right(starts, at) - 1
            places.add(place)
            at = low.find(literal, starts[place + 1])
    return places


def _shown(text: str, match: re.Match[str]) -> str:
    """The line as evidence: whole where short, else the stretch around the match."""
    bare = text.strip()
    if len(bare) <= _SHOWN:
        return bare
    start = max(0, match.start() - 60)
    end = min(len(text), max(match.end(), start + _SHOWN - 60), start + 2 * _SHOWN)
    return ("…" if start else "") + text[start:end].strip() + ("…" if end < len(text) else "")
