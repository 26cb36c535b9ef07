"""`resolve`: choose the best stack for a machine, without building it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from bnbenv.cli.batch import add_batch, answer_lines, refuse_ignored
from bnbenv.cli.findings import findings_text
from bnbenv.cli.options import DESCRIPTION, add_request, add_target, target_or_here, user_profile
from bnbenv.cli.outcome import Outcome
from bnbenv.cli.resolution import gpu_text, indexes_text, not_taken_text

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui
    from bnbenv.machine.target import Target
    from bnbenv.workflows.request import Wanted

JSON_BUT = "with `--batch` one a line"
EPILOG = """\
Examples:
  bnbenv resolve qlora                                   for this machine
  bnbenv resolve qlora --gpu "Tesla P40" --driver 570    for another one
  bnbenv resolve qlora --prefer verified                 what was seen to compute rightly first
  bnbenv resolve qlora --explain                         and why nothing newer
  bnbenv resolve qlora --without-index pytorch           where only PyPI can be reached
  bnbenv resolve qlora --batch targets.jsonl
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_request(parser)
    parser.add_argument(
        "--explain", action="store_true", help="also list what was passed over, and by which rule"
    )
    add_batch(parser, "a target")
    add_target(parser)


def run(args: Namespace, ui: Ui) -> Outcome | int:
    """Choose."""
    from bnbenv.workflows.config import read_config
    from bnbenv.workflows.profiles import with_definition
    from bnbenv.workflows.resolve import known_indexes, load_matrix, resolve, resolver

    if args.batch:
        refuse_ignored(args, *DESCRIPTION)
    wanted = wanted_from(args)
    target = None if args.batch else target_or_here(args)
    matrix = with_definition(load_matrix(target), wanted)
    known = known_indexes(wanted, matrix, read_config().mirrors, os.environ)
    if target is None:
        one = resolver(wanted, matrix, known, explain=args.explain)
        from bnbenv.cli.options import unwrap_target
        from bnbenv.machine.document import target_from_dict

        def answer(question: dict[str, Any]) -> Outcome:
            return Outcome(data=one(target_from_dict(unwrap_target(question))))

        return answer_lines(args.batch, answer, ui)
    data = resolve(wanted, target, matrix, known, explain=args.explain)
    return Outcome(data=data, text=_text(data, target, ui))


def wanted_from(args: Namespace) -> Wanted:
    """The part of the line that narrows the choice."""
    from bnbenv.workflows.request import Wanted

    return Wanted(
        profile=args.profile,
        definition=user_profile(args.profile, args.command),
        torch=args.torch,
        bitsandbytes=args.bitsandbytes,
        cuda=args.cuda,
        python=args.python,
        cpu=args.cpu,
        without_index=tuple(args.without_index),
        prefer="verified" if args.prefer == "verified" else None,
    )


_EVIDENCE = {
    "verified": "its self-test passed on such a machine",
    "neighbour": "its self-test passed on a machine or with a build that is nearly the same",
    "none": "not verified on such a machine yet",
}


def _text(data: dict[str, Any], target: Target, ui: Ui) -> str:
    torch, wheel = data["torch"], data["bitsandbytes"]
    rows = [
        ("for", str(target)),
        ("python", data["python"] + ("" if data["python_at_hand"] else ", not at hand: uv fetches it")),
        ("torch", f"{torch['version']} ({torch['build']}) from {torch['index']}"),
    ]
    if wheel:
        rows.append(("bitsandbytes", f"{wheel['version']}, loads {wheel['library']}"))
    rows += [("GPU", gpu_text(gpu)) for gpu in data["gpus"]]
    rows.append(("evidence", _EVIDENCE[data["evidence"]]))
    rows += [("", f"{name}{spec}") for name, spec in data["packages"].items()]
    lines = [ui.table(rows)]
    lines += findings_text(data["findings"], ui)
    for passed in data.get("passed_over", ()):
        lines.append(
            f"passed over: torch {passed['torch']} ({passed['build']}) with {passed['bitsandbytes']}: "
            f"{passed['finding']['summary']}"
        )
    lines += [f"passed over: {not_taken_text(row)}" for row in data.get("not_taken", ())]
    lines += data["given_up"]
    lines += indexes_text(data, ui)
    return "\n".join(lines)
