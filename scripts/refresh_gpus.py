"""Merges the hand-made names of compat/gpus_named.toml and, if given, a pci.ids file into compat/gpus.json.

A row from NVIDIA's own list of supported chips is kept before one of pci.ids. The chip code in pci.ids
(`AD102 [GeForce RTX 4090]`) decides the compute capability; a chip that is not known here is passed over.

    python scripts/refresh_gpus.py [--pci-ids FILE] [--write]
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from _refresh import COMPAT, held_rows, run, settle_rows, today
from bnbenv.matrix.load import load
from bnbenv.matrix.rows import GpuRow, Provenance
from bnbenv.units import ComputeCapability

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PATH = COMPAT / "gpus.json"

_CHIPS = {
    "GK104": "3.0", "GK106": "3.0", "GK107": "3.0", "GK110": "3.5", "GK180": "3.5", "GK208": "3.5",
    "GK210": "3.7", "GM107": "5.0", "GM108": "5.0", "GM200": "5.2", "GM204": "5.2", "GM206": "5.2",
    "GP100": "6.0", "GP102": "6.1", "GP104": "6.1", "GP106": "6.1", "GP107": "6.1", "GP108": "6.1",
    "GV100": "7.0", "TU102": "7.5", "TU104": "7.5", "TU106": "7.5", "TU116": "7.5", "TU117": "7.5",
    "GA100": "8.0", "GA102": "8.6", "GA103": "8.6", "GA104": "8.6", "GA106": "8.6", "GA107": "8.6",
    "AD102": "8.9", "AD103": "8.9", "AD104": "8.9", "AD106": "8.9", "AD107": "8.9", "GH100": "9.0",
    "GB100": "10.0", "GB102": "10.0", "GB202": "12.0", "GB203": "12.0", "GB205": "12.0", "GB206": "12.0",
    "GB207": "12.0",
}  # fmt: skip
_LINE = re.compile(r"\t([0-9a-f]{4})  (\w+?)(?:GL|GLM|M|TM|BM)? \[(.+)\]")


def from_pci_ids(lines: Iterable[str]) -> list[GpuRow]:
    """The NVIDIA products in the lines of a pci.ids file."""
    found: dict[str, GpuRow] = {}
    nvidia = False
    for line in lines:
        if not line.startswith("\t"):
            nvidia = line.startswith("10de ")
            continue
        match = _LINE.fullmatch(line.rstrip("\n"))
        if not nvidia or match is None or match[2] not in _CHIPS:
            continue
        capability = ComputeCapability.parse(_CHIPS[match[2]])
        for name in match[3].split(" / "):
            source = Provenance(
                how="published", source=f"pci.ids; chip {match[2]}", checked=today(), confidence="medium"
            )
            row = GpuRow(
                name=name, pci_ids=(match[1].upper(),), capabilities=(capability,), gfx=(), provenance=source
            )
            found[name] = merged(found[name], row) if name in found else row
    return list(found.values())


def merged(old: GpuRow, new: GpuRow) -> GpuRow:
    """A row with the ids and capabilities of both; provenance of the first."""
    return old._replace(
        pci_ids=tuple(sorted({*old.pci_ids, *new.pci_ids})),
        capabilities=tuple(sorted({*old.capabilities, *new.capabilities})),
    )


def rows_from(held: Sequence[GpuRow], named: Sequence[GpuRow], listed: Sequence[GpuRow]) -> list[GpuRow]:
    """The rows to write: what is held, the hand-made ones in their present form, and new names and ids."""
    rows = {row.name: row for row in held}
    rows.update({row.name: row for row in named})
    owners = {pci_id for row in held for pci_id in row.pci_ids}
    for row in listed:
        fresh = tuple(pci_id for pci_id in row.pci_ids if pci_id not in owners)
        if row.name in rows:
            rows[row.name] = merged(rows[row.name], row._replace(pci_ids=fresh))
        elif fresh:
            rows[row.name] = row._replace(pci_ids=fresh)
    return list(rows.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pci-ids", type=Path, metavar="FILE", help="such as /usr/share/misc/pci.ids")
    parser.add_argument("--write", action="store_true", help="write the file")
    options = parser.parse_args()
    held, _ = held_rows("gpus", PATH)
    listed: list[GpuRow] = []
    if options.pci_ids:
        listed = from_pci_ids(options.pci_ids.read_text(encoding="utf-8", errors="replace").splitlines())
    rows = rows_from(held, load("gpus_named", directory=COMPAT).gpus_named, listed)
    return settle_rows("gpus", PATH, rows, write=options.write)


if __name__ == "__main__":
    run(main)
