"""Measures the torch releases on PyPI that compat/torch.json does not hold yet, one wheel a platform.

Rows of builds that only PyTorch's own indexes carry come from compat/torch_published.toml. A release and
platform whose measured wheel is still listed is not read again; with --write the file grows row by row,
so that a run that is cut short goes on where it ended.

    python scripts/refresh_torch.py [--write] [--only VERSION]… [--counts]
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING

from packaging.tags import parse_tag
from packaging.version import Version

from _published import published_rows
from _refresh import COMPAT, held_rows, open_index, run, settle_rows, today
from bnbenv.matrix.dump import dump_json, sort_rows
from bnbenv.matrix.load import load
from bnbenv.matrix.measure import platform_of
from bnbenv.matrix.measure_torch import measure_torch, platform_floors
from bnbenv.matrix.remote import RemoteFile
from bnbenv.matrix.rows import Provenance, TorchBuild

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pypi_simple import DistributionPackage

    from bnbenv.matrix.measure_torch import TorchFacts

FIRST = Version("2.0.0")
PATH = COMPAT / "torch.json"
_PREFERRED = ("3.11", "3.12", "3.10", "3.13", "3.9")
"""Which Python's wheel is read: they differ only in the bindings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One wheel of torch as the index lists it."""

    wheel: str
    version: str
    python: str
    platform: str
    build_tag: int
    sha256: str
    size: int | None
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A release on a platform: the wheel to read, and the Pythons for which there is one."""

    chosen: Candidate
    pythons: tuple[str, ...]


def candidates(packages: Iterable[DistributionPackage]) -> list[Candidate]:
    """The wheels of interest out of an index page; free-threaded builds are left out."""
    found = []
    for package in packages:
        if package.package_type != "wheel" or package.version is None or package.is_yanked:
            continue
        version = Version(package.version)
        if version < FIRST or version.is_prerelease:
            continue
        parts = package.filename.removesuffix(".whl").split("-")
        tag = next(iter(parse_tag("-".join(parts[-3:]))))
        if tag.abi.endswith("t") or not tag.interpreter.startswith("cp3"):
            continue
        found.append(
            Candidate(
                wheel=package.filename,
                version=package.version,
                python=f"3.{tag.interpreter[3:]}",
                platform=parts[-1],
                build_tag=int(parts[2]) if len(parts) == 6 else 0,
                sha256=package.digests.get("sha256", ""),
                size=package.size,
                url=package.url,
            )
        )
    return found


def groups(wheels: Iterable[Candidate]) -> list[Group]:
    """One group a release and platform, the wheel to read chosen."""
    together: dict[tuple[str, str, str], list[Candidate]] = {}
    for wheel in wheels:
        together.setdefault((wheel.version, *platform_of(wheel.platform)), []).append(wheel)
    made = []
    for members in together.values():
        newest = max(member.build_tag for member in members)
        latest = [member for member in members if member.build_tag == newest]

        def rank(member: Candidate) -> tuple[int, str]:
            known = member.python in _PREFERRED
            return (_PREFERRED.index(member.python) if known else len(_PREFERRED), member.platform)

        pythons = sorted({member.python for member in members}, key=Version)
        made.append(Group(chosen=min(latest, key=rank), pythons=tuple(pythons)))
    return made


def row_from(group: Group, facts: TorchFacts) -> TorchBuild:
    """The row of a measured wheel."""
    chosen = group.chosen
    os, arch = platform_of(chosen.platform)
    glibc, macos = platform_floors(chosen.platform)
    build = "cpu"
    if facts.cuda:
        build = facts.cuda.tag
    elif os == "macos" and arch == "aarch64":
        build = "mps"
    return TorchBuild(
        version=chosen.version,
        build=build,
        index="pypi",
        local=None,
        os=os,
        arch=arch,
        pythons=group.pythons,
        cuda=facts.cuda,
        rocm=facts.rocm,
        cubins=facts.cubins,
        ptx=facts.ptx,
        glibc=glibc,
        macos=macos,
        triton=facts.triton,
        nvidia=facts.nvidia,
        size=chosen.size,
        provenance=Provenance(
            how="measured", source=f"{chosen.wheel} sha256:{chosen.sha256}", checked=today()
        ),
    )


def rows_from(
    listed: Sequence[Group],
    held: Sequence[TorchBuild],
    measure: Callable[[Sequence[Group]], Iterable[TorchBuild]],
) -> list[TorchBuild]:
    """The measured rows to write: those held, with today's list of Pythons, and those measured now."""
    known = {row.provenance.source.partition(" ")[0]: row for row in held if row.provenance.how == "measured"}
    kept, new = [], []
    for group in listed:
        row = known.pop(group.chosen.wheel, None)
        if row is None:
            new.append(group)
        else:
            kept.append(replace(row, pythons=group.pythons))
    replaced = {(g.chosen.version, *platform_of(g.chosen.platform)) for g in new}
    stale = [row for row in known.values() if (row.version, row.os, row.arch) not in replaced]
    return [*kept, *stale, *measure(new)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the file")
    parser.add_argument("--only", action="append", default=[], metavar="VERSION", help="measure this release")
    parser.add_argument("--counts", action="store_true", help="print how many images each capability has")
    parser.add_argument("--jobs", type=int, default=2, help="wheels read at once (default: 2)")
    options = parser.parse_args()

    held, _ = held_rows("torch", PATH)
    published = published_rows(load("torch_published", directory=COMPAT).torch_published)
    measured = [row for row in held if row.provenance.how == "measured"]
    index, session = open_index()
    lock = Lock()

    def measure_one(group: Group) -> TorchBuild:
        chosen = group.chosen
        os, arch = platform_of(chosen.platform)
        file = RemoteFile(session, chosen.url, name=chosen.wheel, size=chosen.size)
        facts = measure_torch(file, os=os, arch=arch, python=chosen.python)
        row = row_from(group, facts)
        print(f"{chosen.wheel}: {row.build}", file=sys.stderr)
        if options.counts:
            counts = ", ".join(f"{capability}: {count}" for capability, count in facts.images.items())
            print(f"{chosen.wheel}: {counts}", file=sys.stderr)
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
    rows = rows_from(listed, list(measured), measure)
    return settle_rows("torch", PATH, [*rows, *published], write=options.write)


if __name__ == "__main__":
    run(main)
