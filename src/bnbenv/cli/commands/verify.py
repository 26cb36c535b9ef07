"""`verify`: does an environment compute rightly, here and now?"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.cli.options import add_environment
from bnbenv.cli.outcome import Outcome, Problem
from bnbenv.cli.verdicts import details, headline
from bnbenv.errors import EXIT_FINDINGS, EXIT_OK

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui

EPILOG = """\
Examples:
  bnbenv verify qlora                    the quick checks, as `create` makes them
  bnbenv verify qlora --level full       every check with every dtype and shape
  bnbenv verify qlora --level train      also train a tiny model
  bnbenv verify /path/to/venv --strict   any environment; exit 1 unless it passes
  bnbenv verify qlora --record seen.txt  keep what was found, as a block to paste into an issue
  bnbenv verify --export-script test.py  the self-test as one file, for a machine without bnbenv
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_environment(parser)
    parser.add_argument(
        "--level", choices=("quick", "full", "train"), default="quick", help="how much (default: quick)"
    )
    parser.add_argument("--cpu", action="store_true", help="judge the processor, whatever the machine has")
    parser.add_argument("--strict", action="store_true", help="exit 1 also for degraded and not-run")
    parser.add_argument(
        "--require-accelerator",
        action="store_true",
        help="exit 3 where the accelerator that it was made for is not visible",
    )
    parser.add_argument(
        "--record",
        metavar="FILE",
        type=Path,
        help="append a block with the stack, the devices, the driver, the date and what failed",
    )
    parser.add_argument(
        "--export-script",
        metavar="FILE",
        type=Path,
        help="only write the self-test as one program that needs torch and bitsandbytes alone",
    )


def run(args: Namespace, ui: Ui) -> Outcome:
    """Run the self-test."""
    from bnbenv.selftest.document import verdict_to_dict
    from bnbenv.workflows.environment import heal_interrupted, locate
    from bnbenv.workflows.verify import export, keep, record, verify

    if args.export_script is not None:
        export(args.export_script)
        return Outcome(
            data={"script": str(args.export_script.absolute())},
            text=f"{args.export_script}: run it there with `python {args.export_script.name}`, "
            "and paste the block that it prints",
        )
    located = locate(args.env, os.environ, Path.cwd())
    heal_interrupted(located, ui, os.environ)
    ui.say(f"environment: {located}")
    verified = verify(
        located,
        level=args.level,
        cpu=args.cpu,
        cwd=Path.cwd(),
        voice=ui,
        environ=os.environ,
        require_accelerator=args.require_accelerator,
    )
    keep(verified, ui, os.environ)
    data = {
        **verdict_to_dict(verified.verdict),
        "environment": {"path": str(located.directory), "python": str(located.python), "kind": located.kind},
    }
    if args.record is not None:
        record(verified, args.record)
        data["record"] = str(args.record.absolute())
    word = verified.verdict.verdict
    failed = word == "failed" or (args.strict and word != "passed")
    problems = []
    if word == "failed":
        problems.append(
            Problem(
                code="self-test-failed",
                message=f"{located.directory} does not compute rightly",
                hint=f"bnbenv doctor {shlex.quote(located.name)}",
            )
        )
    return Outcome(
        data=data,
        text="\n".join([headline(verified.verdict, ui), *details(verified.verdict, ui)]),
        exit_code=EXIT_FINDINGS if failed else EXIT_OK,
        problems=tuple(problems),
    )
