"""`matrix check`, `matrix update` and `matrix measure`: the data itself, and how it grows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from bnbenv.cli.outcome import Outcome
from bnbenv.errors import EXIT_DATA, EXIT_OK, UsageError
from bnbenv.words import counted

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping, Sequence

    from bnbenv.cli.ui import Ui
    from bnbenv.machine.target import Arch, OsName
    from bnbenv.workflows.matrix_measure import Measured
    from bnbenv.workflows.matrix_news import News, Reader, Saved


def check(args: Namespace, ui: Ui) -> Outcome:
    """Answer whether every row reads, and whether rows agree."""
    if args.words:
        raise UsageError("`matrix check` takes no word", hint="bnbenv matrix check")
    from bnbenv.cli.outcome import Problem
    from bnbenv.matrix.invariants import check as check_files
    from bnbenv.matrix.invariants import check_added, check_hashes, file_hashes, shipped_hashes
    from bnbenv.matrix.load import added_directory, compat_directory, load
    from bnbenv.matrix.matrix import PARTS

    matrix = load()
    counts = {part: len(getattr(matrix, part)) for part in PARTS}
    shipped, _, added = matrix.revision.partition("+")
    hashes = file_hashes(compat_directory())
    as_shipped = shipped_hashes(compat_directory())
    found = [*check_hashes(hashes, as_shipped), *check_files(compat_directory())]
    if added:
        found += [text for text in check_added(matrix) if text not in found]
    data = {
        "revision": matrix.revision,
        "shipped": shipped,
        "added": added or None,
        "directory": str(compat_directory()),
        "added_directory": str(added_directory()) if added else None,
        "rows": counts,
        "sha256": hashes,
        "as_shipped": bool(as_shipped),
        "violations": found,
    }
    more = f", and {added} in {added_directory()}" if added else ""
    lines = [f"revision {shipped} in {data['directory']}{more}: {sum(counts.values())} rows, all readable"]
    if ui.verbosity:
        lines.append(ui.table(list(hashes.items())))
    lines.append(
        "files compared with the hashes that bnbenv was installed with"
        if as_shipped
        else "no hashes to compare with: this matrix is not part of an installed bnbenv"
    )
    lines += found or ["what must hold between rows holds"]
    problems = tuple(Problem(code="matrix-invalid", message=text) for text in found)
    return Outcome(
        data=data, text="\n".join(lines), problems=problems, exit_code=EXIT_DATA if found else EXIT_OK
    )


def update(args: Namespace, ui: Ui) -> Outcome:
    """Answer with what was measured of an index's newer releases."""
    if args.words:
        raise UsageError("`matrix update` takes no word", hint="bnbenv matrix update --dry-run")
    reader, news = _news(args, ui)
    return _grown(args, ui, reader, news, "everything that it lists is known")


def measure(args: Namespace, ui: Ui) -> Outcome:
    """Answer with what a file, a directory, an environment or an index holds."""
    if args.index:
        if args.words:
            raise UsageError("`--index` and a file are two questions", hint="ask one of them at a time")
        reader, news = _news(args, ui)
        return _grown(args, ui, reader, news, "all of it is measured already")
    if len(args.words) != 1:
        raise UsageError(
            "`matrix measure` takes a file, a directory or an environment, or `--index`",
            hint="bnbenv matrix measure ./libbitsandbytes_cuda126.so",
        )
    from bnbenv.workflows.matrix_measure import measure_path

    measured = measure_path(args.words[0], os.environ)
    data = {
        "kind": measured.kind,
        "path": str(measured.path.absolute()),
        "bitsandbytes": measured.bitsandbytes,
        "torch": measured.torch,
        "libraries": list(measured.libraries),
        "same_as": measured.same_as,
    }
    return Outcome(data=data, text=_measured_text(measured, ui))


def _news(args: Namespace, ui: Ui) -> tuple[Reader, News]:
    from bnbenv.workflows.matrix_news import Reader

    reader = Reader(args.index, os.environ, offline=args.offline)
    ui.progress(f"asking `{reader.index.name}` for torch and bitsandbytes")
    return reader, reader.news(_platform(args), args.release)


def _platform(args: Namespace) -> tuple[OsName, Arch] | None:
    from bnbenv.cli.options import target_or_here

    if args.every_platform:
        return None
    target = target_or_here(args)
    return target.os, target.arch


def _grown(args: Namespace, ui: Ui, reader: Reader, news: News, nothing: str) -> Outcome:
    from bnbenv.workflows.matrix_news import save

    shipped, _, added = reader.matrix.revision.partition("+")
    data: dict[str, Any] = {
        "index": news.index,
        "shipped": shipped,
        "added": added or None,
        "directory": None,
        "new": [*_wheels(news), *_builds(news)],
        "measured": [],
        "dry_run": args.dry_run,
    }
    if not news.names:
        return Outcome(data=data, text=f"`{news.index}`: {nothing}; {_revisions(shipped, added)}")
    listing = ui.table([(f"{one['package']} {one['version']}", one["wheel"]) for one in data["new"]])
    if args.dry_run:
        return Outcome(data=data, text=f"{listing}\nwould be measured; {_revisions(shipped, added)}")
    ui.say(listing)
    if not ui.confirm(f"Read these {len(news.names)} files by parts?", yes=args.yes):
        return Outcome(data=data, text="nothing was measured")
    saved: Saved | None = None
    measured: list[str] = []
    for part in _single(news):  # kept one by one: what was read once is not read again
        wheels, builds = reader.measure(part, ui)
        saved = save(wheels, builds)
        measured += part.names
    data |= {"measured": measured, "directory": str(saved.directory) if saved else None}
    data["added"] = saved.added if saved else data["added"]
    files = counted(len(measured), "file")
    text = f"{files} measured into {data['directory']}; {_revisions(shipped, data['added'])}"
    return Outcome(data=data, text=text)


def _single(news: News) -> Sequence[News]:
    from bnbenv.dataclass import replace

    return [
        *(replace(news, bitsandbytes=(one,), torch=()) for one in news.bitsandbytes),
        *(replace(news, bitsandbytes=(), torch=(one,)) for one in news.torch),
    ]


def _wheels(news: News) -> list[dict[str, str]]:
    return [
        {"package": "bitsandbytes", "version": one.version, "wheel": one.wheel} for one in news.bitsandbytes
    ]


def _builds(news: News) -> list[dict[str, str]]:
    return [
        {
            "package": "torch",
            "version": one.chosen.version + (f"+{one.chosen.local}" if one.chosen.local else ""),
            "wheel": one.chosen.wheel,
        }
        for one in news.torch
    ]


def _revisions(shipped: str, added: str | None) -> str:
    return f"shipped revision {shipped}, " + (f"added {added}" if added else "nothing added")


def _measured_text(measured: Measured, ui: Ui) -> str:
    lines = [f"{measured.kind} {measured.path}"]
    for name, held in (("bitsandbytes", measured.bitsandbytes), ("torch", measured.torch)):
        if held:
            lines.append(f"{name} {held['version']}" + (f": {_images(held)}" if name == "torch" else ""))
    if measured.same_as:
        lines.append(f"these are the bytes of the published {measured.same_as}")
    rows = [
        (
            row["name"],
            row["backend"],
            row["toolkit"] or "-",
            _images(row),
            ", ".join(f"{family} {version}" for family, version in row["symbol_versions"].items()) or "-",
        )
        for row in measured.libraries
    ]
    if rows:
        lines.append(ui.table(rows, header=("library", "backend", "toolkit", "kernels for", "symbols")))
    elif not measured.torch:
        lines.append("no native library of bitsandbytes or torch is there")
    return "\n".join(lines)


def _images(row: Mapping[str, Any]) -> str:
    linkage = f" ({row['ptx_linkage']})" if row.get("ptx_linkage") else ""
    parts = [*row["cubins"], *(f"PTX {one}{linkage}" for one in row["ptx"]), *row.get("gfx", ())]
    return " ".join(parts) or "-"
