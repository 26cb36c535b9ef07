"""Locks a fleet, builds from its locks with three installers, and hurts `sync`: real uv, pip and torch.

Torch for the CPU comes from a wheelhouse, served by an index on loopback, because PyTorch's own indexes may
be out of reach. What only those carry is locked against metadata-only stand-ins made from compat/, which
nothing installs; the rows say which variant was locked against what.

    python scripts/prove_lock.py --wheelhouse DIR    # all cases; resumes where it stopped
    python scripts/prove_lock.py --sample 7          # one case chosen by a number
    python scripts/prove_lock.py --check             # is the recorded proof still about this code?
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from jsonschema import ValidationError

import _proof
from bnbenv.install.uv import find_uv
from bnbenv.lockfile import index as team_index
from bnbenv.matrix.load import load
from bnbenv.workflows.choose import JUDGED
from support.index_server import IndexServer
from support.schemas import validate
from support.stand_ins import write_stand_ins

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "prove_lock"
COVERED = (
    "src/bnbenv/workflows/lock*.py",
    "src/bnbenv/workflows/sync.py",
    "src/bnbenv/workflows/fleet.py",
    "src/bnbenv/workflows/bundle.py",
    "src/bnbenv/lockfile/*.py",
    "src/bnbenv/judge/cover.py",
    "src/bnbenv/install/fetch.py",
    "src/bnbenv/install/pages.py",
    "scripts/prove_lock.py",
)
LIMIT = 600.0  # seconds for one command
OWN = {"pip", "setuptools", "wheel"}
SECRET = "hunter2-of-prove-lock"
FLEET: dict[str, dict[str, Any]] = {
    "desk-4090": {"gpus": [("NVIDIA GeForce RTX 4090", "8.9")], "driver": "550.54.15"},
    "volta-1": {"gpus": [("Tesla V100-SXM2-16GB", "7.0")], "driver": "535.161.08"},
    "volta-2": {"gpus": [("Tesla V100-SXM2-16GB", "7.0")], "driver": "535.161.08"},
    "hopper": {"gpus": [("NVIDIA H100 80GB HBM3", "9.0")], "driver": "580.95.05"},
    "blackwell": {"gpus": [("NVIDIA B200", "10.0")], "driver": "580.95.05"},
    "old-1080": {"gpus": [("NVIDIA GeForce GTX 1080", "6.1")], "driver": "550.90.07"},
    "laptop": {"gpus": [("NVIDIA GeForce RTX 3060 Laptop GPU", "8.6")], "driver": "560.94", "os": "windows"},
    "grace": {"gpus": [("NVIDIA GH200 480GB", "9.0")], "driver": "580.95.05", "arch": "aarch64"},
    "mac": {"os": "macos", "arch": "aarch64", "accelerator": "mps"},
    "ci": {},
    "attic": {"gpus": [("NVIDIA GeForce RTX 4090", "8.9")], "driver": "470.82.01"},
}


@dataclass
class Ground:
    """What all cases share: the wheelhouse, a lock for the CPU, and what uv has fetched."""

    root: Path
    wheelhouse: Path
    server: IndexServer
    python: Path
    lock: Path = field(default_factory=Path)

    @property
    def torch(self) -> str:
        return self.server.url("torch")


@dataclass
class Case:
    """One ground of its own, and what was seen."""

    ground: Ground
    root: Path
    problems: list[str] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.root / "home"

    def environ(self, **more: str) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PIP_FIND", "VIRTUAL"))
        }
        return {
            **kept,
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_EXTRA_INDEX_URL": self.ground.torch,
            "BNBENV_HOME": str(self.home),
            "NO_PROXY": "127.0.0.1",
            "NO_COLOR": "1",
            **more,
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "bnbenv", *arguments]

    def run(self, *arguments: str, **more: str) -> tuple[int, dict[str, Any], str]:
        """One command with --json: exit code, envelope, stderr."""
        done = subprocess.run(
            self.command(*arguments, "--json"),
            env=self.environ(**more),
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        try:
            envelope = json.loads(done.stdout)
        except ValueError:
            self.problems.append(f"no JSON on stdout: {done.stdout[-200:]!r} {done.stderr[-200:]!r}")
            envelope = {"data": {}, "problems": [{"code": "none"}]}
        else:
            self.keeps_to_schema(arguments[0], envelope)
        if "Traceback" in done.stderr:
            self.problems.append(f"a traceback: {done.stderr[-400:]}")
        return done.returncode, envelope, done.stderr

    def keeps_to_schema(self, command: str, envelope: dict[str, Any]) -> None:
        try:
            validate(envelope)
        except (AssertionError, ValidationError) as problem:
            self.problems.append(f"the answer of `{command}`: {str(problem).splitlines()[0]}")

    def expect(self, holds: object, words: str) -> None:
        if not holds:
            self.problems.append(words)

    def refused(self, answer: tuple[int, dict[str, Any], str], code: int, problem: str, *words: str) -> None:
        got, envelope, stderr = answer
        first: dict[str, str] = envelope["problems"][0] if envelope["problems"] else {}
        told = first.get("message", "")
        if got != code or first.get("code") != problem or not all(word in told for word in words):
            self.problems.append(
                f"exit {got}, {first}; announced {code}, {problem}, {words}: {stderr[-200:]}"
            )

    def sync(self, lock: Path | None = None, *arguments: str, **more: str) -> tuple[int, dict[str, Any], str]:
        return self.run("sync", str(lock or self.ground.lock), "--yes", *arguments, **more)

    def copy_of_lock(self) -> Path:
        return Path(shutil.copytree(self.ground.lock, self.root / "lock"))


CASES: dict[str, Callable[[Case], None]] = {}


def case(function: Callable[[Case], None]) -> Callable[[Case], None]:
    """Register a case under its function's name."""
    CASES[function.__name__.replace("_", "-")] = function
    return function


def distributions(python: Path) -> dict[str, str]:
    """Name → version of what an environment holds, installers apart."""
    code = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    done = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, check=True)
    pins = (pin.split("==") for pin in done.stdout.split())
    found = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}
    return {name: version for name, version in found.items() if name not in OWN}


def target(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    gpus = [{"name": card, "compute_capability": capability} for card, capability in facts.get("gpus", [])]
    system = facts.get("os", "linux")
    return {
        "schema": 1,
        "name": name,
        "os": system,
        "arch": facts.get("arch", "x86_64"),
        "libc": {"family": "glibc", "version": "2.35"} if system == "linux" else None,
        "accelerator": facts.get("accelerator", "cuda" if gpus else "cpu"),
        "driver": facts.get("driver"),
        "gpus": gpus,
        "pythons": ["3.12"],
    }


@case
def eight_targets_and_more(it: Case) -> None:
    """PyPI is real; PyTorch's own indexes are stand-ins from compat/, named as such and never installed."""
    machines = it.root / "machines"
    machines.mkdir()
    for name, facts in FLEET.items():
        (machines / f"{name}.json").write_text(json.dumps(target(name, facts)))
    stand_ins = write_stand_ins(
        it.root / "stand-ins", load(*JUDGED), pythons=["3.12"], torch=["2.13.0", "2.14.0", "2.14.1"]
    )
    config = []
    for row in load("indexes").indexes:
        if row.family == "pytorch":
            url = it.ground.server.add(f"stand-in-{row.name}", stand_ins.get(row.name, it.root / "none"))
            config.append(f'"{row.name}" = "{url}"')
    it.home.mkdir(parents=True)
    (it.home / "config.toml").write_text("schema = 1\n[mirrors]\n" + "\n".join(config) + "\n")
    plain = {"PIP_EXTRA_INDEX_URL": ""}
    team = it.root / "team"
    code, envelope, stderr = it.run("lock", "qlora", "--dir", str(team), "--targets", str(machines), **plain)
    it.expect(code == 3, f"exit {code} instead of 3 for the machine in the attic: {stderr[-300:]}")
    data = envelope["data"]
    it.expect([entry["machines"] for entry in data.get("unserved", [])] == [["attic"]], f"unserved: {data}")
    for variant in data.get("variants", ()):
        real = variant["torch"]["index"] == "pypi"
        it.seen[variant["name"]] = {
            "machines": variant["machines"],
            "torch": f"{variant['torch']['version']} ({variant['torch']['build']})",
            "locked_against": "PyPI" if real else f"stand-ins of {variant['torch']['index']}",
            "packages": variant["packages"],
        }
    served = {machine for variant in data.get("variants", ()) for machine in variant["machines"]}
    it.expect(served == set(FLEET) - {"attic"}, f"served: {sorted(served)}")
    before = {path.name: path.read_bytes() for path in team.iterdir()}
    it.run("lock", "--dir", str(team), **plain)
    it.expect({p.name: p.read_bytes() for p in team.iterdir()} == before, "locking again changes the files")
    it.run("lock", "qlora", "--dir", str(it.root / "again"), "--targets", str(machines), **plain)
    again = {path.name: path.read_bytes() for path in (it.root / "again").iterdir()}
    it.expect(again == before, "the same inputs give other bytes")
    code, envelope, _ = it.run("lock", "--check", "--dir", str(team), **plain)
    told = [
        found["summary"] for found in envelope["data"].get("findings", []) if found["severity"] == "error"
    ]
    it.expect(code == 0 and not told, f"--check: exit {code}, {told}")
    it.expect(not any(b"127.0.0.1" in data for data in before.values()), "a mirror's address is in the lock")


@case
def one_lock_three_installers(it: Case) -> None:
    """bnbenv, uv and pip make of one file environments with exactly the same distributions."""
    lock = it.ground.lock / "pylock.cpu.toml"
    code, envelope, stderr = it.sync()
    it.expect(code == 0 and envelope["data"].get("changed"), f"sync: exit {code}: {stderr[-300:]}")
    ours = distributions(it.home / "envs" / "qlora" / "bin" / "python")
    uv = find_uv(os.environ).path
    environ = it.environ()
    made = it.root / "by-uv"
    for command in (
        [str(uv), "venv", str(made), "--python", str(it.ground.python), "--no-config"],
        [str(uv), "pip", "sync", str(lock), "--python", str(made / "bin/python"), "--no-config"],
    ):
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, check=False, timeout=LIMIT
        )
        it.expect(done.returncode == 0, f"uv: {done.stderr[-300:]}")
    it.expect(distributions(made / "bin/python") == ours, "uv installs something else")
    pipped = it.root / "by-pip"
    for command in (
        [str(it.ground.python), "-m", "venv", str(pipped)],
        [str(pipped / "bin/python"), "-m", "pip", "install", "-q", "--upgrade", "pip>=26.1"],
        [str(pipped / "bin/python"), "-m", "pip", "install", "-r", str(lock)],
    ):
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, check=False, timeout=LIMIT
        )
        it.expect(done.returncode == 0, f"pip: {done.stdout[-200:]} {done.stderr[-300:]}")
    it.expect(distributions(pipped / "bin/python") == ours, "pip installs something else")
    it.seen = {"distributions": len(ours)}


@case
def again_is_a_no_op(it: Case) -> None:
    it.sync()
    code, envelope, _ = it.sync()
    it.expect(code == 0 and envelope["data"].get("changed") is False, f"exit {code}, {envelope['data']}")
    victim = next(it.home.glob("generations/qlora/*/lib/python*/site-packages/peft/__init__.py"))
    victim.unlink()
    code, envelope, _ = it.sync()
    it.expect(
        code == 0 and envelope["data"].get("changed") is True, f"a lost file: {code}, {envelope['data']}"
    )


@case
def killed_in_the_middle(it: Case) -> None:
    """SIGKILL of the process group while it probes, installs and tests; the next sync gets through."""
    reached = []
    for moment in ("bitsandbytes-0", "torch-2", "verdict", ".bnbenv/state.json"):
        process = subprocess.Popen(
            it.command("sync", str(it.ground.lock), "--yes", "--quiet", "--link-mode", "copy"),
            env=it.environ(),
            cwd=it.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            if any(
                moment in str(path)
                for path in it.home.glob("generations/qlora/*/lib/python*/site-packages/*")
            ):
                break
            if any(
                moment.split("/")[-1] in path.name for path in it.home.glob("generations/qlora/*/.bnbenv/*")
            ):
                break
            time.sleep(0.01)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            reached.append(moment)
        process.wait()
        link = it.home / "envs" / "qlora"
        if link.exists():  # the kill came too late: then what is current must be whole
            it.expect((link / ".bnbenv" / "READY").is_file(), f"{moment}: switched to what is not ready")
            break
    code, _, stderr = it.sync()
    it.expect(code == 0, f"after the kills: exit {code}: {stderr[-300:]}")
    for made in (it.home / "generations" / "qlora").glob("*-*"):
        it.expect((made / ".bnbenv" / "READY").is_file(), f"debris: {made.name}")
    it.expect(len(reached) >= 2, f"only {reached} were reached")
    it.seen = {"killed_at": reached}


@case
def two_at_once(it: Case) -> None:
    """Both end well, one builds."""
    commands = it.command("sync", str(it.ground.lock), "--yes", "--json", "--quiet")
    running = [
        subprocess.Popen(
            commands, env=it.environ(), cwd=it.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=LIMIT) for process in running]
    changed = [json.loads(out)["data"].get("changed") for out, _ in answers]
    it.expect([process.returncode for process in running] == [0, 0], f"{[err[-200:] for _, err in answers]}")
    it.expect(sorted(changed) == [False, True], f"changed: {changed}")


def bundled(it: Case) -> Path:
    """A copy of a wheelhouse that `bundle` made once, broken off and gone on with on the way."""
    whole = it.ground.root / "bundle"
    if not (whole / "manifest.json").is_file():
        code, _, stderr = it.run("bundle", str(it.ground.lock), "-o", str(whole))
        it.expect(code == 0, f"bundle: exit {code}: {stderr[-300:]}")
        victim = max((whole / "wheels").glob("*.whl"), key=lambda path: path.stat().st_size)
        data = victim.read_bytes()
        victim.with_name(victim.name + ".part").write_bytes(data[: len(data) // 2])
        victim.unlink()
        code, envelope, stderr = it.run("bundle", str(it.ground.lock), "-o", str(whole))
        it.expect(code == 0 and envelope["data"].get("fetched") == 1, f"resumed: {code}, {stderr[-200:]}")
    return Path(shutil.copytree(whole, it.root / "bundle"))


@case
def without_any_network(it: Case) -> None:
    """From a bundle, with an empty cache, and every way out shut."""
    out = bundled(it)
    shut = {
        "UV_CACHE_DIR": str(it.root / "empty-cache"),
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "PIP_EXTRA_INDEX_URL": "",
    }
    code, envelope, stderr = it.sync(out, "--wheelhouse", str(out), **shut)
    it.expect(code == 0 and envelope["data"].get("changed"), f"sync: exit {code}: {stderr[-400:]}")
    tampered = next((out / "wheels").glob("peft-*"))
    tampered.write_bytes(b"not a wheel")
    answer = it.sync(out, "--wheelhouse", str(out), "--name", "other", **shut)
    it.refused(answer, 6, "hash-mismatch", tampered.name, "instead of")
    it.expect(not (it.home / "envs" / "other").exists(), "a tampered wheel was built in")


@case
def a_mirror_with_a_password(it: Case) -> None:
    """The files of a mirror, by name and hash; the password is nowhere to be seen."""
    out = bundled(it)
    server = it.ground.server
    server.add("mirror", out / "wheels", credential=f"me:{SECRET}")
    fresh = {"UV_CACHE_DIR": str(it.root / "mirror-cache"), "PIP_INDEX_URL": server.url("mirror")}
    it.refused(it.sync(None, **fresh), 5, "index-forbidden", "wants credentials")
    spoken: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    if SECRET.encode() in entry.read_bytes():
                        spoken.add(entry.parent.name)

    watcher = threading.Thread(target=watch)
    watcher.start()
    fresh["PIP_INDEX_URL"] = server.url("mirror", credential=f"me:{SECRET}")
    code, _, stderr = it.sync(None, "-vv", **fresh)
    done.set()
    watcher.join()
    it.expect(code == 0, f"sync: exit {code}: {stderr[-300:]}")
    asked = {seen.path for seen in server.seen if seen.path.startswith("/mirror/files/")}
    it.expect(len(asked) > 40, f"only {len(asked)} files came from the mirror")
    it.expect(not spoken, "the password stood in the process list")
    it.expect(SECRET not in stderr, "the password was told")
    holding = [
        str(path.relative_to(it.home))
        for path in it.home.rglob("*")
        if path.is_file() and path.stat().st_size < 1_000_000 and SECRET.encode() in path.read_bytes()
    ]
    it.expect(not holding, f"the password stands in {holding[:3]}")


@case
def a_mirror_that_cheats(it: Case) -> None:
    """Another file under a locked name: told from its page's hash, or by its bytes."""
    out = bundled(it)
    evil = it.root / "evil"
    shutil.copytree(out / "wheels", evil)
    wheel = next(evil.glob("peft-*"))
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    server = it.ground.server
    for mode in ("ok", "no-hashes"):
        url = server.add(f"evil-{mode}", evil, mode=mode)
        fresh = {"UV_CACHE_DIR": str(it.root / f"cache-{mode}"), "PIP_INDEX_URL": url}
        code, envelope, _ = it.sync(None, **fresh)
        it.seen[mode] = envelope["problems"][0]["code"] if envelope["problems"] else None
        it.expect(code in (5, 6) and it.seen[mode] == "hash-mismatch", f"{mode}: exit {code}, {it.seen}")
        it.expect(not (it.home / "envs" / "qlora").exists(), f"{mode}: something was installed")


@case
def a_lock_that_was_changed(it: Case) -> None:
    lock = it.copy_of_lock()
    path = lock / "pylock.cpu.toml"
    content = path.read_text()
    path.write_text(content.replace("peft", "evil", 1))
    it.refused(it.sync(lock), 6, "hash-mismatch", "changed after it was locked")

    def mended(text: str) -> None:
        path.write_text(text)
        index = (lock / "bnbenv.lock").read_text()
        old = team_index.parse(index).variants[0].sha256
        (lock / "bnbenv.lock").write_text(index.replace(old, team_index.sha256_of(text)))

    url = next(line for line in content.splitlines() if line.startswith("url = "))
    mended(content.replace(url, url.replace("https://", "http://").replace("127.0.0.1", "mirror.example"), 1))
    it.refused(it.sync(lock), 6, "insecure-index", "without TLS")
    # Of a wheel: what is installed. Of several files of a package, uv checks the one that it takes.
    first = content.index("sha256 = ", content.index("-py3-none-any.whl", content.index("peft-")))
    mended(content[:first] + 'md5 = "' + "0" * 32 + '"' + content[content.index("\n", first) :])
    it.refused(it.sync(lock), 6, "lock-invalid", "md5 alone")
    digest = hashlib.sha256(b"another file").hexdigest()
    mended(content[:first] + f'sha256 = "{digest}"' + content[content.index("\n", first) :])
    code, envelope, _ = it.sync(lock)
    it.seen = {"another hash": envelope["problems"][0]["code"] if envelope["problems"] else None}
    it.expect(code == 5 and it.seen["another hash"] == "hash-mismatch", f"exit {code}, {it.seen}")
    it.expect(not (it.home / "envs" / "qlora").exists(), "something was installed")


@case
def another_machine(it: Case) -> None:
    """A machine that the lock does not name, and one that nothing in it serves."""
    lock = it.ground.lock
    described = it.root / "gpu.json"
    described.write_text(json.dumps(target("desk", FLEET["desk-4090"])))
    it.refused(it.sync(lock, "--target", str(described)), 3, "unsolvable", "no variant of the lock serves")
    described.write_text(json.dumps({**target("plain", {}), "libc": {"family": "glibc", "version": "2.39"}}))
    code, envelope, _ = it.sync(lock, "--target", str(described), "--dry-run")
    it.expect(code == 0 and envelope["data"].get("variant") == "cpu", f"judged: exit {code}")
    it.refused(it.sync(lock, "--target", str(described), "--frozen"), 3, "unsolvable", "--frozen was given")
    code, envelope, _ = it.run("doctor", "--lock", str(lock), sys.prefix)
    it.expect(code == 1, f"doctor --lock of another environment: exit {code}")


def prepare(root: Path, wheelhouse: Path, server: IndexServer) -> Ground:
    """Lock the CPU variant once, torch from the wheelhouse through an index on loopback."""
    server.add("torch", wheelhouse)
    [wheel] = sorted(wheelhouse.glob("torch-*+cpu-*.whl"))[:1]
    tag = wheel.name.split("-")[2]
    minor = f"{tag[2]}.{tag[3:]}"
    uv = find_uv(os.environ)
    python = Path(
        uv.run(["python", "find", minor, "--no-config", "--no-project"], environ=os.environ).stdout.strip()
    )
    ground = Ground(root=root, wheelhouse=wheelhouse, server=server, python=python)
    it = Case(ground=ground, root=root)
    # The wheelhouse's torch is asked for, whatever else could be reached.
    asked = ("--cpu", "--python", minor, "--without-index", "pypi", "--without-index", "pytorch")
    code, envelope, _ = it.run("lock", "qlora", *asked, "--dir", str(root / "lock"))
    for _ in range(4):  # on a machine that is busy elsewhere
        if code == 0:
            break
        code, envelope, _ = it.run("lock", "qlora", *asked, "--dir", str(root / "lock"))
    if code:
        raise SystemExit(f"the lock for the CPU cannot be made: {envelope['problems']}")
    ground.lock = root / "lock"
    return ground


def one(name: str, ground: Ground) -> dict[str, Any]:
    """Run one case on a ground of its own."""
    root = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=ground.root))
    it = Case(ground=ground, root=root)
    try:
        CASES[name](it)
    except Exception as error:  # noqa: BLE001 - a case that breaks is a case that does not hold
        it.problems.append(f"{type(error).__name__}: {error}"[:500])
    shutil.rmtree(root, ignore_errors=True)
    return {"problems": it.problems, "seen": it.seen}


def main() -> int:
    """Run the proof; exit 1 if anything did not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheelhouse", metavar="DIR", help="holds a wheel of torch for the CPU")
    parser.add_argument("--sample", type=int, metavar="N", help="one case, chosen by N")
    parser.add_argument("--only", metavar="CASE", choices=sorted(CASES), help="one case, by name")
    parser.add_argument("--check", action="store_true", help="only say whether the recorded proof stands")
    options = parser.parse_args()
    if options.check:
        reasons = _proof.check(NAME, COVERED)
        print("\n".join(reasons) or f"{NAME}: the recorded proof stands")
        return 1 if reasons else 0
    given = options.wheelhouse or os.environ.get("PIP_FIND_LINKS", "").split(" ")[0]
    if not given or not list(Path(given).glob("torch-*+cpu-*.whl")):
        print("skipped: no wheelhouse with torch for the CPU (--wheelhouse DIR, or PIP_FIND_LINKS)")
        return 0
    names = sorted(CASES)
    partly = bool(options.only) or options.sample is not None
    if options.only:
        names = [options.only]
    elif options.sample is not None:
        names = [names[random.Random(options.sample).randrange(len(names))]]
    proof = _proof.resume(NAME, COVERED)
    failed = []
    with tempfile.TemporaryDirectory(prefix="prove-lock-") as root, IndexServer() as server:
        ground = prepare(Path(root), Path(given).absolute(), server)
        for name in names:
            if name in proof.rows and not partly:
                continue
            started = time.monotonic()
            row = one(name, ground)
            print(f"{name}: {row['problems'] or 'holds'} ({time.monotonic() - started:.0f} s)", flush=True)
            if row["problems"]:
                failed.append(name)
            if not partly:
                proof.add(name, row, seconds=time.monotonic() - started)
                _proof.save(proof)
    if not partly:
        proof.misses = [name for name, row in proof.rows.items() if row["problems"]]
        proof.counts = {"cases": len(proof.rows), "held": len(proof.rows) - len(proof.misses)}
        proof.complete = set(proof.rows) == set(CASES)
        _proof.save(proof)
        failed = proof.misses
    print(f"{len(names)} cases, {len(failed)} that did not hold")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
