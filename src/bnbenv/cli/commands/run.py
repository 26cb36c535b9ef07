"""`run`: a command in an environment."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from bnbenv.cli.options import add_name
from bnbenv.errors import BnbenvError, UsageError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui

JSON_BUT = "only where nothing was started"
EPILOG = """\
Examples:
  bnbenv run qlora -- python train.py --epochs 3
  bnbenv run qlora -- python -m bitsandbytes
  bnbenv run ./env -- accelerate launch train.py

The exit code is the command's own; 128 + N where signal N ended it.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_name(parser)
    parser.add_argument("words", metavar="-- COMMAND", nargs="*", help="the command, word by word")


def run(args: Namespace, ui: Ui) -> int:
    """Run it."""
    from bnbenv.env.layout import Layout
    from bnbenv.workflows.environment import existing, startable
    from bnbenv.workflows.launch import launch

    words: list[str] = args.tail
    try:
        place = existing(args.name, Layout.find(os.environ))
    except BnbenvError:
        from bnbenv.cli.guidance import program_for_name

        if (meant := program_for_name(args.name, words)) is not None:
            raise meant from None
        raise
    if not words:
        raise UsageError("no command was given", hint=f"bnbenv run {shlex.quote(args.name)} -- python")
    current = startable(place, ui, os.environ)
    ui.detail(f"in {current.directory}")
    code = launch(current, words, os.environ, name=place.name)
    if ui.log is not None:
        ui.log.ran(words, code)
    return code
