"""Ways to hurt a program on purpose: a kill at every step it takes on disk, a full disk, a read-only one.

Nothing here touches the product: the kill comes from an audit hook in the child's own interpreter.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bnbenv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pytest

SOURCES = Path(bnbenv.__file__).resolve().parents[1]
TESTS = Path(__file__).resolve().parents[1]

# Every event by which Python changes a file system; `open` counts when it is for writing.
_CHANGES = frozenset(
    {
        "os.mkdir",
        "os.rename",
        "os.remove",
        "os.rmdir",
        "os.symlink",
        "os.link",
        "os.truncate",
        "os.chmod",
        "open",
    }
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def arm(root: Path, at: int, *, group: bool = False) -> None:
    """Let this process die by SIGKILL just before its `at`-th change below `root`, counted from 1.

    Args:
        root: changes elsewhere do not count.
        at: 0 never kills.
        group: kills the whole process group, as a terminal or a batch system does.
    """
    below = os.path.realpath(root)
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in _CHANGES or not _touches(event, arguments, below):
            return
        count += 1
        if count == at:
            if group:
                os.killpg(os.getpgid(0), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _touches(event: str, arguments: tuple[Any, ...], below: str) -> bool:
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
        return False
    for argument in arguments:
        if isinstance(argument, (str, bytes)):
            path = os.fsdecode(argument)
            if path == below or path.startswith(below + os.sep):
                return True
        elif type(argument) is int and argument > 2 and event in {"os.remove", "os.rmdir"}:
            with contextlib.suppress(OSError):  # rmtree works relative to a directory's descriptor
                path = os.readlink(f"/proc/self/fd/{argument}")  # noqa: PTH115 - inside an audit hook
                if path.startswith(below):
                    return True
    return False


def child(
    code: str, *arguments: object, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter that finds bnbenv and the test support."""
    return subprocess.run(
        python_command(code, *arguments),
        env=child_environ(environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def python_command(code: str, *arguments: object) -> list[str]:
    """The command line of `child`, for those who drive the process themselves."""
    return [sys.executable, "-c", code, *(str(argument) for argument in arguments)]


def child_environ(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The caller's variables with bnbenv and `support` importable."""
    return {**os.environ, **(environ or {}), "PYTHONPATH": os.pathsep.join((str(SOURCES), str(TESTS)))}


def killed_at_every_step(code: str, root: Path, *arguments: object, limit: int = 400) -> Iterator[int]:
    """Run `code` again and again, killed before its 1st, 2nd, … change below `root`, until it gets through.

    Yields after each kill, with the number of the step; the caller looks at what is left and may clear it.
    The last run, which is not killed, is yielded as 0.
    """
    for at in range(1, limit):
        armed = (
            f"from pathlib import Path\nfrom support import faults\nfaults.arm(Path({str(root)!r}), {at})\n"
        )
        done = child(armed + code, *arguments)
        if done.returncode == 0:
            yield 0
            return
        assert done.returncode == -signal.SIGKILL, f"step {at}: exit {done.returncode}\n{done.stderr}"
        yield at
    raise AssertionError(f"not through after {limit} steps")


def limit_file_size(size: int) -> None:
    """Let every write of this process beyond `size` bytes of a file fail, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@contextlib.contextmanager
def small_disk(directory: Path, *, kib: int, options: Sequence[str] = ()) -> Iterator[Path]:
    """A tmpfs of `kib` KiB at `directory`; skips where mounting is not allowed."""
    import pytest

    directory.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join((f"size={kib}k", *options)), "tmpfs", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True, capture_output=True)


@contextlib.contextmanager
def read_only(directory: Path) -> Iterator[Path]:
    """`directory`, not writable: by its mode, or for root, whom modes do not hold, by a read-only mount."""
    if os.geteuid():
        directory.chmod(0o555)
        try:
            yield directory
        finally:
            directory.chmod(0o755)
        return
    import pytest

    def mount(*arguments: str) -> bool:
        return not subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode

    if not mount("--bind", str(directory), str(directory)):
        pytest.skip("root, and mounting is not allowed")
    try:
        if not mount("-o", "remount,ro,bind", str(directory)):
            pytest.skip("root, and a read-only mount is not allowed")
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True, capture_output=True)


@contextlib.contextmanager
def shared_directory() -> Iterator[Path]:
    """An empty directory that every user may enter, as those of pytest's own are not."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


class RefusedError(PermissionError):
    """What Windows raises: its own number beside that of C."""

    def __init__(self, winerror: int) -> None:
        super().__init__(errno.EACCES, "Access is denied")
        self.winerror = winerror


def held_on_windows(times: int, winerror: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a rename, `Path`'s method of that `name`, be refused so often, as by a scanner that has it open."""
    rename: Callable[[Path, Path], Path] = getattr(Path, name)
    left = [winerror] * times

    def refuse(self: Path, target: Path) -> Path:
        if left:
            raise RefusedError(left.pop())
        return rename(self, target)

    monkeypatch.setattr(Path, name, refuse)


@contextlib.contextmanager
def another_user() -> Iterator[int]:
    """The block runs as a user whom modes hold; yields who it is. Skips where this is not root.

    What the block imports must have been imported before: that user may not enter root's directories.
    """
    if os.geteuid():
        import pytest

        pytest.skip("only root can become another user")
    nobody = 65534
    os.seteuid(nobody)
    try:
        yield nobody
    finally:
        os.seteuid(0)
