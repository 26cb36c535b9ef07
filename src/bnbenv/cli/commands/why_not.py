"""`why-not`: why a release is not chosen."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING, Any

from bnbenv.cli.findings import findings_text
from bnbenv.cli.options import add_target, python_version, target_or_here
from bnbenv.cli.outcome import Outcome
from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui
    from bnbenv.machine.target import Target

EPILOG = """\
Examples:
  bnbenv why-not torch==2.14.1
  bnbenv why-not bitsandbytes==0.42.0 --profile inference
  bnbenv why-not torch==2.14.1 --gpu "Tesla V100" --driver 570
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "release", metavar="PACKAGE==VERSION", nargs="+", help="a release of torch or bitsandbytes"
    )
    parser.add_argument(
        "--profile", default="qlora", metavar="PROFILE", help="for what purpose (default: qlora)"
    )
    parser.add_argument("--python", type=python_version, metavar="VERSION", help="with this Python")
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
    pin = _pin(" ".join(args.release), args.profile)
    package, _, release = pin.partition("==")
    matrix = load_matrix(target, release=release.strip() if package.strip() == "bitsandbytes" else None)
    known = known_indexes(wanted, matrix, read_config().mirrors, os.environ)
    data = why_not(pin, wanted, target, matrix, known)
    return Outcome(data=data, text=_text(data, target, ui))


_CALLED = {"pytorch": "torch", "bnb": "bitsandbytes"}
_NAMED = re.compile(r"(?P<name>[a-z][\w.-]*)\s*(?P<range>[<>=!~].*|v?\d.*)?", re.IGNORECASE)


def _pin(text: str, profile: str) -> str:
    """The pin as it is asked: ``torch==2.9.1`` for ``pytorch 2.9.1``.

    Raises:
        UsageError: it is of another package.
    """
    match = _NAMED.fullmatch(text.strip())
    if match is None:
        return text
    name, told = _CALLED.get(match["name"].lower(), match["name"]), match["range"] or ""
    if told[:1].lower() == "v" or told[:1].isdigit():
        told = f"=={told.lstrip('vV')}"
    if name.lower() not in ("torch", "bitsandbytes"):
        raise UsageError(
            f"`why-not` is asked about torch and bitsandbytes, not about `{name}`",
            hint=shlex.join(["bnbenv", "create", profile, "--with", f"{name}{told}", "--dry-run"]),
            code="bad-request",
        )
    return f"{name.lower()}{told}"


def _text(data: dict[str, Any], target: Target, ui: Ui) -> str:
    from bnbenv.cli.resolution import indexes_text, not_taken_text

    if data["chosen"]:
        return "\n".join([f"{data['pin']} is what would be chosen for {target}", *indexes_text(data, ui)])
    if data["possible"]:
        lines = [f"{data['pin']} would work, but it is not the first choice for {target}"]
    else:
        lines = [f"{data['pin']} cannot serve {target}"]
    lines += findings_text(data["findings"], ui)
    lines += [not_taken_text(row) for row in data["not_taken"]]
    if data["needs"]:
        lines.append(f"it would need {', '.join(data['needs'])}")
    if data["instead"]:
        torch, wheel = data["instead"]["torch"], data["instead"]["bitsandbytes"]
        beside = f" with bitsandbytes {wheel['version']}" if wheel else ""
        lines.append(f"chosen instead: torch {torch['version']} ({torch['build']}){beside}")
    return "\n".join([*lines, *indexes_text(data, ui)])
