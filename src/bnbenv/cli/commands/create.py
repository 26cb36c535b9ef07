"""`create`: from a machine to an environment that provably computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.cli.options import (
    add_offline,
    add_request,
    add_target,
    add_yes,
    describes_other,
    other_target,
    read_requirements,
)
from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.outcome import Outcome
    from bnbenv.cli.ui import Ui
    from bnbenv.workflows.request import CreateRequest

EPILOG = """\
Examples:
  bnbenv create qlora                                 for this machine, under the name `qlora`
  bnbenv create qlora --name lab --python 3.12        under another name, with another Python
  bnbenv create qlora --path ./env                    in this project
  bnbenv create inference --with vllm --dry-run       only show what would be built
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
    what.add_argument("--exclude-newer", metavar="DATE", help="ignore what was uploaded after this date")
    what.add_argument(
        "--link-mode",
        choices=("auto", "clone", "hardlink", "copy"),
        default=None,
        help="how files come from uv's cache",
    )
    add_target(parser)
    add_offline(parser)
    add_yes(parser)


def request_from(args: Namespace) -> CreateRequest:
    """The line as the value that the workflow takes.

    Raises:
        UsageError: options exclude each other, or a file cannot be read.
    """
    from pathlib import Path

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
    config = read_config()
    wanted = Wanted(
        profile=args.profile,
        torch=args.torch,
        bitsandbytes=args.bitsandbytes,
        cuda=args.cuda,
        python=args.python,
        packages=tuple(args.packages),
        requirements=read_requirements(args.requirements),
        exclude_newer=args.exclude_newer,
        cpu=args.cpu,
        base=args.base,
        without_index=tuple(args.without_index),
    )
    path = Path(args.path).expanduser().absolute() if args.path else None
    return CreateRequest(
        wanted=wanted,
        name=args.name or (path.name if path else args.profile),
        path=path,
        generations=not args.no_generations,
        target=other_target(args),
        link_mode=args.link_mode or config.link_mode or "auto",
        offline=args.offline,
        dry_run=args.dry_run,
        mirrors=config.mirrors,
    )


def run(args: Namespace, ui: Ui) -> Outcome:
    """Build it."""
    request = request_from(args)
    raise NotImplementedError(request, ui)
