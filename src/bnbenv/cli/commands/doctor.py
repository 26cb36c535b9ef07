"""`doctor`: find what is wrong with an environment."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.cli.findings import findings_text
from bnbenv.cli.options import add_environment, add_target, description_words, lock_directory, other_target
from bnbenv.cli.outcome import Outcome
from bnbenv.cli.spelling import spelt
from bnbenv.errors import EXIT_FINDINGS, EXIT_OK, UsageError
from bnbenv.words import counted

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui
    from bnbenv.workflows.doctor import Examined

EPILOG = """\
Examples:
  bnbenv doctor                   the active environment, ./.venv, or the one bnbenv is in
  bnbenv doctor qlora             one of bnbenv's own
  bnbenv doctor /path/to/venv     any environment, or its interpreter
  bnbenv doctor qlora --deep      compare every file with its recorded hash
  bnbenv doctor qlora --verify    also run the self-test in it
  bnbenv doctor qlora --lock      also compare it with the team's lock in this directory
  bnbenv doctor "lab-{variant}" --lock locks/   the one that `sync` gave that name on this machine
  bnbenv doctor qlora --gpu "RTX 5090" --driver 580   judge it for another machine

Reads files and the machine; nothing of the environment is run without --verify.
Exit 1 means that an error was found; warnings and notices leave 0.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_environment(parser)
    parser.add_argument("--verify", action="store_true", help="run the self-test too")
    parser.add_argument(
        "--deep", action="store_true", help="compare every file by hash, not by size and time"
    )
    parser.add_argument(
        "--lock",
        nargs="?",
        const="",
        metavar="LOCKDIR",
        help="compare machine and environment with the lock there (default: here, or above)",
    )
    add_target(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Look it over."""
    from bnbenv.env.layout import VARIANT
    from bnbenv.workflows.doctor import examine, prove
    from bnbenv.workflows.environment import heal_interrupted, locate

    target, described = other_target(args), description_words(args)
    team = None if args.lock is None else lock_directory(args.lock or None, "`--lock`", ui)
    env = args.env
    if team is not None and env is not None:
        from bnbenv.workflows.sync import SyncRequest, filled

        asked = SyncRequest(directory=team, target=target, described=shlex.join(described))
        env = filled(env, asked, os.environ)
    elif env is not None and VARIANT in env:
        from bnbenv.lockfile.above import nearest

        where = "--lock" if nearest(Path.cwd()) else "--lock LOCKDIR"
        raise UsageError(
            f"`{env}`: only a lock tells what stands for `{VARIANT}` on this machine",
            hint=f"{shlex.join(('bnbenv', 'doctor', *args.typed))} {where}",
        )
    located = locate(env, os.environ, Path.cwd())
    heal_interrupted(located, ui, os.environ)
    ui.say(f"environment: {located}")
    examined = examine(
        located,
        ui,
        os.environ,
        deep=args.deep,
        target=target,
        described=described,
        cwd=Path.cwd(),
    )
    if team is not None:
        from bnbenv.workflows.against_lock import compare
        from bnbenv.workflows.config import read_config

        examined = compare(
            examined,
            team,
            os.environ,
            mirrors=read_config().mirrors,
            cwd=Path.cwd(),
            described=shlex.join(described),
        )
    if args.verify:
        examined = prove(examined, ui, os.environ, cwd=Path.cwd())
    data = document(examined)
    return Outcome(
        data=data,
        text="\n".join([_headline(examined, ui), *_told(data["findings"], args, ui), *_of_another(examined)]),
        exit_code=EXIT_OK if examined.works else EXIT_FINDINGS,
    )


def document(examined: Examined) -> dict[str, Any]:
    """The ``data`` of `doctor`."""
    from bnbenv.judge.document import finding_document
    from bnbenv.machine.document import target_to_dict

    located, torch = examined.located, examined.torch
    return {
        "environment": {
            "path": str(located.directory),
            "python": str(located.python),
            "kind": located.kind,
        },
        "installed": {
            "torch": (torch.full_version or None) if torch is not None else None,
            "bitsandbytes": examined.bitsandbytes,
            "python": examined.installed.python,
            "library": examined.library,
            "packages": dict(sorted(examined.installed.versions.items())),
        },
        "target": target_to_dict(examined.target),
        "healthy": examined.healthy,
        "verdict": examined.verdict,
        "findings": [finding_document(found) for found in examined.findings],
        "matrix": examined.matrix,
    }


def _headline(examined: Examined, ui: Ui) -> str:
    torch = (examined.torch.full_version or "unreadable") if examined.torch is not None else "none"
    stack = (
        f"torch {torch}, bitsandbytes {examined.bitsandbytes or 'none'}, Python {examined.installed.python}"
    )
    if examined.library:
        stack += f", loads {examined.library}"
    if examined.healthy:
        return f"{ui.paint('healthy', 'green', 'bold')}: {stack}"
    count = {
        word: sum(found.severity == word for found in examined.findings) for word in ("error", "warning")
    }
    words = [f"{number} {word}{'s' if number > 1 else ''}" for word, number in count.items() if number]
    return f"{ui.paint(', '.join(words), 'red' if count['error'] else 'yellow', 'bold')}: {stack}"


def _of_another(examined: Examined) -> list[str]:
    """Who has bnbenv apart from its environments, and names none, hardly means the Python that runs it."""
    from bnbenv.env.layout import Layout
    from bnbenv.workflows.environment import OWN, all_places

    if examined.located.why != OWN or examined.torch is not None or examined.bitsandbytes is not None:
        return []
    names = [shlex.quote(place.name) for place in all_places(Layout.find(os.environ))]
    there = f"bnbenv doctor {names[0]} (of bnbenv list)" if names else "bnbenv create qlora"
    return [
        "",
        "This is bnbenv's own Python: no environment is named, none is active, and there is no ./.venv.",
        f"Perhaps you mean: {spelt(there)}",
    ]


def _told(findings: list[dict[str, Any]], args: Namespace, ui: Ui) -> list[str]:
    """The findings; notices only where they are asked for, as those about the lock are with ``--lock``."""
    from bnbenv.workflows.against_lock import SOURCE

    shown = [
        found
        for found in findings
        if ui.verbosity or found["severity"] != "info" or found["source"] == SOURCE
    ]
    lines = findings_text(shown, ui)
    if hidden := len(findings) - len(shown):
        command = spelt(shlex.join(("bnbenv", "doctor", *args.typed, "-v")))
        lines.append(ui.paint(f"{counted(hidden, 'notice')}: {command}", "dim"))
    return lines
