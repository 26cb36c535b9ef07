"""`kernel`: environments in Jupyter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.cli.deleting import agreed
from bnbenv.cli.options import add_offline, add_yes
from bnbenv.cli.outcome import Outcome
from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui
    from bnbenv.env.kernel import Kernel

EPILOG = """\
Examples:
  bnbenv kernel install qlora                  Jupyter starts it, and what it is after a repair
  bnbenv kernel install --name mine            the active environment, under a name of your own
  bnbenv kernel list
  bnbenv kernel remove qlora
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "action",
        metavar="ACTION",
        nargs="?",
        default="list",
        choices=("install", "list", "remove"),
        help="install, list (default) or remove",
    )
    parser.add_argument(
        "name_or_env",
        metavar="ENV",
        nargs="?",
        help="an environment (default of `install`: the active one, ./.venv); "
        "for `remove` also a kernel's name",
    )
    parser.add_argument("--name", help="install: the kernel's name (default: bnbenv-ENV)")
    parser.add_argument("--display-name", metavar="TEXT", help="install: what Jupyter shows")
    add_offline(parser)
    add_yes(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Do it."""
    from bnbenv.env import kernel as kernels

    args.schema = f"kernel-{args.action}"
    if args.action == "install":
        return _install(args, ui)
    if args.action == "list" and args.name_or_env is not None:
        raise UsageError(
            f"`kernel list` tells of all, not of `{args.name_or_env}`", hint="bnbenv kernel list"
        )
    if args.action == "list":
        known = kernels.list_kernels(os.environ)
        rows = [(it.name, str(it.link), "" if it.works else "the environment is gone") for it in known]
        text = ui.table(rows) if rows else "Jupyter knows no environment of bnbenv's"
        return Outcome(data={"kernels": [_document(it) for it in known]}, text=text)
    if args.name_or_env is None:
        raise UsageError("which kernel shall go?", hint="bnbenv kernel list")
    from bnbenv.workflows.kernel import find

    kernel = find(args.name_or_env, os.environ, Path.cwd())
    data: dict[str, Any] = {"kernel": _document(kernel), "removed": False}
    if args.dry_run:
        return Outcome(data=data, text=f"would delete {kernel.directory}")
    if not agreed(f"Delete the kernel `{kernel.name}`?", args, ui):
        return Outcome(data=data, text="nothing was deleted")
    kernels.remove_kernel(kernel)
    return Outcome(data={**data, "removed": True}, text=f"deleted `{kernel.name}`")


def _install(args: Namespace, ui: Ui) -> Outcome:
    from bnbenv.workflows.config import read_config
    from bnbenv.workflows.environment import locate
    from bnbenv.workflows.install import ChangeRequest
    from bnbenv.workflows.kernel import register

    config = read_config()
    located = locate(args.name_or_env, os.environ, Path.cwd(), changing="bnbenv kernel install")
    ui.say(f"environment: {located}")
    asked = ChangeRequest(
        offline=args.offline,
        dry_run=args.dry_run,
        link_mode=config.link_mode or "auto",
        mirrors=config.mirrors,
    )
    registered = register(
        located, asked, ui, os.environ, name=args.name, shown=args.display_name, yes=args.yes
    )
    kernel, added = registered.kernel, registered.added
    data = {
        "kernel": _document(kernel),
        "written": not args.dry_run,
        "added": [{"name": it.name, "version": it.version} for it in added.changes] if added else [],
    }
    word = "would write" if args.dry_run else "wrote"
    return Outcome(
        data=data,
        text=f'{word} the kernel `{kernel.name}`: choose "{kernel.shown}" in Jupyter',
    )


def _document(kernel: Kernel) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "display_name": kernel.shown,
        "environment": str(kernel.link),
        "path": str(kernel.directory),
        "works": kernel.works,
    }
