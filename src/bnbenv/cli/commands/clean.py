"""`clean`: delete what interrupted commands left, old logs, and what bnbenv can make again."""

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
  bnbenv clean
  bnbenv clean --dry-run

uv's cache is uv's: `uv cache clean` empties it.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_yes(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Delete it."""
    from bnbenv.env.layout import Layout
    from bnbenv.workflows.change import clean

    layout = Layout.find(os.environ)
    found = clean(layout, ui.progress, dry_run=True)
    what = [
        *([counted(len(found.half_made), "half-made generation")] if found.half_made else []),
        *(
            ["1 log or cache" if len(found.files) == 1 else f"{len(found.files)} logs and caches"]
            if found.files
            else []
        ),
    ]
    question = f"Delete {' and '.join(what)}?"
    anything = bool(found.half_made or found.files)
    declined = anything and not args.dry_run and not agreed(question, args, ui)
    going = not args.dry_run and not declined
    if going:  # nothing to delete, but maybe a junction that can follow now
        found = clean(layout, ui.progress, dry_run=False)
    changing = going and anything
    data = {
        "changed": changing,
        "half_made": [str(path) for path in found.half_made],
        "files": [str(path) for path in found.files],
    }
    if declined:
        return Outcome(data=data, text="nothing was deleted")
    word = "deleted" if changing else "would delete"
    lines = [f"{word} {path}" for path in (*found.half_made, *found.files)]
    return Outcome(
        data=data,
        text="\n".join(lines) or f"nothing {'was deleted' if found.stays else 'to delete'}",
        exit_code=EXIT_EXTERNAL if found.stays else EXIT_OK,
        problems=tuple(not_deleted(path) for path in found.stays),
    )
