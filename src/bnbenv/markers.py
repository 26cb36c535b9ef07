"""The values that the markers of requirements have elsewhere: under another Python, on another machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from packaging.requirements import Requirement

_SYSTEMS = {
    "linux": {"os_name": "posix", "platform_system": "Linux", "sys_platform": "linux"},
    "macos": {"os_name": "posix", "platform_system": "Darwin", "sys_platform": "darwin"},
    "windows": {"os_name": "nt", "platform_system": "Windows", "sys_platform": "win32"},
}
_MACHINES = {
    ("macos", "aarch64"): "arm64",
    ("windows", "aarch64"): "ARM64",
    ("windows", "x86_64"): "AMD64",
}


def of_python(version: str | None) -> dict[str, str]:
    """The values that tell a CPython; none where it is unknown, for then those of this one hold.

    Args:
        version: the full one or the minor one.
    """
    if not version:
        return {}
    parts = version.split(".")
    full = ".".join((*parts, "0")[:3])
    return {
        "implementation_name": "cpython",
        "implementation_version": full,
        "platform_python_implementation": "CPython",
        "python_full_version": full,
        "python_version": ".".join(parts[:2]),
    }


def of_platform(os: str, arch: str) -> dict[str, str]:
    """The values that tell a system and its processor, both named as in a `Target`."""
    return {**_SYSTEMS[os], "platform_machine": _MACHINES.get((os, arch), arch)}


def holding(text: str, values: Mapping[str, str]) -> Requirement | None:
    """A requirement as metadata write it; ``None`` where its marker fails, or it cannot be read.

    Args:
        values: of markers; where one is missing, that of the running Python holds. No extra is asked for.
    """
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        asked = Requirement(text)
        holds = asked.marker is None or asked.marker.evaluate({**values, "extra": ""})
    except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName):
        return None
    return asked if holds else None
