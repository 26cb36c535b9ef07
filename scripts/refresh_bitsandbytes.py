"""Measures the bitsandbytes wheels that compat/bitsandbytes.json does not hold yet.

A wheel is known by file name and hash and is not read again; a run without news costs one request.

    python scripts/refresh_bitsandbytes.py [--write] [--again NAME]…
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from _refresh import COMPAT, held_rows, open_index, run, settle_rows
from bnbenv.matrix.load import load
from bnbenv.matrix.measure import Published, measure_bitsandbytes
from bnbenv.matrix.remote import RemoteFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pypi_simple import DistributionPackage

    from bnbenv.matrix.rows import BitsandbytesWheel, BrokenRelease

FIRST = Version("0.35.0")
PATH = COMPAT / "bitsandbytes.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One wheel as the index lists it."""

    wheel: str
    version: str
    sha256: str
    size: int | None
    uploaded: str
    url: str


def listed_wheels(packages: Iterable[DistributionPackage]) -> list[Listed]:
    """The wheels of interest out of an index page."""
    wheels = []
    for package in packages:
        if package.package_type != "wheel" or package.version is None:
            continue
        try:
            if Version(package.version) < FIRST:
                continue
        except InvalidVersion:
            continue
        day = package.upload_time.date().isoformat() if package.upload_time else ""
        wheels.append(
            Listed(
                wheel=package.filename,
                version=package.version,
                sha256=package.digests.get("sha256", ""),
                size=package.size,
                uploaded=day,
                url=package.url,
            )
        )
    return wheels


def why_broken(wheel: BitsandbytesWheel, broken: Sequence[BrokenRelease]) -> str | None:
    """The reasons against a wheel, with their sources."""
    reasons = [
        f"{row.reason} ({row.provenance.source})"
        for row in broken
        if wheel.version in SpecifierSet(row.versions, prereleases=True)
        and (not row.os or wheel.os in row.os)
    ]
    return "; ".join(reasons) or None


def rows_from(
    listed: Sequence[Listed],
    held: Sequence[BitsandbytesWheel],
    broken: Sequence[BrokenRelease],
    measure: Callable[[Sequence[Listed]], Iterable[BitsandbytesWheel]],
) -> list[BitsandbytesWheel]:
    """The rows to write: those held, those measured now, each with today's reasons against it.

    A row whose wheel the index no longer lists is kept: locks may still name it.
    """
    known = {(row.wheel, row.sha256) for row in held}
    new = [wheel for wheel in listed if (wheel.wheel, wheel.sha256) not in known]
    rows = [*held, *measure(new)]
    return [replace(row, broken=why_broken(row, broken)) for row in rows]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the file")
    parser.add_argument(
        "--again", action="append", default=[], metavar="NAME", help="measure this wheel anew"
    )
    parser.add_argument("--jobs", type=int, default=2, help="wheels read at once (default: 2)")
    options = parser.parse_args()

    held, _ = held_rows("bitsandbytes", PATH)
    held = tuple(row for row in held if row.wheel not in options.again)
    index, session = open_index()

    def measure_one(wheel: Listed) -> BitsandbytesWheel:
        file = RemoteFile(session, wheel.url, name=wheel.wheel, size=wheel.size)
        row = measure_bitsandbytes(file, Published(wheel.sha256, wheel.uploaded))
        print(f"{wheel.wheel}: {len(row.libraries)} libraries", file=sys.stderr)
        return row

    def measure(wheels: Sequence[Listed]) -> Iterable[BitsandbytesWheel]:
        with ThreadPoolExecutor(options.jobs) as pool:
            return list(pool.map(measure_one, wheels))

    page = index.get_project_page("bitsandbytes")
    rows = rows_from(listed_wheels(page.packages), held, load("broken", directory=COMPAT).broken, measure)
    return settle_rows("bitsandbytes", PATH, rows, write=options.write)


if __name__ == "__main__":
    run(main)
