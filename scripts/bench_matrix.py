"""Prints how long the matrix takes to load, how much memory it needs, and how large its files are.

    python scripts/bench_matrix.py [--measure]

Times of loading are processor times, which a busy machine lengthens little, and the best of several runs;
`json` alone, for the largest file, stands beside them. `--measure` reads the newest Linux wheel anew.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING, Literal

from _refresh import COMPAT, open_index
from bnbenv.matrix.load import load
from bnbenv.matrix.measure import Published, measure_bitsandbytes
from bnbenv.matrix.remote import RemoteFile
from bnbenv.workflows.choose import JUDGED

if TYPE_CHECKING:
    from collections.abc import Callable

    from bnbenv.machine.target import Arch, OsName

    Platform = tuple[OsName, Arch] | Literal["every"] | None

RUNS = 15
HERE: tuple[OsName, Arch] = ("linux", "x86_64")
COMMANDS: dict[str, tuple[tuple[str, ...], Platform]] = {
    "resolve, check, create": (JUDGED, HERE),
    "a batch": (JUDGED, "every"),
    "detect": (("gpus",), None),
    "verify": (("known_faults",), None),
}


def best(action: Callable[[], object]) -> float:
    """The shortest of several runs, in milliseconds."""
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times) * 1000


def peak(parts: tuple[str, ...], platform: Platform) -> float:
    """The most memory that loading holds at a time, in MB."""
    tracemalloc.start()
    matrix = load(*parts, directory=COMPAT, platform=platform)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del matrix
    return most / 1e6


def cold(parts: tuple[str, ...], platform: Platform) -> tuple[float, float]:
    """The first load of a process of its own, and the import of the loader before it, in milliseconds."""
    code = (
        "import time; start = time.process_time()\n"
        "from bnbenv.matrix.load import load\n"
        "loading = time.process_time()\n"
        f"load(*{parts!r}, platform={platform!r})\n"
        "end = time.process_time()\n"
        "print((end - loading) * 1000, (loading - start) * 1000)"
    )
    runs = []
    for _ in range(7):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        loading, importing = run.stdout.split()
        runs.append((float(loading), float(importing)))
    return min(runs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="also measure the newest wheel anew")
    options = parser.parse_args()

    total = sum(path.stat().st_size for path in COMPAT.iterdir())
    print(f"compat/: {total / 1e6:.2f} MB in {len(list(COMPAT.iterdir()))} files (limit 3 MB)")
    text = (COMPAT / "bitsandbytes.json").read_text(encoding="utf-8")
    print(f"json alone, bitsandbytes.json: {best(lambda: json.loads(text)):.1f} ms")
    for name, (parts, platform) in COMMANDS.items():
        warm = best(lambda parts=parts, platform=platform: load(*parts, directory=COMPAT, platform=platform))  # type: ignore[misc]
        loading, importing = cold(parts, platform)
        print(
            f"{name}: {loading:.1f} ms in a new process (limit 20 ms), after {importing:.1f} ms of imports; "
            f"{warm:.1f} ms again; {peak(parts, platform):.1f} MB at most (limit 15 MB)"
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
