"""`create`: from a machine to an environment that provably computes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bnbenv.cli.additions import add_additions, check_date, check_packages
from bnbenv.cli.built import chosen, next_lines, next_steps, notices, rows, told, wrong
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
from bnbenv.cli.outcome import Outcome
from bnbenv.errors import EXIT_FINDINGS, EXIT_OK, UsageError
from bnbenv.words import counted

if TYPE_CHECKING:
    from argparse import Namespace

    from bnbenv.cli.parser import Parser
    from bnbenv.cli.ui import Ui
    from bnbenv.workflows.create import Created
    from bnbenv.workflows.here import Added
    from bnbenv.workflows.request import CreateRequest

EPILOG = """\
Examples:
  bnbenv create qlora                                 for this machine, under the name `qlora`
  bnbenv create qlora --name lab --python 3.12        under another name, with another Python
  bnbenv create qlora --path ./env                    in this project
  bnbenv create inference --with einops --dry-run     only show what would be built
  bnbenv create qlora --gpu "RTX 4090" --driver 550   on a login node, for a compute node
  bnbenv create qlora --base $(command -v python)     on top of the torch that is already there
"""


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    add_request(parser)
    parser.surplus = "--name"
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
        definition=user_profile(args.profile, args.command),
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
        hint = f"bnbenv create {created.choice.solution.stack.profile} -v, or bnbenv check"
        problems.append(wrong(created.place, generation, hint=hint))
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
    lines = [f"{added.python}: {counted(len(changes), 'package')} added or changed"] if verdict else []
    if added.verdict:
        lines += told(added.verdict, ui)
    if changes and verdict:
        lines.append(restart)
    return Outcome(data=data, text="\n".join(lines), problems=notices(added.choice))


def _text(created: Created, steps: list[str], ui: Ui) -> str:
    table = ui.table(rows(created.choice, created.lock, created.place))
    if created.realised is None:
        return f"{table}\ndry run: nothing was built"
    elsewhere = created.choice.elsewhere
    lines = told(created.realised.verdict, ui, elsewhere=elsewhere)
    return "\n".join([table, *lines, *next_lines(steps, elsewhere=elsewhere)])
