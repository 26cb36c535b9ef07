"""`check`: judge a combination of releases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.cli.batch import add_batch, answer_lines, refuse_ignored
from bnbenv.cli.findings import findings_text
from bnbenv.cli.options import add_target, python_version, release_of, target_or_here
from bnbenv.cli.outcome import Outcome, Problem
from bnbenv.cli.resolution import gpu_text
from bnbenv.errors import EXIT_FINDINGS, EXIT_OK, UsageError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui
    from bnbenv.judge.check import Checked, Combination
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix

JSON_BUT = "with `--batch` one a line"
EPILOG = """\
Examples:
  bnbenv check --torch 2.9.1 --bitsandbytes 0.46.1
  bnbenv check --torch 2.9.1 --bitsandbytes 0.50.2 --package transformers==5.23.0
  bnbenv check --torch 2.9.1 --bitsandbytes 0.50.2 --gpu "RTX 5090" --driver 580
  bnbenv check --torch 2.9.1 --bitsandbytes 0.50.2 --env BNB_CUDA_VERSION=124
  bnbenv check --environment qlora --gpu "RTX 5090" --driver 580
  bnbenv check --file requirements.txt            or a pylock.toml
  bnbenv check --batch questions.jsonl

Exit 1 means that it does not work; 0 that it does, or that the matrix lacks a fact, which is then named.
"""

# What a line of a batch tells for itself.
NAMED = ("torch", "bitsandbytes", "python", "env", "package", "environment", "file")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--torch",
        metavar="VERSION",
        type=release_of("torch"),
        help="such as 2.9.1, or with the build's tag behind a `+`",
    )
    parser.add_argument(
        "--bitsandbytes", metavar="VERSION", type=release_of("bitsandbytes"), help="such as 0.50.2"
    )
    parser.add_argument("--python", type=python_version, metavar="VERSION", help="such as 3.12")
    parser.add_argument(
        "--profile", default="qlora", metavar="PROFILE", help="for what purpose (default: qlora)"
    )
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a variable of the process; repeat for several",
    )
    parser.add_argument(
        "--package",
        action="append",
        default=[],
        metavar="NAME==VERSION",
        help="a further package; repeat for several",
    )
    parser.add_argument(
        "--environment", metavar="ENV", help="judge what stands in an environment: a name or a directory"
    )
    parser.add_argument(
        "--file", metavar="FILE", type=Path, help="judge what a requirements file or a pylock.toml asks for"
    )
    add_batch(parser, "target, torch, bitsandbytes, python, env, packages")
    add_target(parser)


def run(args: Namespace, ui: Ui) -> Outcome | int:
    """Judge it."""
    from bnbenv.judge.check import Combination
    from bnbenv.workflows.check import Matrices, check_packages, load_matrix

    if args.batch:
        refuse_ignored(args, *NAMED)
        matrices = Matrices()
        here: list[Target] = []

        def answer(question: dict[str, Any]) -> Outcome:
            asked = _combination(question, args.profile)
            check_packages(asked.packages)
            target = _target(question, args, here)
            return _outcome(asked, target, matrices.naming(asked.bitsandbytes or "", target), ui)

        return answer_lines(args.batch, answer, ui)
    given = [option for option in ("environment", "file", "torch") if getattr(args, option)]
    if len(given) > 1:
        raise UsageError(
            f"`--{given[0]}` and `--{given[1]}` each name what is judged", hint="give one of them"
        )
    if args.environment or args.file:
        return _of_what_is_there(args, ui)
    if not args.torch or not args.bitsandbytes:
        raise UsageError(
            "`check` needs `--torch` and `--bitsandbytes`, `--environment`, `--file` or `--batch`",
            hint="bnbenv check --torch 2.9.1 --bitsandbytes 0.50.2",
        )
    asked = Combination(
        torch=args.torch,
        bitsandbytes=args.bitsandbytes,
        python=args.python,
        env=_pairs(args.env, "=", "--env"),
        packages=_pairs(args.package, "==", "--package"),
        profile=args.profile,
    )
    check_packages(asked.packages)
    target = target_or_here(args)
    return _outcome(asked, target, load_matrix(target, release=asked.bitsandbytes), ui)


def _of_what_is_there(args: Namespace, ui: Ui) -> Outcome:
    from bnbenv.judge.check import check
    from bnbenv.workflows.check import of_environment, of_file
    from bnbenv.workflows.environment import locate

    target = target_or_here(args)
    env = _pairs(args.env, "=", "--env")
    if args.environment:
        located = locate(args.environment, os.environ, Path.cwd())
        ui.say(f"environment: {located}")
        checked, matrix = of_environment(located, target, {**os.environ, **env}, ui, profile=args.profile)
    else:
        asked, matrix = of_file(args.file, target, profile=args.profile, python=args.python, env=env)
        checked = check(asked, target, matrix)
    return _told(checked, target, matrix, ui)


def _outcome(asked: Combination, target: Target, matrix: Matrix, ui: Ui) -> Outcome:
    from bnbenv.judge.check import check

    return _told(check(asked, target, matrix), target, matrix, ui)


def _told(checked: Checked, target: Target, matrix: Matrix, ui: Ui) -> Outcome:
    from bnbenv.judge.document import check_document

    data = check_document(checked, target, matrix)
    word = {True: "works", False: "does not work", None: "not known"}[data["works"]]
    colour = {True: "green", False: "red", None: "yellow"}[data["works"]]
    torch = f"torch {data['torch']} ({data['build']})"
    rest = f"bitsandbytes {data['bitsandbytes']}, Python {data['python']}, on {target}"
    lines = [
        f"{ui.paint(word, colour, 'bold')}: {torch} with {rest}",
        f"the loader takes {data['library'] or 'no library: it finds none'}"
        if checked.library_known
        else "which library the loader takes is not known",
    ]
    lines += [gpu_text(gpu) for gpu in data["gpus"]]
    lines += findings_text(data["findings"], ui)
    problems: tuple[Problem, ...] = ()
    if data["works"] is None:
        missing = next(finding.summary for finding in checked.judgement.findings if finding.undecided)
        problems = (Problem(code="notice", message=f"the matrix lacks a fact that decides: {missing}"),)
    return Outcome(
        data=data,
        text="\n".join(lines),
        exit_code=EXIT_FINDINGS if data["works"] is False else EXIT_OK,
        problems=problems,
    )


def _combination(question: dict[str, Any], profile: str) -> Combination:
    from bnbenv.judge.check import Combination

    def text(key: str) -> str:
        value = question.get(key)
        if not isinstance(value, str):
            raise UsageError(
                f"`{key}` is no text", hint='such as {"torch": "2.9.1", "bitsandbytes": "0.50.2"}'
            )
        return value

    def table(key: str) -> dict[str, str]:
        value = question.get(key) or {}
        if not isinstance(value, dict) or not all(isinstance(entry, str) for entry in value.values()):
            raise UsageError(
                f"`{key}` is no object of texts", hint=f'such as {{"{key}": {{"NAME": "VALUE"}}}}'
            )
        return value

    return Combination(
        torch=text("torch"),
        bitsandbytes=text("bitsandbytes"),
        python=text("python") if question.get("python") is not None else None,
        env=table("env"),
        packages=table("packages"),
        profile=text("profile") if "profile" in question else profile,
    )


def _target(question: dict[str, Any], args: Namespace, here: list[Target]) -> Target:
    from bnbenv.cli.options import unwrap_target
    from bnbenv.machine.document import target_from_dict

    if question.get("target") is not None:
        return target_from_dict(unwrap_target(question["target"]))
    if not here:  # the machine is looked at once, however many lines mean it
        here.append(target_or_here(args))
    return here[0]


def _pairs(texts: list[str], separator: str, option: str) -> dict[str, str]:
    found = {}
    for text in texts:
        name, between, value = text.partition(separator)
        if not between or not name.strip():
            raise UsageError(
                f"`{option} {text}` is not of the form NAME{separator}VALUE", hint="bnbenv check --help"
            )
        found[name.strip()] = value.strip()
    return found
