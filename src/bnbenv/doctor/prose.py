"""Whether the words around a message show a failure, or tell of one that is not here.

People deny a failure, remember it, ask about it and document it, in the words that programs print. What
counts is the clause that the message stands in: who writes that nothing works goes on to show why.
"""

from __future__ import annotations

import re

_NEAR = 200  # characters on either side that are looked at
_SHOW = "(?:get|see|have|appear|show|happen|occur|come|print|raise|throw|report|produce|trigger|hit|say)"
_NOT = "(?:not|never|no longer|nobody|nor|cannot|can't|don't|doesn't|didn't|won't)"
# A clause with one of these tells of a failure that did not happen here, or no more.
_TOLD = re.compile(
    rf"\b{_NOT}(?: \w+){{0,2}} {_SHOW}\w{{0,5}}\b"
    r"|\b(?:you|one) (?:(?:will|may|might|can|could) )?(?:get|see)\b"
    rf"|\bwould(?: [\w-]+){{0,6}} {_SHOW}\b"
    r"|\b(?:would|will) [\"'`][^\"'`]{0,40}$"
    r"|\b(?:if (?:you|one|anyone)|might|could be|may (?:be|see|get))\b"
    r"|\b(?:do i need|should i|i wonder|does this|is there|is not (?:the|about)|known issue|see also)\b"
    r"|\b(?:fixe[sd]|solve[sd]|resolve[sd]|gone|went away|disappeared|vanished)\b|\bno longer (?:an? |needed)"
    r"|\b(?:read (?:about|that|of)|someone|others|other people)\b"
    r"|\b(?:used to|previously|was caused|last (?:week|month|year)|in 20\d\d|(?:weeks|months|years) ago)\b"
    r"|\b(?:if|when|where|unless) \w+ (?:raises|says|prints|reports|complains)\b"
    r"|\b(?:explain|document|reword|rephrase|improve|mention|add a hint|clarify|describe)s?\b"
    r"|\b(?:without|unlike|instead of|rather than|similar to|different from|differs? from)(?: \w+){0,3}\W*$"
)
# A sentence with one of these says that it is meant to be so.
_MEANT = re.compile(
    r"\b(?:on purpose|intentional(?:ly)?|deliberate(?:ly)?|as it should|(?:safe to|can be) ignored?"
    r"|(?:is|are|was|were) (?:\w+ )?(?:expected|intended|normal|harmless))\b"
)
# That it is solved, in other languages.
_SOLVED = re.compile(
    r"\b(?:behoben|gelöst|résolue?|réglée?|solucionad[oa]|resuelt[oa]|ya no aparece|resolvid[oa]|risolt[oa]"
    r"|реш(?:ено|ил\w{0,3})|исправ\w{2,8})\b|解决了|好了|解決し"
)
_CLAUSE = re.compile(r"[,\u2014\u2013]\s|\b(?:and|but|so|then|now|yet|although|though|because|while|since)\b")
_PROSE = re.compile(
    r"\b(?:i|i'm|i've|we|my|our|you|your|they|people|someone|this is|it is|there (?:is|are)|which|because"
    r"|the docs|documentation|docs|says? that|error is|message|after (?:upgrading|updating|installing))\b"
)
# Entries of a list of changes, and headings that quote a message.
_ENTRY = re.compile(
    r"\s*(?:[-*+\u2022] (?:\W?fix(?:es|ed)?|add(?:s|ed)?|remove[sd]?|handle[sd]?)\b|#{2,6} [`\"'])"
)
_STATEMENT = re.compile(
    r"(?:[+-] +)?(?:raise \w+|(?:log|logger|logging|warnings)\.\w+|print)\(|assert .{1,80}, f?[\"']"
)
_FRAME = re.compile(
    r"File \"|.{1,200}\.py[:\"(]|.{0,8}\d+ [│|]|[-❱>]"
)  # a traceback shows statements below it


def is_statement(before: str, line: str) -> bool:
    """Whether a line is a statement of a program that is quoted, and not of a traceback.

    Args:
        before: the line before it.
        line: the line itself.
    """
    return bool(_STATEMENT.match(line.lstrip()) and not _FRAME.match(before.lstrip()))


def is_told(low: str, start: int, end: int) -> bool:
    """Whether the words around a message tell of it rather than show it.

    Args:
        low: the line in lower case.
        start: where the message begins in it.
        end: where it ends.
    """
    if re.search(r"\bgrep\b", low[:start]):
        return True  # what is looked for was not found yet
    before = re.split(r"[.!?]\s|[;•]", low[max(0, start - _NEAR) : start])[-1]
    after = re.split(r"[.!?](?:\s|$)", low[end : end + _NEAR])[0]
    sentence = (before, after)
    if _ENTRY.match(low) or any(words.search(part) for words in (_SOLVED, _MEANT) for part in sentence):
        return True
    nearest, next_to = _CLAUSE.split(before)[-1], _CLAUSE.split(after)[0]
    if any(_PROSE.search(part) for part in sentence):
        return bool(_TOLD.search(nearest) or _TOLD.search(next_to))
    return low.rstrip().endswith(("?", ".")) and bool(_TOLD.search(nearest))
