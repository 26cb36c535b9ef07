from __future__ import annotations

import pytest

from bnbenv.errors import DataError
from bnbenv.lockfile import text


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ('a = "\\u001b[2J"', "`a`"),
        ("a = '''one\ntwo'''", "`a`"),
        ('a = "\x9b2J"', "`a`"),
        ('a = [{ b = ["\\u0007"] }]', r"`a\[0\]\.b\[0\]`"),
        ('[a]\n"\\r" = 1', "a key in `a`"),
        ('[tool.bnbenv]\na = "\\u001b"', r"`tool\.bnbenv\.a`"),
    ],
)
def test_what_a_terminal_would_obey_is_refused(content: str, where: str) -> None:
    with pytest.raises(DataError, match=f"{where}.* holds control characters: ") as caught:
        text.parse(content, "a.lock")
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "content",
    [
        'a = "C:\\\\locks"\r\nb = "größer als 1"\r\n',
        'a\t= "one\ttwo"  # three\n',
        '[tool.other]\na = """\nfor itself alone\n"""',
    ],
)
def test_what_can_be_shown_is_read(content: str) -> None:
    assert text.parse(content, "a.lock")
