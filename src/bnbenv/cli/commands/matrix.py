"""`matrix`: what the releases hold, and what works with what."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from bnbenv.cli.options import add_offline, add_target, add_yes
from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from bnbenv.cli.outcome import Outcome
    from bnbenv.cli.parser import Parser
    from bnbenv.cli.ui import Ui

EPILOG = """\
Examples:
  bnbenv matrix show                                      what works on this machine
  bnbenv matrix show --gpu "RTX 5090" --driver 570        and on another one
  bnbenv matrix show bitsandbytes 0.46.1                  the libraries of each wheel, and their kernels
  bnbenv matrix show torch 2.14.1                         the builds of a release
  bnbenv matrix show claims                               what guides say, and what was measured
  bnbenv matrix gpu "RTX 4090"                            what a GPU is
  bnbenv matrix diff 0.46.1 0.47.0                        what changed between two releases
  bnbenv matrix html -o matrix.html                       the whole matrix as one page that answers
  bnbenv matrix export --csv torch > torch.csv
  bnbenv matrix export --json > matrix.json
  bnbenv matrix check                                     hashes and what must hold between rows
  bnbenv matrix update --dry-run                          has the index what the matrix does not know?
  bnbenv matrix measure ./bitsandbytes-0.51.0-py3-none-manylinux_2_24_aarch64.whl
  bnbenv matrix measure qlora                             the libraries of an environment
  bnbenv matrix measure --index pytorch-cu126 --release 2.14.1
"""

# Action → the module that answers it, and what it is.
ACTIONS = {
    "show": ("show", "what works here, or a release of torch or bitsandbytes, or claims"),
    "gpu": ("show", "a GPU by name or PCI id"),
    "diff": ("diff", "two releases"),
    "export": ("export", "everything, or one part"),
    "html": ("export", "one page"),
    "check": ("data", "whether the data is sound"),
    "update": ("data", "measure releases that are newer than the data"),
    "measure": ("data", "a file, a directory, an environment, or an index"),
}


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    lines = "; ".join(f"{name}: {words}" for name, (_, words) in ACTIONS.items())
    parser.add_argument("action", metavar="ACTION", choices=tuple(ACTIONS), help=lines)
    parser.add_argument(
        "words", metavar="WORD", nargs="*", default=[], help="what the action is about; see the examples"
    )
    parser.gathers = "words"
    parser.add_argument("--all", action="store_true", help="show: every release, not each minor's newest")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="export: a table of `bitsandbytes` or `torch`")
    form.add_argument("--markdown", action="store_true", help="export: the same in Markdown")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="export: write there, not to stdout; html: not to matrix.html"
    )
    parser.add_argument(
        "--index", metavar="INDEX", help="update, measure: an index's name or address instead of the default"
    )
    parser.add_argument(
        "--release",
        action="append",
        default=[],
        metavar="VERSION",
        help="measure --index: only this release of torch; repeat for several",
    )
    parser.add_argument(
        "--every-platform",
        action="store_true",
        help="update, measure --index: every platform's files",
    )
    add_offline(parser)
    add_yes(parser)
    add_target(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Answer."""
    args.schema = f"matrix-{args.action}"
    given = {"csv": args.csv, "markdown": args.markdown}
    if args.action != "export" and (wrong := next((name for name in given if given[name]), None)):
        raise UsageError(
            f"`--{wrong}` belongs to `matrix export`", hint=f"bnbenv matrix export --{wrong} torch"
        )
    module = import_module(f"bnbenv.cli.matrix.{ACTIONS[args.action][0]}")
    outcome: Outcome = getattr(module, args.action)(args, ui)
    return outcome
