"""`info`: everything that is known of one environment."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.cli.options import add_name
from bnbenv.cli.outcome import Outcome
from bnbenv.cli.spelling import spelt
from bnbenv.words import counted

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator, Mapping
    from typing import Any

    from bnbenv.cli.ui import Ui

EPILOG = """\
Examples:
  bnbenv info qlora
  bnbenv info ./env --json
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_name(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Show it."""
    from bnbenv.env.layout import Layout
    from bnbenv.workflows.environment import existing
    from bnbenv.workflows.listing import info

    data = info(existing(args.name, Layout.find(os.environ)))
    return Outcome(data=data, text=_text(data, ui))


def _text(data: Mapping[str, Any], ui: Ui) -> str:
    torch, library = data["torch"] or {}, data["bitsandbytes"] or {}
    rows = [
        ("name", str(data["name"])),
        ("profile", str(data["profile"])),
        (
            "verdict",
            str(data["verdict"])
            + ("" if data["verdict"] != "not-run" else f": bnbenv verify {data['name']} would tell"),
        ),
        ("python", str(data["python"])),
        ("torch", f"{torch.get('version', '?')} {torch.get('build', '')} from {torch.get('index', '?')}"),
        ("bitsandbytes", f"{library.get('version', '?')}, loads {library.get('library', '?')}"),
        (
            "made for",
            str(data["target"].get("name", "?")) + (f", driver {data['driver']}" if data["driver"] else ""),
        ),
        ("made", f"{data['created']} by bnbenv {data['bnbenv']}, matrix {data['matrix']}"),
        ("link", str(data["link"])),
        ("for editors", str(Path(data["link"]) / Path(data["interpreter"]).relative_to(data["path"]))),
        ("generation", str(data["path"])),
        ("size", f"{data['bytes'] / 1e9:.2f} GB, {counted(len(data['packages']), 'package')}"),
        ("lock", data["lock"]["path"]),
    ]
    if data["base"]:
        rows.append(("built upon", str(data["base"]["python"])))
    lines = [ui.table([*rows, *_guarded(data)])]
    lines += [f"{finding['severity']}: {finding['summary']}" for finding in data["findings"]]
    return "\n".join([*lines, *_others(data)])


def _others(data: Mapping[str, Any]) -> Iterator[str]:
    """The generations that are not current, and how to switch to them; the history begins with the oldest."""
    names = [str(entry["generation"]) for entry in data["history"]]
    position = [entry["current"] for entry in data["history"]].index(True)
    rollback = spelt(f"bnbenv rollback {shlex.quote(str(data['name']))}")
    if older := names[:position]:
        yield f"older generations: {', '.join(older)} ({rollback})"
    if newer := names[position + 1 :]:
        yield f"newer generations: {', '.join(newer)} ({rollback} --to {newer[-1]})"


def _guarded(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What pip and uv are kept from changing, and why; what the user let in all the same."""
    guard = data["guard"]
    if guard is None:
        yield "held", "nothing: there is no guard"
    else:
        held = ", ".join(f"{name} {version}" for name, version in guard["held"].items())
        yield "held", f"to the lock (torch, what is built with it, and pip, which does the holding): {held}"
        if guard["ranges"]:
            ranges = ", ".join(f"{name} {specifier}" for name, specifier in guard["ranges"].items())
            yield "", f"to ranges that were proven with them: {ranges}"
        for name, why in guard["kept_out"].items():
            yield "kept out", f"{name}: {why}"
    if data["let_in"]:
        yield "let in", f"with --anyway: {', '.join(data['let_in'])}"
