"""`create`: from a machine to an environment that provably computes."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from bnbenv.cli.options import (
    add_anyway,
    add_link_mode,
    add_offline,
    add_request,
    add_target,
    add_yes,
    describes_other,
    other_target,
    read_requirements,
    user_profile,
)
from bnbenv.cli.outcome import Outcome, Problem
from bnbenv.cli.spelling import spelt
from bnbenv.errors import EXIT_FINDINGS, EXIT_OK, UsageError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui
    from bnbenv.selftest.verdict import Verdict
    from bnbenv.workflows.choose import Choice
    from bnbenv.workflows.create import Created
    from bnbenv.workflows.here import Added
    from bnbenv.workflows.request import CreateRequest

NOT_COMPUTED = "  this machine is not the one it is for: nothing was computed"
EPILOG = """\
Examples:
  bnbenv create qlora                                 for this machine, under the name `qlora`
  bnbenv create qlora --name lab --python 3.12        under another name, with another Python
  bnbenv create qlora --path ./env                    in this project
  bnbenv create inference --with einops --dry-run     only show what would be built
  bnbenv create qlora --gpu "RTX 4090" --driver 550   on a login node, for a compute node
  bnbenv create qlora --base $(command -v python)     on top of the torch that is already there
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_request(parser)
    where = parser.add_argument_group("where")
    where.add_argument("--name", metavar="NAME", help="the environment's name (default: the profile's)")
    where.add_argument("--path", metavar="DIR", help="put it here instead of under bnbenv's home")
    where.add_argument(
        "--no-generations", action="store_true", help="one plain directory, for images; needs --path"
    )
    where.add_argument(
        "--base", metavar="PYTHON", help="build upon the torch of this interpreter, and never replace it"
    )
    where.add_argument(
        "--here",
        action="store_true",
        help="add what is missing to the environment of the running interpreter (notebooks)",
    )
    add_additions(parser)
    add_anyway(parser)
    add_link_mode(where)
    add_target(parser)
    add_offline(parser)
    add_yes(parser)


def add_additions(parser: ArgumentParser) -> None:
    """The options that add packages to a profile's, or limit them."""
    what = parser.add_argument_group("what to add")
    what.add_argument(
        "--with",
        dest="packages",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a further requirement; repeat for several",
    )
    what.add_argument(
        "--requirements",
        action="append",
        default=[],
        metavar="FILE",
        help="a requirements file; repeat for several",
    )
    what.add_argument(
        "--exclude-newer",
        metavar="DATE",
        help="ignore what was uploaded after this date, such as 2026-01-31",
    )


def request_from(args: Namespace) -> CreateRequest:
    """The line as the value that the workflow takes.

    Raises:
        UsageError: options exclude each other, or a file cannot be read.
    """
    from bnbenv.home import expanded
    from bnbenv.workflows.config import read_config
    from bnbenv.workflows.request import CreateRequest, Wanted

    if args.no_generations and not args.path:
        raise UsageError(
            "`--no-generations` needs `--path DIR`", hint="bnbenv create --path ./env --no-generations"
        )
    if args.cpu and args.gpu:
        raise UsageError("`--cpu` and `--gpu` exclude each other", hint="leave one of them out")
    if args.here and (args.base or args.path or args.name or describes_other(args)):
        raise UsageError(
            "`--here` works on the running interpreter's environment: "
            "it goes with none of `--base`, `--path`, `--name`, `--target`, `--gpu`",
            hint="bnbenv create --help",
        )
    check_packages(args.packages)
    check_date(args.exclude_newer)
    config = read_config()
    lines = read_requirements(args.requirements)
    wanted = Wanted(
        profile=args.profile,
        definition=user_profile(args.profile),
        torch=args.torch,
        bitsandbytes=args.bitsandbytes,
        cuda=args.cuda,
        python=args.python,
        packages=tuple(args.packages),
        requirements=lines.requirements,
        constraints=lines.constraints,
        exclude_newer=args.exclude_newer,
        cpu=args.cpu,
        base=_interpreter(args.base) if args.base else None,
        without_index=tuple(args.without_index),
        prefer="verified" if args.prefer == "verified" else None,
    )
    path = expanded(args.path, "`--path`").absolute() if args.path else None
    return CreateRequest(
        wanted=wanted,
        name=args.name if args.name is not None else path.name if path else args.profile,
        path=path,
        generations=not args.no_generations,
        target=other_target(args),
        link_mode=args.link_mode or config.link_mode or "auto",
        offline=args.offline,
        dry_run=args.dry_run,
        anyway=args.anyway,
        mirrors=config.mirrors,
    )


def check_packages(packages: list[str], word: str = "--with") -> None:
    """Refuse what is no requirement before anything starts; paths and addresses are for uv to judge."""
    from packaging.requirements import InvalidRequirement, Requirement

    for text in packages:
        if text.strip() and any(mark in text.partition(";")[0] for mark in "/\\"):
            continue
        try:
            Requirement(text)
        except InvalidRequirement as error:
            raise UsageError(
                f"`{word} {text}` is no requirement: {str(error).partition(chr(10))[0]}",
                hint=f"such as `{word} einops` or `{word} 'einops>=0.8'`",
                code="bad-request",
            ) from error


def check_date(text: str | None) -> None:
    """Refuse what cannot be a date, a time or a duration; which of them it is, uv says."""
    if text is not None and not re.match(r"\s*[+-]?[Pp]?\s*\d", text):
        raise UsageError(
            f"`--exclude-newer {text}` is no date",
            hint="such as `--exclude-newer 2026-01-31`",
            code="bad-request",
        )


def _interpreter(text: str) -> str:
    """A base as an absolute path, links kept: it is stored, and a venv's interpreter is a link."""
    import shutil
    from pathlib import Path

    from bnbenv.home import expanded

    path = expanded(text, "`--base`")
    if len(path.parts) == 1 and not path.exists() and (found := shutil.which(text)):
        path = Path(found)
    return str(path.absolute())


def run(args: Namespace, ui: Ui) -> Outcome:
    """Build it."""
    request = request_from(args)
    if args.here:
        from bnbenv.workflows.here import add_here

        return _outcome_here(add_here(request, ui, os.environ, yes=args.yes), ui)
    from bnbenv.workflows.create import create

    return _outcome(create(request, ui, os.environ, yes=args.yes), ui)


def _outcome(created: Created, ui: Ui) -> Outcome:
    realised, name = created.realised, created.place.name
    generation = realised.generation if realised else None
    verdict = realised.verdict.verdict if realised else None
    failed = verdict == "failed"
    steps = [] if failed else next_steps(name, created.choice.solution.stack.profile, created.choice)
    data = {
        "name": created.place.name,
        "link": str(created.place.link),
        "path": str(generation.directory) if generation else None,
        "generation": generation.directory.name if generation else None,
        "created": realised is not None and not failed,
        "changed": realised is not None and realised.changed,
        **chosen(created.choice),
        "packages": len(created.lock.packages),
        "download_bytes": created.footprint.download,
        "installed_bytes": created.footprint.unpacked,
        "link_mode": realised.link_mode.mode if realised and realised.link_mode else None,
        "verdict": verdict,
        "seconds": dict(created.seconds),
        "next": steps,
    }
    problems = list(notices(created.choice))
    if failed:
        from bnbenv.cli.verdicts import after_failure

        problems.append(
            Problem(
                code="self-test-failed",
                message=f"`{name}` does not compute rightly; {after_failure(created.place, generation)}",
                hint=f"bnbenv create {created.choice.solution.stack.profile} -v, or bnbenv check",
            )
        )
    return Outcome(
        data=data,
        exit_code=EXIT_FINDINGS if failed else EXIT_OK,
        text="" if ui.json else _text(created, steps, ui),
        problems=tuple(problems),
    )


def _outcome_here(added: Added, ui: Ui) -> Outcome:
    verdict = added.verdict.verdict if added.verdict else None
    changes = [{"name": it.name, "version": it.version, "present": it.present} for it in added.changes]
    restart = "restart the runtime: modules that are imported already stay the old ones"
    data = {
        "name": "here",
        "link": None,
        "path": str(added.python.parent.parent),
        "generation": None,
        "created": False,
        "changed": bool(changes) and verdict is not None,
        **chosen(added.choice),
        "changes": changes,
        "packages": len(changes),
        "download_bytes": None,
        "installed_bytes": None,
        "link_mode": None,
        "verdict": verdict,
        "seconds": {},
        "next": [restart] if changes and verdict else [],
    }
    lines = [f"{added.python}: {len(changes)} package(s) added or changed"] if verdict else []
    if added.verdict:
        lines += told(added.verdict, ui)
    if changes and verdict:
        lines.append(restart)
    return Outcome(data=data, text="\n".join(lines), problems=notices(added.choice))


def chosen(choice: Choice) -> dict[str, Any]:
    """What was chosen and why, in the words that `resolve` uses too."""
    from bnbenv.judge.document import finding_document
    from bnbenv.machine.document import target_to_dict

    stack, judgement = choice.solution.stack, choice.solution.judgement
    return {
        "profile": stack.profile,
        "python": stack.python,
        "torch": {"version": stack.torch.version, "build": stack.torch.build, "index": stack.torch.index},
        "bitsandbytes": {"version": stack.bitsandbytes.version, "library": judgement.library}
        if stack.bitsandbytes
        else None,
        "target": target_to_dict(choice.target),
        "findings": [finding_document(finding) for finding in judgement.findings],
        "given_up": list(choice.given_up),
        "matrix": choice.matrix.revision,
    }


def notices(choice: Choice) -> tuple[Problem, ...]:
    """The judge's warnings, and that a build for a GPU will compute on the processor.

    What was given up has been told as it was decided, and stands in the data.
    """
    return tuple(
        Problem(
            code="notice",
            message=finding.summary,
            hint=finding.remedy.commands[0] if finding.remedy and finding.remedy.commands else None,
        )
        for finding in choice.solution.judgement.findings
        if finding.severity == "warning" or finding.code == "no-gpu-visible"
    )


def next_steps(name: str, profile: str, choice: Choice) -> list[str]:
    """What to type next."""
    import shlex

    from bnbenv.cli.program import program
    from bnbenv.workflows.example import TEMPLATES

    word, bnbenv = shlex.quote(name), program()
    if profile not in TEMPLATES:
        return [f"{bnbenv} run {word} -- python"]
    if choice.elsewhere:
        return [f"{bnbenv} verify {word}", f"{bnbenv} run {word} -- python -m bitsandbytes"]
    return [f"{bnbenv} example {profile} -o train.py", f"{bnbenv} run {word} -- python train.py"]


def _text(created: Created, steps: list[str], ui: Ui) -> str:
    stack = created.choice.solution.stack
    lines = [
        ui.table(
            [
                ("python", stack.python),
                ("torch", f"{stack.torch.version} ({stack.torch.build}) from {stack.torch.index}"),
                *([("bitsandbytes", stack.bitsandbytes.version)] if stack.bitsandbytes else []),
                ("packages", str(len(created.lock.packages))),
                ("where", str(created.place.link)),
            ]
        )
    ]
    if created.realised is None:
        return "\n".join([*lines, "dry run: nothing was built"])
    lines += told(created.realised.verdict, ui)
    if created.choice.elsewhere:
        lines.append(NOT_COMPUTED)
    if steps:
        where = " there" if created.choice.elsewhere else ""
        lines += ["", f"Next{where}:", *(f"  {spelt(step)}" for step in steps)]
    return "\n".join(lines)


def told(verdict: Verdict, ui: Ui) -> list[str]:
    """The verdict; what is wrong where it failed, and which faults of upstream were met."""
    from bnbenv.cli.verdicts import details, faults, headline

    return [
        f"self-test     {headline(verdict, ui)}",
        *(details(verdict, ui) if verdict.verdict == "failed" else faults(verdict, ui)),
    ]
