"""`matrix show` and `matrix gpu`: what works on a machine, what a release holds, what a GPU is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bnbenv.cli.outcome import Outcome
from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from bnbenv.cli.ui import Ui
    from bnbenv.machine.target import Target
    from bnbenv.matrix.rows import BitsandbytesWheel, TorchBuild
    from bnbenv.workflows.matrix_table import Cell, Line

_MARKS = {True: ("✓", "green"), None: ("?", "yellow"), False: ("✗", "red")}


def show(args: Namespace, ui: Ui) -> Outcome:
    """Answer with a table of what works, the rows of a package, or the claims."""
    words: list[str] = args.words
    if not words:
        return _works(args, ui)
    if words == ["claims"]:
        return _claims(ui)
    return _package(words, ui)


def _works(args: Namespace, ui: Ui) -> Outcome:
    from bnbenv.cli.options import target_or_here
    from bnbenv.workflows.matrix_table import works_table
    from bnbenv.workflows.resolve import load_matrix

    target = target_or_here(args)
    matrix = load_matrix(target)
    table = works_table(target, matrix, every=args.all)
    data = {
        "revision": matrix.revision,
        "target": {
            "name": target.name,
            "os": target.os,
            "arch": target.arch,
            "accelerator": target.accelerator,
            "driver": str(target.driver) if target.driver else None,
            "gpus": [
                {
                    "name": gpu.name,
                    "compute_capability": str(gpu.compute_capability) if gpu.compute_capability else None,
                    "gfx": gpu.gfx,
                }
                for gpu in target.visible_gpus
            ],
        },
        "rows": [{"torch": line.torch, "cells": [_cell_data(cell) for cell in line.cells]} for line in table],
    }
    return Outcome(data=data, text=_works_text(table, target, matrix.revision, ui))


def _cell_data(cell: Cell) -> dict[str, Any]:
    return {
        "bitsandbytes": cell.bitsandbytes,
        "build": cell.build.build,
        "index": cell.build.index,
        "works": cell.works,
        "code": cell.reason.code if cell.reason else None,
        "reason": cell.reason.summary if cell.reason else None,
    }


def _works_text(table: Sequence[Line], target: Target, revision: str, ui: Ui) -> str:
    if not table or not table[0].cells:
        return f"no release of bitsandbytes has a wheel for {target.os} {target.arch}"
    notes: dict[str, int] = {}
    columns = [cell.bitsandbytes for cell in table[0].cells]
    body = [[line.torch, *(_cell_text(cell, notes) for cell in line.cells)] for line in table]
    widths = [max(len(row[at]) for row in [["torch", *columns], *body]) for at in range(len(columns) + 1)]
    head = "  ".join(name.ljust(width) for name, width in zip(["torch", *columns], widths, strict=True))
    lines = [
        f"torch by bitsandbytes for {target!s}",
        "",
        ui.paint(head.rstrip(), "bold"),
    ]
    for row, line in zip(body, table, strict=True):
        painted = [row[0].ljust(widths[0])]
        for text, width, cell in zip(row[1:], widths[1:], line.cells, strict=True):
            painted.append(ui.paint(text, _MARKS[cell.works][1]) + " " * (width - len(text)))
        lines.append("  ".join(painted).rstrip())
    lines += ["", *(f"{number:>3}  {text}" for text, number in notes.items())]
    lines.append("")
    key = ", ".join(
        f"{mark} {words}" for mark, words in zip("✓?✗", ("works", "not known", "fails"), strict=True)
    )
    lines.append(ui.paint(f"{key}; beside it the build of torch judged. matrix {revision}", "dim"))
    return "\n".join(lines)


def _cell_text(cell: Cell, notes: dict[str, int]) -> str:
    """The mark, the build, and the number of the reason where it does not simply work."""
    mark = _MARKS[cell.works][0]
    if cell.works:
        return f"{mark} {cell.build.build}"
    reason = _short(cell)
    return f"{mark} {notes.setdefault(reason, len(notes) + 1)}"


def _short(cell: Cell) -> str:
    """The reason without the release that the line and the column name, so that cells share it."""
    if cell.reason is None:
        return ""
    text = cell.reason.summary.replace(
        f"torch {cell.build.version} ({cell.build.build})", f"torch's {cell.build.build}"
    )
    return text.replace(f"bitsandbytes {cell.bitsandbytes}", "this bitsandbytes")


def _claims(ui: Ui) -> Outcome:
    from bnbenv.matrix.codec import CODECS
    from bnbenv.matrix.load import load

    matrix = load("claims")
    rows = [CODECS["claims"].write(row) for row in matrix.claims]
    lines = []
    for row in matrix.claims:
        colour = "green" if row.verdict == "true" else "yellow" if row.verdict == "partly-true" else "red"
        lines += [f"{ui.paint(row.verdict, colour, 'bold')}: {row.claim}", f"  {row.evidence}"]
    data = {"revision": matrix.revision, "package": "claims", "version": None, "rows": rows}
    return Outcome(data=data, text="\n".join(lines))


def _package(words: Sequence[str], ui: Ui) -> Outcome:
    from bnbenv.matrix.export import torch_data, wheel_data
    from bnbenv.matrix.load import bare_release, load

    package, version = words[0].lower(), words[1] if len(words) > 1 else None
    if package not in {"torch", "bitsandbytes"} or len(words) > 2:
        raise UsageError(
            "`matrix show` takes nothing, `claims`, or `torch` or `bitsandbytes` and a release",
            hint="bnbenv matrix show torch 2.9.1",
        )
    matrix = load("torch" if package == "torch" else "bitsandbytes")
    rows: Sequence[Any] = matrix.torch if package == "torch" else matrix.bitsandbytes
    known = sorted({row.version for row in rows}, key=numbers)
    if version is not None:
        version = next((one for one in known if bare_release(one) == bare_release(version)), version)
    if version is not None and version not in known:
        raise UsageError(
            f"the matrix of {matrix.revision} holds no {package} {version}; its newest is {known[-1]}",
            hint="`bnbenv matrix update` measures newer releases"
            if numbers(version) > numbers(known[-1])
            else f"bnbenv matrix show {package} {known[-1]}",
        )
    chosen = [row for row in rows if version is None or row.version == version]
    told = [torch_data(row) if package == "torch" else wheel_data(row) for row in chosen]
    return Outcome(
        data={"revision": matrix.revision, "package": package, "version": version, "rows": told},
        text=_torch_table(chosen, ui) if package == "torch" else wheel_table(chosen, ui),
    )


def gpu(args: Namespace, ui: Ui) -> Outcome:
    """Answer with a GPU."""
    del ui
    from bnbenv.matrix.gpus import find_gpu
    from bnbenv.matrix.load import load

    if not args.words:
        raise UsageError("`matrix gpu` takes the name of a GPU", hint='bnbenv matrix gpu "RTX 4090"')
    rows = load("gpus").gpus
    found = find_gpu(rows, " ".join(args.words))
    capability = str(found.compute_capability) if found.compute_capability else None
    kind = (found.compute_capability,) if found.compute_capability else ()
    row = next((one for one in rows if one.name == found.name), None) or next(
        (one for one in rows if found.name in one.name and one.capabilities == kind), None
    )
    data = {
        "name": found.name,
        "compute_capability": capability,
        "gfx": found.gfx,
        "source": row.provenance.source if row else None,
        "confidence": row.provenance.confidence if row else None,
    }
    words = f"compute capability {capability}" if capability else str(found.gfx)
    told = f" ({row.provenance.confidence} confidence: {row.provenance.source})" if row else ""
    return Outcome(data=data, text=f"{found.name}: {words}{told}")


def _torch_table(rows: Sequence[TorchBuild], ui: Ui) -> str:
    cells = [
        (
            row.version,
            row.build,
            row.index,
            f"{row.os} {row.arch}",
            " ".join(row.pythons),
            row.provenance.how,
            " ".join([*map(str, row.cubins), *(f"{ptx}+PTX" for ptx in row.ptx)]) or "-",
        )
        for row in rows
    ]
    return ui.table(cells, header=("torch", "build", "index", "platform", "pythons", "how", "cubins"))


def wheel_table(rows: Sequence[BitsandbytesWheel], ui: Ui) -> str:
    """Wheels of bitsandbytes, a line for each library."""
    cells = [
        (
            row.version,
            f"{row.os} {row.arch}",
            library.name,
            " ".join([*map(str, library.cubins), *library.gfx]) or "-",
            " ".join(f"{ptx} ({library.ptx_linkage})" for ptx in library.ptx) or "-",
        )
        for row in rows
        for library in row.libraries
    ]
    broken = sorted({f"{row.version} was published broken: {row.broken}" for row in rows if row.broken})
    table = ui.table(cells, header=("bitsandbytes", "platform", "library", "kernels for", "PTX"))
    return "\n".join([table, *broken])


def numbers(version: str) -> tuple[int, ...]:
    """A version as numbers, for ordering releases."""
    import re

    return tuple(int(part) for part in re.findall(r"\d+", version))
