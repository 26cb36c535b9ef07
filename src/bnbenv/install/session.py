"""Opens HTTP sessions to an index the way pip and uv are configured to reach it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.errors import UsageError
from bnbenv.install.addresses import is_trusted
from bnbenv.install.uv_files import address, certificates, credential_variables

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import requests

    from bnbenv.install.sources import Index, Sources


def open_session(index: Index, sources: Sources, environ: Mapping[str, str]) -> requests.Session:
    """A session with the certificates, the proxy and the credentials configured for an index.

    Raises:
        UsageError: a file of certificates that a variable names is not there.
    """
    import requests
    from pypi_simple import ACCEPT_ANY

    session = requests.Session()
    # The caller's variables are read here, not the process's behind its back: the two may differ.
    session.trust_env = False
    session.headers["Accept"] = ACCEPT_ANY
    found = proxies(address(index), sources, environ)
    session.proxies.update({scheme: proxy for scheme, (_named, proxy) in found.items()})
    if is_trusted(address(index), sources.trusted_hosts):
        session.verify = False
        warnings.filterwarnings("ignore", message="Unverified HTTPS request")
    elif _wants_system_certificates(sources, environ):
        session.mount("https://", _system_adapter())
    elif bundle := certificates(sources, environ):
        session.verify = _there(*bundle)
    if client := environ.get("SSL_CLIENT_CERT"):
        session.cert = _there("SSL_CLIENT_CERT", client)
    elif sources.client_cert:
        session.cert = str(sources.client_cert)
    if credential := login(index, environ):
        session.auth = credential
    return session


def get_page(session: requests.Session, url: str, *, timeout: float, whole: float) -> requests.Response:
    """Get a page in `whole` seconds at most, however slowly it trickles.

    Args:
        session: of its index.
        url: its address.
        timeout: seconds to connect, and between two bytes.
        whole: seconds from the first question to the last byte.

    Raises:
        requests.exceptions.RequestException: also for what goes wrong while the page is read.
    """
    import time

    import requests
    import urllib3

    deadline = time.monotonic() + whole
    body = bytearray()
    with session.get(url, timeout=(timeout, timeout), stream=True) as response:
        try:
            # What has come, be it one byte: to wait for a whole chunk could take for ever.
            while chunk := response.raw.read1(1 << 16, decode_content=True):
                body += chunk
                if time.monotonic() > deadline:
                    raise requests.exceptions.ReadTimeout(f"it is not read whole within {whole:g} s")
        except urllib3.exceptions.TimeoutError as problem:
            raise requests.exceptions.ReadTimeout(problem) from problem
        except urllib3.exceptions.HTTPError as problem:
            raise requests.exceptions.ConnectionError(problem) from problem
        response._content = bytes(body)  # noqa: SLF001 - what reading it at once would have set
    return response


def _there(named: str, file: str) -> str:
    if not Path(file).exists():
        raise UsageError(
            f"`{named}` names {file}, which does not exist",
            hint=f"name the file of your site's certificates there, or unset `{named}`",
        )
    return file


def _wants_system_certificates(sources: Sources, environ: Mapping[str, str]) -> bool:
    named = [environ.get("UV_NATIVE_TLS", ""), environ.get("UV_SYSTEM_CERTS", "")]
    if any(value.lower() in {"1", "true", "yes", "on"} for value in named):
        return True
    return bool(sources.passed.get("native-tls") or sources.passed.get("system-certs"))


def _system_adapter() -> requests.adapters.HTTPAdapter:
    """Takes the certificates of the operating system, which on Linux are OpenSSL's default places."""
    import ssl

    import requests

    class Adapter(requests.adapters.HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, **{**options, "ssl_context": ssl.create_default_context()})

    return Adapter()


def proxies(url: str, sources: Sources, environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Scheme → what names the proxy for an address, and the proxy, in which a password may stand."""
    from urllib.parse import urlsplit
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

    lowered = {name.lower(): (name, value) for name, value in environ.items() if value}
    host = urlsplit(url).hostname or ""
    if proxy_bypass_environment(host, {"no": lowered.get("no_proxy", ("", ""))[1]}):
        return {}
    if any(
        host == name or host.endswith(f".{name.lstrip('.')}") for name in sources.passed.get("no-proxy", [])
    ):
        return {}
    if sources.proxy:
        proxy = sources.proxy if "://" in sources.proxy else f"http://{sources.proxy}"
        return dict.fromkeys(("http", "https"), ("pip's `proxy`", proxy))
    found = {}
    for scheme in ("http", "https"):
        if variable := lowered.get(f"{scheme}_proxy") or lowered.get("all_proxy"):
            found[scheme] = (f"`{variable[0]}`", variable[1])
        elif configured := sources.passed.get(f"{scheme}-proxy"):
            found[scheme] = (f"uv's `{scheme}-proxy`", str(configured))
    return found


def login(index: Index, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The user name and the password for an index: of its variables, its address or the user's netrc."""
    username, password = credential_variables(index)
    if environ.get(username) or environ.get(password):
        return environ.get(username, ""), environ.get(password, "")
    if index.credential is not None:
        return index.credential.username, index.credential.password
    return _netrc(address(index), environ)


def _netrc(url: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    import netrc
    from urllib.parse import urlsplit

    home = environ.get("HOME") or environ.get("USERPROFILE")
    named = environ.get("NETRC")
    paths = [Path(named)] if named else [Path(home) / name for name in (".netrc", "_netrc")] if home else []
    for path in paths:
        try:
            found = netrc.netrc(str(path)).authenticators(urlsplit(url).hostname or "")
        except (OSError, netrc.NetrcParseError):
            continue
        if found:
            return found[0], found[2] or ""
    return None
