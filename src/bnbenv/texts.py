"""How a text file is encoded that people, editors and shells wrote."""

from __future__ import annotations

import codecs


def encoding_of(head: bytes) -> str:
    """UTF-8, or UTF-16 where the first two bytes are its mark, as PowerShell's ``>`` writes it.

    The mark is no part of the text, nor is that of UTF-8.
    """
    return "utf-16" if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
