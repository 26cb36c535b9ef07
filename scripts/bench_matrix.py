"""Prints how long the matrix takes to load, how much memory it needs, and how large its files are.

    python scripts/bench_matrix.py [--measure]

Loads what a wheel built from this checkout holds. Times are processor times, which a busy machine lengthens
by half at most, and the best of several runs; what the reader of JSON takes for the same files stands beside
them, and what the whole takes as it stands in the checkout, partly in TOML.
`--measure` reads the newest Linux wheel anew.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from _refresh import COMPAT, open_index
from bnbenv.doctor import diagnosis
from bnbenv.matrix.load import FILES, load, place
from bnbenv.matrix.matrix import PARTS
from bnbenv.matrix.measure import Published, measure_bitsandbytes
from bnbenv.matrix.remote import RemoteFile
from bnbenv.workflows import check, page
from bnbenv.workflows.choose import JUDGED

if TYPE_CHECKING:
    from collections.abc import Callable

    from bnbenv.machine.target import Arch, OsName

    Platform = tuple[OsName, Arch] | Literal["every"] | None

RUNS = 15
HERE: tuple[OsName, Arch] = ("linux", "x86_64")
OLD = "0.41.3"  # a release that nothing chooses, and that can be named
COMMANDS: dict[str, tuple[tuple[str, ...], Platform, str]] = {
    "resolve, why-not, create, sync": (JUDGED, HERE, ""),
    "resolve --batch, lock": (JUDGED, "every", ""),
    "check, also --file and --environment; doctor": (check.PARTS, HERE, OLD),
    "check --batch": (check.PARTS, "every", ""),
    "check --batch, where a release below 0.43 is named": (check.PARTS, None, ""),
    "lock --check, doctor --lock": (JUDGED, None, ""),
    "detect": (("gpus",), None, ""),
    "verify": (("known_faults",), None, ""),
    "matrix export --csv": (("bitsandbytes",), None, ""),
    "matrix html": (tuple(dict.fromkeys([*JUDGED, *page.PARTS])), None, ""),
    "diagnose": (tuple(dict.fromkeys([*JUDGED, *diagnosis.PARTS])), None, ""),
    "matrix export, matrix check": (PARTS, None, ""),
}
LIMIT_MS, LIMIT_MB = 20, 15


def best(action: Callable[[], object]) -> float:
    """The shortest of several runs, in milliseconds."""
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times) * 1000


def packaged(scratch: Path) -> Path:
    """The data of the wheel."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(scratch)]
    subprocess.run(build, cwd=COMPAT.parent, check=True, capture_output=True)
    [wheel] = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(scratch, [name for name in archive.namelist() if "/_compat/" in name])
    return scratch / "bnbenv" / "_compat"


def peak(data: Path, parts: tuple[str, ...], platform: Platform, release: str) -> float:
    """The most memory that loading holds at a time, in MB."""
    tracemalloc.start()
    matrix = load(*parts, directory=data, platform=platform, release=release)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del matrix
    return most / 1e6


def cold(data: Path, parts: tuple[str, ...], platform: Platform, release: str) -> tuple[float, float]:
    """The first load of a process of its own, and the import of the loader before it, in milliseconds."""
    code = (
        "import time; start = time.process_time()\n"
        "from bnbenv.matrix.load import load\n"
        "loading = time.process_time()\n"
        f"load(*{parts!r}, platform={platform!r}, release={release!r})\n"
        "end = time.process_time()\n"
        "print((end - loading) * 1000, (loading - start) * 1000)"
    )
    environ = {**os.environ, "BNBENV_COMPAT": str(data)}
    runs = []
    for _ in range(RUNS):
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ
        )
        loading, importing = run.stdout.split()
        runs.append((float(loading), float(importing)))
    return min(runs)


def parsing(data: Path, parts: tuple[str, ...]) -> float:
    """What the reader of JSON takes for the files that hold the parts, in milliseconds."""
    texts = [place(data, name).read_text(encoding="utf-8") for name in {FILES[part] for part in parts}]

    def parse() -> None:
        for text in texts:
            json.loads(text)

    return best(parse)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="also measure the newest wheel anew")
    options = parser.parse_args()

    total = sum(path.stat().st_size for path in COMPAT.iterdir())
    print(f"compat/: {total / 1e6:.2f} MB in {len(list(COMPAT.iterdir()))} files (limit 3 MB)")
    with TemporaryDirectory() as scratch:
        show(packaged(Path(scratch)))
    loading, _ = cold(COMPAT, PARTS, None, "")
    print(f"all of it from the checkout: {loading:.1f} ms")
    if options.measure:
        measure_newest()
    return 0


def show(data: Path) -> None:
    """Print a line for each of `COMMANDS`."""
    for name, (parts, platform, release) in COMMANDS.items():
        loading, importing = cold(data, parts, platform, release)
        memory = peak(data, parts, platform, release)
        over = loading > LIMIT_MS or memory > LIMIT_MB
        print(
            f"{name}: {loading:.1f} ms in a new process (limit {LIMIT_MS} ms), {memory:.1f} MB at most "
            f"(limit {LIMIT_MB} MB){', OVER' if over else ''}; after {importing:.1f} ms of imports; "
            f"reading the files whole takes {parsing(data, parts):.1f} ms"
        )


def measure_newest() -> None:
    """Read the newest Linux wheel on the index, and print what that took."""
    index, session = open_index()
    package = index.get_project_page("bitsandbytes").packages
    newest = [p for p in package if p.filename.endswith("_x86_64.whl")][-1]
    start = time.perf_counter()
    file = RemoteFile(session, newest.url, name=newest.filename, size=newest.size)
    measure_bitsandbytes(file, Published(newest.digests["sha256"], ""))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{newest.filename}: {time.perf_counter() - start:.1f} s, {most:.0f} MB (limits 15 s, 300 MB)")


if __name__ == "__main__":
    sys.exit(main())
