"""Processes that still hold what an upgrade replaced: a notebook's kernel from before it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bnbenv.doctor.files import is_half_removed
from bnbenv.doctor.stack import WATCHED
from bnbenv.env import processes
from bnbenv.env.transaction import WORK
from bnbenv.judge.rules.rule import finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnbenv.env.installed import Installed
    from bnbenv.judge.stack import Finding

_GONE = b" (deleted)"
_NATIVE = frozenset({*WATCHED, "nvidia", "numpy.libs"})  # directories with the libraries that matter here
_SHOWN = 5


def check_running(seen: Installed) -> Iterator[Finding]:
    """Tell of Python processes that have a library of this environment loaded that is no longer there.

    Linux tells it of processes of the same user, and of all to root; elsewhere nothing is found. What Python
    code such a process holds, nothing outside it can tell. A daemon of the system that holds something else
    of its Python is not meant.

    Args:
        seen: the environment with its base.
    """
    sites = tuple(os.fsencode(os.path.realpath(site)) + b"/" for site in seen.site_packages)
    prefix = os.fsencode(os.path.realpath(seen.prefix)) + b"/"
    stale = {pid: gone for pid in _pythons() if (gone := _gone_libraries(pid, (*sites, prefix)))}
    if not stale:
        return
    first = min(stale)
    what = _replaced(stale[first][0].partition("/")[0])
    more = len(stale) - 1
    yield finding(
        "stale-runtime",
        "warning",
        f"process {first}",
        f"{_kind(first)} ({first}) still runs {what} from before it was replaced"
        + (f", and so do {more} more processes" if more > 1 else ", and so does 1 more" if more else ""),
        *(
            f"process {pid} has `{gone[0]}` loaded, and that file is gone"
            + (f" ({len(gone) - 1} more)" if len(gone) > 1 else "")
            for pid, gone in sorted(stale.items())[:_SHOWN]
        ),
        "what it imports from now on is of another release than what it holds",
        remedy="Restart that process; a notebook by its kernel.",
        source="the libraries that the kernel shows in /proc/PID/maps",
    )


def _pythons() -> Iterator[int]:
    """Python processes that see the files that we see: those of a container have others by the same name."""
    ours = _link("/proc/self/ns/mnt")
    for pid in processes.pids():
        program = os.path.basename(_link(f"/proc/{pid}/exe"))  # noqa: PTH119 - hundreds of processes
        if program.startswith("python") and pid != os.getpid() and _link(f"/proc/{pid}/ns/mnt") == ours:
            yield pid


def _gone_libraries(pid: int, sites: tuple[bytes, ...]) -> list[str]:
    """The deleted files of packages below `sites` that a process has mapped, relative to them."""
    try:
        with open(f"/proc/{pid}/maps", "rb") as stream:  # noqa: PTH123 - hundreds of processes
            text = stream.read()
    except OSError:
        return []
    found: dict[str, None] = {}
    for line in text.splitlines() if _GONE in text else ():
        path = line.partition(b"/")[2]
        if path.endswith(_GONE):
            path = b"/" + path.removesuffix(_GONE)
            for site in sites:
                inside = os.fsdecode(path.removeprefix(site)) if path.startswith(site) else ""
                top = inside.partition("/")[0]
                if top in _NATIVE or top == WORK or is_half_removed(top):
                    found[inside] = None
    return list(found)


def _replaced(top: str) -> str:
    """What was replaced: a repair sets aside under numbers, pip with `~` for the first letters."""
    if top == WORK:
        return "a package"
    rest = top.lstrip("~")
    return f"the {next((name for name in sorted(_NATIVE) if rest != top and name.endswith(rest)), rest)}"


def _kind(pid: int) -> str:
    return "a notebook's kernel" if "ipykernel" in processes.command_of(pid) else "a Python process"


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 - hundreds of processes
    except OSError:
        return ""
