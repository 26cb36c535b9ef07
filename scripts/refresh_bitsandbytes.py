"""Measures the bitsandbytes wheels that compat/bitsandbytes.json does not hold yet.

A wheel is known by file name and hash and is not read again; a run without news costs one request. Rows of
wheels that other indexes carry come from compat/bitsandbytes_published.toml.

    python scripts/refresh_bitsandbytes.py [--write] [--again NAME]… [--anew]
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from _refresh import COMPAT, held_rows, open_index, run, settle_rows
from bnbenv.matrix.load import load
from bnbenv.matrix.news import bitsandbytes_row, bitsandbytes_rows, listed_wheels
from bnbenv.matrix.remote import RemoteFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bnbenv.matrix.news import Listed
    from bnbenv.matrix.rows import BitsandbytesWheel

PATH = COMPAT / "bitsandbytes.json"


def same_day(row: BitsandbytesWheel, before: BitsandbytesWheel | None) -> BitsandbytesWheel:
    """A row measured anew; where nothing but the day differs, the row that is held."""
    if before is None:
        return row
    aged = row._replace(provenance=row.provenance._replace(checked=before.provenance.checked))
    return aged if aged._replace(broken=before.broken) == before else row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the file")
    parser.add_argument(
        "--again", action="append", default=[], metavar="NAME", help="measure this wheel anew"
    )
    parser.add_argument("--anew", action="store_true", help="measure every wheel anew, to compare")
    parser.add_argument("--jobs", type=int, default=3, help="wheels read at once (default: 3)")
    options = parser.parse_args()

    every, _ = held_rows("bitsandbytes", PATH)
    held = tuple(row for row in every if row.provenance.how == "measured")
    before = {row.wheel: row for row in held}
    held = () if options.anew else tuple(row for row in held if row.wheel not in options.again)
    index, session = open_index()

    def measure_one(wheel: Listed) -> BitsandbytesWheel:
        file = RemoteFile(session, wheel.url, name=wheel.wheel, size=wheel.size)
        row = same_day(bitsandbytes_row(file, wheel), before.get(wheel.wheel))
        print(f"{wheel.wheel}: {len(row.libraries)} libraries", file=sys.stderr)
        return row

    def measure(wheels: Sequence[Listed]) -> Iterable[BitsandbytesWheel]:
        with ThreadPoolExecutor(options.jobs) as pool:
            return list(pool.map(measure_one, wheels))

    page = index.get_project_page("bitsandbytes")
    matrix = load("broken", "bitsandbytes_published", directory=COMPAT)
    rows = bitsandbytes_rows(listed_wheels(page.packages), held, matrix.broken, measure)
    return settle_rows("bitsandbytes", PATH, [*rows, *matrix.bitsandbytes_published], write=options.write)


if __name__ == "__main__":
    run(main)
