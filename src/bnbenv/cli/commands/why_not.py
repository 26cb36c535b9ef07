"""`why-not`: why a release is not chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.cli.options import add_target, target_or_here
from bnbenv.cli.outcome import Outcome
from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui

EPILOG = """\
Examples:
  bnbenv why-not torch==2.14.1
  bnbenv why-not bitsandbytes==0.42.0 --profile inference
  bnbenv why-not torch==2.14.1 --gpu "Tesla V100" --driver 570
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("release", metavar="PACKAGE==VERSION", help="a release of torch or bitsandbytes")
    parser.add_argument(
        "--profile", default="qlora", metavar="PROFILE", help="for what purpose (default: qlora)"
    )
    parser.add_argument("--python", metavar="VERSION", help="with this Python")
    parser.add_argument("--cpu", action="store_true", help="for computing on the processor")
    parser.add_argument(
        "--without-index", action="append", default=[], metavar="NAME", help="as if this index were not there"
    )
    add_target(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Answer."""
    del ui
    from bnbenv.workflows.request import Wanted
    from bnbenv.workflows.resolve import load_matrix, why_not

    package, separator, version = args.release.partition("==")
    if not separator or not version.strip():
        raise UsageError(f"`{args.release}` names no single release", hint="bnbenv why-not torch==2.9.1")
    wanted = Wanted(
        profile=args.profile, python=args.python, cpu=args.cpu, without_index=tuple(args.without_index)
    )
    answer = why_not(package.strip().lower(), version.strip(), wanted, target_or_here(args), load_matrix())
    data = {
        **answer.data,
        "chosen": answer.chosen,
        "possible": answer.possible,
        "reasons": list(answer.reasons),
        "needs": list(answer.needs),
    }
    called = f"{answer.package} {answer.version}"
    if answer.chosen:
        lines = [f"{called} is what would be chosen"]
    elif answer.possible:
        lines = [
            f"{called} would work here, but it is not the first choice:",
            *(f"  {it}" for it in answer.reasons),
        ]
    else:
        lines = [f"{called} cannot serve here:", *(f"  {it}" for it in answer.reasons)]
        lines += [f"it would need {', '.join(answer.needs)}"] if answer.needs else []
    return Outcome(data=data, text="\n".join(lines))
