"""`path`: where an environment is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bnbenv.cli.options import add_name
from bnbenv.cli.outcome import Outcome
from bnbenv.cli.redact import Verbatim

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui

EPILOG = """\
Examples:
  bnbenv path qlora                             the link, for editors
  source "$(bnbenv path qlora --real)/bin/activate"
  & "$(bnbenv path qlora --real)\\Scripts\\activate.ps1"     the same in PowerShell
  "$(bnbenv path qlora --python)" train.py
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_name(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--real", action="store_true", help="the current generation, which never changes")
    which.add_argument("--python", action="store_true", help="the interpreter of the current generation")


def run(args: Namespace, ui: Ui) -> Outcome:
    """Print it."""
    del ui
    from bnbenv.env.layout import Layout
    from bnbenv.env.switch import require_current
    from bnbenv.workflows.environment import existing

    place = existing(args.name, Layout.find(os.environ))
    current = require_current(place)
    # A path with a piece masked, because a variable that is called a key holds it, would lead nowhere.
    places = {"link": place.link, "path": current.directory, "python": current.python}
    data = {name: Verbatim(path) for name, path in places.items()}
    return Outcome(data=data, text=data["python" if args.python else "path" if args.real else "link"])
