"""`profiles`: what an environment can be for, who wants it, what it needs and what it keeps out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.cli.outcome import Outcome
from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import Profile

EPILOG = """\
Examples:
  bnbenv profiles                what there is, your own included
  bnbenv profiles gptq           one of them: its package sets, what it needs, what it keeps out
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("profile", metavar="PROFILE", nargs="?", help="show this one (default: list all)")


def run(args: Namespace, ui: Ui) -> Outcome:
    """Show them."""
    from bnbenv.matrix.load import load
    from bnbenv.workflows.profiles import definition_of, profile_row, read_definitions

    matrix = load("profiles", "hazards")
    file, tables = read_definitions(Path.cwd())
    own = {name: definition_of(name, Path.cwd()) for name in tables}
    rows = [*matrix.profiles]
    rows += [profile_row(name, table, matrix) for name, table in own.items() if table is not None]
    if args.profile is not None:
        rows = [row for row in rows if row.name == args.profile]
        if not rows:
            raise UsageError(
                f"there is no profile `{args.profile}`", hint="bnbenv profiles", code="bad-request"
            )
    shown = [_document(row, matrix) for row in rows]
    data = {"profiles": shown, "file": str(file) if file else None}
    return Outcome(data=data, text=_one(shown[0]) if args.profile else _all(shown, ui))


def _document(row: Profile, matrix: Matrix) -> dict[str, Any]:
    needs = []
    if row.devices == "gpu":
        needs.append("a GPU")
    if row.min_capability is not None:
        needs.append(f"on NVIDIA compute capability {row.min_capability} or newer")
    if row.builds:
        needs.append("a C++ compiler, to install it")
        needs.append(
            f"the CUDA toolkit where it runs: {', '.join(row.builds)} compiles its kernels at first use"
        )
    return {
        "name": row.name,
        "summary": row.summary,
        "wanted_by": row.wanted_by,
        "note": row.note or None,
        "needs": needs,
        "keeps_out": {name: _why_apart(name, row, matrix) for name in row.excludes},
        "sets": [
            {
                "name": it.name,
                "python": it.python,
                "torch": it.torch,
                "cuda": it.cuda or None,
                "platforms": list(it.platforms),
                "packages": dict(it.packages),
            }
            for it in row.sets
        ],
        "proven": row.provenance.how == "measured",
        "source": row.provenance.source,
    }


def _why_apart(name: str, row: Profile, matrix: Matrix) -> str:
    """What a package does beside the newest of the profile's sets that it breaks, and beside what."""
    from bnbenv.judge.hazards import hazard_beside

    found = (hazard_beside(name, group.packages, matrix) for group in row.sets)
    told = next((hazard for hazard in found if hazard is not None), None)
    if told is None:
        return "kept apart"
    beside = " and ".join(f"{other} {versions}".strip() for other, versions in told.when.items())
    return f"beside {beside}: {told.mechanism}"


def _all(profiles: list[dict[str, Any]], ui: Ui) -> str:
    return ui.table([(it["name"], _line(it)) for it in profiles])


def _line(profile: dict[str, Any]) -> str:
    return str(profile["summary"]) + (f"; for {profile['wanted_by']}" if profile["wanted_by"] else "")


def _one(profile: dict[str, Any]) -> str:
    lines = [f"{profile['name']}: {profile['summary']}"]
    if profile["wanted_by"]:
        lines.append(f"for {profile['wanted_by']}")
    if profile["note"]:
        lines.append(profile["note"])
    lines += [f"needs {need}" for need in profile["needs"]]
    lines += ["", "Package sets, newest first"]
    for group in profile["sets"]:
        packages = ", ".join(f"{name}{spec}" for name, spec in group["packages"].items())
        cuda = f" with CUDA {group['cuda']}" if group["cuda"] else ""
        where = f", on {' and '.join(group['platforms'])} alone" if group["platforms"] else ""
        lines.append(f"  Python {group['python']}, torch {group['torch']}{cuda}{where}: {packages}")
    lines.append(f"  {profile['source']}")
    if profile["keeps_out"]:
        lines += ["", "Keeps out"]
        lines += [f"  {name}: {why}" for name, why in profile["keeps_out"].items()]
    return "\n".join(lines)
