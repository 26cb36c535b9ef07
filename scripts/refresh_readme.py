"""Writes the README's tables from the records they report, so that no figure can drift.

Between `<!-- table: NAME -->` and `<!-- /table -->` stands what the function of that name returns.

    python scripts/refresh_readme.py           # shows a diff, and exits with 1 if there is one
    python scripts/refresh_readme.py --write   # writes it
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _measured
import _proof

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

README = Path(__file__).resolve().parents[1] / "README.md"
_TABLE = re.compile(r"(<!-- table: (?P<name>[a-z-]+) -->\n).*?(<!-- /table -->)", re.DOTALL)
_PROOFS = {
    "prove_selftest": "faults planted in bitsandbytes, and unmutated releases",
    "prove_create": "ways to hurt `create`: disks, networks, caches, indexes, names",
    "prove_kill": "SIGKILLs of `create`, of bnbenv alone and of its process group",
    "prove_faults": "faults planted in real environments: named by doctor, mended or rightly refused",
    "prove_healthy": "healthy environments made in many ways: doctor finds nothing in them",
    "prove_guard": "accidents of users with real pip and uv: refused, or found and mended",
    "prove_lock": "locks of a fleet built by three installers; `sync` killed, cheated and cut off",
    "prove_grid": "simulated machines against an independent oracle",
    "prove_readers": "damaged wheels, libraries and models against the readers",
    "prove_memory": "what `memory` tells against bitsandbytes, autograd and the system",
}


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _records() -> dict[str, _proof.Proof]:
    found = {}
    for name in _PROOFS:
        try:
            found[name] = _proof.load(name)
        except _proof.ProofError:
            continue
    return found


def proofs() -> str:
    """One line a proof."""
    rows = []
    for name, proof in _records().items():
        counts = ", ".join(f"{value} {key}" for key, value in proof.counts.items())
        missed = ", ".join(proof.misses) or "none"
        rows.append((f"`scripts/{name}.py`", _PROOFS[name], counts, missed, proof.date))
    return table(("proof", "of what", "counts", "missed", "date"), rows)


def faults() -> str:
    """Every planted fault, the check that had to catch it, and what did."""
    record = _records().get("prove_selftest")
    rows = []
    # Several run at a time and end in any order: a table sorted by what is said of each diffs well.
    for key, row in sorted(record.rows.items(), key=_by_catcher) if record else ():
        kind, _, name = key.partition("/")
        if kind == "fault":
            caught = ", ".join(row["caught_by"][:2]) or "nothing"
            rows.append((name.replace("-", " "), row["catcher"], f"`{row['expected']}`", caught))
    return table(("fault", "level", "must be caught by", "caught by"), rows)


def _by_catcher(item: tuple[str, dict[str, Any]]) -> tuple[str, ...]:
    key, row = item
    return row.get("catcher", ""), row.get("expected", ""), key


def releases() -> str:
    """What the self-test says of unchanged releases."""
    record = _records().get("prove_selftest")
    rows = []
    for key, row in sorted(record.rows.items()) if record else ():
        kind, _, name = key.partition("/")
        if kind == "release":
            rows.append((name, row["full"], row["train"], ", ".join(row["faults"]) or "none"))
    return table(("bitsandbytes, unchanged", "full", "train", "listed faults met"), rows)


def repairs() -> str:
    """Every fault of the laboratory, the cause that had to be named, and what came of it."""
    record = _records().get("prove_faults")
    if record is None:
        return "A whole run is not recorded yet.\n"
    rows = []
    for name, row in sorted(record.rows.items()):
        where = {"ours": "bnbenv's", "plain": "bnbenv's, a plain directory", "venv": "any venv"}[row["kind"]]
        came = "missed" if row["problems"] else row["skipped"] or row["outcome"]
        proven = row["verdict"] or "not needed"
        rows.append(
            (
                name.removesuffix("-of-ours").removesuffix("-in-a-plain-directory").replace("-", " "),
                where,
                f"`{row['code']}`",
                came,
                proven,
            )
        )
    return table(("fault", "environment", "must be named", "came of it", "self-test"), rows)


def measured() -> str:
    """The surprises in the matrix, with the files that show them."""
    rows = []
    for surprise in _measured.surprises():
        files = (source.partition(" sha256:") for source in surprise.evidence)
        rows.append((surprise.what, "<br>".join(f"`{name}` {digest[:16]}" for name, _, digest in files)))
    return table(("what was found", "read from (wheel, first digits of its SHA-256)"), rows)


def claims() -> str:
    """What guides say, and what was measured or read instead."""
    from bnbenv.matrix.load import load

    rows = load("claims", directory=_measured.COMPAT).claims
    return table(("said", "verdict", "found"), ((row.claim, row.verdict, row.evidence) for row in rows))


def uv() -> str:
    """What uv's choice of an index and the judge's come to on the same hosts."""
    record = json.loads((_proof.PROOFS / "compare_uv.json").read_text(encoding="utf-8"))
    words = {True: "runs", False: "would not run", None: "not known"}
    rows = [
        (
            row["host"],
            row["uv"] or "asks no index",
            words[row["works"]] + (f": {row['why']}" if row["works"] is False else ""),
            row["ours"] or "nothing serves it",
        )
        for row in record["rows"]
    ]
    return table(("host", f"uv {record['uv']}", "which", "bnbenv"), rows)


def reports() -> str:
    """What `check` foretells of failures that people reported, and of pairs that are known to work."""
    record = json.loads((_proof.PROOFS / "score_check.json").read_text(encoding="utf-8"))
    about = (
        f"{record['reports']} reported failures, of which {record['elsewhere']} are about something else "
        f"and {record['silent']} name too little"
    )
    return table(
        ("of", "asked", "outcome"),
        [
            (
                about,
                str(record["asked"]),
                f"{record['foretold']} foretold",
            ),
            *((f"of those, missed: {reason}", "", str(count)) for reason, count in record["missed"].items()),
            (
                "published pairs of torch and bitsandbytes, on each GPU that both serve",
                str(record["pairs"]),
                f"{record['false_alarms']} false alarms",
            ),
        ],
    )


def accidents() -> str:
    """What users do to an environment, and what came of it, before and with the guard."""
    record = _records().get("prove_guard")
    rows = []
    for name, row in record.rows.items() if record else ():
        before = ", ".join(row["before"][:2]) + (" …" if len(row["before"]) > 2 else "")
        if row["harm"]:
            came = f"{', '.join(row['harm'][:1])}; found: {', '.join(row['found'][:2])}; mended by `repair`"
        else:
            came = "refused, unharmed"
        rows.append((name, f"`{row['command']}`", before or "no harm", came))
    return table(("accident", "command", "without the guard", "with the guard"), rows)


def variants() -> str:
    """Which variants of the proof's fleet were locked for real, and which against stand-ins."""
    record = _records().get("prove_lock")
    seen = record.rows.get("eight-targets-and-more", {}).get("seen", {}) if record else {}
    rows = [
        (
            f"`pylock.{name}.toml`",
            row["torch"],
            ", ".join(row["machines"]),
            str(row["packages"]),
            row["locked_against"],
        )
        for name, row in sorted(seen.items())
    ]
    return table(("lock", "torch", "machines", "packages", "torch was locked against"), rows)


def coexistence() -> str:
    """Which packages resolve, install, import and leave peft's adapters alone beside bitsandbytes."""
    from bnbenv.matrix.load import load

    shown = {"yes": "yes", "no": "**no**", "not-run": "not run"}
    rows = []
    for row in load("coexistence", directory=Path(__file__).resolve().parents[1] / "compat").coexistence:
        packages = ", ".join(f"{name} {version}".strip() for name, version in row.packages.items())
        beside = ", ".join(
            f"{name} {row.beside[name]}" for name in ("transformers", "peft") if name in row.beside
        )
        steps = (row.resolves, row.installs, row.imports, row.quantised_layer, row.other_layer)
        rows.append((packages or "(nothing else)", beside, *(shown[step] for step in steps)))
    head = ("package", "beside", "resolves", "installs", "imports", "4-bit layer", "other layer")
    return table(head, rows)


def kernels() -> str:
    """Which toolkits compile GPTQModel's kernels for which torch."""
    record = json.loads((_proof.PROOFS / "measure_kernels.json").read_text(encoding="utf-8"))
    rows = [
        (
            f"{row['torch'].partition('+')[0]}, CUDA {row['cuda']}",
            f"{row['nvcc']}, {row['toolkit']}",
            row["kernel"],
            f"{row['cpu_seconds']} s" if row["compiled"] else f"**no**: {row['error']}",
            "yes" if row["foretold"] == row["compiled"] else "**no**",
        )
        for row in record["rows"]
    ]
    return table(("torch", "toolkit", "kernel", "compiles, in processor time", "foretold"), rows)


def memory() -> str:
    """How far what `memory` tells is from what was measured, by architecture."""
    record = _records().get("prove_memory")
    if record is None:
        return "A whole run is not recorded yet.\n"
    by_name: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for key, row in record.rows.items():
        kind, name, *_ = key.split()
        by_name.setdefault(name, {}).setdefault(kind, []).append(row)
    rows = []
    for name, found in by_name.items():
        exact = [not row["wrong"] for row in found.get("bytes", [])]
        steps = [not row["wrong"] for row in found.get("train", [])]
        kept = [error for row in found.get("train", []) for error in row["kept_errors"]]
        peaks = [row[part] for row in found.get("peak", []) for part in ("load_error", "working_error")]
        rows.append(
            (
                f"`{name}`",
                f"exact in {sum(exact)} of {len(exact)} schemes",
                ("exact" if all(steps) else "**wrong**") if steps else "not measured",
                _worst(kept),
                _worst(peaks),
            )
        )
    made = ", ".join(f"{name} {value}" for name, value in record.circumstances.items())
    head = (
        "model type",
        "bytes of each tensor",
        "gradients and moments",
        "kept by a layer",
        "peak of the host",
    )
    return f"Measured with {made}.\n\n" + table(head, rows)


def _worst(errors: list[float]) -> str:
    return f"{max(errors, key=abs):+.1%}" if errors else "not measured"


TABLES: dict[str, Callable[[], str]] = {
    "measured": measured,
    "claims": claims,
    "accidents": accidents,
    "variants": variants,
    "coexistence": coexistence,
    "kernels": kernels,
    "proofs": proofs,
    "faults": faults,
    "releases": releases,
    "repairs": repairs,
    "memory": memory,
    "uv": uv,
    "reports": reports,
}


def filled(text: str) -> str:
    """The README with every table written anew."""
    return _TABLE.sub(lambda match: match[1] + TABLES[match["name"]]() + match[3], text)


def main() -> int:
    """Compare or write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write the README")
    options = parser.parse_args()
    old = README.read_text(encoding="utf-8")
    new = filled(old)
    if old == new:
        print("README.md: unchanged")
        return 0
    sys.stdout.writelines(
        difflib.unified_diff(
            old.splitlines(keepends=True), new.splitlines(keepends=True), "README.md", "README.md, new"
        )
    )
    if options.write:
        README.write_text(new, encoding="utf-8", newline="\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
