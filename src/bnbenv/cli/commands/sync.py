"""`sync`: this machine's own environment from the locks of a team."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any

from bnbenv.cli.options import (
    add_link_mode,
    add_offline,
    add_target,
    add_yes,
    description_words,
    lock_directory,
    other_target,
)
from bnbenv.cli.outcome import Outcome, Problem
from bnbenv.errors import EXIT_FINDINGS, EXIT_OK
from bnbenv.home import expanded

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui
    from bnbenv.workflows.sync import Synced

EPILOG = """\
Examples:
  bnbenv sync                                  from the lock in this directory, for this machine
  bnbenv sync locks/ --name lab                from another one, under the name `lab`
  bnbenv sync --name "lab-{variant}"           one for each variant, on a disk that several machines share
  bnbenv sync --path ./env --frozen            only a machine that the lock names
  bnbenv sync --wheelhouse /mnt/usb/wheels     without any network, from what `bnbenv bundle` fetched
  bnbenv sync --variant cu126                  on a login node, for the nodes that cu126 is for
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "lockdir",
        metavar="LOCKDIR",
        nargs="?",
        help="where bnbenv.lock stands (default: here, else the nearest above in the repository)",
    )
    where = parser.add_argument_group("where")
    where.add_argument(
        "--name",
        metavar="NAME",
        help="the environment's name (default: the lock's profile); {variant} in it is the variant's",
    )
    where.add_argument(
        "--path", metavar="DIR", help="put it here instead of under bnbenv's home; {variant} the same"
    )
    add_link_mode(where)
    what = parser.add_argument_group("what to build")
    what.add_argument("--variant", metavar="NAME", help="this one, whatever the machine is")
    what.add_argument(
        "--frozen", action="store_true", help="only a machine that the lock names; nothing is judged anew"
    )
    what.add_argument(
        "--wheelhouse", metavar="DIR", help="everything from this directory, nothing from the network"
    )
    what.add_argument(
        "--allow-local", action="store_true", help="install from a lock that names files of this machine"
    )
    add_target(parser)
    add_offline(parser)
    add_yes(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Build what the lock says, or find it there."""
    from bnbenv.workflows.config import read_config
    from bnbenv.workflows.sync import SyncRequest, sync

    config = read_config()
    request = SyncRequest(
        directory=lock_directory(args.lockdir, "the locks", ui),
        name=args.name,
        path=expanded(args.path, "`--path`") if args.path else None,
        variant=args.variant,
        target=other_target(args),
        described=shlex.join(description_words(args)),
        frozen=args.frozen,
        offline=args.offline,
        wheelhouse=expanded(args.wheelhouse, "`--wheelhouse`").absolute() if args.wheelhouse else None,
        allow_local=args.allow_local,
        link_mode=args.link_mode or config.link_mode or "auto",
        dry_run=args.dry_run,
        mirrors=config.mirrors,
    )
    return _outcome(sync(request, ui, os.environ, yes=args.yes), ui)


def _outcome(synced: Synced, ui: Ui) -> Outcome:
    from bnbenv.cli.built import chosen, next_steps, notices, wrong

    realised, name, picked = synced.realised, synced.place.name, synced.picked
    generation = realised.generation if realised else None
    verdict = realised.verdict.verdict if realised else None
    failed = verdict == "failed"
    steps = [] if failed else next_steps(name, synced.choice.solution.stack.profile, synced.choice)
    data: dict[str, Any] = {
        "name": name,
        "link": str(synced.place.link),
        "path": str(generation.directory) if generation else None,
        "generation": generation.directory.name if generation else None,
        "variant": picked.variant.name,
        "why": picked.why,
        "changed": realised is not None and realised.changed,
        **chosen(synced.choice),
        "packages": len(synced.lock.packages),
        "link_mode": realised.link_mode.mode if realised and realised.link_mode else None,
        "verdict": verdict,
        "notes": list(synced.notes),
        "seconds": dict(synced.seconds),
        "next": steps,
    }
    problems = [*notices(synced.choice), *(Problem(code="notice", message=note) for note in synced.notes)]
    if failed:
        problems.append(wrong(synced.place, generation, hint="bnbenv doctor, or bnbenv lock --check"))
    return Outcome(
        data=data,
        text="" if ui.json else _text(synced, steps, ui),
        exit_code=EXIT_FINDINGS if failed else EXIT_OK,
        problems=tuple(problems),
    )


def _text(synced: Synced, steps: list[str], ui: Ui) -> str:
    from bnbenv.cli.built import next_lines, rows, told

    realised, elsewhere = synced.realised, synced.choice.elsewhere
    variant = ("variant", f"{synced.picked.variant.name}: {synced.picked.why}")
    table = ui.table([variant, *rows(synced.choice, synced.lock, synced.place)])
    if realised is None:
        return f"{table}\ndry run: nothing was built"
    lines = told(realised.verdict, ui, elsewhere=elsewhere)
    if not realised.changed and realised.verdict.verdict != "failed":
        lines.append("nothing changed")
    else:
        lines += next_lines(steps, elsewhere=elsewhere)
    return "\n".join([table, *lines])
