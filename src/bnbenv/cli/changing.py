"""What `install` and `upgrade` share: their options, and how they tell what was changed."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.cli.options import (
    add_anyway,
    add_link_mode,
    add_offline,
    add_target,
    add_yes,
    other_target,
    read_requirements,
)
from bnbenv.cli.outcome import Outcome, Problem
from bnbenv.errors import EXIT_FINDINGS, EXIT_OK

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui
    from bnbenv.workflows.environment import Located
    from bnbenv.workflows.install import Changed, ChangeRequest

_SHOWN = 20


def add_changing(parser: ArgumentParser) -> None:
    """The options of a command that changes an environment of bnbenv's own."""
    parser.add_argument(
        "--in",
        dest="environment",
        metavar="ENV",
        help="a name or a directory (default: the active one, ./.venv)",
    )
    add_anyway(parser)
    add_link_mode(parser)
    add_target(parser)
    add_offline(parser)
    add_yes(parser)


def change_request(args: Namespace, ui: Ui) -> tuple[Located, ChangeRequest]:
    """The environment and the line as the values that the workflows take."""
    from bnbenv.workflows.config import read_config
    from bnbenv.workflows.environment import locate
    from bnbenv.workflows.install import ChangeRequest

    if args.environment is None:
        from bnbenv.cli.guidance import environment_for_package

        if (meant := environment_for_package(args.command, args.packages, args.typed)) is not None:
            raise meant
    config = read_config()
    lines = read_requirements(args.requirements)
    files = [word for file in args.requirements for word in ("--requirements", file)]
    typed = shlex.join(["bnbenv", args.command, *args.packages, *files, "--in"])
    located = locate(args.environment, os.environ, Path.cwd(), changing=typed, only_ours=True)
    ui.say(f"environment: {located}")
    return located, ChangeRequest(
        packages=tuple(args.packages),
        requirements=lines.requirements,
        constraints=lines.constraints,
        anyway=args.anyway,
        target=other_target(args),
        offline=args.offline,
        dry_run=args.dry_run,
        link_mode=args.link_mode or config.link_mode or "auto",
        mirrors=config.mirrors,
    )


def changed_outcome(changed: Changed, ui: Ui) -> Outcome:
    """The answer, rendered."""
    realised = changed.realised
    generation = realised.generation if realised and realised.changed else None
    verdict = realised.verdict.verdict if realised else None
    place, carried = changed.located.place, changed.carried
    name = place.name if place else str(changed.located.directory)
    data = {
        "environment": name,
        "path": str(generation.directory if generation else changed.located.directory),
        "generation": generation.directory.name if generation else None,
        "changed": generation is not None,
        "changes": [
            {"name": it.name, "version": it.version, "present": it.present} for it in changed.changes
        ],
        "removed": [{"name": name, "version": version} for name, version in changed.removed.items()],
        "let_in": dict(changed.let_in),
        "kept": [*carried.installed, *carried.copied, *carried.files] if carried else [],
        "verdict": verdict,
    }
    problems = [
        Problem(code="notice", message=f"{package} was let in although {mechanism}")
        for package, mechanism in changed.let_in.items()
    ]
    if carried:
        problems += [Problem(code="notice", message=line) for line in (*carried.conflicts, *carried.left)]
    if realised is not None and verdict == "failed" and place is not None:
        from bnbenv.cli.verdicts import after_failure

        anew = f"bnbenv create {changed.wanted.profile} {place.options}"
        problems.append(
            Problem(
                code="self-test-failed",
                message=f"`{name}` does not compute rightly with that; "
                + after_failure(place, realised.generation),
                hint=f"bnbenv info {shlex.quote(name)}" if realised.generation else anew,
            )
        )
    return Outcome(
        data=data,
        exit_code=EXIT_FINDINGS if verdict == "failed" else EXIT_OK,
        text="\n".join(_text(changed, ui)),
        problems=tuple(problems),
    )


def _text(changed: Changed, ui: Ui) -> list[str]:
    from bnbenv.cli.verdicts import headline

    lines = [str(change) for change in changed.changes[:_SHOWN]]
    if more := len(changed.changes) - len(lines):
        lines.append(f"and {more} more")
    lines += [f"{name} {version} goes" for name, version in changed.removed.items()]
    realised = changed.realised
    if realised is None:
        return [*lines, "nothing was changed" if changed.changes else "nothing needs to change"]
    lines.append(f"self-test     {headline(realised.verdict, ui)}")
    if realised.generation is not None and realised.changed:
        lines.append(f"now           {realised.generation.directory}")
    return lines
