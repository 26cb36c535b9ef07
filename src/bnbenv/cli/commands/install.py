"""`install`: add packages to an environment and to its lock."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bnbenv.cli.additions import check_packages
from bnbenv.cli.changing import add_changing, change_request, changed_outcome
from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.outcome import Outcome
    from bnbenv.cli.ui import Ui

EPILOG = """\
Examples:
  bnbenv install einops --in qlora                 beside what is there, and into its lock
  bnbenv install 'wandb>=0.20' evaluate --dry-run  only show what would change
  bnbenv install --requirements requirements.txt --in ./env
  bnbenv install autoawq --in qlora --anyway       although it is known to break the others
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("packages", metavar="PACKAGE", nargs="*", help="a requirement, such as 'einops>=0.8'")
    parser.add_argument(
        "--requirements",
        action="append",
        default=[],
        metavar="FILE",
        help="a requirements file; repeat for several",
    )
    add_changing(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Add them."""
    from bnbenv.workflows.install import install

    if not args.packages and not args.requirements:
        raise UsageError("nothing to install was named", hint="bnbenv install einops --in qlora")
    check_packages(args.packages, "install")
    located, asked = change_request(args, ui)
    return changed_outcome(install(located, asked, ui, os.environ, yes=args.yes), ui)
