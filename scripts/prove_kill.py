"""Kills `bnbenv create` at every interesting moment, and shows that nothing is lost and nothing is left.

For each moment the command is killed twice: bnbenv alone (its children live on), and its whole process group.
After each kill: the name stands for the old generation, or, if the kill came after the switch, for a READY
one; the environment works; nothing half-made is listed; no orphan works on a generation once the next
command has begun to build, nor after it; the next `create` succeeds and clears the debris. Real uv, real
wheels; only the moment is chosen by looking at files and processes.

    python scripts/prove_kill.py            # all moments; resumes where it stopped
    python scripts/prove_kill.py --sample 7 # one moment chosen by a number
    python scripts/prove_kill.py --check    # is the recorded proof still about this code?
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _proof

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COVERED = (
    "src/bnbenv/workflows/order.py",
    "src/bnbenv/workflows/realise.py",
    *(
        f"src/bnbenv/env/{name}.py"
        for name in (
            "durable",
            "exclusive",
            "generation",
            "layout",
            "lease",
            "locking",
            "processes",
            "switch",
        )
    ),
    "scripts/prove_kill.py",
)
PROOF = "prove_kill"
NAME = "victim"
LIMIT = 300.0  # seconds for one command
ATTEMPTS = 3  # at a kill that comes before the command has ended
# A package outside every profile: another version of it makes another lock, and so another generation.
MARKER = "humanize"
MARKER_VERSIONS = ("4.12.3", "4.13.0", "4.14.0")


@dataclass(frozen=True)
class Home:
    """Where the victim lives."""

    root: Path

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "BNBENV_HOME": str(self.root), "NO_COLOR": "1"}

    @property
    def link(self) -> Path:
        return self.root / "envs" / NAME

    @property
    def generations(self) -> list[Path]:
        directory = self.root / "generations" / NAME
        return sorted(path for path in directory.iterdir() if path.is_dir()) if directory.is_dir() else []

    def current(self) -> Path | None:
        return self.link.resolve() if self.link.exists() else None


@dataclass(frozen=True)
class Moment:
    """A point in the life of `create`, recognised from outside."""

    name: str
    reached: Callable[[Home, psutil.Process, Path | None], bool]


def children(process: psutil.Process) -> Iterator[str]:
    """The command lines of a process's descendants."""
    try:
        for child in process.children(recursive=True):
            try:
                yield " ".join(child.cmdline())
            except psutil.Error:
                continue
    except psutil.Error:
        return


def fresh(home: Home, before: Path | None) -> Path | None:
    """The generation that the running command is making."""
    known = {before} if before else set()
    made = [path for path in home.generations if path.resolve() not in known]
    return max(made, key=lambda path: path.stat().st_ctime, default=None)


def entries(home: Home, before: Path | None) -> int:
    generation = fresh(home, before)
    if generation is None:
        return 0
    return sum(1 for site in generation.glob("lib/python*/site-packages") for _ in site.iterdir())


def has(home: Home, before: Path | None, pattern: str) -> bool:
    generation = fresh(home, before)
    return generation is not None and any(generation.glob(pattern))


MOMENTS = (
    Moment("started", lambda _h, _p, _b: True),
    Moment("compiling", lambda _h, p, _b: any("pip compile" in line for line in children(p))),
    Moment("generation-begun", lambda h, _p, b: fresh(h, b) is not None),
    Moment("venv-made", lambda h, _p, b: has(h, b, "pyvenv.cfg")),
    Moment("syncing", lambda _h, p, _b: any("pip sync" in line for line in children(p))),
    Moment("first-package", lambda h, _p, b: entries(h, b) >= 3),
    Moment("half-installed", lambda h, _p, b: entries(h, b) >= 40),
    Moment("torch-there", lambda h, _p, b: has(h, b, "lib/python*/site-packages/torch-*.dist-info/RECORD")),
    Moment(
        "bitsandbytes-there", lambda h, _p, b: has(h, b, "lib/python*/site-packages/bitsandbytes*/RECORD")
    ),
    Moment("self-test", lambda _h, p, _b: any("script.py" in line for line in children(p))),
    Moment("verdict-written", lambda h, _p, b: has(h, b, ".bnbenv/verdict.json")),
    Moment("ready", lambda h, _p, b: has(h, b, ".bnbenv/READY")),
    Moment("switched", lambda h, _p, b: h.current() not in (None, b)),
)


def bnbenv(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "bnbenv", *arguments],
        env=home.environ,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def create_arguments(version: str) -> tuple[str, ...]:
    return ("create", "qlora", "--name", NAME, "--yes", "--json", "--with", f"{MARKER}=={version}")


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise SystemExit(f"no JSON from {done.args}: {done.stdout}\n{done.stderr}") from None
    return data


def snapshot(directory: Path) -> dict[str, tuple[int, int]]:
    """Path → (size, mtime) of every file below a directory."""
    found: dict[str, tuple[int, int]] = {}
    for root, _directories, files in os.walk(directory):
        for name in files:
            path = os.path.join(root, name)  # noqa: PTH118 - a hundred thousand Path objects are slow
            try:
                status = os.lstat(path)
            except OSError:
                continue
            found[path] = (status.st_size, status.st_mtime_ns)
    return found


def strike(home: Home, moment: Moment, *, group: bool, version: str) -> int | None:
    """Start `create`, kill it at `moment`; its session, or ``None`` if it ended before the moment came."""
    before = home.current()
    process = subprocess.Popen(
        [sys.executable, "-m", "bnbenv", *create_arguments(version)],
        env=home.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    seen = psutil.Process(process.pid)
    deadline = time.monotonic() + LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        if moment.reached(home, seen, before):
            if group:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
            return process.pid
        time.sleep(0.0005)
    process.wait(timeout=LIMIT)
    return None


def orphans(home: Home, session: int) -> dict[int, str]:
    """Processes of a killed command that live and work on a generation: process id → command line."""
    found = {}
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == session:
                words = psutil.Process(pid).cmdline()
                if any(str(home.root / "generations") in word for word in words):
                    found[pid] = " ".join(words)[:160]
        except (OSError, psutil.Error):
            continue
    return found


def builds(home: Home, pid: int) -> bool:
    """Whether the process has begun a generation."""
    for note in (home.root / "generations").glob("*/*/.bnbenv/BUILDING"):
        try:
            if json.loads(note.read_text())["pid"] == pid:
                return True
        except (OSError, ValueError, KeyError):
            continue
    return False


def watched(
    home: Home, session: int | None, *arguments: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the next command, and see who else works on a generation while it builds."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "bnbenv", *arguments], env=home.environ, stdout=out, stderr=err
        )
        seen: dict[int, str] = {}
        deadline = time.monotonic() + LIMIT
        while process.poll() is None and time.monotonic() < deadline:
            if session is not None and builds(home, process.pid):
                seen.update(orphans(home, session))
            time.sleep(0.01)
        process.wait(timeout=LIMIT)
        out.seek(0)
        err.seek(0)
        done = subprocess.CompletedProcess(arguments, process.returncode, out.read(), err.read())
    return done, [f"an orphan works while the next command builds: {words}" for words in seen.values()]


def struck(home: Home, moment: Moment, *, group: bool, number: int) -> tuple[Path, str, str, int | None]:
    """Make the victim, kill its change: old generation, old and new version, session of the killed command.

    The last moments lie milliseconds before the end: a command that has ended before its kill is tried again.
    """
    attempt = 0
    while True:
        old_version, new_version = (
            MARKER_VERSIONS[(number + attempt + shift) % len(MARKER_VERSIONS)] for shift in (0, 1)
        )
        made = bnbenv(home, *create_arguments(old_version))
        if made.returncode != 0:
            raise SystemExit(f"cannot prepare the victim: {made.stderr}")
        old = home.current()
        assert old is not None
        session = strike(home, moment, group=group, version=new_version)
        attempt += 1
        if session is not None or attempt == ATTEMPTS:
            return old, old_version, new_version, session


def one(home: Home, moment: Moment, *, group: bool, number: int) -> dict[str, Any]:
    """One kill, and everything that must hold after it."""
    problems: list[str] = []
    old, old_version, new_version, session = struck(home, moment, group=group, number=number)
    left = len(orphans(home, session)) if session is not None else 0
    after = home.current()
    if session is None:
        problems.append("the kill came too late")
    # Between READY and the switch lie milliseconds: a kill that comes after both hits a finished environment.
    switched = after != old
    if switched and not (after and (after / ".bnbenv" / "READY").is_file()):
        problems.append(f"the link moved to {after}, which is not ready")
    works = subprocess.run(
        [str(home.link / "bin" / "python"), "-c", f"import {MARKER}; print({MARKER}.__version__)"],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    expected = new_version if switched else old_version
    if works.stdout.strip() != expected:
        problems.append(
            f"the environment answers {works.stdout.strip()!r} {works.stderr[-200:]!r}, not {expected}"
        )
    listed = answer(bnbenv(home, "list", "--json"))["data"]["environments"]
    if [row["name"] for row in listed] != [NAME]:
        problems.append(f"listed: {listed}")
    # The next command waits for orphans that hold the lock; once it builds nobody else may.
    again, together = watched(home, session, *create_arguments(new_version))
    problems += together
    if again.returncode != 0:
        problems.append(f"create afterwards exits {again.returncode}: {again.stderr[-400:]}")
    settled = snapshot(home.root / "generations")
    debris = [path.name for path in home.generations if not (path / ".bnbenv" / "READY").is_file()]
    if debris:
        problems.append(f"debris left: {debris}")
    time.sleep(0.3)
    if snapshot(home.root / "generations") != settled:
        problems.append("something still writes")
    verdict = answer(again)["data"].get("verdict") if again.returncode == 0 else None
    return {"orphans": left, "switched": switched, "verdict": verdict, "problems": problems}


def main() -> int:
    """Run the proof; exit 1 if anything did not hold."""
    options = _proof.command_line(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="bnbenv-kill-", ignore_cleanup_errors=True) as directory:
        home = Home(Path(directory))
        kills = [(moment, group) for moment in MOMENTS for group in (False, True)]
        cases = {
            f"{moment.name}/{'group' if group else 'bnbenv'}": functools.partial(
                one, home, moment, group=group, number=number
            )
            for number, (moment, group) in enumerate(kills)
        }
        return _proof.go_through(options, PROOF, COVERED, cases)


if __name__ == "__main__":
    raise SystemExit(main())
