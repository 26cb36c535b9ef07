"""`example`: a script that suits this GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.cli.options import add_target, target_or_here
from bnbenv.cli.outcome import Outcome
from bnbenv.cli.redact import Verbatim

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui

EPILOG = """\
Examples:
  bnbenv example qlora -o train.py
  bnbenv run qlora -- python train.py
  bnbenv example inference --gpu "Tesla T4" --driver 550

Without `-o` it is printed. Windows PowerShell 5's `>` writes UTF-16, which Python does not read.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "profile", metavar="PROFILE", nargs="?", default="qlora", help="qlora (default), inference or int8"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write there, not to stdout; what is there already stays"
    )
    parser.add_argument("--cpu", action="store_true", help="for the processor, whatever the machine has")
    add_target(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Print it, or write it."""
    del ui

    from bnbenv.home import expanded
    from bnbenv.workflows.example import example, settings_for
    from bnbenv.workflows.new_file import write_new

    target = target_or_here(args)
    script = Verbatim(example(args.profile, target, cpu=args.cpu))
    chosen = settings_for(target, cpu=args.cpu)
    data = {
        "profile": args.profile,
        "target": target.name,
        "dtype": chosen.dtype,
        "attention": chosen.attention,
        "optimiser": chosen.optimiser,
        "script": script,
    }
    if args.output is None:
        return Outcome(data=data, text=script)
    file = expanded(args.output, "`--output`")
    write_new(file, script)
    return Outcome(data={**data, "file": str(file.absolute())}, text=f"wrote {file}")
