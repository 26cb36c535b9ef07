"""Prints how long `bnbenv doctor` takes on an environment of a hundred packages, beside its peer.

    python scripts/bench_doctor.py              # makes the environment, and removes it
    python scripts/bench_doctor.py --env DIR    # an environment that is there

The peer is what bitsandbytes itself offers: `python -m bitsandbytes` in that environment. Both run from byte
code. Doctor is measured as the environment was made, and with bitsandbytes' files touched since:
then it hashes them again, as it always does in an environment of another maker.
Exit 1 above the limit of 250 ms, at the fastest run: a busy machine tells of itself.
"""

from __future__ import annotations

import argparse
import os
import resource
import stat
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 0.250  # seconds
PACKAGES = 100
# Packages of no matter, until there are a hundred.
FILLING = (
    "attrs", "cachetools", "charset-normalizer", "cloudpickle", "colorama", "cycler", "decorator",
    "docutils", "einops", "et-xmlfile", "execnet", "fonttools", "greenlet", "humanize", "imageio",
    "iniconfig", "ipython", "isodate", "itsdangerous", "joblib", "jsonschema", "kiwisolver",
    "lazy-loader", "lxml", "mako", "matplotlib", "more-itertools", "msgpack", "nltk", "openpyxl",
    "pathspec", "pillow", "platformdirs", "pluggy", "ply", "protobuf", "pyasn1", "pycparser",
    "pyparsing", "pytest", "python-dotenv", "pytz", "requests", "scikit-learn", "scipy",
    "sentencepiece", "six", "sniffio", "sortedcontainers", "sqlalchemy", "tabulate", "tenacity",
    "termcolor", "toml", "toolz", "wcwidth", "wheel", "wrapt", "zipp", "zstandard",
)  # fmt: skip


def make(root: Path) -> Path:
    """A QLoRA environment, filled up to a hundred packages.

    Its files are copies: those that share uv's cache are touched by whatever else is installed from there.
    """
    from uv import find_uv_bin

    environment = root / "env"
    words = [sys.executable, "-m", "bnbenv", "create", "qlora", "--cpu", "--yes", "--path", str(environment)]
    words += ["--link-mode", "copy"]
    subprocess.run(words, env={**os.environ, "BNBENV_HOME": str(root / "home")}, check=True)
    python = str(environment / "bin" / "python")
    for name in FILLING:
        if count(environment) >= PACKAGES:
            break
        subprocess.run([find_uv_bin(), "pip", "install", "--quiet", "--python", python, name], check=True)
    return environment


def count(environment: Path) -> int:
    """How many packages are installed."""
    return sum(1 for _ in environment.glob("lib/python3*/site-packages/*.dist-info"))


def timed(words: list[str], cwd: Path) -> tuple[float, float]:
    """Wall-clock and processor seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(
        words,
        cwd=cwd,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def touch(environment: Path) -> None:
    """Set the time of change of bitsandbytes' files, and nothing else of them."""
    for file in environment.glob("lib/python3*/site-packages/bitsandbytes/*.so"):
        file.chmod(stat.S_IMODE(file.stat().st_mode))


def main() -> int:
    """Print the table; return 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--env", type=Path, help="an environment with bitsandbytes")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--peer-runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bnbenv-bench-") as scratch:
        root = Path(scratch).resolve()
        environment = (options.env or make(root)).absolute()
        entry = "import sys; from bnbenv.cli.main import entry; sys.exit(entry())"
        doctor = [sys.executable, "-c", entry, "doctor", str(environment), "--json"]
        peer = [str(environment / "bin" / "python"), "-m", "bitsandbytes"]
        timed(doctor, root)
        timed(peer, root)
        peers = [timed(peer, root) for _ in range(options.peer_runs)]
        runs = {"as it was made": [timed(doctor, root) for _ in range(options.runs)]}
        if options.env is None:
            touch(environment)
            runs["bitsandbytes touched"] = [timed(doctor, root) for _ in range(options.runs)]
        packages = count(environment)
    beside = statistics.median(wall for wall, _ in peers)
    print(f"packages                 {packages}")
    print(f"python -m bitsandbytes   {beside:.1f} s in the median")
    slowest = 0.0
    for name, times in runs.items():
        best, median = min(wall for wall, _ in times), statistics.median(wall for wall, _ in times)
        slowest = max(slowest, best)
        print(f"bnbenv doctor            {name}")
        print(f"  wall clock             {best * 1000:.0f} ms at best, {median * 1000:.0f} ms in the median")
        print(f"  processor              {min(used for _, used in times) * 1000:.0f} ms at best")
        print(f"  ratio                  {beside / median:.0f}")
    return 0 if slowest <= LIMIT else 1


if __name__ == "__main__":
    raise SystemExit(main())
