"""`matrix export` and `matrix html`: the matrix for other programs, and as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bnbenv.cli.outcome import Outcome
from bnbenv.env import durable
from bnbenv.errors import UsageError
from bnbenv.home import expanded

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence
    from pathlib import Path

    from bnbenv.cli.ui import Ui


def export(args: Namespace, ui: Ui) -> Outcome:
    """Answer with the whole matrix, or with one of its tables."""
    del ui
    from bnbenv.matrix.export import FLAT, flat_rows, matrix_data
    from bnbenv.matrix.load import load

    part = args.words[0].lower() if args.words else ""
    if len(args.words) > 1 or (part and part not in FLAT):
        raise UsageError(
            f"`matrix export` takes {' or '.join(FLAT)}, or nothing", hint="bnbenv matrix export --csv torch"
        )
    if not (args.csv or args.markdown):
        if part:
            raise UsageError(
                "one part alone is a table: `--csv` or `--markdown`",
                hint=f"bnbenv matrix export --csv {part}",
            )
        return _whole(args, matrix_data(load()))
    matrix = load(part or "bitsandbytes")
    rows = list(flat_rows(part or "bitsandbytes", getattr(matrix, part or "bitsandbytes")))
    text = _csv(rows) if args.csv else _markdown(rows)
    data = {"revision": matrix.revision, "part": part or "bitsandbytes", "rows": len(rows)}
    return _written(args, text, data)


def _whole(args: Namespace, data: dict[str, Any]) -> Outcome:
    import json

    if args.json and not args.output:
        return Outcome(data=data)
    text = json.dumps(data, ensure_ascii=False, indent=1)
    counts = {
        "revision": data["revision"],
        "part": "all",
        "rows": sum(len(v) for v in data.values() if isinstance(v, list)),
    }
    return _written(args, text, counts)


def _written(args: Namespace, text: str, data: dict[str, Any]) -> Outcome:
    if args.output:
        path = _write(args.output, text)
        return Outcome(data={**data, "file": str(path.absolute())}, text=f"{path}: {data['rows']} rows")
    return Outcome(data={**data, "text": text}, text=text, document=True)


def _write(name: str, text: str) -> Path:
    path = expanded(name, "`--output`")
    with durable.told(path, "write"):
        path.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8", newline="\n")
    return path


def _csv(rows: Sequence[dict[str, str]]) -> str:
    import csv
    import io

    out = io.StringIO()
    writer = csv.DictWriter(out, _header(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _markdown(rows: Sequence[dict[str, str]]) -> str:
    header = _header(rows)
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += [
        "| " + " | ".join(row.get(name, "").replace("|", "\\|") for name in header) + " |" for row in rows
    ]
    return "\n".join(lines)


def _header(rows: Sequence[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def html(args: Namespace, ui: Ui) -> Outcome:
    """Answer with the page's file."""
    from bnbenv.cli.options import describes_other, target_or_here
    from bnbenv.matrix.load import load
    from bnbenv.workflows.choose import JUDGED
    from bnbenv.workflows.page import PARTS, Start, make_page

    if args.words:
        raise UsageError("`matrix html` takes no word", hint="bnbenv matrix html -o matrix.html")
    start = Start.of(target_or_here(args)) if describes_other(args) else Start.usual()
    ui.progress("asking the judge about every torch and bitsandbytes, driver and GPU")
    matrix = load(*dict.fromkeys([*JUDGED, *PARTS]))
    path = _write(args.output or "matrix.html", make_page(matrix, start))
    size = path.stat().st_size
    data = {"revision": matrix.revision, "file": str(path.absolute()), "bytes": size}
    return Outcome(data=data, text=f"{path}: {size / 1e6:.1f} MB in one file; open it in a browser")
