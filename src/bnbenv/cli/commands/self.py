"""`self`: bnbenv itself, which for now means taking it away."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bnbenv.cli.deleting import agreed, not_deleted
from bnbenv.cli.options import add_yes
from bnbenv.cli.outcome import Outcome
from bnbenv.errors import EXIT_EXTERNAL, EXIT_OK
from bnbenv.words import counted

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui

EPILOG = """\
Examples:
  bnbenv self uninstall --dry-run      list everything that bnbenv owns on this machine
  bnbenv self uninstall --keep-environments
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("action", metavar="ACTION", choices=("uninstall",), help="uninstall")
    parser.add_argument(
        "--keep-environments", action="store_true", help="leave the environments: they work without bnbenv"
    )
    add_yes(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """List what bnbenv owns, and delete it."""
    from bnbenv.workflows.uninstall import left, owned, uninstall

    args.schema = "self-uninstall"
    items = owned(os.environ, keep_environments=args.keep_environments)
    listing = (
        ui.table([(item.kind, str(item.path)) for item in items]) if items else "bnbenv owns nothing here"
    )
    stays = left(os.environ)
    kept = "".join(f"\nleft alone: {it.path}: {it.why}" for it in stays)
    data = {
        "owned": [{"kind": item.kind, "path": str(item.path)} for item in items],
        "left": [{"path": str(it.path), "why": it.why} for it in stays],
        "removed": [],
        "dry_run": args.dry_run,
        "program": "remove the program itself with the tool that installed it: pip, pipx or uv",
    }
    if args.dry_run:
        return Outcome(data=data, text=f"{listing}{kept}\n{data['program']}")
    if items:
        ui.say(f"{listing}{kept}")
    if items and not agreed(f"Delete {counted(len(items), 'thing')}?", args, ui):
        return Outcome(data=data, text="nothing was deleted")
    removed = uninstall(items, os.environ, ui.progress)
    failed = [item.path for item in items if item.path not in removed]
    return Outcome(
        data={**data, "removed": [str(path) for path in removed]},
        text=f"deleted {counted(len(removed), 'thing')}; {data['program']}",
        exit_code=EXIT_EXTERNAL if failed else EXIT_OK,
        problems=tuple(not_deleted(path) for path in failed),
    )
