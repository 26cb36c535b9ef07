"""Looks into uv's cache without changing it: which wheels are unpacked there.

The layout (``wheels-v*/pypi/<name>/<version>-<tags>`` and ``wheels-v*/index/<hash>/<name>/…``, each a link
to the unpacked wheel) is uv's own affair and may change: an unknown layout reads as an empty cache.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from bnbenv.names import normalized

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_BOOKKEEPING = (".http", ".msgpack", ".rev", ".lock")


def unpacked_packages(cache: Path) -> dict[str, list[str]]:
    """By the names of packages, where the cache keeps unpacked wheels of them: a directory an index."""
    packages: dict[str, list[str]] = {}
    for index in (*cache.glob("wheels-v*/pypi"), *cache.glob("wheels-v*/index/*")):
        with suppress(OSError):
            for name in os.listdir(index):  # noqa: PTH208 - names are wanted, of thousands
                packages.setdefault(name, []).append(os.path.join(index, name))  # noqa: PTH118
    return packages


def has_wheel(packages: Mapping[str, Iterable[str]], file: str) -> bool:
    """Whether uv needs no download for a wheel, as far as its cache shows.

    Args:
        packages: `unpacked_packages` of the cache.
        file: the wheel's name.
    """
    parts = file.removesuffix(".whl").split("-")
    if len(parts) < 5:
        return False
    name, version, tags = normalized(parts[0]), parts[1], "-".join(parts[-3:])
    for entry in _entries(packages.get(name, ())):
        found, _, rest = entry.partition("-")
        # uv shortens long tags to a hash.
        if found == version and (rest == tags or re.fullmatch(r"[0-9a-f]{16}", rest)):
            return True
    return False


def cached_files(cache: Path, name: str, *, default: bool) -> tuple[str, ...]:
    """File names of a package's wheels that are unpacked in the cache.

    Args:
        cache: uv's cache directory.
        name: the normalised name.
        default: those from uv's default index, or those from every other index.
    """
    pattern = f"wheels-v*/pypi/{name}" if default else f"wheels-v*/index/*/{name}"
    return tuple(sorted({f"{name}-{entry}.whl" for entry in _entries(cache.glob(pattern))}))


def _entries(packages: Iterable[str | Path]) -> Iterator[str]:
    """The names of the unpacked wheels in the directories of packages."""
    for package in packages:
        with suppress(OSError, ValueError), os.scandir(package) as found:
            for entry in found:
                # On Windows the link is a small file; what it points to is looked up by uv alone.
                if not entry.name.endswith(_BOOKKEEPING) and os.path.exists(entry.path):  # noqa: PTH110 - follows
                    yield entry.name
