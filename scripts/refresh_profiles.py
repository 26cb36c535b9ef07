"""Proves the package sets of compat/profiles.toml: uv must find a closure for each Python and torch.

For every set and every Python the oldest and the newest torch of PyPI within the set's range are tried,
for x86-64 Linux. A set that does not resolve is an error, in uv's own words. What resolves need not import:
with --import the two of this interpreter's Python are installed, and what the profile is for is imported.
That fetches gigabytes for every release of torch, into uv's cache.

    python scripts/refresh_profiles.py [--write] [--profile NAME]… [--import]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
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
_INSTALL_LIMIT = 1800  # seconds an installation
_OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"
# What programs take of the packages: the lazy modules of transformers and trl load at the first name.
_NAMES = {
    "accelerate": "from accelerate import Accelerator",
    "bitsandbytes": "from bitsandbytes.nn import Linear4bit, Linear8bitLt",
    "datasets": "from datasets import Dataset",
    "peft": "from peft import LoraConfig, get_peft_model",
    "transformers": "from transformers import BitsAndBytesConfig, LlamaForCausalLM, Trainer",
    "trl": "from trl import SFTConfig, SFTTrainer",
}


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


def failure(
    command: Sequence[str], *, limit: float, given: str = "", directory: str | None = None
) -> str | None:
    """Run a command; None if it works, else its words.

    Args:
        limit: seconds.
        given: its standard input.
        directory: where it runs; here by default.
    """
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=limit, check=False, cwd=directory
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {limit:.0f} s"
    return None if done.returncode == 0 else done.stderr.strip() or f"exit {done.returncode}"


def resolve_with_uv(lines: Sequence[str], python: str) -> str | None:
    """Resolve; None if it works, else uv's words."""
    from uv import find_uv_bin

    command = [find_uv_bin(), "pip", "compile", "-", "--quiet", "--no-header", "--python-version", python]
    command += ["--python-platform", "x86_64-manylinux_2_28"]
    if not any(line.startswith(_FROM_SOURCE) for line in lines):
        command += ["--only-binary", ":all:"]
    return failure(command, limit=_TIME_LIMIT, given="\n".join(lines))


def program(profile: Profile, package_set: PackageSet) -> str:
    """What is run to see that a set imports."""
    lines = ["import torch", *(_NAMES[name] for name in package_set.packages if name in _NAMES)]
    return "\n".join([*lines, *(f"import {name}" for name in profile.imports)])


def import_with_uv(lines: Sequence[str], text: str) -> str | None:
    """Install for this interpreter and run; None if it works, else the last words."""
    from uv import find_uv_bin

    uv = find_uv_bin()
    with tempfile.TemporaryDirectory(prefix="refresh-profiles-") as directory:
        python = f"{directory}/venv/bin/python"
        for command in (
            [uv, "venv", "--quiet", "--python", sys.executable, f"{directory}/venv"],
            [uv, "pip", "install", "--quiet", "--python", python, *lines],
            [python, "-I", "-c", text],
        ):
            if words := failure(command, limit=_INSTALL_LIMIT, directory=directory):
                return "\n".join(words.splitlines()[-3:])
    return None


def prove(
    profile: Profile,
    package_set: PackageSet,
    torch: Sequence[TorchBuild],
    resolve: Callable[[Sequence[str], str], str | None],
    imports: Callable[[Sequence[str], str], str | None] | None,
) -> tuple[int, int]:
    """How many combinations of a set resolve, and how many of them import.

    Raises:
        DataError: one does not, or there is no torch within the set's range.
    """
    tried = list(combinations(package_set, torch))
    if not tried:
        raise DataError(f"{PATH.name}: {profile.name} {package_set.name}: no torch within its range")
    imported = 0
    for python, version in tried:
        where = f"{profile.name} {package_set.name}, Python {python}, torch {version}"
        lines = requirements(package_set, version)
        if words := resolve(lines, python):
            raise DataError(f"{PATH.name}: {where} does not resolve:\n{words}")
        print(where, file=sys.stderr)
        if imports is not None and python == _OWN:
            if words := imports(lines, program(profile, package_set)):
                raise DataError(f"{PATH.name}: {where} does not import:\n{words}")
            print(f"{where}: imports", file=sys.stderr)
            imported += 1
    return len(tried), imported


def rows_from(
    profiles: Sequence[Profile],
    torch: Sequence[TorchBuild],
    names: Sequence[str],
    resolve: Callable[[Sequence[str], str], str | None],
    imports: Callable[[Sequence[str], str], str | None] | None = None,
) -> list[Profile]:
    """The profiles, those named with today's proof.

    Args:
        names: of the profiles to prove; none for all.
        resolve: of requirements and a Python; its words where they have no closure.
        imports: of requirements and a program; its words where it fails. ``None``: not tried.

    Raises:
        DataError: see `prove`.
    """
    rows = []
    for profile in profiles:
        if names and profile.name not in names:
            rows.append(profile)
            continue
        proven = [prove(profile, package_set, torch, resolve, imports) for package_set in profile.sets]
        count, imported = (sum(numbers) for numbers in zip(*proven, strict=True))
        source = f"uv pip compile against PyPI: {count} combinations of set, Python and torch resolve"
        if imports is not None:
            source += f"; installed on Python {_OWN} and imported: {imported} of them"
        proof = Provenance(how="measured", source=source, checked=today())
        if profile.provenance.how == "measured" and profile.provenance.source.startswith(source):
            proof = profile.provenance  # nothing new was learnt
        rows.append(profile._replace(provenance=proof))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the file")
    parser.add_argument("--profile", action="append", default=[], metavar="NAME", help="prove this one only")
    parser.add_argument("--import", action="store_true", dest="imports", help="install and import, too")
    options = parser.parse_args()
    matrix = load("profiles", "torch", directory=COMPAT)
    imports = import_with_uv if options.imports else None
    rows = rows_from(matrix.profiles, matrix.torch, options.profile, resolve_with_uv, imports)
    text = PATH.read_text(encoding="utf-8")
    changed = rows != list(matrix.profiles)
    revision = today().replace("-", ".") if changed else text.split('revision = "')[1][:10]
    new = dump_toml(PATH.name, {"profiles": rows}, revision=revision, text=text)
    return settle(PATH, new, write=options.write)


if __name__ == "__main__":
    run(main)
