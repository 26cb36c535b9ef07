"""Take credentials out of everything that is printed or logged."""

from __future__ import annotations

import os
import re
from functools import cache
from typing import TYPE_CHECKING

from bnbenv.install.redact import redact as redact_addresses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

MASK = "****"

_COOKIE = r"(?i)\b((?:set-)?cookie['\"]?\s*:\s*)[^\r\n]+"
_HEADER = r"(?i)\b(authorization['\"]?\s*[:=]\s*['\"]?)(?:(?:basic|bearer|token)\s+)?[^\s'\"]+"
_PARAMETER = (
    r"(?i)(?P<name>\b[a-z0-9_-]*(?:token|password|passwd|passphrase|secret|credentials?"
    r"|(?:api|access|secret|private|client|account)[-_]?key)(?:\\*['\"])?(?P<between>\s*[=:]\s*|\s+)(?:\\*['\"])?)"
    r"(?P<value>(?:[^\s&'\",;}\\]|\\(?!\\*['\"]))+)"  # a quote may be escaped: a log may hold JSON in JSON
)
# Tokens that are secret wherever they stand: how they begin, as is published, and how they go on.
_TOKENS = {
    "hf_": r"[A-Za-z0-9]{20,}",
    **dict.fromkeys(("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"[A-Za-z0-9]{30,}"),
    "github_pat_": r"[A-Za-z0-9_]{30,}",
    "glpat-": r"[\w-]{20,}",
    "pypi-": r"[A-Za-z0-9_-]{40,}",
    "sk-": r"[A-Za-z0-9_-]{20,}",
    **dict.fromkeys(("xoxa-", "xoxb-", "xoxp-", "xoxr-", "xoxs-"), r"[A-Za-z0-9-]{10,}"),
    **dict.fromkeys(("AKIA", "ASIA"), r"[0-9A-Z]{16}"),
    "AIza": r"[\w-]{35}",
    "nvapi-": r"[\w-]{20,}",
    "npm_": r"[A-Za-z0-9]{36}",
    "gsk_": r"[A-Za-z0-9]{20,}",
    "r8_": r"[A-Za-z0-9]{30,}",
    "dapi": r"[0-9a-f]{32}",
    "ya29.": r"[\w-]{20,}",
    "SG.": r"[\w-]{16,}\.[\w-]{16,}",
    "eyJ": r"[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}",
}
_TOKEN = rf"\b(?:{'|'.join(re.escape(start) + rest for start, rest in _TOKENS.items())})"
_VARIABLE = re.compile(r"`(?:UV|PIP|HF)_[A-Z0-9_<>]+`")
_SECRET_NAME = re.compile(r"(?i)(?:token|password|passwd|_pwd|secret|key|credentials?|_pat|auth)$")


def redact(text: str, environ: Mapping[str, str] | None = None) -> str:
    """`text` without credentials.

    Removes the user part of addresses, authorisation headers, ``name=value`` where the name ends like that of
    a secret, well-known tokens, and the values of the environment's own secrets wherever they turn up.
    """
    text = redact_addresses(text)
    folded = text.casefold()
    for words, pattern, masked in KINDS:
        if any(word in folded for word in words):
            text = _compiled(pattern).sub(masked, text)
    for secret in _own_secrets() if environ is None else _secrets(environ):
        text = text.replace(secret, MASK)
    return text


class Verbatim(str):
    """What a program reads, such as a script or a path that was asked for: it goes out as it is."""

    __slots__ = ()


def redact_document(document: Any) -> Any:
    """A JSON document without credentials in its texts and keys."""
    # One look at all of them: hardly any document holds a secret, and batches print tens of thousands.
    texts = "\n".join(_texts(document))
    return document if redact(texts) == texts else _redacted(document)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if not isinstance(value, Verbatim):
            yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return value if isinstance(value, Verbatim) else redact(value)
    if isinstance(value, dict):
        return {redact(key): _redacted(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(inner) for inner in value]
    return value


def redact_words(words: list[str] | tuple[str, ...]) -> list[str]:
    """A command line without credentials, for people to read."""
    import shlex

    return [shlex.quote(redact(word)) for word in words]


def _mask_parameter(match: re.Match[str]) -> str:
    name = match["name"]
    if _VARIABLE.fullmatch(match["value"]):  # a hint says where a secret is looked for
        return match[0]
    # A mere blank separates an option from its value (`--password x`), but also words of a sentence.
    if (
        match["between"].isspace()
        and not name.startswith("-")
        and match.string[max(0, match.start() - 2) : match.start()] != "--"
    ):
        return match[0]
    return f"{name}{MASK}"


KINDS: tuple[tuple[tuple[str, ...], str, str | Callable[[re.Match[str]], str]], ...] = (
    (("cookie",), _COOKIE, rf"\1{MASK}"),
    (("authorization",), _HEADER, rf"\1{MASK}"),
    (("token", "passw", "passphrase", "secret", "credential", "key"), _PARAMETER, _mask_parameter),
    (tuple(start.casefold() for start in _TOKENS), _TOKEN, MASK),
)
"""Kinds of secrets: words, case folded, of which each holds one, its pattern, and what is put in its place.

The words are looked for first: a pattern takes fifty times as long, and hardly any text holds a secret. For
the same reason a pattern is compiled when it is needed.
"""
_compiled = cache(re.compile)


def _secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    # Short values would turn ordinary words into masks.
    found = (value for name, value in environ.items() if _SECRET_NAME.search(name) and len(value) >= 8)
    return tuple(sorted(found, key=len, reverse=True))


@cache
def _own_secrets() -> tuple[str, ...]:
    return _secrets(os.environ)
