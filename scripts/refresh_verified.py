"""Adds stacks that were verified on real machines to compat/verified.json, from the blocks of the self-test.

    python scripts/refresh_verified.py seen.txt            # shows what it would add; exits with 1 if anything
    python scripts/refresh_verified.py seen.txt --write    # after a person has looked at it

A file may hold any number of blocks of `verify --record` or of the exported self-test, and anything around
them. A block counts if nothing failed or crashed: `passed`, or `degraded` by listed faults of upstream alone.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _refresh import COMPAT, held_rows, run, settle_rows
from bnbenv.errors import UsageError
from bnbenv.matrix.rows import Provenance, VerifiedStack
from bnbenv.selftest.block import read_blocks, write_block

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PATH = COMPAT / "verified.json"
_SYSTEMS = {"Linux": "linux", "Windows": "windows", "macOS": "macos", "Darwin": "macos"}
_DIGEST = re.compile(r"sha256 ([0-9a-f]{64})")


def rows_from(text: str) -> Iterator[VerifiedStack]:
    """A row for each device of each block that counts.

    Raises:
        UsageError: there is no block, one was changed, or it does not tell its stack.
    """
    for facts in read_blocks(text):
        if facts["verdict"] not in {"passed", "degraded"}:
            continue
        digest = _DIGEST.search(write_block(facts))
        if digest is None:
            raise AssertionError("a block ends with its digest")
        torch, _, build = str(facts["versions"]["torch"]).partition("+")
        os, arch = _platform(str(facts["platform"]))
        for device in facts["devices"]:
            yield VerifiedStack(
                torch=torch,
                build=build or ("mps" if os == "macos" else "cpu"),
                bitsandbytes=facts["versions"]["bitsandbytes"],
                python=".".join(facts["versions"]["python"].split(".")[:2]),
                os=os,
                arch=arch,
                accelerator=_accelerator(device, build),
                device=device["name"] or device["device"],
                capability=device["capability"],
                driver=facts["driver"],
                level=facts["level"],
                verdict=facts["verdict"],
                digest=digest[1],
                provenance=Provenance(how="measured", source="bnbenv verify --record", checked=facts["date"]),
            )


def _platform(text: str) -> tuple[Any, Any]:
    system = next((name for word, name in _SYSTEMS.items() if text.startswith(word)), None)
    arch = "aarch64" if re.search(r"aarch64|arm64|ARM64", text) else "x86_64"
    if system is None:
        raise UsageError(f"the block's platform `{text}` is of no system that is known")
    return system, arch


def _accelerator(device: Mapping[str, Any], build: str) -> str:
    kind = str(device["device"]).partition(":")[0]
    return "rocm" if kind == "cuda" and build.startswith("rocm") else kind


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="files that hold blocks")
    parser.add_argument("--write", action="store_true", help="write the file")
    options = parser.parse_args()
    held, _ = held_rows("verified", PATH)
    found = {row.digest + row.device: row for row in held}
    for file in options.files:
        for row in rows_from(file.read_text(encoding="utf-8")):
            found.setdefault(row.digest + row.device, row)
    return settle_rows("verified", PATH, list(found.values()), write=options.write)


if __name__ == "__main__":
    run(main)
