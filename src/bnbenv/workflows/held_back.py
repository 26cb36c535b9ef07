"""Which of the packages that a user asks for are not locked at their newest: what is there holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.errors import BnbenvError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from packaging.version import Version

    from bnbenv.install.pages import OfferedFile
    from bnbenv.install.sources import Sources
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.workflows.voice import Voice


def tell_held_back(
    asked: Iterable[str], lock: Pylock, sources: Sources, voice: Voice, environ: Mapping[str, str]
) -> None:
    """Tell of packages whose newest release is not the locked one, where the user left the release open.

    An installer goes back as far as it must, years if need be, and says nothing. Where the index cannot be
    asked, nothing is told: the lock stands without it.
    """
    from packaging.version import Version

    from bnbenv.install.pages import files_of_all

    versions = lock.versions
    names = {name for line in asked if (name := _open_name(line)) and versions.get(name)}
    index = sources.default
    if not names or index is None or sources.offline or sources.exclude_newer:
        return
    try:
        offered = files_of_all(index, names, sources, environ)
    except BnbenvError:
        return
    for name, files in offered.items():
        newest = max(_releases(files), default=None)
        if newest is not None and newest > Version(versions[name]):
            voice.progress(
                f"`{name}` is locked at {versions[name]}, and {newest} is out: what else the environment "
                f"holds, or its Python, keeps it back; to hear what, ask for `{name}=={newest}`"
            )


def _open_name(line: str) -> str | None:
    """The package of a requirement that leaves the release open."""
    from packaging.requirements import InvalidRequirement, Requirement

    from bnbenv.names import normalized

    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return None
    return None if requirement.specifier or requirement.url else normalized(requirement.name)


def _releases(files: Iterable[OfferedFile]) -> Iterator[Version]:
    """The releases, none withdrawn and none before its time, that have a file."""
    from packaging.utils import (
        InvalidSdistFilename,
        InvalidWheelFilename,
        parse_sdist_filename,
        parse_wheel_filename,
    )

    for file in files:
        if file.yanked is not None:
            continue
        try:
            if file.name.endswith(".whl"):
                found = parse_wheel_filename(file.name)[1]
            else:
                found = parse_sdist_filename(file.name)[1]
        except (InvalidSdistFilename, InvalidWheelFilename):
            continue
        if not found.is_prerelease:
            yield found
