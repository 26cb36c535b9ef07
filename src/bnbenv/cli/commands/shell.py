"""`shell`: a shell in an environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bnbenv.cli.options import add_name

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
    add_name(parser)


def run(args: Namespace, ui: Ui) -> int:
    """Open it."""
    from bnbenv.env.layout import Layout
    from bnbenv.workflows.environment import existing, startable
    from bnbenv.workflows.launch import launch, shell_command

    place = existing(args.name, Layout.find(os.environ))
    current = startable(place, ui, os.environ)
    ui.progress(f"`{place.name}` in {current.directory}; `exit` leaves it")
    return launch(current, shell_command(os.environ), os.environ, name=place.name)
