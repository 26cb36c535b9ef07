"""Measures the torch releases on PyPI that compat/torch.json does not hold yet, one wheel a platform.

Rows of builds that only PyTorch's own indexes carry come from compat/torch_published.toml. A release and
platform whose measured wheel is still listed is not read again; with --write the file grows row by row,
so that a run that is cut short goes on where it ended.

    python scripts/refresh_torch.py [--write] [--only VERSION]…
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING

from _refresh import COMPAT, held_rows, open_index, run, settle_rows, today
from bnbenv.matrix.dump import dump_json, sort_rows
from bnbenv.matrix.load import load
from bnbenv.matrix.measure_torch import measure_symbol_versions, tag_promises_too_much
from bnbenv.matrix.news import candidates, groups, measured_torch, torch_rows
from bnbenv.matrix.published import published_rows
from bnbenv.matrix.remote import RemoteFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bnbenv.matrix.news import Group
    from bnbenv.matrix.rows import TorchBuild

PATH = COMPAT / "torch.json"


def completed(
    row: TorchBuild, listed: Sequence[Group], open_wheel: Callable[[Group], RemoteFile]
) -> TorchBuild:
    """A row with the symbol versions that its tag does not tell, read where an older script left them out."""
    wheel = row.provenance.source.partition(" ")[0]
    group = next((group for group in listed if group.chosen.wheel == wheel), None)
    if group is None or row.symbol_versions or not tag_promises_too_much(group.chosen.platform):
        return row
    versions = measure_symbol_versions(open_wheel(group))
    print(f"{wheel}: {', '.join(f'{name} {text}' for name, text in versions.items())}", file=sys.stderr)
    return row._replace(symbol_versions=versions)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the file")
    parser.add_argument("--only", action="append", default=[], metavar="VERSION", help="measure this release")
    parser.add_argument("--jobs", type=int, default=2, help="wheels read at once (default: 2)")
    options = parser.parse_args()

    held, _ = held_rows("torch", PATH)
    published = published_rows(load("torch_published", directory=COMPAT).torch_published)
    measured = [row for row in held if row.provenance.how == "measured"]
    index, session = open_index()
    lock = Lock()

    def open_wheel(group: Group) -> RemoteFile:
        chosen = group.chosen
        return RemoteFile(session, chosen.url, name=chosen.wheel, size=chosen.size)

    def measure_one(group: Group) -> TorchBuild:
        row = measured_torch(open_wheel(group), group)
        print(f"{group.chosen.wheel}: {row.build}", file=sys.stderr)
        with lock:
            measured.append(row)
            if options.write:  # a run that is cut short goes on here
                rows = sort_rows("torch", [*measured, *published])
                revision = today().replace("-", ".")
                PATH.write_text(dump_json("torch", rows, revision=revision), encoding="utf-8", newline="\n")
        return row

    def measure(new: Sequence[Group]) -> Iterable[TorchBuild]:
        with ThreadPoolExecutor(options.jobs) as pool:
            return list(pool.map(measure_one, new))

    listed = groups(candidates(index.get_project_page("torch").packages))
    if options.only:
        listed = [group for group in listed if group.chosen.version in options.only]
    rows = [completed(row, listed, open_wheel) for row in torch_rows(listed, list(measured), measure)]
    return settle_rows("torch", PATH, [*rows, *published], write=options.write)


if __name__ == "__main__":
    run(main)
