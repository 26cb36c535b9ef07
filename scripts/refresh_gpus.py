"""Merges the hand-made names of compat/gpus_named.toml and, if given, a pci.ids file into compat/gpus.json.

A row from NVIDIA's own list of supported chips is kept before one of pci.ids. The chip code in pci.ids
(`AD102 [GeForce RTX 4090]`, `Navi 48 [Radeon RX 9070/9070 XT]`) decides the compute capability or the target;
a chip that is not known here is passed over.

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
    from collections.abc import Iterable, Iterator, Sequence

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
# The targets of AMD's chips: LLVM's user guide of the AMDGPU backend names them by product.
_TARGETS = {
    "Vega 10": "gfx900", "Vega 12": "gfx904", "Vega 20": "gfx906", "Arcturus": "gfx908",
    "Aldebaran/MI200": "gfx90a", "Aqua Vanjaram": "gfx942", "Renoir": "gfx90c", "Cezanne": "gfx90c",
    "Navi 10": "gfx1010", "Navi 12": "gfx1011", "Navi 14": "gfx1012", "Navi 21": "gfx1030",
    "Navi 22": "gfx1031", "Navi 23": "gfx1032", "Navi 24": "gfx1034", "Rembrandt": "gfx1035",
    "Mendocino": "gfx1037", "Navi 31": "gfx1100", "Navi 32": "gfx1101", "Navi 33": "gfx1102",
    "Strix": "gfx1150", "Strix Halo": "gfx1151", "Krackan": "gfx1152", "Navi 44": "gfx1200",
    "Navi 48": "gfx1201",
}  # fmt: skip
_MI350 = re.compile(r"Instinct MI35\d")  # pci.ids gives them the name of the chip before
_CHIP = "|".join(sorted(_TARGETS, key=len, reverse=True))
_AMD_LINE = re.compile(rf"\t([0-9a-f]{{4}})  ({_CHIP})(?: [A-Z-]+(?:/[A-Z]+)?| WKS-X[ML])? \[(.+)\]")
_LINE = re.compile(r"\t([0-9a-f]{4})  (\w+?)(?:GL|GLM|M|TM|BM)? \[(.+)\]")


def from_pci_ids(lines: Iterable[str]) -> list[GpuRow]:
    """The products of NVIDIA and AMD in the lines of a pci.ids file."""
    found: dict[str, GpuRow] = {}
    vendor = ""
    for line in lines:
        if line.startswith("#"):
            continue
        if not line.startswith("\t"):
            vendor = line[:4]
        for row in _products(line.rstrip("\n"), vendor):
            found[row.name] = merged(found[row.name], row) if row.name in found else row
    return list(found.values())


def _products(line: str, vendor: str) -> Iterator[GpuRow]:
    if vendor == "10de" and (match := _LINE.fullmatch(line)) and match[2] in _CHIPS:
        capability = ComputeCapability.parse(_CHIPS[match[2]])
        for name in match[3].split(" / "):
            if "NVSwitch" not in name:
                yield _row(name, match, capabilities=(capability,))
    elif vendor == "1002" and (match := _AMD_LINE.fullmatch(line)):
        for name in amd_names(match[3]):
            yield _row(name, match, gfx=("gfx950" if _MI350.search(name) else _TARGETS[match[2]],))


def _row(
    name: str,
    match: re.Match[str],
    *,
    capabilities: tuple[ComputeCapability, ...] = (),
    gfx: tuple[str, ...] = (),
) -> GpuRow:
    source = Provenance(
        how="published", source=f"pci.ids; chip {match[2]}", checked=today(), confidence="medium"
    )
    return GpuRow(name, (match[1].upper(),), capabilities, gfx, source)


def amd_names(text: str) -> Iterator[str]:
    """The products that a name of pci.ids joins: ``Radeon RX 6800/6800 XT / 6900 XT`` are three.

    What names a family alone, without a number, is no product.
    """
    brand = ""
    for part in re.split(r" ?/ ?", text.removesuffix(" Graphics")):
        name = part.removeprefix("AMD ").removesuffix(" Graphics")
        if not re.match(r"Radeon|Instinct", name):
            name = f"{'Radeon' if name.casefold().startswith('pro ') else brand} {name}"
        brand = re.match(r"[^0-9]*(?= )|", name)[0]  # type: ignore[index]  # matches the empty text too
        if re.search(r"\d|VII", name) and "Vega Series" not in name:
            yield "AMD " + re.sub(r"Radeon Pro (?=[VW]\d)", "Radeon PRO ", name)  # as AMD writes it


def merged(old: GpuRow, new: GpuRow) -> GpuRow:
    """A row with the ids, capabilities and targets of both; provenance of the first."""
    return old._replace(
        pci_ids=tuple(sorted({*old.pci_ids, *new.pci_ids})),
        capabilities=tuple(sorted({*old.capabilities, *new.capabilities})),
        gfx=tuple(sorted({*old.gfx, *new.gfx})),
    )


def rows_from(held: Sequence[GpuRow], named: Sequence[GpuRow], listed: Sequence[GpuRow]) -> list[GpuRow]:
    """The rows to write: what is held, the hand-made ones in their present form, and new names and ids."""
    rows = {row.name: row for row in held}

    def known(name: str) -> tuple[str, ...]:
        return rows[name].pci_ids if name in rows else ()

    rows.update({row.name: merged(row, row._replace(pci_ids=known(row.name))) for row in named})
    spelt = {name.casefold(): name for name in rows}
    owners = {(bool(row.gfx), pci_id) for row in held for pci_id in row.pci_ids}
    for row in listed:
        fresh = tuple(pci_id for pci_id in row.pci_ids if (bool(row.gfx), pci_id) not in owners)
        name = spelt.get(row.name.casefold(), row.name)
        if name in rows:
            rows[name] = merged(rows[name], row._replace(pci_ids=fresh))
        elif fresh:
            rows[name] = row._replace(pci_ids=fresh)
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
