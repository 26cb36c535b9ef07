"""`list`: the environments."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from bnbenv.cli.outcome import Outcome
from bnbenv.cli.redact import Verbatim

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Mapping

    from bnbenv.cli.ui import Ui

EPILOG = """\
Examples:
  bnbenv list
  bnbenv list --json
  bnbenv list --names     one a line, for scripts; nothing of them is read
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--names", action="store_true", help="only what commands call them, one a line")


def run(args: Namespace, ui: Ui) -> Outcome:
    """List them."""
    from bnbenv.env.layout import Layout

    layout = Layout.find(os.environ)
    if args.names and not args.json:
        from bnbenv.workflows.environment import all_places, refuse_unreadable

        refuse_unreadable(layout)
        return Outcome(text=Verbatim("\n".join(place.name for place in all_places(layout))))
    from bnbenv.workflows.listing import list_environments

    entries = [entry.to_dict() for entry in list_environments(layout)]
    data = {"home": str(layout.home), "environments": entries}
    if not entries:
        return Outcome(data=data, text="no environments yet; `bnbenv create qlora` makes one")
    rows = [_cells(entry) for entry in entries]
    return Outcome(
        data=data, text=ui.table(rows, header=("name", "status", "torch", "bitsandbytes", "where"))
    )


def _cells(entry: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """One environment as a row of the table."""
    torch, library = entry["torch"] or {}, entry["bitsandbytes"] or {}
    build = f"{torch.get('version', '')} {torch.get('build', '')}".strip()
    return (
        str(entry["name"]),
        str(entry["status"]),
        build,
        str(library.get("version", "")),
        str(entry["problem"] or entry["link"]),
    )
