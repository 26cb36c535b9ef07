"""`rollback`: back to the generation before."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bnbenv.cli.outcome import Outcome

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui

EPILOG = """\
Examples:
  bnbenv rollback qlora
  bnbenv rollback qlora --dry-run
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="a name, or the path of an environment")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done and change nothing")


def run(args: Namespace, ui: Ui) -> Outcome:
    """Switch."""
    from bnbenv.env.layout import Layout
    from bnbenv.workflows.change import rollback
    from bnbenv.workflows.environment import existing

    place = existing(args.name, Layout.find(os.environ))
    before, after = rollback(place, ui.progress, dry_run=args.dry_run)
    data = {
        "name": place.name,
        "from": before.directory.name if before else None,
        "to": after.directory.name,
        "path": str(after.directory),
        "dry_run": args.dry_run,
    }
    word = "would switch" if args.dry_run else "switched"
    return Outcome(data=data, text=f"{word} `{place.name}` to {after.directory.name}")
