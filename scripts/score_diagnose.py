"""Scores `bnbenv diagnose` on labelled texts: precision and recall by cause, confusion, each rule left out.

python scripts/score_diagnose.py [FILE.jsonl]... [--half A|B] [--rules]

A file holds one object a line, with `text` and `cause`; without one, the corpus beside the checkout and the
cases of the tests are scored, each by itself. `--half` takes every second case of each cause, so that rules
can be made on one half and tried on the other. `--rules` leaves each implication out in turn, tells by file
how many right answers that costs, and names the implications that serve a single case, or none.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.doctor.diagnosis import read_text
from bnbenv.doctor.reason import UNKNOWN, causes_of
from bnbenv.workflows.diagnose import load_rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bnbenv.doctor.facts import Facts
    from bnbenv.doctor.scan import Seen
    from bnbenv.matrix.matrix import Matrix

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = (ROOT.parent / "shared" / "corpus" / "dev.jsonl", ROOT / "tests" / "doctor" / "cases.jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A labelled text, read once; `source` is the name of its file."""

    id: str
    source: str
    cause: str
    seen: Seen
    facts: Facts


def cases_of(path: Path, matrix: Matrix, half: str | None = None) -> list[Case]:
    """The cases of a file, or one half of them."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if half:
        rows = halves(rows)[half]
    cases = []
    for row in rows:
        seen, facts = read_text([row["text"].encode("utf-8", "surrogatepass")], matrix)
        cases.append(Case(id=str(row["id"]), source=path.name, cause=row["cause"], seen=seen, facts=facts))
    return cases


def halves(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Two halves that share no case and hold the causes alike."""
    by_cause: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_cause[row["cause"]].append(row)
    ordered = [
        row for cause in sorted(by_cause) for row in sorted(by_cause[cause], key=lambda row: row["id"])
    ]
    return {"A": ordered[::2], "B": ordered[1::2]}


def answer(case: Case, matrix: Matrix, without: frozenset[str] = frozenset()) -> str:
    """The cause named for a case."""
    named = causes_of(case.seen, case.facts, matrix, without=without)
    return named[0].code if named else UNKNOWN


def report(cases: Sequence[Case], answers: Sequence[str]) -> str:
    """Counts, precision and recall by cause, and what was taken for what."""
    pairs = list(zip((case.cause for case in cases), answers, strict=True))
    labelled = [pair for pair in pairs if pair[0] != UNKNOWN]
    open_cases = [pair for pair in pairs if pair[0] == UNKNOWN]
    right = sum(want == got for want, got in labelled)
    wrong = sum(got not in (want, UNKNOWN) for want, got in labelled)
    left = sum(got == UNKNOWN for _, got in open_cases)
    lines = [
        f"labelled: {right} of {len(labelled)} right, {wrong} given a wrong cause",
        f"unknown: {left} of {len(open_cases)} left unknown",
        "",
        f"{'cause':28} cases  recall  precision",
    ]
    for cause in sorted({want for want, _ in pairs} | {got for _, got in pairs}):
        wanted = [got for want, got in pairs if want == cause]
        given = [want for want, got in pairs if got == cause]
        hits = wanted.count(cause)
        recall = f"{hits / len(wanted):7.2f}" if wanted else "      -"
        precision = f"{hits / len(given):10.2f}" if given else "         -"
        lines.append(f"{cause:28} {len(wanted):5} {recall} {precision}")
    lines += ["", "wanted → given"]
    confusion = Counter(pair for pair in pairs if pair[0] != pair[1])
    lines += [f"{count:3}  {want} → {got}" for (want, got), count in sorted(confusion.items())] or ["  none"]
    lines += [
        f"     {case.id}: {case.cause} → {got}"
        for case, got in zip(cases, answers, strict=True)
        if case.cause != got
    ]
    return "\n".join(lines)


def left_out(cases: Sequence[Case], answers: Sequence[str], matrix: Matrix) -> str:
    """For each implication: the right answers lost without it, by file, and those gained."""
    sources = list(dict.fromkeys(case.source for case in cases))
    lines = [f"{'without the implication, right answers lost in':46} {'  '.join(sources)}  gained"]
    single, idle = [], []
    for rule in [*(row.id for row in matrix.implications), "judge"]:
        lost: Counter[str] = Counter()
        gained = 0
        for case, usual in zip(cases, answers, strict=True):
            other = answer(case, matrix, frozenset({rule}))
            lost[case.source] += usual == case.cause != other
            gained += other == case.cause != usual
        counts = "  ".join(f"{lost[source]:{len(source)}}" for source in sources)
        lines.append(f"{rule:46} {counts}  {gained:6}")
        if lost.total() == 1:
            single.append(rule)
        elif not lost.total():
            idle.append(rule)
    lines.append(f"serve one case alone here ({len(single)}): {', '.join(single) or 'none'}")
    lines.append(f"change nothing here ({len(idle)}): {', '.join(idle) or 'none'}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--half", choices=("A", "B"))
    parser.add_argument("--rules", action="store_true", help="leave each implication out in turn")
    options = parser.parse_args(arguments)
    matrix = load_rules()
    everything: list[Case] = []
    for path in options.files or [path for path in DEFAULT if path.is_file()]:
        cases = cases_of(path, matrix, options.half)
        everything += cases
        print(f"== {path.name}{f', half {options.half}' if options.half else ''}: {len(cases)} cases")
        print(report(cases, [answer(case, matrix) for case in cases]))
        print()
    if options.rules:
        print(f"== all {len(everything)} cases together")
        print(left_out(everything, [answer(case, matrix) for case in everything], matrix))
    return 0


if __name__ == "__main__":
    sys.exit(main())
