"""Measure bnbenv's start-up beside Python's own, interleaved in one run; exit 1 above the limits.

Usage: ``python scripts/bench_startup.py [--runs N] [--python PYTHON]``
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {"--version": 3.0, "--help": 5.0}


def commands(python: str) -> dict[str, list[str]]:
    """What is compared: the empty program first, it is the unit."""
    # As the console script that pip writes does it: `python -m` would import `runpy` as well.
    entry = "import sys; from bnbenv.cli.main import entry; sys.exit(entry())"
    return {
        "python -c pass": [python, "-c", "pass"],
        "--version": [python, "-c", entry, "--version"],
        "--help": [python, "-c", entry, "--help"],
        "create --help": [python, "-c", entry, "create", "--help"],
    }


def measure(python: str, runs: int) -> dict[str, float]:
    """Median seconds of each command; every round runs each once, so that noise meets all alike."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": ""}
    lines = commands(python)
    for line in lines.values():  # once to compile and to warm the file cache
        subprocess.run(line, env=environ, check=True, stdout=subprocess.DEVNULL)
    times: dict[str, list[float]] = {name: [] for name in lines}
    for _ in range(runs):
        for name, line in lines.items():
            start = time.perf_counter()
            subprocess.run(line, env=environ, check=True, stdout=subprocess.DEVNULL)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def ratios(medians: dict[str, float]) -> dict[str, float]:
    """Each command's time in units of the empty program."""
    unit = medians["python -c pass"]
    return {name: value / unit for name, value in medians.items()}


def main() -> int:
    """Print the table; return 1 if a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--python", default=sys.executable)
    args = parser.parse_args()
    medians = measure(args.python, args.runs)
    relative = ratios(medians)
    print(f"{'command':<16}{'median ms':>10}{'ratio':>8}{'limit':>8}")
    for name, median in medians.items():
        limit = f"{LIMITS[name]:.1f}" if name in LIMITS else ""
        print(f"{name:<16}{median * 1000:>10.1f}{relative[name]:>8.2f}{limit:>8}")
    late = [name for name, limit in LIMITS.items() if relative[name] > limit]
    for name in late:
        print(f"{name} is over its limit of {LIMITS[name]} x", file=sys.stderr)
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
