"""Compares the repair of an environment with making it anew, warm, on this machine.

Prints seconds by phase, and what was fetched: a repair that touches only bitsandbytes needs no network when
uv's cache holds it. The self-test is the same in all of them and stands apart.

    python scripts/bench_repair.py            # bitsandbytes damaged: in place, as a new generation, anew
    python scripts/bench_repair.py --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _faults_ground import LIMIT, Ground, Laboratory


def measured(ground: Ground, *, offline: bool) -> tuple[float, dict[str, float]]:
    """Damage bitsandbytes, repair, and hand back the wall time and the phases."""
    (ground.bitsandbytes / "libbitsandbytes_cpu.so").unlink()
    started = time.monotonic()
    answer = ground.repair(*(["--offline"] if offline else []))
    seconds = time.monotonic() - started
    if answer.code != 0 or ground.problems:
        raise SystemExit(f"the repair failed: {answer.stderr[-600:]} {ground.problems}")
    return seconds, answer.data["seconds"]


def created(root: Path) -> tuple[float, dict[str, float]]:
    """The same environment made anew, from a warm cache."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "bnbenv", "create", "qlora", "--cpu", "--yes", "--json"],
        env={**os.environ, "BNBENV_HOME": str(root / "anew")},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    seconds = time.monotonic() - started
    if done.returncode != 0:
        raise SystemExit(f"create failed: {done.stderr[-600:]}")
    return seconds, json.loads(done.stdout)["data"]["seconds"]


def main() -> int:
    """Print one line a way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="medians of N (default: 1)")
    options = parser.parse_args()
    lab = Laboratory.open()
    rows: dict[str, list[tuple[float, dict[str, float]]]] = {}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="bnbenv-bench-", dir=lab.root) as scratch:
            for kind, words in (("venv", "repair in place"), ("ours", "repair, new generation")):
                ground = Ground(lab=lab, root=Path(scratch) / kind, kind=kind)
                ground.root.mkdir()
                ground.make()
                rows.setdefault(f"{words}, --offline", []).append(measured(ground, offline=True))
            rows.setdefault("create anew", []).append(created(Path(scratch)))
    for words, runs in rows.items():
        whole = statistics.median(seconds for seconds, _ in runs)
        tests = statistics.median(_self_test(phases) for _, phases in runs)
        phases = ", ".join(f"{name} {value:.1f}" for name, value in runs[-1][1].items())
        print(f"{words:34} {whole - tests:6.1f} s beside {tests:5.1f} s of self-test   ({phases})")
    return 0


def _self_test(phases: dict[str, float]) -> float:
    return phases.get("self-test", 0.0)


if __name__ == "__main__":
    raise SystemExit(main())
