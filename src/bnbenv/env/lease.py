"""Who uses a generation: leases that processes leave, and what the kernel shows of those that left none."""

from __future__ import annotations

import contextlib
import json
import os
import re
from typing import TYPE_CHECKING

from bnbenv.env import durable, processes
from bnbenv.env.layout import FACTS
from bnbenv.env.processes import ProcessIdentity
from bnbenv.errors import BnbenvError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_NAME = re.compile(r"([1-9][0-9]{0,9})-[0-9]+\.json")  # as `take` names a lease


def take(generation: Path, *, command: str) -> Path | None:
    """Leave a lease of this process in `generation`; it ends with the process, also after `exec`.

    Returns:
        The lease's file; ``None`` where it cannot be written (an image, another user's environment):
        such a generation cannot be pruned by us either.
    """
    me = processes.this_process()
    directory = generation / FACTS / "leases"
    path = directory / f"{me.pid}-{abs(hash(me)) % 10**8}.json"
    try:
        directory.mkdir(exist_ok=True)
        durable.write_whole(
            path, (json.dumps({"schema": 1, **me.as_dict(), "command": command}) + "\n").encode()
        )
    except (OSError, BnbenvError):
        return None
    return path


def release(lease: Path | None) -> None:
    """Give a lease back; none is no error."""
    if lease is not None:
        with contextlib.suppress(OSError):
            lease.unlink()


def users(generation: Path) -> tuple[int, ...]:
    """The processes that use `generation`: holders of living leases, and those that work in it.

    A lease of another host or container cannot be checked and counts, and so does one that cannot be read now
    (another user's, a network file system's). Stale leases are removed.
    """
    found = set(_lease_holders(generation))
    directory = os.path.realpath(generation)
    working = (*(pid for pid in processes.pids() if _works_in(pid, directory)), *processes.below(directory))
    found.update(pid for pid in working if pid != os.getpid())
    return tuple(sorted(found))


def _lease_holders(generation: Path) -> Iterator[int]:
    directory = generation / FACTS / "leases"
    try:
        entries = sorted(directory.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.suffix != ".json":
            continue
        try:
            holder = ProcessIdentity.from_dict(json.loads(entry.read_bytes()))
        except FileNotFoundError:
            continue
        except OSError:
            if named := _NAME.fullmatch(entry.name):
                yield int(named[1])
            continue
        except (ValueError, AttributeError):
            release(entry)
            continue
        if processes.is_alive(holder) is False:
            release(entry)
        else:
            yield holder.pid


def _works_in(pid: int, directory: str) -> bool:
    """Whether a process has mapped or opened files of `directory`, stands in it, or was started from it."""
    inside = directory.encode() + b"/"
    base = f"/proc/{pid}"
    with contextlib.suppress(OSError), open(f"{base}/cmdline", "rb") as stream:  # noqa: PTH123 - /proc, and hot
        if any(part.startswith(inside) for part in stream.read().split(b"\0")):
            return True
    with contextlib.suppress(OSError), open(f"{base}/maps", "rb") as stream:  # noqa: PTH123
        if inside in stream.read():
            return True
    links = [f"{base}/cwd"]
    links += [f"{base}/fd/{name}" for name in durable.names_in(f"{base}/fd")]
    for link in links:
        with contextlib.suppress(OSError):
            if f"{os.readlink(link)}/".startswith(directory + "/"):  # noqa: PTH115 - hot
                return True
    return False
