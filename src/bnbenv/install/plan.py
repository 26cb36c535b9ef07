"""An installation plan as a value: what is installed from where, how large it is, and how it is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bnbenv.install.redact import redact
from bnbenv.install.size import measure, rooms

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bnbenv.install.link_mode import LinkMode
    from bnbenv.install.size import Footprint, HasDocument, Room
    from bnbenv.install.sources import Sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One package of a plan.

    Attributes:
        origin: the name of the index, or the address or directory that no index of the configuration has.
        download: bytes, ``None`` where unknown.
    """

    name: str
    version: str
    origin: str
    download: int | None
    cached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that an installation will do.

    Attributes:
        packages: in the lock's order.
        footprint: bytes to fetch and to store.
        rooms: the file systems concerned.
        link_mode: how files get into the environment.
        notes: what was left out of the configuration, and why.
    """

    packages: tuple[Planned, ...]
    footprint: Footprint
    rooms: tuple[Room, ...]
    link_mode: LinkMode
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON has it; sizes in bytes."""
        return {
            "packages": [
                {
                    "name": package.name,
                    "version": package.version,
                    "origin": package.origin,
                    "download": package.download,
                    "cached": package.cached,
                }
                for package in self.packages
            ],
            "download_at_most": self.footprint.download,
            "unpacked": self.footprint.unpacked,
            "link_mode": {"mode": self.link_mode.mode, "reason": self.link_mode.reason},
            "file_systems": [
                {
                    "path": str(room.path),
                    "purposes": list(room.purposes),
                    "needed": room.needed,
                    "free": room.free,
                }
                for room in self.rooms
            ],
            "notes": list(self.notes),
        }


def plan(
    lock: HasDocument,
    sources: Sources,
    *,
    cache: Path,
    target: Path,
    link_mode: LinkMode,
    environ: Mapping[str, str],
) -> Plan:
    """What installing a lock at `target` means; reads file systems, changes nothing.

    Args:
        lock: a read lock.
        sources: to call indexes by their names.
        cache: uv's cache directory.
        target: where the environment will stand.
        link_mode: as chosen for these two.
        environ: the caller's variables.
    """
    from bnbenv.install.uv_files import address

    names = {address(index).rstrip("/"): index.name for index in sources.indexes}
    footprint = measure(lock, cache=cache, environ=environ)
    return Plan(
        packages=tuple(
            Planned(
                name=package.name,
                version=package.version,
                origin=names.get(
                    (package.index or "").rstrip("/"), redact(package.index or "an address of its own")
                ),
                download=package.download,
                cached=package.cached,
            )
            for package in footprint.packages
        ),
        footprint=footprint,
        rooms=rooms(footprint, cache=cache, target=target, link_mode=link_mode.mode),
        link_mode=link_mode,
        notes=sources.notes,
    )
