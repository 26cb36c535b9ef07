"""`prune`: delete old generations that nothing uses."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bnbenv.cli.deleting import agreed
from bnbenv.cli.options import add_yes
from bnbenv.cli.outcome import Outcome
from bnbenv.errors import UsageError
from bnbenv.words import counted

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui

EPILOG = """\
Examples:
  bnbenv prune                  all environments; one old generation of each is kept
  bnbenv prune qlora --keep 0
  bnbenv prune --dry-run
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="only this environment")
    parser.add_argument(
        "--keep", type=int, metavar="N", help="keep the newest N old ones (default 1, or configured)"
    )
    add_yes(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Delete them."""
    from bnbenv.env.layout import Layout
    from bnbenv.workflows.change import prune, prune_each
    from bnbenv.workflows.config import read_config
    from bnbenv.workflows.environment import all_places, existing

    layout = Layout.find(os.environ)
    keep = read_config().keep if args.keep is None else args.keep
    if keep < 0:
        raise UsageError("`--keep` is a number of generations, not negative", hint="bnbenv prune --keep 0")
    places = [existing(args.name, layout)] if args.name else list(all_places(layout))
    places = [place for place in places if place.form != "plain"]
    if args.name:
        planned = [(place, prune(place, ui.progress, keep=keep, dry_run=True)) for place in places]
    else:
        planned = prune_each(places, ui.progress, keep=keep, dry_run=True)
    count = sum(len(plan.removed) for _, plan in planned)
    asking = count > 0 and not args.dry_run
    changing = asking and agreed(f"Delete {counted(count, 'old generation')}?", args, ui)
    if changing:
        planned = prune_each((place for place, _ in planned), ui.progress, keep=keep, dry_run=False)
    data = {
        "keep": keep,
        "changed": changing,
        "environments": [
            {
                "name": place.name,
                "removed": [str(path) for path in plan.removed],
                "in_use": [{"path": str(path), "processes": list(pids)} for path, pids in plan.in_use],
                "not_ours": [str(path) for path in plan.not_ours],
            }
            for place, plan in planned
        ],
    }
    if asking and not changing:
        return Outcome(data=data, text="nothing was deleted")
    word = "deleted" if changing else "would delete"
    lines = [f"{word} {path}" for _, plan in planned for path in plan.removed]
    lines += [
        f"kept {path}: in use by process {', '.join(map(str, pids))}"
        for _, plan in planned
        for path, pids in plan.in_use
    ]
    lines += [f"kept {path}: another user's" for _, plan in planned for path in plan.not_ours]
    return Outcome(data=data, text="\n".join(lines) or "nothing to delete")
