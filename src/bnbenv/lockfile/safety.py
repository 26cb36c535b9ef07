"""What a lock must not hold before anything is installed from it: each refusal with its own words."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from bnbenv.errors import DataError
from bnbenv.install.addresses import is_loopback, is_trusted
from bnbenv.install.redact import redact, split_credential

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bnbenv.lockfile.pylock import Artefact, Package, Pylock

# Hashes that nobody can make two files for.
_STRONG = frozenset({"sha256", "sha384", "sha512", "blake2b", "sha3_256", "sha3_384", "sha3_512"})


def refuse_unsafe(lock: Pylock, *, trusted: Iterable[str] = (), allow_local: bool = False) -> None:
    """Refuse a lock that could install something else than what was locked.

    Args:
        lock: a lock, at least outlined.
        trusted: hosts that the user's configuration trusts without TLS.
        allow_local: files of this machine's disk are wanted.

    Raises:
        DataError: codes ``lock-invalid``, ``insecure-index``.
    """
    trusted = tuple(trusted)
    for package in lock.packages:
        for artefact in package.artefacts:
            _hashed(lock, package, artefact)
            _addressed(lock, package, artefact, trusted, allow_local=allow_local)
        if package.index is not None:
            _sound_address(lock, package, package.index, trusted)
    _one_home_each(lock)


def _hashed(lock: Pylock, package: Package, artefact: Artefact) -> None:
    if artefact.kind in ("vcs", "directory"):
        raise _refused(
            lock,
            f"`{package.name}` is taken from {artefact.name}, which no hash can pin",
            "build a wheel of it, and lock that",
        )
    if not _STRONG & set(artefact.hashes):
        weak = ", ".join(sorted(artefact.hashes)) or "no hash"
        raise _refused(
            lock,
            f"`{artefact.name}` of `{package.name}` has {weak} alone: anybody could make another file for it",
            "lock it again: every file needs a SHA-256",
        )


def _addressed(
    lock: Pylock, package: Package, artefact: Artefact, trusted: tuple[str, ...], *, allow_local: bool
) -> None:
    url = artefact.url or ""
    if artefact.path is not None or url.lower().startswith("file:"):
        if not allow_local:
            raise _refused(
                lock,
                f"`{package.name}` comes from `{artefact.url or artefact.path}`, which only one machine has",
                "put the file on an index; or --allow-local, for a lock that stays on this machine",
            )
        return
    if not url:
        return
    _sound_address(lock, package, url, trusted)
    named = unquote(urlsplit(url).path).rpartition("/")[2]
    if artefact.kind != "archive" and named and named != artefact.name:
        raise _refused(
            lock,
            f"`{artefact.name}` of `{package.name}` is to be fetched as `{named}`",
            "take the lock from version control again, or lock anew",
        )


def _sound_address(lock: Pylock, package: Package, url: str, trusted: tuple[str, ...]) -> None:
    if not url.isprintable() or " " in url:
        raise _refused(
            lock,
            f"the address of `{package.name}` holds blanks or control characters: {redact(url)!r}",
            "take the lock from version control again, or lock anew",
        )
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _refused(
            lock,
            f"the address of `{package.name}` is none: {redact(url)} ({error})",
            "take the lock from version control again, or lock anew",
        ) from error
    if split_credential(url)[1] is not None:
        raise _refused(
            lock,
            f"the address of `{package.name}` holds a user name or a password: {redact(url)}",
            "change that password, and lock again: credentials belong into netrc, a keyring or UV_INDEX_…",
        )
    if parts.scheme in ("https", "file"):
        return
    if parts.scheme == "http" and (is_loopback(parts.hostname) or is_trusted(url, trusted)):
        return
    raise DataError(
        f"`{lock.origin}`: `{package.name}` has an address without TLS: {redact(url)}",
        hint=f"lock it from an https address, or trust the host: `PIP_TRUSTED_HOST={parts.hostname}`",
        code="insecure-index",
    )


def _one_home_each(lock: Pylock) -> None:
    """A name that two indexes have is whoever's index answers: only one of them can be meant."""
    homes: dict[str, str | None] = {}
    for package in lock.packages:
        if package.name in homes and homes[package.name] != package.index:
            one, other = sorted(str(home) for home in (homes[package.name], package.index))
            raise _refused(
                lock,
                f"`{package.name}` stands there from two indexes: {redact(one)} and {redact(other)}",
                "decide for one of them, and lock again",
            )
        homes[package.name] = package.index


def _refused(lock: Pylock, why: str, hint: str) -> DataError:
    return DataError(f"`{lock.origin}` is refused: {why}", hint=hint, code="lock-invalid")
