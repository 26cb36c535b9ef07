"""`rollback`: back to the generation before, or to any other."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bnbenv.cli.options import add_name
from bnbenv.cli.outcome import Outcome
from bnbenv.cli.spelling import spelt

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui

EPILOG = """\
Examples:
  bnbenv rollback qlora
  bnbenv rollback qlora --dry-run
  bnbenv rollback qlora --to 0f3a9c1d2e4b-2     forward again; `bnbenv info` names them
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_name(parser)
    parser.add_argument(
        "--to", metavar="GENERATION", help="an older or newer one by its name (default: the one before)"
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be done and change nothing")


def run(args: Namespace, ui: Ui) -> Outcome:
    """Switch."""
    from bnbenv.env.layout import Layout
    from bnbenv.workflows.change import command_to, rollback
    from bnbenv.workflows.environment import existing

    place = existing(args.name, Layout.find(os.environ))
    before, after = rollback(place, ui.progress, to=args.to, dry_run=args.dry_run)
    data = {
        "name": place.name,
        "from": before.directory.name if before else None,
        "to": after.directory.name,
        "path": str(after.directory),
        "dry_run": args.dry_run,
    }
    word = "would switch" if args.dry_run else "switched"
    text = f"{word} `{place.name}` to {after.directory.name}"
    if before is not None and before != after and not args.dry_run:
        text += f"; to return: {spelt(command_to(place, before))}"
    return Outcome(data=data, text=text)
