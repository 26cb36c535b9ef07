"""Takes credentials out of addresses and texts, so that they never reach a log, a message or an argument."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from bnbenv.dataclass import dataclass, field

_IN_TEXT = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@'\"<>]+@")
_QUERY_SECRET = re.compile(
    r"(?i)(?P<key>[?&](?:token|password|secret|sig|signature|access_token|key)=)[^&\s'\"]+"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A user name and a password, neither of which appears in its `repr`."""

    username: str = field(repr=False)
    password: str = field(repr=False)


def redact(text: str) -> str:
    """`text` with the user part of every address, and secrets in queries, replaced by ``****``."""
    return _QUERY_SECRET.sub(r"\g<key>****", _IN_TEXT.sub(r"\g<scheme>****@", text))


def split_credential(url: str) -> tuple[str, Credential | None]:
    """An address without its user part, and what stood there."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url, None
    user, _, host = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    bare = urlunsplit((parts.scheme, host, parts.path, parts.query, parts.fragment))
    return bare, Credential(username=unquote(name), password=unquote(password))


def join_credential(url: str, credential: Credential) -> str:
    """The address with the credential in it; for environment variables and 0600 files alone."""
    parts = urlsplit(url)
    user = f"{quote(credential.username, safe='')}:{quote(credential.password, safe='')}"
    return urlunsplit((parts.scheme, f"{user}@{parts.netloc}", parts.path, parts.query, parts.fragment))
