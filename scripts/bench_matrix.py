"""Prints how long the matrix takes to load, how much memory it needs, and how large its files are.

    python scripts/bench_matrix.py [--measure]

Times are the best of several runs in one process, beside the time that `json` alone takes for the largest
file in the same process, so that a busy machine shows. `--measure` reads the newest Linux wheel anew.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING

from _refresh import COMPAT, open_index
from bnbenv.matrix.load import load
from bnbenv.matrix.measure import Published, measure_bitsandbytes
from bnbenv.matrix.remote import RemoteFile

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 15
COMMANDS = {
    "resolve": (
        "bitsandbytes", "torch", "driver_floors", "driver_branches", "architectures", "indexes",
        "floors", "profiles", "hazards", "loaders",
    ),
    "doctor": (
        "bitsandbytes", "torch", "driver_floors", "driver_branches", "architectures", "floors",
        "hazards", "loaders", "causes",
    ),
    "detect": ("gpus",),
    "verify": ("known_faults",),
}  # fmt: skip


def best(action: Callable[[], object]) -> float:
    """The shortest of several runs, in milliseconds."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times) * 1000


def peak(parts: tuple[str, ...]) -> float:
    """The most memory that loading holds at a time, in MB."""
    tracemalloc.start()
    matrix = load(*parts, directory=COMPAT)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del matrix
    return most / 1e6


def cold(parts: tuple[str, ...]) -> float:
    """One load in a process of its own, imports of the loader included, in milliseconds."""
    code = (
        "import time; start = time.perf_counter()\n"
        "from bnbenv.matrix.load import load\n"
        f"load(*{parts!r})\n"
        "print((time.perf_counter() - start) * 1000)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(5)
    ]
    return min(float(run.stdout) for run in runs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="also measure the newest wheel anew")
    options = parser.parse_args()

    total = sum(path.stat().st_size for path in COMPAT.iterdir())
    print(f"compat/: {total / 1e6:.2f} MB in {len(list(COMPAT.iterdir()))} files (limit 3 MB)")
    text = (COMPAT / "bitsandbytes.json").read_text(encoding="utf-8")
    print(f"json alone, bitsandbytes.json: {best(lambda: json.loads(text)):.1f} ms")
    for name, parts in COMMANDS.items():
        warm = best(lambda parts=parts: load(*parts, directory=COMPAT))  # type: ignore[misc]
        print(
            f"{name}: {warm:.1f} ms warm, {cold(parts):.1f} ms in a new process, {peak(parts):.1f} MB at most"
        )
    if options.measure:
        index, session = open_index()
        package = index.get_project_page("bitsandbytes").packages
        newest = [p for p in package if p.filename.endswith("_x86_64.whl")][-1]
        start = time.perf_counter()
        file = RemoteFile(session, newest.url, name=newest.filename, size=newest.size)
        measure_bitsandbytes(file, Published(newest.digests["sha256"], ""))
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"{newest.filename}: {time.perf_counter() - start:.1f} s, {most:.0f} MB (limits 15 s, 300 MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
