"""`shell`: a shell in an environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui

JSON_BUT = "only where nothing was started"
EPILOG = """\
Examples:
  bnbenv shell qlora        your shell, with the environment's programs first; leave it with `exit`
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="a name, or the path of an environment")


def run(args: Namespace, ui: Ui) -> int:
    """Open it."""
    from bnbenv.env.layout import Layout
    from bnbenv.env.switch import require_current
    from bnbenv.workflows.environment import existing
    from bnbenv.workflows.launch import launch, shell_command

    place = existing(args.name, Layout.find(os.environ))
    current = require_current(place)
    ui.progress(f"`{place.name}` in {current.directory}; `exit` leaves it")
    return launch(current, shell_command(os.environ), os.environ, name=place.name)
