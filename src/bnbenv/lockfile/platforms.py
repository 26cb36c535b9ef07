"""What an installer on another machine would take from a lock: its wheel tags and its marker values."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bnbenv.units import LEGACY_MANYLINUX

if TYPE_CHECKING:
    from packaging.markers import Environment
    from packaging.tags import Tag

    from bnbenv.lockfile.index import Variant
    from bnbenv.lockfile.pylock import Artefact, Pylock

_MACOS = 26  # the newest major version of macOS that wheels are tagged for


def files_of(lock: Pylock, variant: Variant) -> tuple[Artefact, ...]:
    """The one file of each package that a machine of the variant installs.

    Raises:
        DataError: code ``lock-invalid``; the lock does not serve such a machine.
    """
    chosen = lock.select(environment=environment_of(variant), tags=tags_of(variant))
    return tuple(one.artefact for one in chosen)


def tags_of(variant: Variant) -> list[Tag]:
    """Wheel tags that can be installed, best first."""
    from packaging.tags import compatible_tags, cpython_tags

    major, minor = (int(part) for part in variant.python.split(".")[:2])
    interpreter = f"cp{major}{minor}"
    platforms = _platforms(variant)
    return [
        *cpython_tags((major, minor), abis=[interpreter], platforms=platforms),
        *compatible_tags((major, minor), interpreter=interpreter, platforms=platforms),
    ]


def _platforms(variant: Variant) -> list[str]:
    if variant.os == "windows":
        return ["win_amd64" if variant.arch == "x86_64" else "win_arm64"]
    if variant.os == "macos":
        from packaging.tags import mac_platforms

        return list(mac_platforms((_MACOS, 0), "arm64" if variant.arch == "aarch64" else "x86_64"))
    minor = int((variant.glibc or "2.28").split(".")[1])
    found = [f"manylinux_2_{level}_{variant.arch}" for level in range(minor, 4, -1)]
    found += [
        f"{name}_{variant.arch}"
        for name, floor in LEGACY_MANYLINUX.items()
        if int(floor.split(".")[1]) <= minor
    ]
    return [*found, f"linux_{variant.arch}"]


def environment_of(variant: Variant) -> Environment:
    """The values of markers there."""
    from bnbenv.markers import of_platform, of_python

    values = {
        **of_platform(variant.os, variant.arch),
        **of_python(variant.python),
        "platform_release": "",
        "platform_version": "",
    }
    return cast("Environment", values)
