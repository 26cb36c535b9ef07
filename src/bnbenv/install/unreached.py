"""Says what stood between us and an index: a proxy, a certificate, a name, a network, or its own slowness."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.errors import ExternalError
from bnbenv.install.redact import redact
from bnbenv.install.session import proxies
from bnbenv.install.status import PROXY_LOGIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests

    from bnbenv.install.sources import Index, Sources

INDEX_INSTEAD = "configure a mirror (`bnbenv config set pytorch URL`), or a wheelhouse (`PIP_FIND_LINKS=DIR`)"
NETWORK = f"check the network and the proxy (`HTTPS_PROXY`, pip's `proxy`), or {INDEX_INSTEAD}"
_WANTS_LOGIN = "407 Proxy Authentication"


def explained(
    problem: requests.exceptions.RequestException,
    index: Index,
    url: str,
    sources: Sources,
    environ: Mapping[str, str],
    *,
    timeout: float,
) -> ExternalError:
    """The error that a failed question to an index is; never with a part of a password.

    Args:
        problem: what the client library raised.
        index: which was asked.
        url: the address that was asked.
        sources: for the proxy on the way.
        environ: the caller's variables.
        timeout: seconds that were allowed.
    """
    from requests import exceptions

    named = proxies(url, sources, environ).get(url.partition(":")[0])
    proxy = named[0] if named else None

    shown = f"`{index.name}` at {redact(url)}"
    before = f"the proxy ({proxy}) before {shown}"
    code, hint = "index-unreachable", NETWORK
    # Of an address that cannot be read the library quotes a part, and a password may stand in it.
    if isinstance(problem, exceptions.InvalidURL):
        message = f"{before} has an address that cannot be read" if proxy else f"{shown} cannot be read"
        hint = PROXY_LOGIN if proxy else f"check the address that {index.origin} gives"
    elif isinstance(problem, exceptions.InvalidSchema) and "SOCKS" in str(problem):
        message = f"{before} speaks SOCKS, for which the package PySocks is missing beside bnbenv"
        hint = "python -m pip install PySocks, with the Python of bnbenv"
    elif isinstance(problem, exceptions.SSLError):
        message = f"{shown} has a certificate that is not trusted"
        hint = "name your site's certificates with `SSL_CERT_FILE` or pip's `cert`"
    elif isinstance(problem, exceptions.ProxyError):
        message = f"{before} does not work: {_reason(problem)}"
        hint = f"check {proxy}, or name the hosts that need no proxy in `NO_PROXY`"
        if _WANTS_LOGIN in str(problem):
            code, hint = "index-forbidden", PROXY_LOGIN
    elif isinstance(problem, exceptions.TooManyRedirects):
        code, hint = "index-not-an-index", in_browser(url)
        message = f"{shown} leads from one address to the next without end"
    elif isinstance(problem, exceptions.Timeout):
        message = f"{shown} does not answer within {timeout:g} s"
    elif isinstance(
        problem,
        (exceptions.ConnectionError, exceptions.ChunkedEncodingError, exceptions.ContentDecodingError),
    ):
        message = f"{shown} cannot be reached: {_reason(problem)}"
    else:
        message = f"{shown} cannot be used: {redact(str(problem))}"
    return ExternalError(message, code=code, hint=hint)


def in_browser(url: str) -> str:
    """What to do where a page came that is none of an index."""
    return f"open {redact(url)} in a browser: a portal or a sign-in may stand before it"


def _reason(problem: Exception) -> str:
    text = str(problem)
    for sign, words in (
        (_WANTS_LOGIN, "it wants credentials"),
        ("NameResolutionError", "its name has no address"),
        ("getaddrinfo", "its name has no address"),
        ("refused", "the connection is refused"),
        ("timed out", "no answer"),
        ("unreachable", "there is no way to its network"),
        ("RemoteDisconnected", "the connection is closed without an answer"),
        ("reset", "the connection is cut"),
        ("IncompleteRead", "the answer breaks off"),
        ("failed to decode", "the answer cannot be unpacked"),
    ):
        if sign in text:
            return words
    return "there is no connection"
