"""What the oracles of `prove_grid` share: the data files as plain values, and nothing of the judge."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import Version

import _proof
from bnbenv import toml

COMPAT = _proof.ROOT / "compat"
PROFILE = "qlora"


@cache
def rows(name: str, part: str = "rows") -> list[dict[str, Any]]:
    text = (COMPAT / name).read_text(encoding="utf-8")
    document = json.loads(text) if name.endswith(".json") else toml.loads(text)
    return list(document[part])


@cache
def sets() -> list[dict[str, Any]]:
    """The package sets of the profile, newest first."""
    return list(next(row for row in rows("profiles.toml", "profiles") if row["name"] == PROFILE)["sets"])


@cache
def version(text: str) -> Version:
    return Version(text)


@cache
def lies_in(release: str, text: str | None) -> bool:
    return not text or SpecifierSet(text).contains(release, prereleases=True)


@cache
def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def reached(index: str, reach: str) -> bool:
    """Whether an index answers."""
    return reach == "all" or index in reach.split() or (reach == "pytorch" and index.startswith("pytorch-"))


def tag_allows(platform: str, glibc: str | None) -> bool:
    """Whether a wheel's manylinux tag takes a C library in."""
    tag = platform.split("_")
    return not glibc or tag[0] != "manylinux" or numbers(glibc) >= (int(tag[1]), int(tag[2]))
