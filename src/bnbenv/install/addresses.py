"""Addresses of indexes: from paths and URLs to one form, names for nameless ones, and which are safe."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bnbenv.errors import UsageError
from bnbenv.home import expanded
from bnbenv.install.redact import redact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def to_url(value: str, base: Path) -> str:
    """A URL from what users write: a URL, or a path relative to `base`."""
    text = value.strip()
    if "://" in text:
        return text
    if text.startswith("file:"):
        return _local_path(text.removeprefix("file:")).absolute().as_uri()
    return Path(base / expanded(text, "a place of packages")).absolute().as_uri()


def file_path(url: str) -> Path | None:
    """The path of a ``file://`` URL, else ``None``."""
    parts = urlsplit(url)
    if parts.scheme != "file":
        return None
    host = f"//{parts.netloc}" if parts.netloc not in {"", "localhost"} else ""
    return _local_path(host + parts.path)


def _local_path(quoted: str) -> Path:
    if os.name != "nt":
        return Path(unquote(quoted))
    from urllib.request import url2pathname  # brings half of the network's modules with it

    return Path(url2pathname(quoted))


def is_wheelhouse(url: str) -> bool:
    """Whether it is a directory with wheels in it rather than a tree of pages."""
    path = file_path(url)
    return path is not None and path.is_dir() and any(path.glob("*.whl"))


def name_for(url: str, *, flat: bool) -> str:
    """A readable name: the host, or the last parts of a path."""
    parts = urlsplit(url)
    path = file_path(url)
    if path is None:
        words = [parts.hostname or "index", *[word for word in parts.path.split("/") if word][-2:]]
    else:
        words = [word for word in path.parts if word not in {path.anchor, "simple"}][-2:]
    slug = re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")
    return f"{'wheelhouse' if flat else 'index'}-{slug}" if slug else ("wheelhouse" if flat else "index")


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine by its very name."""
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_trusted(url: str, trusted: Iterable[str]) -> bool:
    """Whether the user's configuration trusts the host, given as ``host``, ``host:port`` or a URL."""
    parts = urlsplit(url)
    names = {parts.hostname, parts.netloc.rpartition("@")[2]}
    return any((urlsplit(host).netloc if "://" in host else host) in names for host in trusted)


def refuse_insecure(url: str, *, origin: str, trusted: Iterable[str]) -> None:
    """Refuse an address that anyone on the way could answer.

    Raises:
        UsageError: code ``insecure-index``, or the scheme is none that an index has.
    """
    parts = urlsplit(url)
    if parts.scheme in {"https", "file"}:
        return
    if parts.scheme != "http":
        raise UsageError(f"`{redact(url)}` ({origin}) is no address of an index")
    if not is_loopback(parts.hostname) and not is_trusted(url, trusted):
        raise UsageError(
            f"`{redact(url)}` ({origin}) is plain http: whoever is on the way could change the packages",
            hint=f"use https, or trust the host: `PIP_TRUSTED_HOST={parts.hostname}`",
            code="insecure-index",
        )
