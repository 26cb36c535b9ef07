"""Records of the large proofs: which code a proof covered, when it ran and what it found."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

SCHEMA = 1
ROOT = Path(__file__).resolve().parent.parent
PROOFS = ROOT / "tests" / "proofs"


class ProofError(Exception):
    """A proof record is absent, unreadable or of another schema."""


@dataclass(slots=True, kw_only=True)
class Proof:
    """What one ``prove_*`` script found; grows row by row, so that a broken run can go on.

    Attributes:
        name: the script's name without its suffix.
        covered: path from the root of the checkout → sha256 of the file when the proof ran.
        rows: key → what happened for one planted fault, one point of a grid, one kill.
        counts: totals of the finished proof.
        misses: keys of the rows that did not come out as announced.
        complete: False while rows are missing.
        date: day of the last row (UTC, ISO 8601).
        seconds: the sum of the time all rows took.
        circumstances: what the proof ran on: versions, processor; never a path or a host name.
    """

    name: str
    covered: dict[str, str]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    misses: list[str] = field(default_factory=list)
    complete: bool = False
    date: str = ""
    seconds: float = 0.0
    circumstances: dict[str, str] = field(default_factory=dict)

    def add(self, key: str, row: Mapping[str, Any], *, seconds: float) -> None:
        """Store one row, dated today."""
        self.rows[key] = dict(row)
        self.seconds = round(self.seconds + seconds, 1)
        self.date = datetime.now(tz=timezone.utc).date().isoformat()


def cover(patterns: Iterable[str], *, root: Path = ROOT) -> dict[str, str]:
    """Hash the files that the glob patterns name.

    Args:
        patterns: relative to `root`; a pattern without a match is an error, as it proves nothing.
        root: the checkout.

    Returns:
        Path with forward slashes → sha256, sorted. Line ends count as one newline, so that a checkout on
        Windows hashes alike.

    Raises:
        ProofError: a pattern matches no file.
    """
    hashes: dict[str, str] = {}
    for pattern in patterns:
        matches = [path for path in root.glob(pattern) if path.is_file()]
        if not matches:
            raise ProofError(f"`{pattern}` names no file: the list of covered files is out of date")
        for path in matches:
            content = path.read_bytes().replace(b"\r\n", b"\n")
            hashes[path.relative_to(root).as_posix()] = hashlib.sha256(content).hexdigest()
    return dict(sorted(hashes.items()))


def changed(proof: Proof, patterns: Iterable[str], *, root: Path = ROOT) -> tuple[str, ...]:
    """The covered files that were changed, added or removed since `proof` was made."""
    now = cover(patterns, root=root)
    return tuple(sorted(path for path in {*now, *proof.covered} if now.get(path) != proof.covered.get(path)))


def load(name: str, *, directory: Path = PROOFS) -> Proof:
    """Read the record of the proof called `name`.

    Raises:
        ProofError: absent, no JSON, another schema, or keys that do not belong.
    """
    path = directory / f"{name}.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ProofError(f"no record `{path.name}`: run `python scripts/{name}.py`") from error
    except ValueError as error:
        raise ProofError(f"`{path.name}` is not JSON: {error}") from error
    if not isinstance(document, dict) or document.pop("schema", None) != SCHEMA:
        raise ProofError(f"`{path.name}` is not of schema {SCHEMA}")
    try:
        return Proof(**document)
    except TypeError as error:
        raise ProofError(f"`{path.name}`: {error}") from error


def resume(name: str, patterns: Iterable[str], *, root: Path = ROOT, directory: Path = PROOFS) -> Proof:
    """The unfinished record of the same code, or an empty one."""
    patterns = tuple(patterns)
    try:
        proof = load(name, directory=directory)
    except ProofError:
        return Proof(name=name, covered=cover(patterns, root=root))
    if proof.complete or changed(proof, patterns, root=root):
        return Proof(name=name, covered=cover(patterns, root=root))
    return proof


def dump(proof: Proof) -> str:
    """The text of the record: one row a line, so that a diff shows rows."""
    document = {"schema": SCHEMA, **asdict(proof)}
    lines = []
    for key, value in document.items():
        if key in {"covered", "rows"}:
            inner = ",\n".join(f"    {json.dumps(name)}: {json.dumps(row)}" for name, row in value.items())
            text = "{\n" + inner + "\n  }" if value else "{}"
        else:
            text = json.dumps(value)
        lines.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def save(proof: Proof, *, directory: Path = PROOFS) -> Path:
    """Write the record whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{proof.name}.json"
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    beside.write_text(dump(proof), encoding="utf-8", newline="\n")
    beside.replace(path)
    return path


def check(
    name: str, patterns: Iterable[str], *, root: Path = ROOT, directory: Path = PROOFS
) -> tuple[str, ...]:
    """Why the record of `name` cannot be relied on: absent, unfinished, with misses, or older than the code.

    Returns:
        One sentence a reason; empty when the proof stands.
    """
    try:
        proof = load(name, directory=directory)
        files = changed(proof, patterns, root=root)
    except ProofError as error:
        return (str(error),)
    reasons = []
    if not proof.complete:
        reasons.append(f"`{name}` was not run to its end: {len(proof.rows)} rows")
    if proof.misses:
        reasons.append(f"`{name}` missed: {', '.join(proof.misses)}")
    if files:
        reasons.append(f"`{name}` is older than {', '.join(files)}: run `python scripts/{name}.py`")
    return tuple(reasons)


def command_line(description: str | None) -> argparse.ArgumentParser:
    """The options that every proof of named cases has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, metavar="N", help="one case, chosen by N; records nothing")
    parser.add_argument("--only", metavar="CASE", help="one case, by name; records nothing")
    parser.add_argument("--check", action="store_true", help="only say whether the recorded proof stands")
    return parser


def tell_standing(name: str, patterns: Iterable[str]) -> int:
    """Print whether the record of `name` can be relied on; returns the exit code."""
    reasons = check(name, patterns)
    print("\n".join(reasons) or f"{name}: the recorded proof stands")
    return 1 if reasons else 0


def go_through(
    options: argparse.Namespace,
    name: str,
    patterns: Iterable[str],
    cases: Mapping[str, Callable[[], Mapping[str, Any]]],
) -> int:
    """Do what `command_line` was asked for: check the record, try one case, or run all that it lacks.

    Args:
        cases: key → what runs the case; its row holds `problems`, a list that is empty where all held, and
            may hold `skipped`, why it could not be run here.

    Returns:
        The exit code: 1 if anything did not hold.
    """
    patterns = tuple(patterns)
    if options.check:
        return tell_standing(name, patterns)
    if options.only is not None and options.only not in cases:
        raise SystemExit(f"no case `{options.only}`; there are {', '.join(cases)}")
    keys = list(cases) if options.only is None else [options.only]
    if options.sample is not None:
        keys = [keys[random.Random(options.sample).randrange(len(keys))]]
    if len(keys) == 1:
        return 1 if _told(keys[0], cases[keys[0]]())["problems"] else 0
    proof = resume(name, patterns)
    for key in keys:
        if key in proof.rows:
            continue
        started = time.monotonic()
        proof.add(key, _told(key, cases[key]()), seconds=time.monotonic() - started)
        save(proof)
    proof.misses = [key for key, row in proof.rows.items() if row["problems"]]
    skipped = sum(bool(row.get("skipped")) for row in proof.rows.values())
    proof.counts = {"cases": len(proof.rows), "skipped": skipped}
    proof.complete = set(proof.rows) == set(cases)
    save(proof)
    print(f"{len(proof.rows)} cases, {skipped} skipped, {len(proof.misses)} that did not hold")
    return 1 if proof.misses else 0


def _told(key: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
    print(f"{key}: {row.get('skipped') or '; '.join(row['problems']) or 'holds'}", flush=True)
    return row
