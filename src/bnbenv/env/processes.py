"""Which processes live, told apart from later ones that got the same number, and what they hold open."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass
from bnbenv.env import durable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """A process, for good: numbers are reused, the start time is not.

    Attributes:
        host: the host name, with the PID namespace where there is one (a container counts from 1 again).
        pid: its number there.
        start: when it began, in the system's own spelling; ``""`` where it cannot be told.
    """

    host: str
    pid: int
    start: str

    def as_dict(self) -> dict[str, Any]:
        """The form that stands in files."""
        return {"host": self.host, "pid": self.pid, "start": self.start}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProcessIdentity:
        """Read what `as_dict` made.

        Raises:
            ValueError: a key is missing or of another type.
        """
        host, pid, start = data.get("host"), data.get("pid"), data.get("start")
        if not (isinstance(host, str) and type(pid) is int and pid > 0 and isinstance(start, str)):
            raise ValueError("not a process identity")
        return cls(host=host, pid=pid, start=start)


@functools.cache
def this_host() -> str:
    """The name under which processes of this host (and of this container) can be compared."""
    namespace = ""
    with contextlib.suppress(OSError, AttributeError):
        namespace = str(Path("/proc/self/ns/pid").readlink()).rpartition("[")[2].rstrip("]")
    return f"{_node()}/{namespace}" if namespace else _node()


def _node() -> str:
    if sys.platform == "win32":
        import socket

        return socket.gethostname()
    return os.uname().nodename  # the same, without loading sockets


@functools.cache
def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return ""


def start_of(pid: int) -> str | None:
    """When process `pid` of this host began; ``None`` where there is no such process.

    On Linux the kernel's tick count: psutil's seconds since the epoch move when the clock is set.
    """
    if _PROC.joinpath("self/stat").exists():
        return _start_by_proc(pid)
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.NoSuchProcess:
        return None
    except psutil.Error:
        return ""


def _start_by_proc(pid: int) -> str | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The command stands in parentheses and may hold spaces and parentheses itself.
    fields = stat.rpartition(b")")[2].split()
    if fields[0] in {b"Z", b"X"}:
        return None
    return f"{_boot()}:{fields[19].decode()}"


def this_process() -> ProcessIdentity:
    """The calling process."""
    return ProcessIdentity(host=this_host(), pid=os.getpid(), start=start_of(os.getpid()) or "")


def is_alive(process: ProcessIdentity) -> bool | None:
    """Whether that very process still runs; ``None`` where it belongs to another host or container."""
    if process.host != this_host():
        return None
    start = start_of(process.pid)
    return start is not None and (not process.start or start in {"", process.start})


def pids() -> Iterator[int]:
    """The processes of this host that `/proc` shows; none where there is no `/proc`."""
    for entry in durable.names_in(_PROC):
        if entry.isascii() and entry.isdigit():
            yield int(entry)


def below(directory: str) -> tuple[int, ...]:
    """Where there is no `/proc`: processes whose program, words or working directory are below a real path.

    A process that came there by a link, and only has files of it loaded, is not seen: macOS tells nobody.
    """
    if _PROC.joinpath("self").exists():
        return ()
    import psutil

    inside = os.path.normcase(directory + os.sep)
    found = []
    try:
        running = list(psutil.process_iter(["exe", "cmdline", "cwd"]))
    except (OSError, IndexError):  # a Linux whose `/proc` is not mounted, as in a chroot
        return ()
    for process in running:
        words = [
            process.info["exe"],
            *(process.info["cmdline"] or ()),
            f"{process.info['cwd'] or ''}{os.sep}",
        ]
        if any(word and os.path.normcase(word).startswith(inside) for word in words):
            found.append(process.pid)
    return tuple(found)


def opened_by(path: Path) -> tuple[int, ...]:
    """Processes that hold the file at `path` open, as far as `/proc` lets us see (ours and, as root, all)."""
    try:
        wanted = path.stat()
    except OSError:
        return ()
    key = (wanted.st_dev, wanted.st_ino)
    found = []
    for pid in pids():
        directory = f"/proc/{pid}/fd"
        for descriptor in durable.names_in(directory):
            try:
                seen = os.stat(f"{directory}/{descriptor}")  # noqa: PTH116 - hot
            except OSError:
                continue
            if (seen.st_dev, seen.st_ino) == key:
                found.append(pid)
                break
    return tuple(found)


def command_of(pid: int) -> str:
    """The command line of `pid`, shortened; ``""`` where it cannot be read."""
    try:
        raw = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()[:120]
