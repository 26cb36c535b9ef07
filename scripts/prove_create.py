"""Hurts `bnbenv create` in every way that is not a kill, on real packages, and shows what holds.

Each case names beforehand the exit code and the problem code that the user must get, and what must be
true afterwards. Cases that plant faults in a cache have a cache of their own.

    python scripts/prove_create.py              # all cases; resumes where it stopped
    python scripts/prove_create.py --sample 7   # one case chosen by a number
    python scripts/prove_create.py --check      # is the recorded proof still about this code?
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import _proof
from support.index_server import IndexServer
from support.wheels import write_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "prove_create"
COVERED = (
    "src/bnbenv/workflows/order.py",
    "src/bnbenv/workflows/realise.py",
    "src/bnbenv/install/[abls]*.py",
    "src/bnbenv/install/uv*.py",
    "src/bnbenv/env/[deglprs]*.py",
    "scripts/prove_create.py",
)
LIMIT = 420.0  # seconds for one command
MARKER = "humanize"


@dataclass
class Case:
    """One ground: a home of its own, and what was seen."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    skipped: str | None = None

    @property
    def home(self) -> Path:
        return self.root / "home"

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """One command, as a user types it."""
        return subprocess.run(
            [sys.executable, "-m", "bnbenv", *arguments],
            env={**os.environ, "BNBENV_HOME": str(self.home), "NO_COLOR": "1", **self.environ, **more},
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def create(self, *arguments: str, **more: str) -> tuple[int, dict[str, Any], str]:
        """`create qlora --json`: exit code, envelope, stderr."""
        done = self.run("create", "qlora", "--yes", "--json", *arguments, **more)
        try:
            envelope = json.loads(done.stdout)
        except ValueError:
            self.problems.append(f"no JSON on stdout: {done.stdout[-200:]!r}")
            envelope = {"data": {}, "problems": [{"code": "none"}]}
        if "Traceback" in done.stderr:
            self.problems.append(f"a traceback: {done.stderr[-400:]}")
        return done.returncode, envelope, done.stderr

    def expect(self, holds: object, words: str) -> None:
        if not holds:
            self.problems.append(words)

    def refused(self, answer: tuple[int, dict[str, Any], str], exit_code: int, *codes: str) -> None:
        """The command failed as announced."""
        got, envelope, stderr = answer
        seen = envelope["problems"][0]["code"] if envelope["problems"] else None
        if got != exit_code or seen not in codes:
            self.problems.append(f"exit {got}, code {seen}; announced {exit_code}, {codes}: {stderr[-300:]}")

    def works(self, name: str = "qlora") -> None:
        """The environment computes: a fresh import of bitsandbytes through the link."""
        python = self.home / "envs" / name / "bin" / "python"
        done = subprocess.run(
            [str(python), "-c", "import bitsandbytes"], capture_output=True, check=False, timeout=LIMIT
        )
        self.expect(done.returncode == 0, f"`{name}` does not import: {done.stderr[-200:]!r}")

    def clean(self) -> None:
        """No half-made generation stands after the next command."""
        for ready in (self.home / "generations").glob("*/*-*"):
            self.expect((ready / ".bnbenv" / "READY").is_file(), f"debris: {ready.name}")


CASES: dict[str, Callable[[Case], None]] = {}


def case(function: Callable[[Case], None]) -> Callable[[Case], None]:
    """Register a case under its function's name."""
    CASES[function.__name__.replace("_", "-")] = function
    return function


@contextlib.contextmanager
def tmpfs(directory: Path, size: str, *, options: str = "") -> Iterator[bool]:
    """A small file system, where this user may mount one."""
    directory.mkdir(parents=True, exist_ok=True)
    mounted = (
        os.geteuid() == 0
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}{options}", "tmpfs", str(directory)],
            check=False,
            capture_output=True,
        ).returncode
        == 0
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(directory)], check=False)


class DyingProxy:
    """A CONNECT proxy on loopback that cuts everything after some bytes; then refuses."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.carried = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _address = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._tunnel_quietly, args=(client,), daemon=True).start()

    def _tunnel_quietly(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):  # a host that is not there, a client that hangs up
            self._tunnel(client)

    def _tunnel(self, client: socket.socket) -> None:
        with client:
            head = b""
            while b"\r\n\r\n" not in head:
                part = client.recv(4096)
                if not part:
                    return
                head += part
            if self.carried > self.budget:
                return
            target = head.split()[1].decode()
            host, _, port = target.rpartition(":")
            with socket.create_connection(
                (host or urlsplit(target).hostname, int(port)), timeout=30
            ) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                self._pump(client, server)

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            while self.carried <= self.budget:
                for key, _events in ready.select(timeout=60):
                    source, sink = key.fileobj, key.data
                    data = source.recv(1 << 16)  # type: ignore[union-attr]
                    if not data:
                        return
                    self.carried += len(data)
                    sink.sendall(data)

    def close(self) -> None:
        self.listener.close()


@case
def bad_names(ground: Case) -> None:
    for name in ("../escape", "a/b", "x" * 300, "", "con", ".", "-rf", "tab\tname"):
        done = ground.run("create", "qlora", "--yes", "--json", f"--name={name}")
        ground.expect(done.returncode == 2, f"name {name!r} exits {done.returncode}")
        ground.expect("Traceback" not in done.stderr, f"name {name!r} gives a traceback")
    ground.expect(not (ground.home / "generations").exists(), "a bad name left something behind")


@case
def unicode_name(ground: Case) -> None:
    code, envelope, stderr = ground.create("--name", "größe-二")
    ground.expect(code == 0, f"exit {code}: {stderr[-300:]}")
    ground.expect(envelope["data"].get("name") == "größe-二", "the name came back changed")
    ground.works("größe-二")


@case
def occupied_path(ground: Case) -> None:
    taken = ground.root / "mine"
    taken.mkdir()
    (taken / "thesis.txt").write_text("three years of work")
    ground.refused(ground.create("--path", str(taken)), 2, "path-occupied")
    ground.expect((taken / "thesis.txt").read_text() == "three years of work", "the user's file changed")
    ground.expect([*taken.iterdir()] == [taken / "thesis.txt"], "something was added to the user's directory")


@case
def old_process_keeps_its_generation(ground: Case) -> None:
    ground.expect(ground.create("--with", f"{MARKER}==4.12.3")[0] == 0, "the first create failed")
    program = f"import sys; sys.stdin.readline(); import {MARKER}; print({MARKER}.__version__)"
    sleeper = subprocess.Popen(
        [sys.executable, "-m", "bnbenv", "run", "qlora", "--", "python", "-c", program],
        env={**os.environ, "BNBENV_HOME": str(ground.home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(2)
    for version in ("4.13.0", "4.14.0"):  # the second switch would prune the sleeper's generation
        ground.expect(
            ground.create("--with", f"{MARKER}=={version}")[0] == 0, f"create with {version} failed"
        )
    out, _err = sleeper.communicate("go\n", timeout=LIMIT)
    ground.expect(out.strip() == "4.12.3", f"the sleeper imported {out.strip()!r}")


@case
def two_at_once(ground: Case) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "bnbenv", "create", "qlora", "--yes", "--json"],
            env={**os.environ, "BNBENV_HOME": str(ground.home), "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=LIMIT) for process in both]
    ground.expect(
        [process.returncode for process in both] == [0, 0], f"exits: {[a[1][-200:] for a in answers]}"
    )
    changed = sorted(json.loads(out)["data"]["changed"] for out, _err in answers)
    ground.expect(changed == [False, True], f"changed: {changed}")
    ground.expect(any("wait" in err.lower() for _out, err in answers), "nobody said that it waits")
    ground.works()
    ground.expect(
        len([*(ground.home / "generations" / "qlora").glob("*-*")]) == 1, "more than one generation"
    )


@case
def corrupt_state(ground: Case) -> None:
    ground.create()
    state = (ground.home / "envs" / "qlora").resolve() / ".bnbenv" / "state.json"
    for text in ("{", "[]", '{"schema": 1}', "\x00\x01", ""):
        state.write_text(text)
        done = ground.run("info", "qlora", "--json")
        ground.expect(done.returncode == 4, f"info with state {text!r} exits {done.returncode}")
        ground.expect(ground.run("list", "--json").returncode == 0, f"list with state {text!r} fails")
    state.write_text('{"schema": 999}')
    done = ground.run("info", "qlora", "--json")
    ground.expect(
        json.loads(done.stdout)["problems"][0]["code"] == "state-too-new", "a newer state is not told"
    )
    state.write_text("{")
    code, envelope, _stderr = ground.create()
    ground.expect(code == 0 and envelope["data"]["changed"], "create does not mend a corrupt state")
    ground.expect(ground.run("info", "qlora").returncode == 0, "still corrupt after create")


@case
def disk_too_small(ground: Case) -> None:
    with tmpfs(ground.home, "60m") as mounted:
        if not mounted:
            ground.skipped = "no right to mount a small file system"
            return
        answer = ground.create("--link-mode", "copy")
        ground.refused(answer, 5, "disk-full")
        ground.expect("MB" in answer[1]["problems"][0]["message"], "the message has no sizes")
        ground.expect(not [*ground.home.glob("generations/*/*-*")], "it had begun")


@case
def disk_fills_in_the_middle(ground: Case) -> None:
    with tmpfs(ground.home, "4200m") as mounted:
        if not mounted:
            ground.skipped = "no right to mount a small file system"
            return
        ground.expect(ground.create("--link-mode", "copy")[0] == 0, "the first create failed")
        old = (ground.home / "envs" / "qlora").resolve()
        stop = threading.Event()

        def eat() -> None:
            generations = ground.home / "generations" / "qlora"
            while not stop.is_set():
                fresh = [p for p in generations.glob("*-*") if p.resolve() != old]
                if fresh and any(fresh[0].glob("lib/python*/site-packages/*")):
                    with contextlib.suppress(OSError), (ground.home / "eaten").open("wb") as sink:
                        while not stop.is_set():
                            sink.write(b"\0" * (1 << 22))
                    return
                time.sleep(0.005)

        eater = threading.Thread(target=eat)
        eater.start()
        answer = ground.create("--link-mode", "copy", "--with", f"{MARKER}==4.13.0")
        stop.set()
        eater.join()
        ground.refused(answer, 5, "disk-full")
        (ground.home / "eaten").unlink(missing_ok=True)
        ground.expect((ground.home / "envs" / "qlora").resolve() == old, "the link moved")
        ground.works()
        ground.run("list")
        code, _envelope, stderr = ground.create("--link-mode", "copy", "--with", f"{MARKER}==4.13.0")
        ground.expect(code == 0, f"create afterwards: {stderr[-300:]}")
        ground.clean()


@case
def read_only_home(ground: Case) -> None:
    with tmpfs(ground.home, "2600m") as mounted:
        if not mounted:
            ground.skipped = "no right to mount a small file system"
            return
        subprocess.run(["mount", "-o", "remount,ro", str(ground.home)], check=True)
        ground.refused(ground.create(), 5, "permission")


@case
def network_dies_in_the_middle(ground: Case) -> None:
    ground.environ["UV_CACHE_DIR"] = str(ground.root / "cache")
    proxy = DyingProxy(budget=40_000_000)
    dying = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "ALL_PROXY"), proxy.url)
    answer = ground.create(**dying, UV_HTTP_RETRIES="1")
    proxy.close()
    ground.expect(proxy.carried > 1_000_000, f"the proxy carried only {proxy.carried} bytes")
    ground.refused(answer, 5, "index-unreachable")
    ground.expect(not (ground.home / "envs" / "qlora").exists(), "a half-made environment is linked")
    code, _envelope, stderr = ground.create()
    ground.expect(code == 0, f"with the network back: {stderr[-300:]}")
    ground.works()
    ground.clean()


@case
def no_network_and_a_cold_cache(ground: Case) -> None:
    ground.environ["UV_CACHE_DIR"] = str(ground.root / "cache")
    ground.refused(ground.create("--offline"), 5, "offline", "package-unavailable")


@case
def no_network_and_a_warm_cache(ground: Case) -> None:
    ground.expect(ground.create()[0] == 0, "the first create failed")
    code, envelope, stderr = ground.create("--offline", "--name", "second")
    ground.expect(code == 0, f"--offline from a warm cache: {stderr[-300:]}")
    ground.expect(envelope["data"].get("verdict") in {"passed", "degraded"}, "not proven")


@case
def wheel_with_a_wrong_hash(ground: Case) -> None:
    with IndexServer() as server:
        wheels = ground.root / "wheels"
        wheels.mkdir()
        write_wheel(wheels, "bnbenv-prove-probe", "1.0")
        url = server.add("extra", wheels, mode="wrong-hashes")
        answer = ground.create("--with", "bnbenv-prove-probe", PIP_EXTRA_INDEX_URL=url)
    ground.refused(answer, 5, "hash-mismatch")
    ground.expect(not (ground.home / "envs" / "qlora").exists(), "it was switched")
    ground.create()
    ground.clean()


@case
def poisoned_cache(ground: Case) -> None:
    cache = ground.root / "cache"
    ground.environ["UV_CACHE_DIR"] = str(cache)
    ground.expect(ground.create("--link-mode", "copy")[0] == 0, "the first create failed")
    poisoned = 0
    for library in cache.rglob("libbitsandbytes_cpu.so"):
        data = bytearray(library.read_bytes())
        data[len(data) // 2] ^= 0xFF
        library.unlink()
        library.write_bytes(data)
        poisoned += 1
    for source in cache.rglob("bitsandbytes/functional.py"):
        text = source.read_text()
        source.unlink()
        source.write_text(text + "\n# poisoned\n")
        poisoned += 1
    for source in cache.rglob("peft/config.py"):
        text = source.read_text()
        source.unlink()
        source.write_text(text + "\n# poisoned\n")
        poisoned += 1
    ground.expect(poisoned >= 3, f"only {poisoned} files poisoned")
    code, _envelope, stderr = ground.create("--name", "second")
    ground.expect(code == 0, f"exit {code}: {stderr[-300:]}")
    ground.expect("damaged" in stderr, "the damage was not told")
    second = ground.home / "envs" / "second"
    reached = [
        path.name
        for pattern in ("bitsandbytes/functional.py", "peft/config.py")
        for path in second.glob(f"lib/python*/site-packages/{pattern}")
        if "# poisoned" in path.read_text()
    ]
    ground.expect(not reached, f"poisoned files reached the environment: {reached}")
    ground.works("second")


@case
def indexes_that_fail(ground: Case) -> None:
    announced = {
        "forbidden": "index-forbidden",
        "login-page": "index-not-an-index",
        "missing": "index-missing",
        "reset": "index-unreachable",
    }
    gpu = ("--gpu", "RTX 4090", "--driver", "550", "--os", "windows")
    told = set()
    with IndexServer() as server:
        for mode, code in announced.items():
            url = server.add(mode, ground.root / f"wheels-{mode}", mode=mode)
            ground.run("config", "set", "pytorch", url)
            answer = ground.create("--dry-run", *gpu)
            ground.refused(answer, 5, code)
            message = answer[1]["problems"][0].get("message", "")
            ground.expect(url.rstrip("/") in message, f"{mode}: the address is not named: {message!r}")
            told.add(message.replace(mode, ""))
    ground.expect(len(told) == len(announced), "two ways of failing are told alike")


def one(name: str) -> dict[str, Any]:
    """Run one case on fresh ground."""
    with tempfile.TemporaryDirectory(prefix="bnbenv-create-", ignore_cleanup_errors=True) as directory:
        ground = Case(Path(directory))
        CASES[name](ground)
        with contextlib.suppress(OSError):
            shutil.rmtree(ground.root / "cache", ignore_errors=True)
    return {"skipped": ground.skipped, "problems": ground.problems}


def main() -> int:
    """Run the proof; exit 1 if anything did not hold."""
    options = _proof.command_line(__doc__).parse_args()
    cases = {name: functools.partial(one, name) for name in sorted(CASES)}
    return _proof.go_through(options, NAME, COVERED, cases)


if __name__ == "__main__":
    raise SystemExit(main())
