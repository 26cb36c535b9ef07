"""Fetches files whose hash is known: resumed where it broke off, and kept only if the hash is right."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

from bnbenv.errors import DataError, ExternalError
from bnbenv.install.addresses import file_path, refuse_insecure
from bnbenv.install.pages import same_host
from bnbenv.install.redact import redact
from bnbenv.install.session import open_session
from bnbenv.install.sources import Index
from bnbenv.install.status import refuse_status
from bnbenv.install.unreached import explained
from bnbenv.renames import patiently

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import requests

    from bnbenv.install.sources import Sources

_TIMEOUT = 60.0  # seconds to connect, and between two bytes
_CHUNK = 1 << 20
_TRIES = 3


def fetch(
    url: str,
    destination: Path,
    sha256: str,
    *,
    sources: Sources,
    environ: Mapping[str, str],
    index: Index | None = None,
    relock: str,
) -> bool:
    """Make `destination` the file with this hash; whether anything had to be fetched.

    What an earlier call left in ``<name>.part`` is gone on with.

    Args:
        url: an address, ``file://`` included.
        destination: its directory must exist.
        sha256: hex digits.
        sources: certificates, proxy, trusted hosts.
        environ: the caller's variables.
        index: whose credential may go to its own host.
        relock: the command that locks other files.

    Raises:
        DataError: code ``hash-mismatch``; nothing is kept.
        ExternalError: codes ``index-unreachable``, ``index-forbidden``, ``package-unavailable``, ``offline``.
    """
    if destination.is_file() and sha256_of(destination) == sha256.lower():
        return False
    part = destination.with_name(destination.name + ".part")
    local = file_path(url)
    if local is not None:
        _copy(local, part)
    else:
        refuse_insecure(url, origin="the lock", trusted=sources.trusted_hosts)
        if sources.offline:
            raise ExternalError(
                f"`{destination.name}` has to be fetched, and --offline was given", code="offline"
            )
        _download(url, part, sources, environ, index, relock)
    found = sha256_of(part)
    if found != sha256.lower():
        part.unlink()
        raise DataError(
            f"`{destination.name}` from {redact(url)} is not the file that was locked: "
            f"SHA-256 {found[:12]}… instead of {sha256[:12].lower()}…",
            hint="do not install it; ask whoever runs that address",
            code="hash-mismatch",
        )
    patiently(lambda: part.replace(destination))  # a scanner may still have it open
    return True


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _copy(source: Path, part: Path) -> None:
    import shutil

    try:
        shutil.copyfile(source, part)
    except OSError as error:
        raise ExternalError(
            f"`{source}` cannot be read: {error.strerror or error}", code="package-unavailable"
        ) from error


def _download(
    url: str, part: Path, sources: Sources, environ: Mapping[str, str], index: Index | None, relock: str
) -> None:
    import requests

    if index is None or not same_host(url, index):
        index = Index(name="files", url=url, role="explicit", origin="the lock")
    for attempt in range(1, _TRIES + 1):
        have = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        try:
            with (
                open_session(index, sources, environ) as session,
                session.get(url, headers=headers, stream=True, timeout=(_TIMEOUT, _TIMEOUT)) as response,
            ):
                if response.status_code == 416:  # all of it is there already
                    return
                _refuse(response.status_code, redact(url), relock)
                response.raw.decode_content = True
                with part.open("ab" if response.status_code == 206 else "wb") as out:
                    for chunk in response.iter_content(_CHUNK):
                        out.write(chunk)
                if _whole(response, part, have):
                    return
        except requests.exceptions.RequestException as problem:
            if attempt == _TRIES:
                told = explained(problem, index, url, sources, environ, timeout=_TIMEOUT)
                hint = f"{told.hint}; then type the same again: what was fetched is kept"
                raise ExternalError(told.message, hint=hint, code=told.code) from problem
    raise ExternalError(
        f"{redact(url)} breaks off before its end",
        hint="type the same again: what was fetched is kept",
        code="index-unreachable",
    )


def _whole(response: requests.Response, part: Path, have: int) -> bool:
    told = response.headers.get("Content-Length")
    if told is None or response.headers.get("Content-Encoding"):
        return True
    begun = have if response.status_code == 206 else 0
    with contextlib.suppress(ValueError):
        return part.stat().st_size >= begun + int(told)
    return True


def _refuse(status: int, shown: str, relock: str) -> None:
    if status in {404, 410}:
        raise ExternalError(
            f"{shown} does not exist (HTTP {status})",
            hint=f"{relock}, or configure a mirror that has the file",
            code="package-unavailable",
        )
    refuse_status(status, shown)
