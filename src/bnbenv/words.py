"""Numbers and their nouns, for messages."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """``1 package``, ``2 packages``; the noun takes an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
