"""Checks compat/ without a network: every file reads, is in its canonical form, and the rows agree.

python scripts/check_compat.py [DIRECTORY]
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from _refresh import COMPAT
from bnbenv.doctor.derived import NAMES as DERIVED
from bnbenv.doctor.reason import COMPARISON
from bnbenv.errors import DataError
from bnbenv.matrix import invariants
from bnbenv.matrix.load import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnbenv.matrix.matrix import Matrix


def check_symptoms(matrix: Matrix) -> Iterator[str]:
    """Symptoms whose patterns could run away, and rules that name what is not there."""
    causes = {row.id for row in matrix.causes}
    symptoms = {row.id for row in matrix.symptoms}
    for symptom in matrix.symptoms:
        for literal in symptom.literals:
            if literal != literal.lower() or len(literal) < 2:
                yield f"symptom {symptom.id}: {literal!r} is not in lower case, or too short"
        try:
            re.compile(symptom.pattern)
        except re.error as error:
            yield f"symptom {symptom.id}: {error}"
        if re.search(
            r"(?<!\\)(?:\\\\)*[*+](?!\])|\{\d+,\}", re.sub(r"\[(?:\\.|[^\]])*\]|\\.", "x", symptom.pattern)
        ):
            yield f"symptom {symptom.id}: a repeat of its pattern has no bound"
    for rule in matrix.implications:
        unknown = {
            condition
            for condition in (*rule.all, *rule.any, *rule.none)
            if condition not in symptoms | DERIVED and not COMPARISON.fullmatch(condition)
        }
        if unknown:
            yield f"implication {rule.id}: nothing is called {', '.join(sorted(unknown))}"
        if rule.cause not in causes:
            yield f"implication {rule.id}: there is no cause {rule.cause}"
    for question in matrix.questions:
        if unknown := {*question.all, *question.none} - DERIVED:
            yield f"question {question.fact}: nothing is called {', '.join(sorted(unknown))}"
    named = {cause for row in matrix.precedences for cause in (row.cause, *row.over)}
    yield from (f"precedences: there is no cause {cause}" for cause in sorted(named - causes))


def check(directory: Path) -> list[str]:
    """All faults of a directory."""
    faults = invariants.check(directory)
    try:
        matrix = load(directory=directory)
    except DataError:
        return faults  # told above
    return [*faults, *check_symptoms(matrix)]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, nargs="?", default=COMPAT, metavar="DIRECTORY")
    directory = parser.parse_args(arguments).directory
    if not directory.is_dir():
        parser.error(f"there is no directory {directory}")
    faults = check(directory)
    for fault in faults:
        print(fault)
    print(f"{len(faults)} faults in {directory.name}/", file=sys.stderr)
    return 6 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
