"""Times the judge, in seconds of one core: one answer after loading, and a fleet of distinct machines.

Prints one JSON object. Exits with 1 where a bound is passed: 10 ms for the median of one answer, 20 s for the
fleet (in the process, and as `bnbenv resolve --batch` from JSON to JSON), no more than 10 % more memory for
the second half of the fleet than for the first, and 200 ms for `bnbenv resolve` as a command, of which the
processor's time is bounded and the time on the clock is told: it means something on a quiet machine alone.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bnbenv.judge.classes import solve_all
from bnbenv.judge.kind import class_of
from bnbenv.judge.solve import solve
from bnbenv.judge.stack import Request, Solution
from bnbenv.machine.document import target_to_dict
from bnbenv.machine.target import Gpu, Libc, Target
from bnbenv.matrix.load import load
from bnbenv.units import ComputeCapability, DottedVersion, DriverVersion

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTS = (
    "bitsandbytes", "torch", "driver_floors", "driver_branches", "architectures", "indexes", "floors",
    "profiles", "hazards", "known_faults", "loaders", "caveats", "verified",
)  # fmt: skip
DRIVERS = (
    "470.82.01", "470.256.02", "515.65.01", "525.60.13", "525.147.05", "535.54.03", "535.183.06", "545.23.08",
    "550.54.15", "550.163.01", "560.35.05", "565.57.01", "570.26", "570.124.06", "575.57.08", "580.65.06",
    "580.95.05", "590.44.01", "595.71.05", "610.43.02", "615.71.09",
)  # fmt: skip
GPUS = ("5.2", "6.0", "6.1", "7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
GLIBCS = ("2.17", "2.24", "2.27", "2.28", "2.31", "2.34", "2.35", "2.36", "2.39", "2.41")
PYTHONS = (("3.10",), ("3.11",), ("3.12",), ("3.11", "3.12"), ("3.10", "3.11", "3.12", "3.13"))


def machine(number: int, chance: random.Random) -> Target:
    """One machine; its name, drivers' patch numbers and memory make it distinct."""
    cards = [chance.choice(GPUS)] * chance.choice((1, 1, 2, 4, 8))
    if chance.random() < 0.02:
        cards[0] = chance.choice(GPUS)
    return Target(
        name=f"host-{number}",
        os="linux" if chance.random() < 0.9 else "windows",
        arch="x86_64",
        accelerator="cuda",
        libc=Libc(family="glibc", version=DottedVersion.parse(chance.choice(GLIBCS))),
        driver=DriverVersion.parse(f"{chance.choice(DRIVERS)}"),
        gpus=tuple(
            Gpu(
                name="GPU",
                compute_capability=ComputeCapability.parse(card),
                index=place,
                memory_mib=8192 + number,
            )
            for place, card in enumerate(cards)
        ),
        pythons=chance.choice(PYTHONS),
    )


def fleet(count: int, seed: int) -> Iterator[Target]:
    chance = random.Random(seed)  # a seeded choice, so that two runs time the same
    return (machine(number, chance) for number in range(count))


def run(count: int, seed: int) -> dict[str, Any]:
    began = time.process_time()
    matrix = load(*PARTS)
    loaded = time.process_time() - began
    request = Request(profile="qlora")

    classes: dict[object, Target] = {}
    for target in fleet(count, seed):
        classes.setdefault(class_of(target, matrix), target)
    warm = next(iter(classes.values()))
    solve(request, warm, matrix)
    solved: list[float] = []
    refused: list[float] = []
    for target in classes.values():
        began = time.process_time()
        answer = solve(request, target, matrix)
        took = time.process_time() - began
        (solved if isinstance(answer, Solution) else refused).append(took)

    peaks = []
    began = time.process_time()
    for number, _ in enumerate(solve_all(request, fleet(count, seed), matrix), start=1):
        if number in (count // 2, count):
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    whole = time.process_time() - began
    return {
        "load_ms": round(loaded * 1e3, 1),
        "classes": len(classes),
        "answer_ms": milliseconds(solved),
        "refusal_ms": milliseconds(refused),
        "fleet": count,
        "fleet_s": round(whole, 2),
        "peak_kib_half": peaks[0],
        "peak_kib": peaks[1],
        **command(),
        "batch_command_s": batch_command(count, seed),
    }


def command() -> dict[str, dict[str, float]]:
    """`bnbenv resolve` from start to exit, by the clock and in time of the processor."""
    times, of_processor = [], []
    for _ in range(7):
        began, before = time.perf_counter(), of_children()
        bnbenv("resolve", "qlora", "--gpu", "RTX 4090", "--driver", "580.95.05", "--json")
        times.append(time.perf_counter() - began)
        of_processor.append(of_children() - before)
    return {"command_clock_ms": milliseconds(times), "command_ms": milliseconds(of_processor)}


def batch_command(count: int, seed: int) -> float:
    """`bnbenv resolve --batch` over the fleet, in seconds of the processor."""
    with TemporaryDirectory() as scratch:
        lines = Path(scratch) / "fleet.jsonl"
        with lines.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(target_to_dict(target)) + "\n" for target in fleet(count, seed))
        before = of_children()
        bnbenv("resolve", "qlora", "--batch", str(lines))
        return round(of_children() - before, 2)


def of_children() -> float:
    """Seconds of the processor that processes started from here have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def bnbenv(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "bnbenv", *arguments], stdout=subprocess.DEVNULL, check=True)


def milliseconds(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "count": len(ordered),
        "median": round(statistics.median(ordered) * 1e3, 2),
        "p95": round(ordered[int(len(ordered) * 0.95)] * 1e3, 2),
        "worst": round(ordered[-1] * 1e3, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    found = run(arguments.count, arguments.seed)
    print(json.dumps(found, indent=1))
    fine = (
        found["answer_ms"]["median"] <= 10
        and max(found["fleet_s"], found["batch_command_s"]) <= 20 * arguments.count / 10_000
        and found["command_ms"]["median"] <= 200
        and found["peak_kib"] <= found["peak_kib_half"] * 1.1
    )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
