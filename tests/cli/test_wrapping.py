from __future__ import annotations

import io
import os
import sys

import pytest

from bnbenv.cli.wrapping import width_of, wrapped


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("short", ["short"]),
        ("twenty columns and ten more than that", ["twenty columns and ten more", "than that"]),
        ("  an indented line of more than that", ["  an indented line of more", "    than that"]),
        ("name   what it is, told at some length", ["name   what it is, told at", "       some length"]),
        ("the command `bnbenv info lab -vv` names it", ["the command", "`bnbenv info lab -vv` names", "it"]),
        ("it said `one two three four five six seven`", ["it said `one two three four", "five six seven`"]),
        ("so `bnbenv info qlora --json --verbose`", ["so `bnbenv info qlora --json --verbose`"]),
        ("at /home/somebody/a/long/path/to/it", ["at /home/somebody/a/long/path/to/it"]),
        ("next: bnbenv create qlora --name lab", ["next: bnbenv create qlora --name lab"]),
        (
            "  bnbenv remove qlora     all of it, and what it holds",
            ["  bnbenv remove qlora", "      all of it, and what it", "      holds"],
        ),
        ("one\n\ntwo", ["one", "", "two"]),
    ],
)
def test_prose_is_broken_between_words_and_commands_never(text: str, lines: list[str]) -> None:
    assert wrapped(text, 28).split("\n") == lines


def test_colours_take_no_room() -> None:
    painted = "\x1b[31;1merror\x1b[0m: a word of eight"
    assert wrapped(painted, 24) == painted


@pytest.mark.parametrize("width", [None, 10])
def test_without_a_width_nothing_is_broken(width: int | None) -> None:
    assert wrapped("word " * 40, width) == "word " * 40


def test_what_is_no_terminal_has_no_width() -> None:
    assert width_of(io.StringIO()) is None


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_a_terminal_tells_its_width() -> None:
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 61, 0, 0))
    with os.fdopen(theirs, "w") as stream:
        assert width_of(stream) == 61
    os.close(ours)
