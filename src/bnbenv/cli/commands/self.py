"""`self`: bnbenv itself: the schemas of its answers, how it is renewed, and what it owns here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.cli.deleting import agreed, not_deleted
from bnbenv.cli.options import add_yes
from bnbenv.cli.outcome import Outcome
from bnbenv.errors import EXIT_EXTERNAL, EXIT_OK, UsageError
from bnbenv.words import counted

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from bnbenv.cli.ui import Ui
    from bnbenv.workflows.uninstall import Owned

ACTIONS = ("schema", "upgrade", "uninstall")
EPILOG = """\
Examples:
  bnbenv self schema                   every answer that `--json` gives has a JSON Schema; their names
  bnbenv self schema create            one of them
  bnbenv self upgrade                  the line that takes a newer bnbenv; environments stay as they are
  bnbenv self uninstall --dry-run      list everything that bnbenv owns on this machine
  bnbenv self uninstall --keep-environments
"""
_SHOWN = 3  # files of one kind


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("action", metavar="ACTION", choices=ACTIONS, help=", ".join(ACTIONS))
    parser.add_argument("name", metavar="ANSWER", nargs="?", help="schema: the answer that is meant")
    parser.add_argument(
        "--keep-environments",
        action="store_true",
        help="uninstall: leave the environments: they work without bnbenv",
    )
    add_yes(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Do what the action says."""
    args.schema = f"self-{args.action}"
    if args.name is not None and args.action != "schema":
        raise UsageError(f"`self {args.action}` takes no word: `{args.name}`", hint="bnbenv self --help")
    if args.action == "schema":
        return _schema(args.name)
    return _upgrade() if args.action == "upgrade" else _uninstall(args, ui)


def _upgrade() -> Outcome:
    """The line to type: what runs cannot replace itself on every system."""
    from bnbenv import __version__
    from bnbenv.tool import tooling

    found = tooling()
    data = {"version": __version__, "tool": found.tool, "command": found.upgrade}
    return Outcome(data=data, text=found.upgrade)


def _schema(name: str | None) -> Outcome:
    from importlib.resources import files

    directory = files("bnbenv").joinpath("schemas")
    names = sorted(
        entry.name.removesuffix(".json") for entry in directory.iterdir() if entry.name[-5:] == ".json"
    )
    names.remove("common")  # stands within each
    if name is None:
        return Outcome(data={"names": names, "document": None}, text="\n".join(names))
    import json

    wanted = name.removeprefix("bnbenv.").removesuffix("/1").replace(" ", "-")
    if wanted not in names:
        from bnbenv.cli.parser import nearest

        near = nearest(wanted, names)
        raise UsageError(
            f"there is no answer `{name}`" + (f"; did you mean `{near}`?" if near else ""),
            hint=f"bnbenv self schema {near}" if near else "bnbenv self schema, which names them",
        )

    def read(part: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(directory.joinpath(f"{part}.json").read_text(encoding="utf-8"))
        return found

    # A bundle, as the standard has it: what is referred to by its `$id` stands in the document itself.
    document = {**read(wanted), "$defs": {"common": read("common")}}
    return Outcome(
        data={"names": names, "document": document}, text=json.dumps(document, indent=2), document=True
    )


def _uninstall(args: Namespace, ui: Ui) -> Outcome:
    """List what bnbenv owns, and delete it."""
    from bnbenv.tool import tooling
    from bnbenv.workflows.uninstall import left, owned, uninstall

    items = owned(os.environ, keep_environments=args.keep_environments)
    listing = ui.table(_rows(items)) if items else "bnbenv owns nothing here"
    stays = left(os.environ)
    kept = "".join(f"\nleft alone: {it.path}: {it.why}" for it in stays)
    data = {
        "owned": [{"kind": item.kind, "path": str(item.path)} for item in items],
        "left": [{"path": str(it.path), "why": it.why} for it in stays],
        "removed": [],
        "dry_run": args.dry_run,
        "program": tooling().uninstall,
    }
    program = f"The program itself goes by:\n  {data['program']}"
    if args.dry_run:
        return Outcome(data=data, text=f"{listing}{kept}\n{program}")
    if items:
        ui.say(f"{listing}{kept}")
    if items and not agreed(f"Delete {counted(len(items), 'thing')}?", args, ui):
        return Outcome(data=data, text="nothing was deleted")
    removed = uninstall(items, os.environ, ui.progress)
    failed = [item.path for item in items if item.path not in removed]
    return Outcome(
        data={**data, "removed": [str(path) for path in removed]},
        text=f"deleted {counted(len(removed), 'thing')}\n{program}",
        exit_code=EXIT_EXTERNAL if failed else EXIT_OK,
        problems=tuple(not_deleted(path) for path in failed),
    )


def _rows(items: Sequence[Owned]) -> list[tuple[str, str]]:
    """One line a thing; many logs of one directory are counted."""
    logs = [item.path for item in items if item.kind == "log"]
    rows: list[tuple[str, str]] = [
        (item.kind, str(item.path)) for item in items if item.kind != "log" or len(logs) <= _SHOWN
    ]
    if len(logs) > _SHOWN:
        at = next(place for place, item in enumerate(items) if item.kind == "log")
        rows.insert(at, ("log", f"{len(logs)} of them in {Path(os.path.commonpath(logs))}"))
    return rows
