"""Versions and specifiers, parsed once: membership, order, and whether two ranges can meet."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version


@lru_cache(maxsize=4096)
def version(text: str) -> Version:
    """A parsed version.

    Raises:
        packaging.version.InvalidVersion: it is none.
    """
    from packaging.version import Version

    return Version(text)


@lru_cache(maxsize=4096)
def specifier(text: str) -> SpecifierSet:
    """A parsed specifier set; pre-releases count, as the rows name what was measured.

    Raises:
        packaging.specifiers.InvalidSpecifier: it is none.
    """
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(text, prereleases=True)


@lru_cache(maxsize=65536)
def within(release: str, text: str) -> bool:
    """Whether a release lies in a range; ``""`` is every release."""
    return not text or specifier(text).contains(version(release).public)


@lru_cache(maxsize=4096)
def as_range(text: str) -> str:
    """A specifier for what a stack says of a package: a bare version stands for itself."""
    bare = text.strip()
    return f"=={bare}" if re.match(r"v?\d", bare) else bare


@lru_cache(maxsize=4096)
def samples(*ranges: str) -> tuple[str, ...]:
    """Releases that tell the ranges apart, ascending: each bound, and one just below and above it.

    Two releases between the same neighbouring bounds are in the same ranges, so that one of each gap
    is enough to decide anything about ranges.
    """
    found = {"0", "99999"}
    for text in ranges:
        for part in specifier(as_range(text)):
            bound = version(part.version.removesuffix(".*"))
            found.add(bound.public)
            found.add(f"{bound.base_version}.0.0.1")
            release = list(bound.release)
            while release and release[-1] == 0:
                release.pop()
            if release:
                found.add(".".join(map(str, (*release[:-1], release[-1] - 1, 99999))))
    return tuple(sorted(found, key=version))


@lru_cache(maxsize=16384)
def members(text: str, *others: str) -> tuple[str, ...]:
    """The samples that lie in the first range, ascending; the other ranges only add samples."""
    wanted = as_range(text)
    return tuple(release for release in samples(text, *others) if within(release, wanted))


@lru_cache(maxsize=16384)
def meet(one: str, other: str) -> bool:
    """Whether some release lies in both ranges."""
    return any(within(release, as_range(other)) for release in members(one, other))
