"""`list`: the environments."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bnbenv.cli.outcome import Outcome

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui

EPILOG = """\
Examples:
  bnbenv list
  bnbenv list --json
"""


def add_arguments(parser: ArgumentParser) -> None:
    """No options of its own."""
    del parser


def run(args: Namespace, ui: Ui) -> Outcome:
    """List them."""
    del args
    from bnbenv.env.layout import Layout
    from bnbenv.workflows.listing import list_environments, words_of

    layout = Layout.find(os.environ)
    entries = [entry.to_dict() for entry in list_environments(layout)]
    data = {"home": str(layout.home), "environments": entries}
    if not entries:
        return Outcome(data=data, text="no environments yet; `bnbenv create qlora` makes one")
    rows = [words_of(entry) for entry in entries]
    return Outcome(
        data=data, text=ui.table(rows, header=("name", "status", "torch", "bitsandbytes", "where"))
    )
