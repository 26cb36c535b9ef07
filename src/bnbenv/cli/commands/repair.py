"""`repair`: mend an environment, prove it, and leave everything as it was if that comes to nothing."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.cli.options import (
    add_environment,
    add_link_mode,
    add_offline,
    add_target,
    add_yes,
    other_target,
)
from bnbenv.cli.outcome import Outcome, Problem
from bnbenv.cli.spelling import spelt
from bnbenv.errors import EXIT_FINDINGS, EXIT_OK

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from bnbenv.cli.ui import Ui
    from bnbenv.doctor.plan import Mode, Step
    from bnbenv.workflows.doctor import Examined
    from bnbenv.workflows.rebuild import Carried
    from bnbenv.workflows.repair import Repaired

EPILOG = """\
Examples:
  bnbenv repair qlora --dry-run       what would be done, and why
  bnbenv repair qlora                 a new generation, proven before it is switched to
  bnbenv repair qlora --restore       back to the lock, whatever was changed since
  bnbenv repair qlora --keep torch    keep the torch that you upgraded, and fit the others to it
  bnbenv repair qlora --upgrade       the newest stack for this machine
  bnbenv repair /path/to/venv         any venv or conda environment, in place; put back on failure
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_environment(parser, changing=True)
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--keep",
        choices=("torch",),
        help="keep the torch that is there, or stop (default: where it can stay)",
    )
    how.add_argument("--restore", action="store_true", help="return to the lock")
    how.add_argument("--upgrade", action="store_true", help="choose the newest stack for this machine")
    parser.add_argument("--deep", action="store_true", help="compare every file with RECORD by hash")
    parser.add_argument("--cpu", action="store_true", help="give up an accelerator that is not visible here")
    add_link_mode(parser)
    add_target(parser)
    add_offline(parser)
    add_yes(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Mend it."""
    from bnbenv.workflows.config import read_config
    from bnbenv.workflows.environment import locate, refuse_managed
    from bnbenv.workflows.repair import RepairRequest, repair

    config = read_config()
    located = locate(args.env, os.environ, Path.cwd(), changing="bnbenv repair")
    ui.say(f"environment: {located}")
    refuse_managed(located)
    request = RepairRequest(
        mode=_mode(args),
        cpu=args.cpu,
        target=other_target(args),
        deep=args.deep,
        offline=args.offline,
        dry_run=args.dry_run,
        link_mode=args.link_mode or config.link_mode or "auto",
        mirrors=config.mirrors,
    )
    return _outcome(repair(located, request, ui, os.environ, yes=args.yes), ui)


def _mode(args: Namespace) -> Mode:
    if args.upgrade:
        return "upgrade"
    if args.restore:
        return "restore"
    return "keep-torch" if args.keep else "auto"


def _outcome(repaired: Repaired, ui: Ui) -> Outcome:
    last = repaired.after or repaired.before
    bad = not last.works or repaired.outcome == "stopped"
    if repaired.outcome == "planned":
        bad = False
    return Outcome(
        data=_data(repaired),
        exit_code=EXIT_FINDINGS if bad else EXIT_OK,
        text="\n".join(_text(repaired, ui)),
        problems=tuple(_problems(repaired)),
    )


def _data(repaired: Repaired) -> dict[str, Any]:
    from bnbenv.judge.document import finding_document

    located, plan, generation = repaired.located, repaired.plan, repaired.generation
    return {
        "environment": {"path": str(located.directory), "python": str(located.python), "kind": located.kind},
        "outcome": repaired.outcome,
        "plan": {
            "steps": [_step(step) for step in plan.steps],
            "shown": [_step(step) for step in plan.shown],
            "stops": [_step(step) for step in plan.stops],
        },
        "changes": [
            {"name": it.name, "version": it.version, "present": it.present} for it in repaired.changes
        ],
        "before": [finding_document(finding) for finding in repaired.before.findings],
        "after": [finding_document(finding) for finding in repaired.after.findings]
        if repaired.after
        else None,
        "healthy": (repaired.after or repaired.before).healthy,
        "generation": generation.directory.name if generation else None,
        "kept": _carried(repaired.carried) if repaired.carried else None,
        "verdict": repaired.verdict.verdict if repaired.verdict else None,
        "seconds": dict(repaired.seconds),
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "action": step.action,
        "subject": step.subject,
        "summary": step.summary,
        "why": list(step.why),
        "commands": list(step.commands),
    }


def _carried(carried: Carried) -> dict[str, Any]:
    return {
        "installed": list(carried.installed),
        "copied": list(carried.copied),
        "files": list(carried.files),
        "left": list(carried.left),
        "conflicts": list(carried.conflicts),
    }


def _problems(repaired: Repaired) -> list[Problem]:
    """What the user has to know or to do; the findings themselves stand in the data."""
    problems = [
        Problem(
            code="notice",
            message=f"{step.subject}: {step.summary}",
            hint=step.commands[0] if step.commands else None,
        )
        for step in (*repaired.plan.stops, *repaired.plan.shown)
    ]
    carried = repaired.carried
    told = (*carried.conflicts, *carried.left) if carried else ()
    problems += _left(repaired)
    return [*problems, *(Problem(code="notice", message=line) for line in told)]


def _left(repaired: Repaired) -> Iterator[Problem]:
    """What is still wrong after a repair, and is told nowhere else: it decides the exit code."""
    shown = {step.subject for step in repaired.plan.shown}
    for found in repaired.after.findings if repaired.after else ():
        if found.severity == "error" and found.subject not in shown:
            commands = found.remedy.commands if found.remedy else ()
            yield Problem(
                code="notice",
                message=f"still wrong: {found.subject}: {found.summary}",
                hint=commands[0] if commands else shlex.join(["bnbenv", "doctor", repaired.located.name]),
            )


def _text(repaired: Repaired, ui: Ui) -> list[str]:
    plan = repaired.plan
    lines: list[str] = []
    for title, steps in (("Plan", plan.steps), ("Not from here", plan.stops), ("Yours to do", plan.shown)):
        if steps:
            lines.append(ui.paint(title, "bold"))
            for number, step in enumerate(steps, start=1):
                lines.append(f"  {number}. {step.summary}")
                lines += [f"     because {reason}" for reason in step.why[:6]]
                lines += [f"     {spelt(command)}" for command in step.commands]
    if repaired.changes:
        shown = [f"  {change}" for change in repaired.changes[:20]]
        more = len(repaired.changes) - len(shown)
        lines += ["", "Packages", *shown, *([f"  and {more} more"] if more > 0 else [])]
    lines += _kept(repaired)
    return [*lines, *_end(repaired, ui)]


def _kept(repaired: Repaired) -> list[str]:
    carried = repaired.carried
    if carried is None:
        return []
    lines = []
    for words, items in (
        ("installed again, as you had added them", carried.installed),
        ("copied, as they can be fetched nowhere", carried.copied),
        ("files of no package, copied", carried.files),
    ):
        if items:
            more = f" and {len(items) - 8} more" if len(items) > 8 else ""
            lines.append(f"{words}: {', '.join(items[:8])}{more}")
    return lines


def _end(repaired: Repaired, ui: Ui) -> list[str]:
    from bnbenv.cli.verdicts import headline

    match repaired.outcome:
        case "nothing":
            return [_nothing(repaired.before)]
        case "planned":
            return ["dry run: nothing was changed"]
        case "stopped":
            return ["nothing was touched"]
        case "repaired":
            lines = [f"self-test     {headline(repaired.verdict, ui)}"] if repaired.verdict else []
            where = repaired.generation.directory if repaired.generation else repaired.located.directory
            return [*lines, f"repaired: {where}"]


def _nothing(before: Examined) -> str:
    """Why nothing is to be done, with what has changed on the machine since."""
    notices = [finding.summary for finding in before.findings if finding.code.endswith("-changed")]
    if before.healthy:
        return "; ".join(["nothing needs to change", *notices])
    return "nothing inside the environment needs to change"
