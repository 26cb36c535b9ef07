"""`remove`: delete an environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bnbenv.cli.deleting import agreed
from bnbenv.cli.options import add_name, add_yes
from bnbenv.cli.outcome import Outcome
from bnbenv.errors import EnvironmentProblem
from bnbenv.words import counted

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui

EPILOG = """\
Examples:
  bnbenv remove qlora
  bnbenv remove ./env --yes
  bnbenv remove qlora --dry-run
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_name(parser)
    parser.add_argument("--force", action="store_true", help="even while processes use it")
    add_yes(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Delete it."""
    from bnbenv.env.generation import list_generations, refuse_others
    from bnbenv.env.layout import Layout
    from bnbenv.workflows.change import remove
    from bnbenv.workflows.environment import existing

    layout = Layout.find(os.environ)
    try:
        place = existing(args.name, layout)
    except EnvironmentProblem as problem:
        if problem.code != "no-environment" or not (problem.hint or "").startswith("bnbenv create"):
            raise
        raise EnvironmentProblem(problem.message, hint="bnbenv list") from None  # not: to make it
    refuse_others(place)  # those of another user may be there and not be seen
    generations = [found.directory.name for found in list_generations(place)]
    data = {"name": place.name, "link": str(place.link), "generations": generations, "removed": False}
    what = f"`{place.name}` ({place.link}, {counted(len(generations), 'generation')})"
    if args.dry_run:
        return Outcome(data=data, text=f"would delete {what}")
    if not agreed(f"Delete {what}?", args, ui):
        return Outcome(data=data, text="nothing was deleted")
    remove(place, layout, ui.progress, force=args.force)
    return Outcome(data={**data, "removed": True}, text=f"deleted `{place.name}`")
