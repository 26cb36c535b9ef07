from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnbenv.cli.redact import KINDS, redact

if TYPE_CHECKING:
    from collections.abc import Callable


def words(patterns: list[str]) -> st.SearchStrategy[str]:
    """Texts with and without secrets of every kind."""
    secrets = st.one_of(*(st.from_regex(pattern) for pattern in patterns))
    return st.lists(st.one_of(secrets, st.text(max_size=20)), max_size=4).map(" ".join)


@pytest.mark.parametrize(
    ("told", "pattern", "masked"), KINDS, ids=[",".join(told)[:20] for told, _, _ in KINDS]
)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_what_is_looked_for_first_is_in_every_secret(
    told: tuple[str, ...],
    pattern: str,
    masked: str | Callable[[re.Match[str]], str],
    data: st.DataObject,
) -> None:
    text = data.draw(st.from_regex(pattern))
    assert re.sub(pattern, masked, text) == text or any(word in text.casefold() for word in told)


def test_a_hint_may_name_the_variable_of_a_secret() -> None:
    hint = "check the credentials: `UV_INDEX_<NAME>_USERNAME` and `_PASSWORD`, netrc, or the address"
    assert redact(hint, {}) == hint
    for secret in ("`hunter2`", "`HUNTER`", "`HUNTER_TWO`"):
        assert redact(f"password: {secret}", {}) == "password: ****"


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(words([pattern for _, pattern, _ in KINDS]))
def test_no_secret_is_passed_over(text: str) -> None:
    hidden = text
    for _, pattern, masked in KINDS:
        hidden = re.sub(pattern, masked, hidden)
    assert redact(text, {}) == redact(hidden, {})
