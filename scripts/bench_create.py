"""Compares `bnbenv create` with uv alone: the same inputs, the same cache, side by side in one run.

uv's part is what a careful person would type: `uv pip compile`, `uv venv`, `uv pip sync`, on the very inputs
that bnbenv gives uv. bnbenv's part is one `create`; the seconds of its self-test and of its comparison with
RECORD are taken off and shown beside, because uv has no counterpart. The cache is warm: nothing is fetched.

    python scripts/bench_create.py [--runs 5] [--profile qlora]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bnbenv.cli.ui import Ui
from bnbenv.install import compile as compiling
from bnbenv.install.compile_inputs import compile_arguments, write_inputs
from bnbenv.install.uv import find_uv, scrub
from bnbenv.install.uv_files import uv_variables, uv_workspace
from bnbenv.workflows.choose import choose
from bnbenv.workflows.create import requirements
from bnbenv.workflows.request import CreateRequest, Wanted

BUDGET_RATIO, BUDGET_SECONDS = 1.15, 0.3
BUDGET_MEMORY = 120  # MB, of bnbenv's own process
ASIDE = ("self-test", "record")


@dataclass(frozen=True)
class Created:
    """One `create`: the whole time, its answer, and the peak of bnbenv's own memory in MB."""

    seconds: float
    answer: dict[str, Any]
    memory: float

    @property
    def aside(self) -> float:
        seconds: dict[str, float] = self.answer["seconds"]
        return sum(seconds.get(phase, 0.0) for phase in ASIDE)


def bnbenv(home: Path, profile: str, *more: str) -> Created:
    """One `create` in a home of its own."""
    command = [sys.executable, "-m", "bnbenv", "create", profile, "--yes", "--json", "--quiet", *more]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as answer:
        process = subprocess.Popen(command, env={**os.environ, "BNBENV_HOME": str(home)}, stdout=answer)
        watched, peak = psutil.Process(process.pid), 0
        while process.poll() is None:
            try:
                peak = max(peak, watched.memory_info().rss)
            except psutil.Error:
                break
            time.sleep(0.02)
        process.wait()
        seconds = time.perf_counter() - started
        answer.seek(0)
        envelope = json.load(answer)
    if process.returncode != 0:
        raise SystemExit(f"`create` exits {process.returncode}: {envelope['problems']}")
    return Created(seconds, envelope["data"], peak / 1e6)


def uv_alone(directory: Path, profile: str) -> float:
    """Uv's three commands; what they are given is made beforehand and costs nothing here."""
    uv = find_uv(os.environ)
    choice = choose(CreateRequest(wanted=Wanted(profile=profile), name=profile), Ui(quiet=True), os.environ)
    request = compiling.CompileRequest(
        python=choice.solution.stack.python,
        requirements=requirements(choice, CreateRequest(wanted=Wanted(profile=profile), name=profile)),
        torch=choice.solution.stack.torch,
        interpreter=choice.interpreter,
    )
    index = choice.sources.find(choice.solution.stack.torch.index)
    pinned = compiling._pinned(request, index)  # noqa: SLF001 - the same inputs, to the letter
    lock, venv = directory / "pylock.toml", directory / "venv"
    with uv_workspace(choice.sources) as inputs:
        write_inputs(inputs, request, index, pinned)
        settings = ["--config-file", str(inputs / "uv.toml"), "--preview-features", "pylock"]
        commands = (
            compile_arguments(inputs, request, choice.sources, lock, pinned),
            ["venv", str(venv), "--python", str(choice.interpreter), "--no-project", "--no-config"],
            ["pip", "sync", str(lock), "--python", str(venv / "bin" / "python"), *settings],
        )
        environ = {**scrub(os.environ), **uv_variables(choice.sources, os.environ)}
        started = time.perf_counter()
        for command in commands:
            subprocess.run([str(uv.path), *command], env=environ, check=True, capture_output=True)
        return time.perf_counter() - started


def own_bytes(directory: Path) -> int:
    """Bytes that the directory adds to the file system: files that have no other name."""
    found = 0
    for root, _directories, files in os.walk(directory):
        for name in files:
            status = os.lstat(os.path.join(root, name))  # noqa: PTH118 - fifty thousand of them
            found += status.st_size if status.st_nlink == 1 else 0
    return found


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--profile", default="qlora")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bnbenv-bench-") as scratch:
        root = Path(scratch)
        bnbenv(root / "warm", options.profile)
        ours: list[Created] = []
        theirs: list[float] = []
        for run in range(options.runs):
            home, plain = root / f"ours-{run}", root / f"uv-{run}"
            plain.mkdir()
            theirs.append(uv_alone(plain, options.profile))
            ours.append(bnbenv(home, options.profile))
            shutil.rmtree(home)
            shutil.rmtree(plain)
        net = [one.seconds - one.aside for one in ours]
        pairs = [mine / yours for mine, yours in zip(net, theirs, strict=True)]
        allowed = BUDGET_RATIO * statistics.median(theirs) + BUDGET_SECONDS
        aside = statistics.median(one.aside for one in ours)
        print(f"uv alone       {statistics.median(theirs):6.2f} s")
        print(f"bnbenv create  {statistics.median(net):6.2f} s, and beside it {aside:.2f} s of checks")
        print(f"ratio          {statistics.median(pairs):6.2f}; the budget is {allowed:.2f} s")
        print(f"own memory     {max(one.memory for one in ours):6.0f} MB; the budget is {BUDGET_MEMORY} MB")
        phases = {
            phase: statistics.median(one.answer["seconds"][phase] for one in ours)
            for phase in ours[0].answer["seconds"]
        }
        print("by phase       " + ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in phases.items()))
        for mode in ("hardlink", "copy"):
            made = bnbenv(root / mode, options.profile, "--link-mode", mode)
            added = own_bytes(root / mode / "generations") / 1e6
            print(f"{mode:14} {made.answer['seconds']['sync']:6.2f} s of sync, {added:6.0f} MB added on disk")
            shutil.rmtree(root / mode)
    over = statistics.median(net) > allowed or max(one.memory for one in ours) > BUDGET_MEMORY
    return 1 if over else 0


if __name__ == "__main__":
    raise SystemExit(main())
