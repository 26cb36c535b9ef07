"""What a user added to an environment that was built from a lock: packages, and files without a package."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from bnbenv.env import durable, guard
from bnbenv.env.layout import FACTS
from bnbenv.env.scripts import restarted
from bnbenv.env.transaction import WORK
from bnbenv.torch_family import is_torch_family

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from bnbenv.env.installed import Distribution, Installed

# What `uv venv`, `python -m venv` and bnbenv put into an environment beside the packages.
_OF_THE_VENV = frozenset({"pyvenv.cfg", ".gitignore", ".lock", "CACHEDIR.TAG", "lib64", FACTS, WORK})
_OF_THE_SITE = re.compile(r"_virtualenv\.(py|pth)|_bnbenv_base\.pth|distutils-precedence\.pth|~.*")
_OF_THE_SCRIPTS = re.compile(
    r"python[\d.]*t?(w)?(\.exe)?|(de)?activate(\..*|_this\.py)?|Activate\.ps1|pydoc\.bat", re.IGNORECASE
)
_CODE = re.compile(r"\.(py|pyi|pyc|pyo|pyd|so(\.\d+)*|dll|dylib)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """A package that the lock does not name.

    Attributes:
        requirement: how an installer is asked for exactly this one: ``name==1.2``, ``name @ URL``, or a path.
        editable: the requirement is a directory that is installed in place.
    """

    distribution: Distribution
    requirement: str
    editable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """What stays through a rebuild, and what does not.

    Attributes:
        packages: by name.
        files: files and links that no RECORD owns, relative to the environment.
        left: what is not brought along, with the reason, a line each.
    """

    packages: tuple[Addition, ...]
    files: tuple[Path, ...]
    left: tuple[str, ...]


def find_additions(installed: Installed, locked: Mapping[str, str]) -> Additions:
    """Compare an environment with the lock that it was built from.

    Code that nobody owns inside the directory of a locked package is not brought along: it is what a
    damaged or replaced package left behind, and would be loaded instead of the new one's.

    Args:
        installed: what is there.
        locked: name → version.
    """
    from bnbenv.env.installed import equal_versions

    packages: list[Addition] = []
    left: list[str] = []
    owned = {str(path) for path in guard.own_files(installed.prefix)}
    for distribution in installed.distributions:
        owned |= set(owned_files(distribution))
        name = distribution.name
        if name in locked:
            public = distribution.version.partition("+")[0]
            if not equal_versions(public, locked[name].partition("+")[0]):
                left.append(f"{name} {distribution.version}: the lock has {locked[name]}")
        elif is_torch_family(name):
            left.append(f"{name} {distribution.version}: it belongs to another build of torch")
        elif not _is_inside(distribution.location, installed.prefix):
            continue  # seen through a path file that is brought along itself
        else:
            packages.append(_addition(distribution))
    directories = _directories_of(installed, locked)
    files: list[Path] = []
    for relative in _unowned(installed, owned):
        top = _below_site(installed, relative)
        if top is not None and top in directories and _CODE.search(relative.name):
            left.append(f"{relative}: code of no package, among the files of a locked one")
        elif top is not None and _is_metadata_of(top, locked):
            continue
        else:
            files.append(relative)
    return Additions(
        packages=tuple(sorted(packages, key=lambda found: found.distribution.name)),
        files=tuple(files),
        left=tuple(left),
    )


def owned_files(distribution: Distribution) -> Iterator[str]:
    """The absolute paths that a distribution's RECORD names, and all that stands in its metadata."""
    base = str(distribution.location)
    if distribution.metadata.is_dir():
        for directory, _, names in os.walk(distribution.metadata):
            for name in names:
                yield os.path.join(directory, name)  # noqa: PTH118 - tens of thousands
    for row in record_rows(distribution):
        yield os.path.normpath(os.path.join(base, row))  # noqa: PTH118


def record_rows(distribution: Distribution) -> list[str]:
    """The paths in RECORD as it spells them; none where it cannot be read."""
    try:
        text = (distribution.metadata / "RECORD").read_text(encoding="utf-8")
        return [row[0] for row in csv.reader(text.splitlines()) if len(row) == 3 and row[0]]
    except (OSError, ValueError, csv.Error):
        return []


def copy_distribution(distribution: Distribution, prefix: Path, *, to: Path) -> None:
    """Copy an installed package, with its RECORD, from the environment at `prefix` into another one.

    Raises:
        ExternalError: codes ``permission``, ``disk-full``.
    """
    for text in owned_files(distribution):
        source = Path(text)
        if _is_inside(source, prefix) and os.path.lexists(source):
            copy_file(source, prefix, to=to)


def copy_file(source: Path, prefix: Path, *, to: Path) -> None:
    """Copy one file to the same place below another environment; what is there already stays.

    A script that names the old environment's interpreter names the new one's afterwards.

    Raises:
        ExternalError: codes ``permission``, ``disk-full``.
    """
    target = to / source.relative_to(prefix)
    if os.path.lexists(target):
        return
    with durable.told(target, "write"):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
        if not source.is_symlink():
            point_at(target, str(prefix), str(to))


def point_at(script: Path, old: str, new: str) -> bool:
    """Let a script be started by another environment's interpreter; whether that was needed.

    The script is replaced by a new file: it may be hard-linked elsewhere.
    """
    with script.open("rb") as stream:
        if stream.read(2) != b"#!":
            return False
        content = b"#!" + stream.read()
    changed = restarted(content, old, new)
    if changed == content:
        return False
    beside = durable.temporary_beside(script)
    beside.write_bytes(changed)
    shutil.copymode(script, beside)
    beside.replace(script)
    return True


def conflicts(installed: Installed, names: Collection[str]) -> tuple[str, ...]:
    """What packages ask for and do not find in an environment, a line each.

    Args:
        installed: what is there.
        names: the packages whose requirements are looked at.
    """
    from bnbenv.markers import holding, of_python

    values = of_python(installed.python)
    lines = []
    for name in sorted(names):
        found = installed.find(name)
        if found is None:
            continue
        for text in requirements_of(found):
            if (asked := holding(text, values)) is None:
                continue
            there = installed.find(asked.name)
            needs = f"{name} {found.version} needs {asked.name}{asked.specifier}"
            if there is None:
                lines.append(f"{needs}, which is not there")
            elif there.version and not asked.specifier.contains(there.version, prereleases=True):
                lines.append(f"{needs}, and {there.version} is there")
    return tuple(lines)


def requirements_of(distribution: Distribution) -> list[str]:
    """The ``Requires-Dist`` lines of a package's metadata."""
    try:
        text = (distribution.metadata / "METADATA").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    head = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
    return re.findall(r"(?mi)^Requires-Dist:[ \t]*(.+?)[ \t]*\r?$", head)


def _addition(distribution: Distribution) -> Addition:
    name, version = distribution.name, distribution.version
    exact = Addition(distribution=distribution, requirement=f"{name}=={version}", editable=False)
    try:
        data: Any = json.loads((distribution.metadata / "direct_url.json").read_bytes())
        url = data["url"]
    except (OSError, ValueError, KeyError, TypeError):
        return exact
    if not isinstance(url, str):
        return exact
    inside = f"#subdirectory={data['subdirectory']}" if isinstance(data.get("subdirectory"), str) else ""
    if isinstance(directory := data.get("dir_info"), dict) and directory.get("editable") is True:
        from urllib.parse import unquote, urlsplit

        return Addition(distribution=distribution, requirement=unquote(urlsplit(url).path), editable=True)
    if isinstance(source := data.get("vcs_info"), dict):
        commit = source.get("commit_id") or source.get("requested_revision") or ""
        url = f"{source.get('vcs', 'git')}+{url}" + (f"@{commit}" if commit else "")
    return Addition(distribution=distribution, requirement=f"{name} @ {url}{inside}", editable=False)


def _directories_of(installed: Installed, locked: Mapping[str, str]) -> frozenset[str]:
    """The top-level names in site-packages that locked packages own or, where RECORD is lost, would own."""
    tops = {name.replace("-", "_") for name in locked} | set(locked)
    for distribution in installed.distributions:
        if distribution.name in locked:
            tops |= {row.split("/", 1)[0] for row in record_rows(distribution) if "/" in row}
    return frozenset(tops)


def _unowned(installed: Installed, owned: Collection[str]) -> Iterator[Path]:
    """Files below the environment that no RECORD names and that no builder of environments puts there."""
    prefix = str(installed.prefix)
    sites = {str(site) for site in installed.site_packages}
    for directory, subdirectories, files in os.walk(prefix):
        for entries in (subdirectories, files):
            entries[:] = [
                name
                for name in entries
                if name != "__pycache__"
                and not (directory == prefix and name in _OF_THE_VENV)
                and not (directory in sites and _OF_THE_SITE.fullmatch(name))
            ]
        scripts = os.path.dirname(directory) == prefix and os.path.basename(directory) in {"bin", "Scripts"}  # noqa: PTH119, PTH120
        links = [
            name
            for name in subdirectories
            if os.path.islink(os.path.join(directory, name))  # noqa: PTH114, PTH118
        ]
        for name in (*files, *links):
            path = os.path.join(directory, name)  # noqa: PTH118
            if path not in owned and not (scripts and _OF_THE_SCRIPTS.fullmatch(name)):
                yield Path(os.path.relpath(path, prefix))


def _below_site(installed: Installed, relative: Path) -> str | None:
    """The first name below site-packages, of a path relative to the environment."""
    path = installed.prefix / relative
    for site in installed.site_packages:
        if site in path.parents:
            return path.relative_to(site).parts[0]
    return None


def _is_metadata_of(top: str, locked: Mapping[str, str]) -> bool:
    """Whether a top-level name is what is left of a locked package's metadata."""
    from bnbenv.env.installed import normalized

    return top.endswith((".dist-info", ".egg-info")) and normalized(top.partition("-")[0]) in locked


def _is_inside(path: PurePath, prefix: PurePath) -> bool:
    return prefix in path.parents
