"""Proves the package sets of compat/profiles.toml: uv must find a closure for each Python and torch.

For every set and every Python the oldest and the newest torch of PyPI within the set's range are tried,
for x86-64 Linux. A set that does not resolve is an error, in uv's own words.

    python scripts/refresh_profiles.py [--write] [--profile NAME]…
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from _refresh import COMPAT, run, settle, today
from bnbenv.errors import DataError
from bnbenv.matrix.dump import dump_toml
from bnbenv.matrix.load import load
from bnbenv.matrix.rows import Provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bnbenv.matrix.rows import PackageSet, Profile, TorchBuild

PATH = COMPAT / "profiles.toml"
_FROM_SOURCE = ("gptqmodel", "autoawq")  # published without wheels, and so are packages that they need
_TIME_LIMIT = 300  # seconds a resolution


def combinations(package_set: PackageSet, torch: Sequence[TorchBuild]) -> Iterator[tuple[str, str]]:
    """Python and torch of each resolution: oldest and newest torch a Python."""
    wanted, pythons = SpecifierSet(package_set.torch), SpecifierSet(package_set.python)
    by_python: dict[str, list[str]] = {}
    for build in torch:
        if (
            build.index == "pypi"
            and (build.os, build.arch) == ("linux", "x86_64")
            and build.version in wanted
        ):
            for python in build.pythons:
                if python in pythons:
                    by_python.setdefault(python, []).append(build.version)
    for python, versions in sorted(by_python.items(), key=lambda item: Version(item[0])):
        ordered = sorted(versions, key=Version)
        for version in dict.fromkeys((ordered[0], ordered[-1])):
            yield python, version


def requirements(package_set: PackageSet, torch: str) -> list[str]:
    """The lines that uv resolves."""
    return [f"torch=={torch}", *(f"{name}{spec}" for name, spec in package_set.packages.items())]


def resolve_with_uv(lines: Sequence[str], python: str) -> str | None:
    """Resolve; None if it works, else uv's words."""
    from uv import find_uv_bin

    command = [find_uv_bin(), "pip", "compile", "-", "--quiet", "--no-header", "--python-version", python]
    command += ["--python-platform", "x86_64-manylinux_2_28"]
    if not any(line.startswith(_FROM_SOURCE) for line in lines):
        command += ["--only-binary", ":all:"]
    try:
        done = subprocess.run(
            command,
            input="\n".join(lines),
            capture_output=True,
            text=True,
            timeout=_TIME_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_TIME_LIMIT} s"
    return None if done.returncode == 0 else done.stderr.strip()


def rows_from(
    profiles: Sequence[Profile],
    torch: Sequence[TorchBuild],
    names: Sequence[str],
    resolve: Callable[[Sequence[str], str], str | None],
) -> list[Profile]:
    """The profiles, those named with today's proof.

    Raises:
        DataError: a set does not resolve, or there is no torch within its range.
    """
    rows = []
    for profile in profiles:
        if names and profile.name not in names:
            rows.append(profile)
            continue
        count = 0
        for package_set in profile.sets:
            tried = list(combinations(package_set, torch))
            if not tried:
                raise DataError(f"{PATH.name}: {profile.name} {package_set.name}: no torch within its range")
            for python, version in tried:
                where = f"{profile.name} {package_set.name}, Python {python}, torch {version}"
                if words := resolve(requirements(package_set, version), python):
                    raise DataError(f"{PATH.name}: {where} does not resolve:\n{words}")
                print(where, file=sys.stderr)
                count += 1
        source = f"uv pip compile against PyPI: {count} combinations of set, Python and torch resolve"
        proof = Provenance(how="measured", source=source, checked=today())
        if profile.provenance.how == "measured" and profile.provenance.source == source:
            proof = profile.provenance  # nothing new was learnt
        rows.append(replace(profile, provenance=proof))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the file")
    parser.add_argument("--profile", action="append", default=[], metavar="NAME", help="prove this one only")
    options = parser.parse_args()
    matrix = load("profiles", "torch", directory=COMPAT)
    rows = rows_from(matrix.profiles, matrix.torch, options.profile, resolve_with_uv)
    text = PATH.read_text(encoding="utf-8")
    changed = rows != list(matrix.profiles)
    revision = today().replace("-", ".") if changed else text.split('revision = "')[1][:10]
    new = dump_toml(PATH.name, {"profiles": rows}, revision=revision, text=text)
    return settle(PATH, new, write=options.write)


if __name__ == "__main__":
    run(main)
