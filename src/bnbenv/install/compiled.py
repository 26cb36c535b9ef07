"""Completes the lock that uv wrote: a hash for every file, and the index that each package came from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bnbenv.errors import ExternalError
from bnbenv.install.addresses import file_path
from bnbenv.names import normalized

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any


def files(package: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The wheels, source release and archive of a package of a lock."""
    found = list(package.get("wheels", []))
    return found + [package[kind] for kind in ("sdist", "archive") if kind in package]


def is_local(package: Mapping[str, Any]) -> bool:
    """Whether it can be had on this machine alone."""
    return "directory" in package or any(
        "path" in file or str(file.get("url", "")).startswith("file:") for file in files(package)
    )


def complete_hashes(lock: Mapping[str, Any], base: Path) -> None:
    """Add the sha256 of local files that have none.

    Args:
        lock: changed in place.
        base: where relative paths of the lock start.

    Raises:
        ExternalError: a file on an index has no hash, or a local one cannot be read.
    """
    for package in lock["packages"]:
        for file in files(package):
            if file.get("hashes", {}).get("sha256"):
                continue
            path = base / file["path"] if "path" in file else file_path(str(file.get("url", "")))
            if path is None:
                raise ExternalError(
                    f"the index gives no sha256 for {file.get('url')}, so it cannot be locked",
                    code="package-unavailable",
                    hint=f"take `{package['name']}` from an index that gives hashes, or from a wheelhouse",
                )
            file["hashes"] = {"sha256": _sha256(path)}


def obvious_homes(
    lock: Mapping[str, Any],
    *,
    network: Sequence[str],
    local: Sequence[str],
    flat: Sequence[str],
    pinned: Mapping[str, str],
) -> dict[str, str] | None:
    """Package → address of its index; ``None`` where two indexes may have been it.

    Without this, uv finds none of the lock's packages in its unpacked cache, which it keeps by index.

    Args:
        lock: as uv wrote it.
        network: addresses on the network of the indexes that serve any package.
        local: addresses of those in directories.
        flat: addresses of the find-links directories and pages.
        pinned: package → address of the index it is pinned to.
    """
    homes: dict[str, str] = {}
    for package in lock["packages"]:
        name = package["name"]
        urls = [str(file.get("url", "")) for file in files(package)]
        if name in pinned:
            homes[name] = pinned[name]
        elif not urls or "directory" in package or "vcs" in package or "archive" in package:
            continue
        elif not urls[0].startswith("file:"):
            # A find-links page on the network may have given it as well.
            if len(network) != 1 or any(not url.startswith("file:") for url in flat):
                return None
            homes[name] = network[0]
        elif candidates := _holding(urls[0], local=local, flat=flat):
            if len(candidates) > 1:
                return None
            homes[name] = candidates[0]
    return homes


def annotated_homes(listing: str) -> dict[str, str]:
    """Package → address, from what ``uv pip compile --emit-index-annotation`` writes."""
    homes: dict[str, str] = {}
    name = None
    for line in listing.splitlines():
        if match := re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)", line):
            name = normalized(match[1])
        elif name and (match := re.match(r"\s+# from (\S+)", line)):
            homes[name] = match[1]
    return homes


def name_indexes(lock: Mapping[str, Any], homes: Mapping[str, str]) -> None:
    """Write each package's index into the lock, in place, where the standard has its key."""
    for package in lock["packages"]:
        if package["name"] in homes:
            # Before the files, as the standard lists the keys; they are moved behind it.
            rest = {key: package.pop(key) for key in ("sdist", "wheels", "archive") if key in package}
            package["index"] = homes[package["name"]]
            package.update(rest)


def _holding(url: str, *, local: Sequence[str], flat: Sequence[str]) -> list[str]:
    """The places that can have named a file: a wheelhouse has it inside, a tree of pages also beside."""
    path = file_path(url)
    if path is None:
        return []
    inside = [place for place in flat if file_path(place) == path.parent]
    for place in local:
        root = file_path(place)
        if root is not None and (root in path.parents or root.parent in path.parents):
            inside.append(place)
    return inside


def _sha256(path: Path) -> str:
    import hashlib

    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except OSError as problem:
        raise ExternalError(
            f"{path} cannot be read: {problem.strerror or problem}", code="permission"
        ) from problem
    return digest.hexdigest()
