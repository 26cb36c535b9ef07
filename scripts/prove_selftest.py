"""Shows that the self-test detects, and does not cry wolf.

Plants the faults of `_selftest_faults.py`, one at a time, in a real bitsandbytes of a scratch environment
and asks the self-test (or the comparison with RECORD) what it sees. Each fault names beforehand the check
that must catch it. Then runs the self-test on unchanged releases, where nothing may be found but listed
faults. The scratch files are copies, never links: nothing reaches uv's cache or another environment.

    python scripts/prove_selftest.py --base PYTHON   # all of it; goes on where it stopped
    python scripts/prove_selftest.py --sample 7      # three faults chosen by a number; writes nothing
    python scripts/prove_selftest.py --check         # is the record still about this code?

PYTHON is that of an environment with torch, and for the training faults transformers, peft and accelerate,
such as `bnbenv path qlora` names. Without it one is made from the configured sources.
Exit codes: 0 proven, 1 not, 77 not run because no torch could be had.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import platform
import queue
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import _proof
from _selftest_faults import FAULTS, LIBRARY, RELEASE, STALE_RELEASE, Fault, Place
from bnbenv.env.record import check_record
from bnbenv.errors import BnbenvError
from bnbenv.install.sources import read_sources
from bnbenv.install.uv import Uv, find_uv
from bnbenv.matrix.load import load
from bnbenv.selftest import runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bnbenv.selftest.verdict import Level, Verdict

NAME = "prove_selftest"
COVERED = (
    *(
        f"src/bnbenv/selftest/{name}.py"
        for name in ("script", "train_script", "launcher", "runner", "child", "events", "decide", "faults")
    ),
    "src/bnbenv/env/record.py",
    "compat/known_faults.toml",
    "scripts/prove_selftest.py",
    "scripts/_selftest_faults.py",
)
RELEASES = ("0.46.1", "0.47.0", "0.48.2", "0.49.2", RELEASE)
SKIPPED = 77
# Asks the loader where a symbol's code lies in the file; torch brings the OpenMP library it needs.
SYMBOL = """
import ctypes, sys, torch
path, symbol = sys.argv[1:]
address = ctypes.cast(getattr(ctypes.CDLL(path), symbol), ctypes.c_void_p).value
for line in open("/proc/self/maps"):
    fields = line.split()
    if len(fields) > 5 and fields[5] == path:
        low, high = (int(part, 16) for part in fields[0].split("-"))
        if low <= address < high:
            print(address - low + int(fields[2], 16))
"""


class NoTorchError(Exception):
    """No environment with torch was named, and none could be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """An environment of its own with one bitsandbytes, which sees the packages of the base."""

    directory: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.directory / "bin" / "python"

    @property
    def bytecode(self) -> Path:
        """Compiled sources, which all patients share: a planted fault has another hash."""
        return self.directory.parent / "bytecode"

    @property
    def package(self) -> Path:
        """Its bitsandbytes."""
        return next(self.directory.glob("lib/python3*/site-packages")) / "bitsandbytes"

    def offset_of(self, symbol: str) -> int:
        """Where the code of a function lies in the library."""
        command = [str(self.python), "-B", "-c", SYMBOL, str(self.package / LIBRARY), symbol]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


class Laboratory:
    """The scratch directory."""

    def __init__(self, directory: Path, base: Path | None) -> None:
        self.directory = directory
        self.uv: Uv = find_uv(os.environ)
        self.base = base or self.make_base()

    def run_uv(self, *arguments: str) -> None:
        """Run uv in its own words."""
        self.uv.run(list(arguments), environ=os.environ)

    def make_base(self) -> Path:
        """An environment with torch and what the training test needs, from the configured sources."""
        directory = self.directory / "base"
        sources = read_sources(environ=os.environ, cwd=Path.cwd(), home=Path.home())
        links = [
            str(index.directory) for index in sources.indexes if index.role == "flat" and index.directory
        ]
        options = [part for link in links for part in ("--find-links", link)]
        # The smallest torch there is: a CPU build of a wheelhouse, else whatever uv finds.
        builds = sorted(
            (path.name.split("-")[1] for link in links for path in Path(link).glob("torch-*+cpu-*.whl")),
            key=lambda version: [int(part) for part in version.partition("+")[0].split(".")],
        )
        torch = f"torch=={builds[-1].replace('%2B', '+')}" if builds else "torch"
        try:
            self.run_uv("venv", str(directory), "--allow-existing", "--python", sys.executable)
            python = directory / "bin" / "python"
            needed = (torch, "numpy", "transformers", "peft", "accelerate")
            self.run_uv("pip", "install", "--python", str(python), *options, *needed)
        except BnbenvError as error:
            raise NoTorchError(f"no environment with torch: {error}; name one with --base") from error
        return python

    def patient(self, name: str, release: str) -> Patient:
        """A fresh environment with one release of bitsandbytes, every file a copy."""
        directory = self.directory / name
        self.run_uv("venv", str(directory), "--clear", "--python", str(self.base))
        patient = Patient(directory=directory)
        self.run_uv(
            "pip", "install", "--python", str(patient.python), "--no-deps", "--link-mode", "copy",
            f"bitsandbytes=={release}",
        )  # fmt: skip
        ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site = subprocess.run([str(self.base), "-c", ask], capture_output=True, text=True, check=True).stdout
        (patient.package.parent / "zz-base.pth").write_text(site, encoding="utf-8")
        return patient


def selftest(patient: Patient, level: Level) -> Verdict:
    """What the self-test says, with the known faults that ship."""
    return runner.run(
        patient.python,
        level=level,
        accelerator="cpu",
        environ=os.environ,
        cwd=patient.directory,
        known_faults=load("known_faults").known_faults,
        bytecode=patient.bytecode,
    )


def guilty(verdict: Verdict) -> list[str]:
    """Names of the checks that failed and are not excused, in order."""
    return [
        check.name
        for device in verdict.devices
        for check in device.checks
        if check.state in {"failed", "crashed"}
    ]


def examine(patient: Patient, fault: Fault) -> tuple[str, list[str]]:
    """The verdict and the names of what caught the fault."""
    if fault.catcher == "record":
        kinds: list[str] = [found.kind for found in check_record(patient.directory, ["bitsandbytes"])]
        return ("failed" if kinds else "passed"), kinds
    verdict = selftest(patient, fault.catcher)
    return verdict.verdict, guilty(verdict)


def judge_fault(patient: Patient, fault: Fault, stale: Path) -> dict[str, Any]:
    """Plant, look, mend."""
    path = patient.package / fault.file
    pristine = path.read_bytes()
    try:
        fault.plant(Place(package=patient.package, stale=stale, offset_of=patient.offset_of))
        verdict, found = examine(patient, fault)
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(pristine)
    announced = [name for name in found if fnmatch.fnmatchcase(name, fault.expected)]
    if verdict != fault.outcome or not found:
        result = "missed"
    else:
        result = "caught" if announced else "caught by another"
    names = list(dict.fromkeys(announced or found))
    return {
        "catcher": fault.catcher,
        "expected": fault.expected,
        "caught_by": names[:4],
        "failed": len(found),
        "verdict": verdict,
        "result": result,
    }


def judge_release(patient: Patient) -> dict[str, Any]:
    """An unchanged release: every check, and RECORD, may find listed faults and nothing else."""
    row: dict[str, Any] = {
        "catcher": "none",
        "record": len(check_record(patient.directory, ["bitsandbytes"])),
    }
    wolves: list[str] = []
    listed: set[str] = set()
    levels: tuple[Level, ...] = ("full", "train")  # "train" begins with "quick"
    for level in levels:
        verdict = selftest(patient, level)
        row[level] = verdict.verdict
        wolves += guilty(verdict)
        listed |= set(verdict.faults)
    clean = not wolves and not row["record"] and all(row[level] in {"passed", "degraded"} for level in levels)
    return {
        **row,
        "faults": sorted(listed),
        "failed": list(dict.fromkeys(wolves))[:4],
        "result": "quiet" if clean else "cried wolf",
    }


def tasks(stale: Path, laboratory: Laboratory) -> Iterator[tuple[str, Callable[[Patient], dict[str, Any]]]]:
    """Key → what to do with a patient; releases make their own."""

    def plant(fault: Fault) -> Callable[[Patient], dict[str, Any]]:
        return lambda patient: judge_fault(patient, fault, stale)

    def release(version: str) -> Callable[[Patient], dict[str, Any]]:
        return lambda _: judge_release(laboratory.patient(f"release-{version}", version))

    for version in RELEASES:
        yield f"release/{version}", release(version)
    for fault in FAULTS:
        yield f"fault/{fault.name}", plant(fault)


def work(
    laboratory: Laboratory,
    keys: Sequence[str] | None,
    jobs: int,
    done: Callable[[str, dict[str, Any], float], None],
) -> None:
    """Do the tasks named (all, if None), `jobs` at a time, each in a patient of its own."""
    stale = laboratory.patient("stale", STALE_RELEASE).package / LIBRARY
    patients: queue.Queue[Patient] = queue.Queue()
    for number in range(jobs):
        patients.put(laboratory.patient(f"mutant-{number}", RELEASE))

    def one(task: Callable[[Patient], dict[str, Any]]) -> tuple[dict[str, Any], float]:
        patient = patients.get()
        started = time.monotonic()
        try:
            return task(patient), time.monotonic() - started
        finally:
            patients.put(patient)

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        futures = {
            pool.submit(one, task): key
            for key, task in tasks(stale, laboratory)
            if keys is None or key in keys
        }
        try:
            for future in as_completed(futures):
                row, seconds = future.result()
                done(futures[future], row, seconds)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def tell(key: str, row: dict[str, Any], seconds: float) -> None:
    """One line a task."""
    by = ", ".join(row.get("caught_by") or row.get("failed") or row.get("faults") or [])
    print(f"{row['result']:<18} {key:<48} {seconds:6.1f} s  {by}", flush=True)


def conclude(proof: _proof.Proof) -> None:
    """Count, and name what did not come out as announced."""
    results = [row["result"] for row in proof.rows.values()]
    proof.counts = {
        "faults": sum(key.startswith("fault/") for key in proof.rows),
        "caught": results.count("caught"),
        "caught by another": results.count("caught by another"),
        "missed": results.count("missed"),
        "releases": sum(key.startswith("release/") for key in proof.rows),
        "quiet": results.count("quiet"),
        "cried wolf": results.count("cried wolf"),
    }
    proof.misses = sorted(key for key, row in proof.rows.items() if row["result"] in {"missed", "cried wolf"})


def prove(laboratory: Laboratory, jobs: int) -> int:
    """Everything that the record lacks."""
    proof = _proof.resume(NAME, COVERED)
    every = {f"fault/{fault.name}" for fault in FAULTS} | {f"release/{version}" for version in RELEASES}
    versions = subprocess.run(
        [str(laboratory.base), "-c", "import json, torch; print(json.dumps(torch.__version__))"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    proof.circumstances = {
        "bitsandbytes": RELEASE,
        "torch": json.loads(versions),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "OpenMP threads": os.environ.get("OMP_NUM_THREADS", "all"),
    }

    def done(key: str, row: dict[str, Any], seconds: float) -> None:
        tell(key, row, seconds)
        proof.add(key, row, seconds=seconds)
        _proof.save(proof)

    work(laboratory, sorted(every - set(proof.rows)), jobs, done)
    conclude(proof)
    proof.complete = every <= set(proof.rows)
    _proof.save(proof)
    print(json.dumps(proof.counts))
    return 1 if proof.misses or not proof.complete else 0


def processor() -> str:
    """Its name and the features on which bitsandbytes' CPU kernels depend."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    flags = fields.get("flags", "").split()
    features = [name for name in ("avx2", "avx512f", "avx512_bf16") if name in flags]
    return f"{fields.get('model name', platform.machine())} ({' '.join(features)})"


def try_out(laboratory: Laboratory, chosen: Sequence[Fault], jobs: int) -> int:
    """Some faults, without a record."""
    rows: dict[str, dict[str, Any]] = {}

    def done(key: str, row: dict[str, Any], seconds: float) -> None:
        tell(key, row, seconds)
        rows[key] = row

    work(laboratory, [f"fault/{fault.name}" for fault in chosen], jobs, done)
    return 0 if len(rows) == len(chosen) and all(row["result"] == "caught" for row in rows.values()) else 1


def sample(seed: int) -> list[Fault]:
    """Three faults, chosen by a number; the training ones need more packages than CI has."""
    return random.Random(seed).sample([fault for fault in FAULTS if fault.catcher in {"quick", "record"}], 3)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", type=Path, help="python of an environment with torch")
    parser.add_argument("--scratch", type=Path, help="directory to work in (default: a temporary one)")
    parser.add_argument("--jobs", type=int, default=1, help="patients at a time")
    parser.add_argument("--check", action="store_true", help="only say whether the record stands")
    parser.add_argument("--sample", type=int, metavar="SEED", help="three faults; writes no record")
    parser.add_argument("--only", metavar="GLOB", help="faults of this name; writes no record")
    chosen = parser.parse_args(arguments)
    if chosen.check:
        reasons = _proof.check(NAME, COVERED)
        print("\n".join(reasons) or "the proof stands")
        return 1 if reasons else 0
    with tempfile.TemporaryDirectory(prefix="bnbenv-prove-") as temporary:
        # Not resolved: the path of a venv's python is what makes it that venv's.
        base = chosen.base.absolute() if chosen.base else None
        try:
            laboratory = Laboratory((chosen.scratch or Path(temporary)).absolute(), base)
        except NoTorchError as error:
            print(f"not run: {error}")
            return SKIPPED
        if chosen.sample is not None:
            return try_out(laboratory, sample(chosen.sample), chosen.jobs)
        if chosen.only:
            named = [fault for fault in FAULTS if fnmatch.fnmatchcase(fault.name, chosen.only)]
            return try_out(laboratory, named, chosen.jobs)
        return prove(laboratory, chosen.jobs)


if __name__ == "__main__":
    sys.exit(main())
