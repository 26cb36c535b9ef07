"""`split`: take a mixed environment apart, one environment per family."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.cli.options import add_environment, add_offline, add_target, add_yes, other_target
from bnbenv.cli.outcome import Outcome, Problem
from bnbenv.cli.spelling import spelt
from bnbenv.errors import EXIT_FINDINGS, EXIT_OK

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui
    from bnbenv.workflows.split import Part, Split

EPILOG = """\
Examples:
  bnbenv split ./.venv --dry-run     what would go where
  bnbenv split mixed                 mixed-qlora and mixed-gptq; `mixed` stays as it is
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_environment(parser, changing=True)
    parser.add_argument("--cpu", action="store_true", help="CPU builds of torch, whatever the machine has")
    add_target(parser)
    add_offline(parser)
    add_yes(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Take it apart."""
    from bnbenv.workflows.config import read_config
    from bnbenv.workflows.environment import locate
    from bnbenv.workflows.split import SplitRequest, split

    config = read_config()
    located = locate(args.env, os.environ, Path.cwd(), changing="bnbenv split")
    ui.say(f"environment: {located}")
    asked = SplitRequest(
        cpu=args.cpu,
        target=other_target(args),
        offline=args.offline,
        dry_run=args.dry_run,
        link_mode=config.link_mode or "auto",
        mirrors=config.mirrors,
    )
    return _outcome(split(located, asked, ui, os.environ, yes=args.yes), ui, dry_run=args.dry_run)


def _outcome(done: Split, ui: Ui, *, dry_run: bool) -> Outcome:
    from bnbenv.workflows.split import unbuilt

    failed = unbuilt(done.parts)
    bad = any(_verdict(part) == "failed" for part in done.parts)
    problems = [
        Problem(
            code=part.problem.code, message=f"{part.name}: {part.problem.message}", hint=part.problem.hint
        )
        for part in failed
        if part.problem is not None
    ]
    problems += [Problem(code="notice", message=line) for line in done.left_out]
    code = failed[0].problem.exit_code if failed and failed[0].problem else EXIT_FINDINGS if bad else EXIT_OK
    return Outcome(
        data={
            "environment": str(done.located.directory),
            "dry_run": dry_run,
            "parts": [_document(part) for part in done.parts],
            "left_out": list(done.left_out),
        },
        exit_code=code,
        text=ui.table([(part.name, _told(part, dry_run=dry_run)) for part in done.parts]),
        problems=tuple(problems),
    )


def _document(part: Part) -> dict[str, Any]:
    from bnbenv.workflows.split import own_commands

    created = part.created
    realised = created.realised if created else None
    return {
        "profile": part.profile,
        "name": part.name,
        "family": [f"{name}=={version}" for name, version in part.family.items()],
        "packages": list(part.packages),
        "note": part.note or None,
        "built": realised is not None and _verdict(part) != "failed",
        "path": str(created.place.link) if created else None,
        "verdict": _verdict(part),
        "problem": part.problem.message if part.problem else None,
        "commands": list(own_commands(part)),
    }


def _verdict(part: Part) -> str | None:
    realised = part.created.realised if part.created else None
    return realised.verdict.verdict if realised else None


def _told(part: Part, *, dry_run: bool) -> str:
    from bnbenv.workflows.split import own_commands

    if part.problem is not None:
        return f"not built: {part.problem.message.splitlines()[0]}"
    if part.profile is None:
        return "; ".join(spelt(command) for command in own_commands(part))
    if part.created is None:
        return "nothing to do"
    stack = part.created.choice.solution.stack
    torch = f"torch {stack.torch.version} ({stack.torch.build})"
    return f"would hold {torch}" if dry_run else f"{torch}, self-test {_verdict(part)}"
