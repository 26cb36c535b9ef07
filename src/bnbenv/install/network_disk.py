"""Notices caches and environments that lie on a network file system, where every node pays for them."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# As the kernel names them in /proc/self/mountinfo.
_NETWORK = re.compile(
    r"nfs\d*|cifs|smb3|smbfs|lustre|gpfs|beegfs|ceph|fuse\.(?:sshfs|glusterfs|ceph|gcsfuse|s3fs|juicefs)|9p|afs|"
    r"pvfs2|orangefs|panfs|wekafs"
)
_ESCAPED = re.compile(r"\\([0-7]{3})")


def network_places(places: Mapping[str, Path], *, read: Callable[[], str] | None = None) -> tuple[str, ...]:
    """A sentence for every place that lies on a network file system, with what to set instead.

    Args:
        places: the variable that moves a place → where it is now; need not exist.
        read: gives the text of ``/proc/self/mountinfo``; by default that of this process.
    """
    if read is None:
        if sys.platform != "linux":
            return ()
        read = Path("/proc/self/mountinfo").read_text
    try:
        mounts = _mounts(read())
    except OSError:
        return ()
    told = []
    for variable, path in places.items():
        where = os.path.realpath(path)
        found = max(
            (mount for mount in mounts if _inside(where, mount[0])),
            key=lambda mount: len(mount[0]),
            default=None,
        )
        if found is not None and _NETWORK.fullmatch(found[1]):
            told.append(
                f"{path} is on a network file system ({found[1]}): slow for many small files, and every "
                f"node fetches them again; set {variable} to a directory on a disk of this machine"
            )
    return tuple(told)


def _mounts(text: str) -> list[tuple[str, str]]:
    found = []
    for line in text.splitlines():
        fields, _, after = line.partition(" - ")
        parts, kinds = fields.split(" "), after.split(" ")
        if len(parts) >= 5 and kinds:
            found.append((_ESCAPED.sub(lambda match: chr(int(match[1], 8)), parts[4]), kinds[0]))
    return found


def _inside(path: str, mount: str) -> bool:
    return mount in ("/", path) or path.startswith(mount.rstrip("/") + "/")
