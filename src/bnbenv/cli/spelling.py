"""Commands to type, spelt for the user's shell: hints and remedies are made as POSIX's shells read them."""

from __future__ import annotations

import re
import sys

_APOSTROPHE = """'"'"'"""  # within a quoted word
# A whole word in single quotes, as `shlex.quote` writes it; an apostrophe in prose follows a letter.
_QUOTED = re.compile(rf"(?<![^\s(`=])'((?:[^'\n]|{_APOSTROPHE})*)'(?![^\s)`,;.:])")
_VARIABLE = re.compile(r"unset (\w+)|export (\w+=\S*)")
# What has no meaning to cmd, nor to PowerShell; `\w` holds the letters of every script.
_PLAIN = re.compile(r"[\w./\\:+=-]+")


def spelt(text: str) -> str:
    """A command, or a sentence with commands in it, as it can be typed on this platform.

    cmd knows no single quotes, and both it and PowerShell know double ones. Neither runs a program whose own
    path is quoted as the other does: that stays bare wherever it can.
    """
    return _for_windows(text) if sys.platform == "win32" else text


def _for_windows(text: str) -> str:
    if variable := _VARIABLE.fullmatch(text):
        return f"set {variable[2] or f'{variable[1]}='}"
    return _QUOTED.sub(lambda match: _word(match[1].replace(_APOSTROPHE, "'")), text)


def _word(word: str) -> str:
    if _PLAIN.fullmatch(word):
        return word
    # A program's start-up code takes a backslash before a quote for part of it, unless it is doubled.
    backslashes = word[len(word.rstrip("\\")) :]
    return f'"{word}{backslashes}"'
