"""Compares `bnbenv create` with uv alone: the same inputs, the same cache state, side by side in one run.

uv's part is what a careful person would type: `uv pip compile`, `uv venv`, `uv pip sync`. bnbenv's part is one
`create`; the seconds of its self-test and of its check of files against RECORD are subtracted and shown beside,
because uv has no counterpart. Both start from a warm cache, so that no download is measured.

    python scripts/bench_create.py [--runs 5] [--profile qlora]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BUDGET_RATIO, BUDGET_SECONDS = 1.15, 0.3
MODES = ("hardlink", "copy")


def bnbenv(home: Path, profile: str, *more: str) -> tuple[float, dict[str, Any]]:
    """One `create` in a fresh home: seconds, and its answer."""
    command = [sys.executable, "-m", "bnbenv", "create", profile, "--yes", "--json", *more]
    started = time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, "BNBENV_HOME": str(home)}, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise SystemExit(f"`create` exits {done.returncode}: {done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout)["data"]
    return seconds, answer


def uv_alone(directory: Path, inputs: Path, python: str) -> float:
    """uv's three commands on the inputs that bnbenv gave uv."""
    from uv import find_uv_bin

    uv = find_uv_bin()
    scrubbed = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    config = ["--config-file", str(inputs / "uv.toml")] if (inputs / "uv.toml").exists() else []
    lock, venv = directory / "pylock.toml", directory / "venv"
    commands = (
        ["pip", "compile", str(inputs / "pyproject.toml"), "--format", "pylock.toml", "-o", str(lock)]
        + ["--generate-hashes", "--python", python, "--preview-features", "pylock", *config],
        ["venv", str(venv), "--python", python, "--no-project", "--no-config"],
        ["pip", "sync", str(lock), "--python", str(venv / "bin" / "python"), "--link-mode", "hardlink"]
        + ["--preview-features", "pylock", *config],
    )
    started = time.perf_counter()
    for command in commands:
        subprocess.run([uv, *command], env=scrubbed, check=True, capture_output=True)
    return time.perf_counter() - started


def disk(directory: Path) -> int:
    """Bytes that the directory adds to the file system: files with one link only."""
    seen = 0
    for root, _directories, files in os.walk(directory):
        for name in files:
            status = os.lstat(os.path.join(root, name))  # noqa: PTH118 - fifty thousand of them
            seen += status.st_size if status.st_nlink == 1 else 0
    return seen


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
        _seconds, first = bnbenv(root / "warm", options.profile)
        inputs = Path(first["inputs"])
        ours, theirs, aside = [], [], []
        for run in range(options.runs):
            home, plain = root / f"ours-{run}", root / f"uv-{run}"
            plain.mkdir()
            theirs.append(uv_alone(plain, inputs, first["interpreter"]))
            total, answer = bnbenv(home, options.profile)
            excluded = answer["seconds"]["self-test"] + answer["seconds"]["record"]
            ours.append(total - excluded)
            aside.append(excluded)
            shutil.rmtree(home)
            shutil.rmtree(plain)
        pair = [a / b for a, b in zip(ours, theirs, strict=True)]
        print(f"uv alone        {statistics.median(theirs):6.2f} s")
        print(
            f"bnbenv create   {statistics.median(ours):6.2f} s, and {statistics.median(aside):.2f} s of checks"
        )
        allowed = BUDGET_RATIO * statistics.median(theirs) + BUDGET_SECONDS
        print(
            f"ratio           {statistics.median(pair):6.2f}   (budget {BUDGET_RATIO} and {BUDGET_SECONDS} s: {allowed:.2f} s)"
        )
        for mode in MODES:
            seconds, answer = bnbenv(root / mode, options.profile, "--link-mode", mode)
            print(
                f"{mode:15} {answer['seconds']['sync']:6.2f} s sync, {disk(root / mode) / 1e6:8.0f} MB of its own"
            )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"largest process {peak:6.0f} MB (uv and the self-test included)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
