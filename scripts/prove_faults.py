"""Plants faults in real environments, and shows that doctor names them and repair mends them, or rightly not.

Each fault names beforehand the cause that must be found and what must come of it: ``mended`` (the same
doctor finds nothing left, the self-test computes rightly), ``planned`` (on a GPU that is stood in for by the
NVML stub: the plan alone, nothing can compute here), ``shown`` (it is outside the environment),
``stopped`` (it cannot be mended from here) or ``refused`` (a disk or a right forbids it). In every case the
user's own packages and files are the same afterwards; in an environment that is mended in place no file of
another package is touched; where nothing is done, nothing at all is.

    python scripts/prove_faults.py              # all faults; resumes where it stopped
    python scripts/prove_faults.py --sample 7   # one fault chosen by a number
    python scripts/prove_faults.py --only NAME  # one fault by name
    python scripts/prove_faults.py --fast       # without those that need a CUDA build of torch (3 GB)
    python scripts/prove_faults.py --check      # is the recorded proof still about this code?
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _proof
from _faults_ground import WORK, Ground, Laboratory
from _repair_faults import FAULTS

if TYPE_CHECKING:
    from _faults_ground import Answer
    from _repair_faults import Fault

NAME = "prove_faults"
# The doctor's single rules have tests of their own: here stands what plans, builds, puts back and proves.
COVERED = (
    "src/bnbenv/doctor/plan.py",
    "src/bnbenv/env/additions.py",
    "src/bnbenv/env/transaction.py",
    "src/bnbenv/workflows/mend.py",
    "src/bnbenv/workflows/rebuild.py",
    "src/bnbenv/workflows/repair.py",
    "scripts/_faults_ground.py",
    "scripts/_repair_faults.py",
    "scripts/prove_faults.py",
)
_EXIT = {"mended": {0}, "planned": {0}, "shown": {0, 1}, "stopped": {1}, "refused": {5}}
_OUTCOME = {"mended": "repaired", "planned": "planned", "shown": "nothing", "stopped": "stopped"}


def one(fault: Fault, lab: Laboratory) -> dict[str, Any]:
    """Plant one fault, have it mended, and look at everything."""
    with tempfile.TemporaryDirectory(prefix="bnbenv-fault-", dir=lab.root) as scratch:
        ground = Ground(lab=lab, root=Path(scratch), kind=fault.kind)
        ground.make()
        users = ground.users()
        fault.plant(ground)
        before, owners = ground.everything(), ground.owners()
        started = time.monotonic()
        answer = fault.act(ground)
        seconds = time.monotonic() - started
        judge(fault, ground, answer)
        ground.expect(ground.users() == users, f"not the same afterwards: {differing(users, ground.users())}")
        untouched(fault, ground, answer, before, owners)
        ground.expect(not (ground.env / WORK).exists(), "the work directory was left behind")
        return {
            "code": fault.code,
            "seen": answer.seen,
            "expected": fault.expected,
            "outcome": answer.outcome if answer.outcome != "None" else answer.envelope["problems"][0]["code"],
            "verdict": answer.data.get("verdict"),
            "kind": fault.kind,
            "seconds": round(seconds, 1),
            "skipped": ground.skipped,
            "problems": ground.problems,
        }


def timed(fault: Fault, lab: Laboratory) -> tuple[dict[str, Any], float]:
    """One fault, and the seconds of all that belongs to it; a laboratory that fails is a miss too."""
    started = time.monotonic()
    try:
        row = one(fault, lab)
    except Exception as error:  # noqa: BLE001 - the other faults go on
        row = {
            "code": fault.code,
            "seen": [],
            "expected": fault.expected,
            "outcome": "none",
            "verdict": None,
            "kind": fault.kind,
            "seconds": 0.0,
            "skipped": None,
            "problems": [f"{type(error).__name__}: {error}"],
        }
    return row, time.monotonic() - started


def judge(fault: Fault, ground: Ground, answer: Answer) -> None:
    """Whether the answer is the one that was announced."""
    if fault.expected == "refused":
        codes = [problem["code"] for problem in answer.envelope["problems"]]
        ground.expect(set(fault.says) & set(codes), f"refused with {codes}, announced {fault.says}")
        ground.expect(answer.code in _EXIT["refused"], f"exit {answer.code}: {answer.stderr[-300:]}")
        return
    ground.expect(fault.code in answer.seen, f"seen was {answer.seen}, not {fault.code}")
    ground.expect(
        answer.outcome == _OUTCOME[fault.expected],
        f"it was {answer.outcome}, announced was {fault.expected}: {answer.stderr[-600:]}",
    )
    ground.expect(answer.code in _EXIT[fault.expected], f"exit {answer.code}")
    for word in fault.says:
        ground.expect(word in answer.words, f"`{word}` was not said: {answer.words[:600]}")
    if fault.expected == "mended":
        verdict = answer.data.get("verdict")
        ground.expect(verdict in {"passed", "degraded"}, f"the self-test said {verdict}")
        left = [it["code"] for it in answer.data.get("after") or [] if it["severity"] != "info"]
        ground.expect(fault.code not in left, f"{fault.code} is still there")
        ground.expect(not left, f"not healthy afterwards: {left}")


def untouched(
    fault: Fault,
    ground: Ground,
    answer: Answer,
    before: dict[str, tuple[int, int, int]],
    owners: dict[str, str],
) -> None:
    """In place only the announced packages change; where nothing is done, nothing does."""
    if fault.kind == "ours" and fault.expected == "mended":
        return  # another generation; the user's own is compared by content
    after = ground.everything()
    changed = [path for path in {*before, *after} if before.get(path) != after.get(path)]
    if fault.expected != "mended":
        ground.expect(not changed, f"touched although {fault.expected}: {sorted(changed)[:5]}")
        return
    announced = {change["name"].replace("-", "_") for change in answer.data.get("changes", [])}
    # The verdict is kept with an environment of bnbenv's.
    kept = {".bnbenv/state.json", ".bnbenv/verdict.json"} if fault.kind == "plain" else set()
    steps = {step["action"] for step in answer.data["plan"]["steps"]}
    if "mend-guard" in steps:
        kept |= {"pip.conf"} | {path for path in changed if re.fullmatch(r"bin/(pip|uv).*", path)}
    venv = {"pyvenv.cfg"} | {path for path in changed if path.startswith("bin/")}
    now = ground.owners()
    strangers = [
        path
        for path in changed
        if path not in kept
        and (owners.get(path) or now.get(path) or _top(path)).replace("-", "_") not in announced
        and not (path in venv and "mend-venv" in steps)
    ]
    ground.expect(not strangers, f"touched and not announced: {sorted(strangers)[:5]}")


def _top(path: str) -> str:
    """The package whose directory an unowned file stands in, by its name."""
    parts = Path(path).parts
    inside = parts[parts.index("site-packages") + 1] if "site-packages" in parts else parts[0]
    return inside.partition("-")[0]


def differing(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Where two snapshots are not alike."""
    return sorted(path for path in {*one, *other} if one.get(path) != other.get(path))[:5]


def main() -> int:
    """Run the proof; exit 1 if anything did not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, metavar="N", help="one fault, chosen by N")
    parser.add_argument("--only", metavar="FAULT", action="append", help="one fault, by name; repeat")
    parser.add_argument("--fast", action="store_true", help="without those that need a CUDA build of torch")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="faults at a time (default: 2)")
    parser.add_argument("--check", action="store_true", help="only say whether the recorded proof stands")
    options = parser.parse_args()
    if options.check:
        reasons = _proof.check(NAME, COVERED)
        print("\n".join(reasons) or f"{NAME}: the recorded proof stands")
        return 1 if reasons else 0
    names = [name for name, fault in FAULTS.items() if not (fault.slow and options.fast)]
    recorded = not (options.only or options.fast or options.sample is not None)
    if options.only:
        names = options.only
    elif options.sample is not None:
        quick = [name for name in names if not FAULTS[name].slow]
        names = [random.Random(options.sample).choice(quick)]
    lab = Laboratory.open()
    proof = _proof.resume(NAME, COVERED)
    failed = []
    wanted = [name for name in names if not (recorded and name in proof.rows)]
    with ThreadPoolExecutor(max_workers=options.jobs) as pool:
        running = {pool.submit(timed, FAULTS[name], lab): name for name in wanted}
        for done in as_completed(running):
            name, (row, seconds) = running[done], done.result()
            told = row["skipped"] or row["problems"] or f"{row['outcome']}, {row['verdict']}"
            print(f"{name} ({row['seconds']} s): {told}", flush=True)
            if row["problems"]:
                failed.append(name)
            if recorded:
                proof.add(name, row, seconds=seconds)
                _proof.save(proof)
    if recorded:
        rows = proof.rows
        proof.misses = [name for name, row in rows.items() if row["problems"]]
        proof.counts = {
            "faults": len(rows),
            **{word: sum(row["expected"] == word for row in rows.values()) for word in _EXIT},
            "skipped": sum(bool(row["skipped"]) for row in rows.values()),
        }
        proof.complete = set(rows) == set(FAULTS)
        _proof.save(proof)
        failed = proof.misses
    print(f"{len(names)} faults, {len(failed)} where something did not hold")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
