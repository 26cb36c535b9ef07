"""Compares `lock` and `sync` with uv alone: the same inputs, side by side in one run.

Locks are made against metadata-only stand-ins on loopback, for both sides, so that no network's mood counts.
`sync` needs a real lock: `--lock DIR` with a variant for the CPU (`bnbenv lock qlora --cpu`), a warm cache.

    python scripts/bench_lock.py [--runs 5] [--lock DIR] [--targets 10000]
"""

from __future__ import annotations

import argparse
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
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from bnbenv.install import compile as compiling
from bnbenv.install.compile_inputs import compile_arguments, write_inputs
from bnbenv.install.sources import read_sources
from bnbenv.install.uv import find_uv, scrub
from bnbenv.install.uv_files import uv_variables, uv_workspace
from bnbenv.judge.cover import cover
from bnbenv.judge.stack import Request
from bnbenv.machine.document import target_from_dict
from bnbenv.matrix.load import load
from bnbenv.workflows.choose import JUDGED
from bnbenv.workflows.fleet import Fleet
from bnbenv.workflows.lock import LockRequest, lock
from support.index_server import IndexServer
from support.stand_ins import write_stand_ins
from support.voice import Listener

if TYPE_CHECKING:
    from bnbenv.machine.target import Target

COLD, WARM_SECONDS, EIGHT, SYNC, FLEET_SECONDS = 1.2, 0.2, 3.0, 1.15, 20.0
PYTHON = "3.12"
CARDS = ("6.1", "7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
DRIVERS = (
    "470.82.01", "515.65.01", "525.147.05", "535.161.08", "545.23.06", "550.54.15",
    "560.35.05", "570.124.06", "575.57.08", "580.95.05", "590.48.01", "610.57.04",
)  # fmt: skip
ONE = (("8.9", "550.54.15", "linux", "x86_64"),)
EIGHT_VARIANTS = (
    *ONE,
    ("10.0", "580.95.05", "linux", "x86_64"),
    ("8.6", "560.94", "windows", "x86_64"),
    ("9.0", "580.95.05", "linux", "aarch64"),
    (None, None, "linux", "x86_64"),
    (None, None, "windows", "x86_64"),
    (None, None, "linux", "aarch64"),
    (None, None, "macos", "aarch64"),
)


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


def locked(root: Path, mirrors: dict[str, str], environ: dict[str, str], fleet: tuple[object, ...]) -> float:
    """Seconds of one `lock`, in a process that has loaded Python already."""
    request = LockRequest(
        asked={"profile": "qlora"},
        directory=root / "lock",
        targets=[machine(f"m{place}", *facts) for place, facts in enumerate(fleet)],  # type: ignore[misc]
        today="2026-11-23",
        mirrors=mirrors,
        cwd=root,
    )
    started = time.perf_counter()
    lock(request, Listener(), environ)
    seconds = time.perf_counter() - started
    shutil.rmtree(root / "lock")
    return seconds


def uv_alone(mirrors: dict[str, str], environ: dict[str, str]) -> float:
    """Seconds of `uv pip compile` with what `lock` gives it for the one machine."""
    matrix = load(*JUDGED)
    sources = read_sources(
        environ=environ, cwd=Path.cwd(), home=Path.home(), index_rows=matrix.indexes, mirrors=mirrors
    )
    fleet = Fleet(matrix=matrix)
    fleet.add(machine("m", *ONE[0]), today="2026-11-23")
    [stack] = cover(Request(profile="qlora"), fleet.kinds(), matrix).stacks.values()
    assert stack.bitsandbytes is not None
    request = compiling.CompileRequest(
        python=stack.python,
        requirements=(
            *(f"{name}{spec}" for name, spec in stack.packages.items() if name != "torch"),
            f"bitsandbytes=={stack.bitsandbytes.version}",
            "pip",
        ),
        torch=stack.torch,
        platform="x86_64-manylinux_2_35",
    )
    index = sources.find(stack.torch.index)
    pinned = compiling._pinned(request, index)  # noqa: SLF001 - the same inputs, to the letter
    uv = find_uv(environ)
    with uv_workspace(sources) as inputs:
        write_inputs(inputs, request, index, pinned)
        arguments = compile_arguments(inputs, request, sources, inputs / "pylock.toml", pinned)
        variables = {
            **scrub(environ),
            **uv_variables(sources, environ),
            "UV_CACHE_DIR": environ["UV_CACHE_DIR"],
        }
        started = time.perf_counter()
        subprocess.run([str(uv.path), *arguments], env=variables, check=True, capture_output=True)
        return time.perf_counter() - started


def bench_locks(runs: int) -> bool:
    """One variant cold and warm beside uv, and eight beside one."""
    over = False
    with tempfile.TemporaryDirectory(prefix="bench-lock-") as name, IndexServer() as server:
        root = Path(name)
        made = write_stand_ins(root / "s", load(*JUDGED), pythons=[PYTHON], torch=["2.14.1", "2.14.0"])
        rows = [row for row in load("indexes").indexes if row.family == "pytorch"]
        mirrors = {row.name: server.add(row.name, made.get(row.name, root / "none")) for row in rows}
        environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PIP_")},
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": server.add("pypi", made["pypi"]),
            "NO_PROXY": "127.0.0.1",
            "BNBENV_HOME": str(root / "home"),
        }
        times: dict[str, list[float]] = {}
        for run in range(runs):
            cold = {**environ, "UV_CACHE_DIR": str(root / f"uv-{run}")}
            times.setdefault("uv cold", []).append(uv_alone(mirrors, cold))
            times.setdefault("uv warm", []).append(uv_alone(mirrors, cold))
            ours = {**environ, "UV_CACHE_DIR": str(root / f"ours-{run}")}
            times.setdefault("lock cold", []).append(locked(root, mirrors, ours, ONE))
            times.setdefault("lock warm", []).append(locked(root, mirrors, ours, ONE))
            times.setdefault("eight", []).append(locked(root, mirrors, ours, EIGHT_VARIANTS))
            times.setdefault("one", []).append(locked(root, mirrors, ours, ONE))
    middle = {key: statistics.median(values) for key, values in times.items()}
    for key, seconds in middle.items():
        print(f"{key:12} {seconds:6.2f} s")
    ratio, more = middle["lock cold"] / middle["uv cold"], middle["lock warm"] - middle["uv warm"]
    eight = middle["eight"] / middle["one"]
    print(f"cold ratio   {ratio:6.2f}; the budget is {COLD}")
    print(f"warm more    {more:6.2f} s; the budget is {WARM_SECONDS} s")
    print(f"eight of one {eight:6.2f}; the budget is {EIGHT}")
    over |= ratio > COLD or more > WARM_SECONDS or eight > EIGHT
    return over


def bench_fleet(count: int) -> bool:
    """Many targets to classes to a cover, in seconds of the processor, and the memory that stays flat."""
    chance = random.Random(1)
    matrix = load(*JUDGED)
    started = time.process_time()
    fleet = Fleet(matrix=matrix)
    first = 0
    for place in range(count):
        card = chance.choice((None, *CARDS))
        system = "windows" if chance.random() < 0.1 else "linux"
        driver = chance.choice(DRIVERS) if card else None
        fleet.add(machine(f"m{place}", card, driver, system, "x86_64"), today="2026-11-23")
        if place == count // 10:
            first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grouped = time.process_time() - started
    found = cover(Request(profile="qlora"), fleet.kinds(), matrix)
    seconds = time.process_time() - started
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - first) / 1000
    print(
        f"{count} targets, {len(fleet.classes)} classes, {found.environments} environments, "
        f"{len(found.unserved)} classes unserved: {seconds:.1f} s of the processor, {grouped:.1f} s of it to "
        f"group; the budget is {FLEET_SECONDS} s; {grown:.0f} MB grown after the first tenth"
    )
    return seconds > FLEET_SECONDS


def bench_sync(directory: Path, runs: int) -> bool:
    """`sync` without its checks beside `uv venv` and `uv pip sync`, and once more where nothing is to do."""
    team = json.loads(
        subprocess.run(
            [sys.executable, "-m", "bnbenv", "sync", str(directory), "--dry-run", "--json", "--quiet"],
            capture_output=True, check=True,
        ).stdout
    )  # fmt: skip
    file, python = directory / f"pylock.{team['data']['variant']}.toml", team["data"]["python"]
    uv = str(find_uv(os.environ).path)
    ours, theirs, again, aside = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="bench-sync-") as name:
        root = Path(name)
        for run in range(runs + 1):  # the first one warms the cache
            home = root / f"home-{run}"
            command = [sys.executable, "-m", "bnbenv", "sync", str(directory), "--yes", "--json", "--quiet"]
            environ = {**os.environ, "BNBENV_HOME": str(home)}
            started = time.perf_counter()
            done = subprocess.run(command, env=environ, capture_output=True, check=True)
            whole = time.perf_counter() - started
            seconds = json.loads(done.stdout)["data"]["seconds"]
            checks = seconds["self-test"] + seconds["record"]
            started = time.perf_counter()
            subprocess.run(command, env=environ, capture_output=True, check=True)
            nothing = time.perf_counter() - started
            venv = root / f"venv-{run}"
            started = time.perf_counter()
            for words in (
                ["venv", str(venv), "--python", python, "--no-config", "--no-project"],
                ["pip", "sync", str(file), "--python", str(venv / "bin/python"), "--no-config"],
            ):
                subprocess.run([uv, *words], capture_output=True, check=True)
            alone = time.perf_counter() - started
            shutil.rmtree(home)
            shutil.rmtree(venv)
            if run:
                ours.append(whole - checks)
                theirs.append(alone)
                again.append(nothing)
                aside.append(checks)
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(
        f"sync         {statistics.median(ours):6.2f} s beside {statistics.median(theirs):.2f} s of uv, "
        f"ratio {ratio:.2f}; the budget is {SYNC}; {statistics.median(aside):.1f} s of checks beside it"
    )
    print(f"sync again   {statistics.median(again):6.2f} s; the budget is 1 s")
    return ratio > SYNC or statistics.median(again) > 1


def main() -> int:
    """Print the figures; exit 1 where a budget is passed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--targets", type=int, default=10_000)
    parser.add_argument("--lock", metavar="DIR", help="a lock with a variant for the CPU, for `sync`")
    options = parser.parse_args()
    over = bench_fleet(options.targets) if options.targets else False
    over |= bench_locks(options.runs)
    if options.lock:
        over |= bench_sync(Path(options.lock).absolute(), options.runs)
    return 1 if over else 0


if __name__ == "__main__":
    raise SystemExit(main())
