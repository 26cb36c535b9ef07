"""Commands to type, spelt for the user's shell where people read them.

They are made as POSIX's shells read them, and stand so in JSON, whatever the platform is.
"""

from __future__ import annotations

import re
import sys

_APOSTROPHE = """'"'"'"""  # within a quoted word
# A whole word in single quotes, as `shlex.quote` writes it; an apostrophe in prose follows a letter.
_QUOTED = re.compile(rf"(?<![^\s(`=])'((?:[^'\n]|{_APOSTROPHE})*)'(?![^\s)`,;.:])")
_UNSET = re.compile(r"(?:unset (\w+)|set (\w+)=)")
_EXPORT = re.compile(r"export (\w+)=(\S*)")
# What has no meaning to cmd, nor to PowerShell; `\w` holds the letters of every script.
_PLAIN = re.compile(r"[\w./\\:+=-]+")


def spelt(text: str) -> str:
    """A command, or a sentence with commands in it, as it can be typed on this platform.

    cmd knows no single quotes, and both it and PowerShell know double ones. Neither runs a program whose own
    path is quoted as the other does: that stays bare wherever it can. Each sets a variable in its own words,
    and PowerShell takes those of cmd without doing anything, nor telling so.
    """
    return _for_windows(text) if sys.platform == "win32" else text


def _for_windows(text: str) -> str:
    if unset := _UNSET.fullmatch(text):
        name = unset[1] or unset[2]
        return f"in cmd: set {name}=; in PowerShell: $env:{name} = $null"
    if export := _EXPORT.fullmatch(text):
        return f"in cmd: set {export[1]}={export[2]}; in PowerShell: $env:{export[1]} = '{export[2]}'"
    return _QUOTED.sub(lambda match: _word(match[1].replace(_APOSTROPHE, "'")), text)


def _word(word: str) -> str:
    if _PLAIN.fullmatch(word):
        return word
    # No path there has a double quote. A marker may, and means the same with single ones.
    word = word.replace('"', "'")
    # A program's start-up code takes a backslash before a quote for part of it, unless it is doubled.
    backslashes = word[len(word.rstrip("\\")) :]
    return f'"{word}{backslashes}"'
