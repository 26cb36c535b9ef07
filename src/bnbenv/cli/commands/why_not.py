"""`why-not`: why a release is not chosen."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from bnbenv.cli.findings import findings_text
from bnbenv.cli.options import add_target, target_or_here
from bnbenv.cli.outcome import Outcome

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
    from bnbenv.workflows.config import read_config
    from bnbenv.workflows.request import Wanted
    from bnbenv.workflows.resolve import known_indexes, load_matrix, why_not

    wanted = Wanted(
        profile=args.profile, python=args.python, cpu=args.cpu, without_index=tuple(args.without_index)
    )
    target = target_or_here(args)
    package, _, release = args.release.partition("==")
    matrix = load_matrix(target, release=release.strip() if package.strip() == "bitsandbytes" else None)
    known = known_indexes(wanted, matrix, read_config().mirrors, os.environ)
    data = why_not(args.release, wanted, target, matrix, known)
    return Outcome(data=data, text=_text(data, ui))


def _text(data: dict[str, Any], ui: Ui) -> str:
    from bnbenv.cli.commands.resolve import indexes_text, not_taken_text

    if data["chosen"]:
        return "\n".join([f"{data['pin']} is what would be chosen", *indexes_text(data, ui)])
    if data["possible"]:
        lines = [f"{data['pin']} would work, but it is not the first choice"]
    else:
        lines = [f"{data['pin']} cannot serve"]
    lines += findings_text(data["findings"], ui)
    lines += [not_taken_text(row) for row in data["not_taken"]]
    if data["needs"]:
        lines.append(f"it would need {', '.join(data['needs'])}")
    if data["instead"]:
        torch, wheel = data["instead"]["torch"], data["instead"]["bitsandbytes"]
        beside = f" with bitsandbytes {wheel['version']}" if wheel else ""
        lines.append(f"chosen instead: torch {torch['version']} ({torch['build']}){beside}")
    return "\n".join([*lines, *indexes_text(data, ui)])
