from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnbenv.install.redact import Credential, join_credential, redact, split_credential


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://joe:pw@a.example/simple", "https://****@a.example/simple"),
        ("see https://token@a/ and http://u:p@b/", "see https://****@a/ and http://****@b/"),
        ("https://a.example/simple?token=abc&x=1", "https://a.example/simple?token=****&x=1"),
        ("https://a.example/@scope/x", "https://a.example/@scope/x"),
        ("mail joe@example.org", "mail joe@example.org"),
    ],
)
def test_credentials_are_blotted_out(text: str, expected: str) -> None:
    assert redact(text) == expected


@given(st.text(min_size=1), st.text())
def test_a_credential_survives_the_way_into_an_address_and_back(username: str, password: str) -> None:
    credential = Credential(username=username, password=password)
    try:
        joined = join_credential("https://a.example/simple", credential)
    except UnicodeEncodeError:  # a lone surrogate is no text that an address can hold
        return
    assert split_credential(joined) == ("https://a.example/simple", credential)
    assert "****@" in redact(joined)


def test_a_credential_does_not_show_itself() -> None:
    assert "s3cret" not in repr(Credential(username="joe", password="s3cret"))
