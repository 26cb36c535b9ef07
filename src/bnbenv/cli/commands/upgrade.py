"""`upgrade`: newer releases in an environment, and in its lock."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bnbenv.cli.additions import check_packages
from bnbenv.cli.changing import add_changing, change_request, changed_outcome

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.outcome import Outcome
    from bnbenv.cli.ui import Ui

EPILOG = """\
Examples:
  bnbenv upgrade --in qlora                  the newest stack that serves this machine
  bnbenv upgrade transformers --in qlora     this package alone; the others stay where they can
  bnbenv upgrade 'torch==2.12.0' --in qlora  another torch, with what fits it
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "packages",
        metavar="PACKAGE",
        nargs="*",
        help="a package, or a requirement that it shall meet (default: everything)",
    )
    add_changing(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Renew them."""
    from bnbenv.workflows.install import upgrade

    check_packages(args.packages, "upgrade")
    args.requirements = []
    located, asked = change_request(args, ui)
    return changed_outcome(upgrade(located, asked, ui, os.environ, yes=args.yes), ui)
