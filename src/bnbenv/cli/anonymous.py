"""Take out of a text what tells whose machine it comes from: names, homes, hosts, addresses, credentials."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from bnbenv.cli.redact import MASK, redact

if TYPE_CHECKING:
    from collections.abc import Mapping

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>[^\s'\"<>`]*)")
_SCP = re.compile(r"\b[\w.-]+@[\w.-]+:(?=[\w~/])[^\s'\"<>`]+")
_WHEEL = re.compile(r"([A-Za-z0-9_.+-]+\.(?:whl|tar\.gz|zip))(?:[?#]|$)")
_AT = re.compile(r"\b[\w.+-]+@[A-Za-z][\w.-]*")  # a mail address, or somebody at a host
_PUBLIC_KEY = re.compile(r"\b(?:ssh|ecdsa)-[\w-]+ AAAA[\w+/=]+(?: \S+)?")
_SHARE = re.compile(r"(?<![\w:/\\])(?:\\{2,4}|//)[\w.-]+[/\\]+[^\s'\"<>`]+")
_HOMES = re.compile(
    r"(?P<above>(?<![\w.~-])(?:/[\w.-]+){0,3}/(?:homes?|[Uu]sers?|scratch)/|[A-Za-z]:\\+Users\\+)"
    r"[^/\\\s'\"`:,;]+(?: [^/\\\s'\"`:,;]+(?=[/\\]))?"
)
_UUID = re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b")
# Versions have four parts too: what follows the name of a package, or an operator, is one.
_IPV4 = re.compile(
    r"(?<![\w.])(?<!-cu\d\d )(?<!==)(?<!>=)(?<!<=)(?<!locked )(?<!installed )(?<!is )(?<!driver )"
    r"(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}(?::\d+)?(?![\w.])"
)
_IPV6 = re.compile(
    r"(?<![\w:])(?:[0-9a-fA-F]{1,4}:){3,7}(?:[0-9a-fA-F]{1,4}|:)(?![\w:])|(?<![\w:])::1(?![\w:])"
    r"|(?<![\w:])(?:[0-9a-fA-F]{1,4}:){1,6}(?::[0-9a-fA-F]{1,4}){1,6}(?![\w:])"
)
_MAC = re.compile(r"(?<![\w:])(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}(?![\w:])")
_FQDN = re.compile(
    r"(?<![\w./@-])(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+"
    r"(?:com|org|net|edu|gov|io|ai|dev|cloud|internal|local|lan|corp|intra|home|de|uk|fr|ch|eu|cn|jp|in)\b"
    r"(?![\w.(-])",
    re.IGNORECASE,
)
_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_NETRC = re.compile(r"(?i)\b(machine\s+)\S+(\s+login\s+)\S+(\s+password\s+)\S+")
_SHORTEST = 3  # a name of two letters stands in half of all words


def anonymous(text: str, environ: Mapping[str, str] | None = None, *, hosts: tuple[str, ...] = ()) -> str:
    """`text` without credentials, user names, home directories, hosts, addresses and serial numbers.

    Args:
        text: of any source.
        environ: tells the user's name and home; the process's own by default.
        hosts: names of this machine.
    """
    environ = os.environ if environ is None else environ
    text = _KEY_BLOCK.sub(MASK, text)
    text = _PUBLIC_KEY.sub("<key>", text)
    text = _NETRC.sub(rf"\1<host>\2{MASK}\3{MASK}", text)
    text = redact(text, environ)
    text = _ADDRESS.sub(_address, text)
    text = _SCP.sub("<address>", text)
    text = _SHARE.sub("<address>", text)
    for home in _own_homes(environ):
        text = re.sub(rf"{re.escape(home)}(?![\w.-])", lambda _: "~", text)
    text = _HOMES.sub(lambda match: f"{match['above']}<user>", text)
    text = _AT.sub("<mail>", text)
    for name in _own_names(environ):
        text = re.sub(rf"(?i)(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", "<user>", text)
    for host in sorted({*hosts, *_own_hosts(environ)}, key=len, reverse=True):
        text = re.sub(rf"(?i)(?<![\w-]){re.escape(host)}(?![\w-])", "<host>", text)
    for pattern, instead in (
        (_UUID, "<uuid>"),
        (_MAC, "<mac>"),
        (_IPV6, "<ip>"),
        (_IPV4, "<ip>"),
        (_FQDN, "<host>"),
    ):
        text = pattern.sub(instead, text)
    return text


def _address(match: re.Match[str]) -> str:
    """The scheme, and a distribution's file name; paths may hold keys, and hosts are private."""
    scheme, rest = match["scheme"].lower(), match["rest"]
    if scheme == "file":
        return match[0]
    wheel = _WHEEL.search(rest.rpartition("/")[2])
    return f"{scheme}://<address>" + (f"/{wheel[1]}" if wheel else "")


def _own_homes(environ: Mapping[str, str]) -> list[str]:
    homes = {environ.get("HOME", ""), environ.get("USERPROFILE", "")}
    return sorted((home.rstrip("/\\") for home in homes if len(home) > _SHORTEST), key=len, reverse=True)


def _own_names(environ: Mapping[str, str]) -> list[str]:
    names = {environ.get(variable, "") for variable in ("USER", "LOGNAME", "USERNAME", "SUDO_USER")}
    names |= {home.replace("\\", "/").rpartition("/")[2] for home in _own_homes(environ)}
    # `root` and its like are on every machine, and in many words.
    common = {"root", "user", "admin", "ubuntu", "home", "jovyan", "docker", "vscode", "runner"}
    return sorted(
        (name for name in names if len(name) >= _SHORTEST and name.lower() not in common),
        key=len,
        reverse=True,
    )


def _own_hosts(environ: Mapping[str, str]) -> set[str]:
    names = {
        environ.get(variable, "") for variable in ("HOSTNAME", "HOST", "COMPUTERNAME", "SLURMD_NODENAME")
    }
    names |= {name.partition(".")[0] for name in names}
    return {name for name in names if len(name) >= _SHORTEST and name.lower() != "localhost"}
