from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnbenv.cli.redact import KINDS, Verbatim, redact, redact_document

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


def document_of(text: str) -> dict[str, Any]:
    return {"text": text, text: [{"a": [text, 1, None, True]}, "plain"]}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('token="correct-horse"', 'token="****"'),
        ("it said: password='correct \\'horse\\''", "it said: password='**** \\'horse\\''"),
        ('"token": "correct\\\\horse"', '"token": "****"'),
        (json.dumps({"why": json.dumps({"token": "correct-horse"})}), '{"why": "{\\"token\\": \\"****\\"}"}'),
        ("tokenizer.pad_token = tokenizer.eos_token", "tokenizer.pad_token = ****"),
    ],
)
def test_a_document_is_masked_text_by_text(text: str, shown: str) -> None:
    assert redact(text, {}) == shown
    assert redact_document(document_of(text)) == document_of(shown)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(words([pattern for _, pattern, _ in KINDS]))
def test_no_text_of_a_document_is_passed_over(text: str) -> None:
    assert redact_document(document_of(text)) == document_of(redact(text))


def test_what_is_for_programs_goes_out_as_it_is() -> None:
    script = Verbatim("tokenizer.pad_token = tokenizer.eos_token")
    told = redact_document({"script": script, "text": str(script)})
    assert told == {"script": script, "text": "tokenizer.pad_token = ****"}


def test_a_secret_of_the_environment_with_quotes_in_it_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    from bnbenv.cli import redact as module

    monkeypatch.setenv("LAB_TOKEN", 'a "quoted\\" one')
    module._own_secrets.cache_clear()
    try:
        assert redact_document({"said": 'it was a "quoted\\" one'}) == {"said": "it was ****"}
    finally:
        module._own_secrets.cache_clear()
