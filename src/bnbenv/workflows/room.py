"""What a lock fetches and takes: told before anything is built, and refused where a disk cannot hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bnbenv.install.link_mode import Mode
    from bnbenv.install.size import Footprint
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.workflows.voice import Voice


def look_for_room(
    lock: Pylock,
    target: Path,
    *,
    link_mode: Mode | None,
    building: bool,
    voice: Voice,
    environ: Mapping[str, str],
) -> Footprint:
    """Tell the sizes of a lock, and of what each disk has for it.

    Args:
        lock: with addresses that are reachable from here.
        target: where the environment will stand; need not exist yet.
        link_mode: ``None`` where it is found out when the environment is built.
        building: false only tells.

    Raises:
        ExternalError: code ``disk-full``; something is to be built, and a file system has too little space.
    """
    from bnbenv.install.size import measure, refuse_too_small, rooms
    from bnbenv.install.uv import cache_directory

    cache = cache_directory(environ)
    footprint = measure(lock, cache=cache, environ=environ)
    voice.progress(footprint.sentence)
    needed = rooms(footprint, cache=cache, target=target, link_mode=link_mode)
    for room in needed:
        voice.progress(room.sentence)
    if building:
        refuse_too_small(needed)
    return footprint
