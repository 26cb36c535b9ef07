"""`bundle`: everything that a lock names, in one directory, for a site without a network."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from bnbenv.cli.options import lock_directory
from bnbenv.cli.outcome import Outcome
from bnbenv.cli.spelling import spelt
from bnbenv.home import expanded
from bnbenv.words import counted

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui

EPILOG = """\
Examples:
  bnbenv bundle -o /mnt/usb                     everything that the lock in this directory names
  bnbenv bundle locks/ -o site --variant cu126  one variant alone
  bnbenv sync /mnt/usb --wheelhouse /mnt/usb    on the machine without a network
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "lockdir",
        metavar="LOCKDIR",
        nargs="?",
        help="where bnbenv.lock stands (default: here, else the nearest above in the repository)",
    )
    parser.add_argument(
        "-o", "--output", metavar="DIR", required=True, help="the directory to fill; typed again, it goes on"
    )
    parser.add_argument(
        "--variant", action="append", default=[], metavar="NAME", help="this one alone; repeat for several"
    )
    parser.add_argument(
        "--allow-local", action="store_true", help="take files of this machine that the lock names"
    )
    parser.add_argument("--dry-run", action="store_true", help="only list what would be fetched")


def run(args: Namespace, ui: Ui) -> Outcome:
    """Fetch."""
    from bnbenv.install.size import shown
    from bnbenv.workflows.bundle import BundleRequest, bundle
    from bnbenv.workflows.config import read_config

    request = BundleRequest(
        directory=lock_directory(args.lockdir, "the locks", ui),
        output=expanded(args.output, "`--output`").absolute(),
        variants=tuple(args.variant),
        allow_local=args.allow_local,
        dry_run=args.dry_run,
        mirrors=read_config().mirrors,
    )
    bundled = bundle(request, ui, os.environ)
    rows = [(name, counted(len(files), "file")) for name, files in bundled.by_variant.items()]
    lines = [ui.table(rows)]
    if bundled.size is None:
        lines += [f"  {name}" for name in bundled.files]
        lines.append("dry run: nothing was fetched")
    else:
        lines.append(f"{bundled.fetched} of {len(bundled.files)} files fetched; {shown(bundled.size)} in all")
        place = str(bundled.output)
        words = ["bnbenv", "sync", place, "--wheelhouse", place]
        words += ["--allow-local"] if args.allow_local else []
        lines += ["", "Next there:", f"  {spelt(shlex.join(words))}"]
    return Outcome(
        data={
            "output": str(bundled.output),
            "variants": {name: list(files) for name, files in bundled.by_variant.items()},
            "files": dict(bundled.files),
            "fetched": bundled.fetched,
            "bytes": bundled.size,
        },
        text="\n".join(lines),
    )
