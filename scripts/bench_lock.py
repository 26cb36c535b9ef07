"""Compares `lock` and `sync` with uv alone: the same inputs, side by side in one run.

Locks are made against metadata-only stand-ins, for both sides, so that no network's mood counts: as many as a
QLoRA environment has packages, on loopback without delay and with each answer as late as from a distance. The
budget of an empty cache is for the latter, that of a full one for the former; both are printed for both. What
is compared is the work of a process that has loaded Python; `command` is the whole command, without a budget.

`sync` is compared with real locks and real wheels: the whole command of a bnbenv that was installed from its
wheel, but for the self-test and the comparison with RECORD, whose time is told beside it; beside RECORD the
standard's reader checks the lock. `sync` stands there without a budget, to show what loading takes: the same
in a process that has loaded its modules and done nothing yet, from the command line to the answer. `least` is
a program in Python that chooses nothing and looks at no machine: it reads the two files, calls uv twice as it
is called by hand, and writes three small files of its own. Against them stand `uv venv` with the
interpreter's path and `uv pip sync` of the same `pylock.<variant>.toml`: all make a new environment on the
disk of the temporary directory out of uv's one cache, which holds everything unpacked. `--wheelhouse DIR` has
torch for the processor; `--cuda` takes the newest stack for an RTX 4090 from the network.

    python scripts/bench_lock.py [--runs 5] [--wheelhouse DIR] [--cuda] [--targets 10000]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from bnbenv.install import compile as compiling
from bnbenv.install.compile_inputs import compile_arguments, write_inputs
from bnbenv.install.sources import read_sources
from bnbenv.install.uv import find_uv, scrub
from bnbenv.install.uv_files import uv_variables, uv_workspace
from bnbenv.judge.cover import cover
from bnbenv.judge.stack import Request
from bnbenv.machine.document import target_from_dict, target_to_dict
from bnbenv.matrix.load import load
from bnbenv.workflows.choose import JUDGED
from bnbenv.workflows.fleet import Fleet, Given
from bnbenv.workflows.lock import LockRequest, lock
from support.index_server import IndexServer
from support.stand_ins import PURE, write_stand_ins
from support.voice import Listener
from support.wheels import write_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bnbenv.machine.target import Target

    Fleets = tuple[tuple[str | None, str | None, str, str], ...]

COLD, WARM_SECONDS, EIGHT, SYNC, FLEET_SECONDS, FLEET_MEGABYTES = 1.2, 0.2, 3.0, 1.15, 20.0, 5.0
PYTHON = "3.12"
CARDS = ("6.1", "7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
DRIVERS = (
    "470.82.01", "515.65.01", "525.147.05", "535.161.08", "545.23.06", "550.54.15",
    "560.35.05", "570.124.06", "575.57.08", "580.95.05", "590.48.01", "610.57.04",
)  # fmt: skip
CUDA_MACHINE = ("--gpu", "RTX 4090", "--driver", "580.95.05")
CLOSURE = 45  # with the profile's own packages, torch and bitsandbytes as many as were installed for it
ONE: Fleets = (("6.1", "535.161.08", "linux", "x86_64"),)
EIGHT_VARIANTS: Fleets = (
    *ONE,
    ("10.0", "580.95.05", "linux", "x86_64"),
    ("8.6", "560.94", "windows", "x86_64"),
    ("9.0", "580.95.05", "linux", "aarch64"),
    (None, None, "linux", "x86_64"),
    (None, None, "windows", "x86_64"),
    (None, None, "linux", "aarch64"),
    (None, None, "macos", "aarch64"),
)


@dataclass(kw_only=True)
class Took:
    """What something took.

    Attributes:
        seconds: by the clock.
        work: seconds of the processor, of children that have ended as well.
    """

    seconds: float = 0.0
    work: float = 0.0


@contextmanager
def taking() -> Iterator[Took]:
    """Measure the block."""
    took, started, before = Took(), time.perf_counter(), os.times()
    yield took
    took.seconds = time.perf_counter() - started
    took.work = sum(os.times()[:4]) - sum(before[:4])


def machines(fleet: Fleets) -> list[Target]:
    """A fleet with a name for each machine."""
    return [machine(f"m{place}", *facts) for place, facts in enumerate(fleet)]


def given(fleet: Fleets) -> list[Given]:
    """The same, as `lock` takes them."""
    return [Given(target=target, origin=target.name) for target in machines(fleet)]


def machine(name: str, card: str | None, driver: str | None, system: str, arch: str) -> Target:
    return target_from_dict(
        {
            "schema": 1,
            "name": name,
            "os": system,
            "arch": arch,
            "libc": {"family": "glibc", "version": "2.35"} if system == "linux" else None,
            "accelerator": "mps" if system == "macos" else "cuda" if card else "cpu",
            "driver": driver,
            "gpus": [{"name": f"GPU {card}", "compute_capability": card}] if card else [],
            "pythons": [PYTHON],
        }
    )


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Stand-ins behind an index server of its own process, so that its work is nobody's here."""

    root: Path
    mirrors: dict[str, str]
    environ: dict[str, str]

    def cached(self, name: str) -> dict[str, str]:
        """The variables with a uv cache of that name."""
        return {**self.environ, "UV_CACHE_DIR": str(self.root / "caches" / name)}


def caller() -> dict[str, str]:
    """The variables of whoever runs this, but for those that configure pip or mislead Python.

    Where byte code is stored, no command but the first compiles bnbenv.
    """
    mine = ("PIP_", "VIRTUAL_", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(mine)}
    return {**kept, "PIP_CONFIG_FILE": os.devnull}


@contextmanager
def ground(delay: float) -> Iterator[Ground]:
    """As many packages as a QLoRA environment has, each answer late by `delay` seconds."""
    with tempfile.TemporaryDirectory(prefix="bench-lock-") as name:
        root = Path(name)
        matrix = load(*JUDGED)
        releases = {row.version for row in matrix.torch}
        made = write_stand_ins(root / "s", matrix, pythons=[PYTHON], torch=releases)
        write_closure(made["pypi"])
        rows = [row.name for row in load("indexes").indexes if row.family == "pytorch"]
        places = {row: str(made.get(row, root / "none")) for row in (*rows, "pypi")}
        with served(places, delay) as mirrors:
            environ = {
                **caller(),
                "PIP_INDEX_URL": mirrors.pop("pypi"),
                "NO_PROXY": "127.0.0.1",
                "BNBENV_HOME": str(root / "home"),
            }
            yield Ground(root=root, mirrors=mirrors, environ=environ)


@contextmanager
def served(places: dict[str, str], delay: float = 0.0) -> Iterator[dict[str, str]]:
    """Directories as indexes of another process: their addresses by name."""
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    print(json.dumps({"places": places, "delay": delay}), file=server.stdin, flush=True)
    try:
        yield json.loads(server.stdout.readline())
    finally:
        server.stdin.close()
        server.wait()


def serve() -> int:
    """Serve the directories that the first line of standard input names, until it ends."""
    asked = json.loads(sys.stdin.readline())
    with IndexServer() as server:
        urls = {name: server.add(name, Path(place)) for name, place in asked["places"].items()}
        for index in server.indexes.values():
            index.delay = asked["delay"]
        print(json.dumps(urls), flush=True)
        sys.stdin.read()
    return 0


def write_closure(directory: Path) -> None:
    """Stand-ins for what the profile's packages draw in: three releases each, four deep."""
    names = [f"part-{number:02}" for number in range(CLOSURE)]
    for number, part in enumerate(names):
        for release in ("1.0", "1.1", "2.0"):
            write_wheel(directory, part, release, requires=names[number + 15 : number + 16])
    for name, parts in (("transformers", names[:7]), ("datasets", names[7:12]), ("accelerate", names[12:15])):
        write_wheel(directory, name, PURE[name][0], requires=parts)


def locked(ground: Ground, environ: dict[str, str], fleet: Fleets) -> Took:
    """One `lock`, in a process that has loaded Python already."""
    request = LockRequest(
        asked={"profile": "qlora"},
        directory=ground.root / "lock",
        targets=given(fleet),
        today="2026-11-23",
        mirrors=ground.mirrors,
        cwd=ground.root,
    )
    with taking() as took:
        done = lock(request, Listener(), environ)
    assert len(done.files) == len(fleet) + 1
    shutil.rmtree(ground.root / "lock")
    return took


def commanded(ground: Ground, environ: dict[str, str], fleet: Fleets) -> Took:
    """The same as a command, with all that Python loads for it."""
    home, team, targets = Path(environ["BNBENV_HOME"]), ground.root / "lock", ground.root / "machines"
    mirrors = "".join(f'"{name}" = "{url}"\n' for name, url in ground.mirrors.items())
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.toml").write_text(f"schema = 1\n[mirrors]\n{mirrors}", encoding="utf-8")
    targets.mkdir(exist_ok=True)
    for target in machines(fleet):
        (targets / f"{target.name}.json").write_text(json.dumps(target_to_dict(target)), encoding="utf-8")
    words = ["lock", "qlora", "--dir", str(team), "--targets", str(targets), "--quiet"]
    with taking() as took:
        subprocess.run(
            [sys.executable, "-m", "bnbenv", *words], env=environ, check=True, stdout=subprocess.DEVNULL
        )
    shutil.rmtree(team)
    shutil.rmtree(targets)
    return took


def uv_alone(ground: Ground, environ: dict[str, str], fleet: Fleets) -> Took:
    """`uv pip compile` with what `lock` gives it, once for each machine and all at once."""
    matrix = load(*JUDGED)
    sources = read_sources(
        environ=environ, cwd=Path.cwd(), home=Path.home(), index_rows=matrix.indexes, mirrors=ground.mirrors
    )
    classes = Fleet(matrix=matrix)
    for described in given(fleet):
        classes.add(described, today="2026-11-23")
    uv = find_uv(environ)
    variables = {
        **scrub(environ), **uv_variables(sources, environ), "UV_CACHE_DIR": environ["UV_CACHE_DIR"],
        **compiling._MACOS,  # noqa: SLF001 - of no effect for another platform
    }  # fmt: skip
    with ExitStack() as stack:
        commands = []
        for key, chosen in cover(Request(profile="qlora"), classes.kinds(), matrix).stacks.items():
            inputs = stack.enter_context(uv_workspace(sources))
            target = classes.classes[key].target
            assert chosen.bitsandbytes is not None
            request = compiling.CompileRequest(
                python=chosen.python,
                requirements=(
                    *(f"{name}{spec}" for name, spec in chosen.packages.items() if name != "torch"),
                    f"bitsandbytes=={chosen.bitsandbytes.version}",
                    "pip",
                ),
                torch=chosen.torch,
                platform=compiling.platform_name(os=target.os, arch=target.arch, libc=target.libc),
            )
            index = sources.find(chosen.torch.index)
            pinned = compiling._pinned(request, index)  # noqa: SLF001 - the same inputs, to the letter
            write_inputs(inputs, request, index, pinned)
            output = inputs / "pylock.toml"
            commands.append([str(uv.path), *compile_arguments(inputs, request, sources, output, pinned)])
        assert len(commands) == len(fleet)
        with taking() as took:
            running = [
                subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                for command in commands
            ]
            failed = [process.args for process in running if process.wait()]
        assert not failed, failed
        return took


def bench_locks(runs: int, delay: float) -> bool:
    """One variant beside uv, and eight beside one, with an empty cache of uv's and with a full one."""
    kinds: dict[str, tuple[Callable[[Ground, dict[str, str], Fleets], Took], Fleets]] = {
        "uv": (uv_alone, ONE),
        "lock": (locked, ONE),
        "command": (commanded, ONE),
        "eight uv": (uv_alone, EIGHT_VARIANTS),
        "eight": (locked, EIGHT_VARIANTS),
    }
    times: dict[str, list[Took]] = {}
    with ground(delay) as here:
        for name, (measure, fleet) in kinds.items():  # loads what is loaded once
            measure(here, here.cached(f"first {name}"), fleet)
        for run in range(runs):
            for name, (measure, fleet) in kinds.items():
                environ = here.cached(f"{name} {run}")
                for state in ("cold", "warm"):
                    times.setdefault(f"{name} {state}", []).append(measure(here, environ, fleet))
    best = {name: min(took.seconds for took in every) for name, every in times.items()}
    work = {name: min(took.work for took in every) for name, every in times.items()}
    print(
        f"answers {delay * 1000:.0f} ms late; the best of {runs} runs, in brackets the processor's time "
        f"(load {os.getloadavg()[0]:.0f} on {os.cpu_count()} processors)"
    )
    for name, seconds in best.items():
        print(f"  {name:13} {seconds:6.3f} s  ({work[name]:.3f} s)")
    ratio, more = best["lock cold"] / best["uv cold"], best["lock warm"] - best["uv warm"]
    eight = best["eight cold"] / best["lock cold"]
    print(f"  cold          {ratio:6.2f} of uv; the budget is {COLD}")
    print(f"  warm          {more:6.3f} s more than uv; the budget is {WARM_SECONDS} s")
    print(
        f"  eight         {eight:6.2f} of one, warm {best['eight warm'] / best['lock warm']:.2f}; the budget "
        f"is {EIGHT}; uv alone {best['eight uv cold'] / best['uv cold']:.2f}, warm "
        f"{best['eight uv warm'] / best['uv warm']:.2f}"
    )
    return (ratio > COLD or eight > EIGHT) if delay else more > WARM_SECONDS


def fleet_of(count: int) -> Fleet:
    """So many machines that chance made, one after the other."""
    chance = random.Random(1)
    fleet = Fleet(matrix=load(*JUDGED))
    for place in range(count):
        card = chance.choice((None, *CARDS))
        system = "windows" if chance.random() < 0.1 else "linux"
        driver = chance.choice(DRIVERS) if card else None
        target = machine(f"m{place}", card, driver, system, "x86_64")
        fleet.add(Given(target=target, origin=f"line {place}"), today="2026-11-23")
    return fleet


def cover_fleet(count: int) -> int:
    """Print what many targets → classes → a cover take, and the highest memory of this process."""
    started = time.process_time()
    fleet = fleet_of(count)
    grouped = time.process_time() - started
    found = cover(Request(profile="qlora"), fleet.kinds(), fleet.matrix)
    print(
        json.dumps(
            {
                "classes": len(fleet.classes),
                "environments": found.environments,
                "unserved": len(found.unserved),
                "grouped": grouped,
                "seconds": time.process_time() - started,
                "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
            }
        )
    )
    return 0


def bench_fleet(count: int) -> bool:
    """Many targets beside a tenth of them: the time, and the memory that must not grow with their number."""
    few, many = (
        json.loads(
            subprocess.run(
                [sys.executable, __file__, "--fleet", str(number)], capture_output=True, check=True
            ).stdout
        )
        for number in (count // 10, count)
    )
    grown = many["megabytes"] - few["megabytes"]
    print(
        f"{count} targets, {many['classes']} classes, {many['environments']} environments, "
        f"{many['unserved']} classes unserved: {many['seconds']:.1f} s of the processor, "
        f"{many['grouped']:.1f} s of it to group; the budget is {FLEET_SECONDS} s\n"
        f"{many['megabytes']:.0f} MB at most, {grown:.1f} MB more than for {count // 10} targets in "
        f"{few['classes']} classes; the budget is {FLEET_MEGABYTES} MB, which the names of machines take"
    )
    return bool(many["seconds"] > FLEET_SECONDS or grown > FLEET_MEGABYTES)


def bench_sync_cpu(wheelhouse: Path, root: Path, runs: int) -> bool:
    """`sync` of a stack for the processor; its torch comes from the wheelhouse, as an index on loopback."""
    with served({"torch": str(wheelhouse)}) as urls:
        environ = {"PIP_EXTRA_INDEX_URL": urls["torch"], "NO_PROXY": "127.0.0.1"}
        words = ["--cpu", "--without-index", "pytorch"]
        return bench_sync("for the processor", root, words, [], environ, runs)


def bench_sync_cuda(root: Path, runs: int) -> bool:
    """`sync` of what such a GPU gets: torch with CUDA's libraries; the link check is its self-test here."""
    return bench_sync("for CUDA", root, CUDA_MACHINE, CUDA_MACHINE, {}, runs)


def bench_sync(
    title: str,
    root: Path,
    lock_words: Sequence[str],
    sync_words: Sequence[str],
    variables: Mapping[str, str],
    runs: int,
) -> bool:
    """`sync` without its checks beside `uv venv` and `uv pip sync`, and once more where nothing is to do."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    tool = root.parent / "bnbenv" / "bin"
    environ = {**caller(), **variables, "BNBENV_HOME": str(root / "locking")}
    words = ["lock", "qlora", *lock_words, "--python", python, "--dir", str(root / "lock"), "--quiet"]
    subprocess.run([str(tool / "bnbenv"), *words], env=environ, check=True, stdout=subprocess.DEVNULL)
    sides = Sides(root=root, tool=tool, words=list(sync_words), environ=environ)
    for measure in sides.all:  # warms the cache, and tells what is loaded
        measure(0)
    sides.took.clear()
    for run, order in zip(range(1, runs + 1), itertools.cycle(itertools.permutations(sides.all))):
        for measure in order:
            measure(run)
    best = {name: min(seconds) for name, seconds in sides.took.items()}
    middle = {name: statistics.median(seconds) for name, seconds in sides.took.items()}
    print(
        f"sync {title}; the best of {runs} runs, in brackets the median "
        f"(load {os.getloadavg()[0]:.0f} on {os.cpu_count()} processors)"
    )
    for name, told in (
        ("uv", "`uv venv` and `uv pip sync`"),
        ("least", "the same two by a program in Python that chooses nothing"),
        ("sync", "the work of a process that has loaded Python, but for self-test and RECORD"),
        ("command", "the whole command, but for them"),
        ("sync checks", "self-test and RECORD; beside the self-test our own files reach the disk"),
        ("again", "the whole command where nothing is to do; the budget is 1 s"),
    ):
        print(f"  {name:13} {best[name]:6.3f} s  ({middle[name]:.3f} s)  {told}")
    ratios = {
        name: (best[name] / best["uv"], middle[name] / middle["uv"]) for name in ("least", "sync", "command")
    }
    for name, (least, usual) in ratios.items():
        budget = f"the budget is {SYNC} for both" if name == "command" else "there is no budget"
        print(f"  {name:13} {least:6.2f}    ({usual:.2f}) of uv; {budget}")
    return max(ratios["command"]) > SYNC or best["again"] > 1


@dataclass(kw_only=True)
class Sides:
    """What is compared, each with directories of its own in every run.

    Attributes:
        tool: the directory of bnbenv's program.
        words: that `sync` is given beside the lock.
        loaded: the modules that a `sync` had loaded at its end.
        data: the answer of one.
        took: seconds by name.
    """

    root: Path
    tool: Path
    words: list[str]
    environ: dict[str, str]
    loaded: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    took: dict[str, list[float]] = field(default_factory=dict)

    @property
    def all(self) -> tuple[Callable[[int], None], ...]:
        return (self.measure_loaded, self.measure_command, self.measure_uv, self.measure_least)

    def measure_loaded(self, run: int) -> None:
        seconds, answer = sync_loaded(self.tool / "python", self.loaded, self._line, self._at(f"home-{run}"))
        self.loaded, self.data = answer["modules"], answer["data"]
        self._note("sync", seconds, self.data["seconds"])

    def measure_command(self, run: int) -> None:
        command = [str(self.tool / "bnbenv"), *self._line]
        for name, changed in (("command", True), ("again", False)):
            seconds, data = sync_command(command, self._at(f"command-{run}"))
            assert data["changed"] is changed
            self._note(name, seconds, data["seconds"])

    def measure_uv(self, run: int) -> None:
        commands = uv_commands(self.root / f"venv-{run}", self.root / "lock", self.data)
        os.sync()
        with taking() as took:
            for command in commands:
                subprocess.run(command, env=scrub(self.environ), capture_output=True, check=True)
        self._note("uv", took.seconds, {})

    def measure_least(self, run: int) -> None:
        venv, team = self.root / f"least-{run}", self.root / "lock"
        command = [str(self.tool / "python"), "-c", _LEAST, str(team), str(venv)]
        command.append(json.dumps(uv_commands(venv, team, self.data)))
        os.sync()
        with taking() as took:
            subprocess.run(command, env=scrub(self.environ), capture_output=True, check=True)
        self._note("least", took.seconds, {})

    @property
    def _line(self) -> list[str]:
        return ["sync", str(self.root / "lock"), *self.words, "--yes", "--json", "--quiet"]

    def _at(self, name: str) -> dict[str, str]:
        return {**self.environ, "BNBENV_HOME": str(self.root / name)}

    def _note(self, name: str, seconds: float, parts: Mapping[str, float]) -> None:
        checks = parts.get("self-test", 0.0) + parts.get("record", 0.0)
        self.took.setdefault(name, []).append(seconds - checks)
        self.took.setdefault(f"{name} checks", []).append(checks)


_LOADED = """\
import gc, importlib, io, json, sys, time
from contextlib import redirect_stdout

names, words = json.load(sys.stdin)
for name in names:
    importlib.import_module(name)
from bnbenv.cli.main import main

gc.set_threshold(100_000, 20, 20)  # as the program sets it
answer = io.StringIO()
started = time.perf_counter()
with redirect_stdout(answer):
    code = main(words)
seconds = time.perf_counter() - started
assert code == 0, answer.getvalue()
modules = [name for name in sys.modules if name != "__main__"]
print(json.dumps({"seconds": seconds, "data": json.loads(answer.getvalue())["data"], "modules": modules}))
"""


_LEAST = """\
import json, os, sys
import tomli

def spawn(command):
    return os.posix_spawn(command[0], command, os.environ)

def end(process):
    assert os.waitpid(process, 0)[1] == 0

team, venv, commands = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
with open(team + "/bnbenv.lock", encoding="utf-8") as file:
    tomli.loads(file.read())
os.makedirs(venv + "/.bnbenv")
made = spawn(commands[0])
import argparse
from bnbenv.sha256 import hexdigest
argparse.ArgumentParser().parse_args([])
with open(commands[1][3], "rb") as file:
    data = file.read()
hexdigest(data)
tomli.loads(data.decode())
end(made)
end(spawn(commands[1]))
for name in ("state.json", "verdict.json", "READY"):
    path = venv + "/.bnbenv/" + name
    with open(path + ".new", "w") as file:
        file.write("{}")
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".new", path)
os.symlink(venv, venv + "-link")
os._exit(0)
"""


def sync_loaded(
    python: Path, modules: Sequence[str], words: Sequence[str], environ: Mapping[str, str]
) -> tuple[float, dict[str, Any]]:
    """One `sync` in a new process that has loaded its modules and done nothing yet: seconds, and the rest.

    The rest has `data`, the command's, and `modules`, the names of what was loaded at the end.
    """
    os.sync()
    done = subprocess.run(
        [str(python), "-c", _LOADED], input=json.dumps([modules, words]), env=environ,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout, done.stderr)
    answer = cast("dict[str, Any]", json.loads(done.stdout))
    return answer.pop("seconds"), answer


def sync_command(command: Sequence[str], environ: Mapping[str, str]) -> tuple[float, dict[str, Any]]:
    """One `sync` as a user types it: seconds, and the command's data."""
    os.sync()
    with taking() as took:
        done = subprocess.run(command, env=environ, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return took.seconds, json.loads(done.stdout)["data"]


def uv_commands(venv: Path, team: Path, data: Mapping[str, Any]) -> list[list[str]]:
    """What makes a new environment of the same lock by uv alone; `data` is what a `sync` of it has answered.

    uv is told the interpreter, which it would look for otherwise: where PATH has pyenv's shims, that takes
    half as long as all the rest.
    """
    uv = str(find_uv(os.environ).path)
    python = os.path.realpath(Path(data["path"]) / "bin" / "python")
    lock = f"{team}/pylock.{data['variant']}.toml"
    return [
        [uv, "venv", str(venv), "--python", python, "--no-config", "--no-project", "--allow-existing"],
        [uv, "pip", "sync", lock, "--python", f"{venv}/bin/python"],
    ]


def install_wheel(root: Path) -> None:
    """Give bnbenv a venv of its own, as its users have it."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(root)]
    subprocess.run(build, cwd=Path(__file__).resolve().parents[1], check=True, capture_output=True)
    [wheel] = root.glob("*.whl")
    uv, venv = find_uv(os.environ), root / "bnbenv"
    for words in (
        ["venv", str(venv), "--python", sys.executable],
        ["pip", "install", str(wheel), f"uv=={uv.version}", "--python", str(venv / "bin" / "python")],
    ):
        subprocess.run([str(uv.path), *words, "--quiet"], check=True)


def main() -> int:
    """Print the figures; exit 1 where a budget is passed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--targets", type=int, default=10_000)
    parser.add_argument(
        "--wheelhouse",
        metavar="DIR",
        help="a directory with torch for the processor and this Python, for `sync`",
    )
    parser.add_argument(
        "--cuda", action="store_true", help="time `sync` for CUDA too: some GB from the network at first"
    )
    parser.add_argument("--locks", action=argparse.BooleanOptionalAction, default=True, help="time `lock`")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--fleet", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fleet:
        return cover_fleet(options.fleet)
    if options.serve:
        return serve()
    over = bench_fleet(options.targets) if options.targets else False
    for delay in (0.0, 0.05) if options.locks else ():
        over |= bench_locks(options.runs, delay)
    # Nothing is deleted before the end: ext4 shuns inodes that were freed a moment ago, and looks for others
    # so long that the next environment may take three times as much.
    with tempfile.TemporaryDirectory(prefix="bench-sync-") as name:
        if options.wheelhouse or options.cuda:
            install_wheel(Path(name))
        if options.wheelhouse:
            over |= bench_sync_cpu(Path(options.wheelhouse).absolute(), Path(name) / "cpu", options.runs)
        if options.cuda:
            over |= bench_sync_cuda(Path(name) / "cuda", options.runs)
    return 1 if over else 0


if __name__ == "__main__":
    raise SystemExit(main())
