"""`lock --check`: whether a lock still is what was asked for, and whether anybody objects to it by now."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, replace
from bnbenv.errors import ExternalError
from bnbenv.judge.rules.rule import finding
from bnbenv.lockfile.commands import lock_command
from bnbenv.lockfile.difference import some
from bnbenv.tool import tooling
from bnbenv.words import counted
from bnbenv.workflows.as_asked import SOURCE, disagreements
from bnbenv.workflows.choose import JUDGED

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from bnbenv.install.pages import OfferedFile
    from bnbenv.install.sources import Index, Sources
    from bnbenv.judge.stack import Finding
    from bnbenv.lockfile.index import MachineClass, TeamLock
    from bnbenv.lockfile.pylock import Package, Pylock
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.workflows.request import Wanted
    from bnbenv.workflows.voice import Voice


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedLock:
    """The answer of `lock --check`.

    Attributes:
        not_looked_at: what could not be asked, a sentence each.
    """

    findings: tuple[Finding, ...]
    variants: int
    packages: int
    not_looked_at: tuple[str, ...]
    matrix: str


def check_lock(
    directory: Path,
    voice: Voice,
    environ: Mapping[str, str],
    *,
    mirrors: Mapping[str, str],
    offline: bool,
    cwd: Path,
    allow_local: bool = False,
) -> CheckedLock:
    """Compare a lock with its index, its request, the matrix and the indexes of packages.

    Args:
        allow_local: it may name files of this machine's disk.

    Raises:
        EnvironmentProblem: there is no lock.
        DataError: a lock is invalid, unsafe or was changed, or an index has another file under a name.
    """
    from bnbenv.install.sources import read_sources
    from bnbenv.lockfile import index
    from bnbenv.matrix.load import load
    from bnbenv.workflows.request import Wanted, request_of
    from bnbenv.workflows.sync import checked_lock

    team = index.read(directory)
    wanted = Wanted.from_dict(request_of(team))
    matrix = load(*JUDGED)
    sources = read_sources(environ=environ, cwd=cwd, index_rows=matrix.indexes, mirrors=mirrors)
    locks = {
        variant.name: checked_lock(directory, team, variant, sources, allow_local=allow_local)
        for variant in team.variants
    }
    findings = [*disagreements(team, locks, matrix), *_twice(team), *_alike(locks)]
    findings += _of_one_kind(team, matrix)
    findings += _of_nobody(directory, team)
    findings += _judged(team, wanted, matrix)
    not_looked_at: list[str] = []
    if offline:
        not_looked_at.append("whether a release was withdrawn: --offline was given")
    else:
        voice.progress("asking the indexes whether a release was withdrawn")
        withdrawn, silent = _withdrawn(directory, locks, sources, matrix, environ)
        findings += withdrawn
        not_looked_at += silent
    return CheckedLock(
        findings=tuple(
            sorted(findings, key=lambda found: ("error", "warning", "info").index(found.severity))
        ),
        variants=len(locks),
        packages=len({package.name for lock in locks.values() for package in lock.packages}),
        not_looked_at=tuple(not_looked_at),
        matrix=matrix.revision,
    )


def _twice(team: TeamLock) -> Iterator[Finding]:
    """Machines that stand in several classes, as after a merge."""
    from collections import Counter

    names = Counter(name for entry in team.classes for name in entry.machines)
    for name in sorted(name for name, number in names.items() if number > 1):
        variants = [entry.variant or "nothing" for entry in team.classes if name in entry.machines]
        yield finding(
            "lock-disagrees",
            "error",
            name,
            f"`{name}` stands in the lock {names[name]} times: {', '.join(variants)}",
            remedy="Take it out, and add it as it is now: `bnbenv lock --add-this-machine` there.",
            commands=(lock_command(Path(team.origin).parent, f"--forget {quote(name)}"),),
            source=SOURCE,
        )


def _of_one_kind(team: TeamLock, matrix: Matrix) -> Iterator[Finding]:
    """Classes that no rule can tell apart, and that are served otherwise: only one of them is ever found."""
    from bnbenv.workflows.fleet import key_of, machine_of

    kinds: dict[Hashable, list[MachineClass]] = {}
    for entry in team.classes:
        kinds.setdefault(key_of(machine_of(entry, team), matrix), []).append(entry)
    for entries in kinds.values():
        if len({entry.variant for entry in entries}) > 1:
            names = ", ".join(some(entry.machines) for entry in entries)
            yield finding(
                "lock-disagrees",
                "error",
                names,
                f"{names} are of one kind, by their facts, and stand in several classes",
                *(f"{some(entry.machines)}: {entry.variant or 'nothing'}" for entry in entries),
                remedy="Lock again; with --target FILE for a machine whose facts are not its own.",
                commands=(lock_command(Path(team.origin).parent),),
                source=SOURCE,
            )


def _of_nobody(directory: Path, team: TeamLock) -> Iterator[Finding]:
    """Locks that serve no machine: of the index, as after a class was taken out by hand, or beside it."""
    from bnbenv.lockfile.index import made_here

    for variant in team.variants:
        if not any(entry.machines for entry in team.serving(variant.name)):
            yield finding(
                "lock-disagrees",
                "info",
                variant.name,
                f"{variant.file} serves no machine of the lock",
                remedy="Lock again, which takes it out; or add the machine that it is for.",
                commands=(lock_command(directory),),
                source=SOURCE,
            )
    for name in sorted({*made_here(directory)} - {variant.file for variant in team.variants}):
        yield finding(
            "lock-disagrees",
            "info",
            name,
            f"{name} is no part of the lock: `{Path(team.origin).name}` does not name it",
            remedy="Delete it, if a merge or a hand left it there.",
            source=SOURCE,
        )


def _alike(locks: Mapping[str, Pylock]) -> Iterator[Finding]:
    """Ordinary packages that have several versions among the variants."""
    from bnbenv.lockfile.pylock import ordinary_versions

    by_name: dict[str, dict[str, list[str]]] = {}
    for name, lock in locks.items():
        for package, version in ordinary_versions(lock).items():
            by_name.setdefault(package, {}).setdefault(version, []).append(name)
    for package, versions in sorted(by_name.items()):
        if len(versions) > 1:
            yield finding(
                "lock-disagrees",
                "info",
                package,
                f"the variants have several versions of {package}",
                *(f"{version}: {', '.join(names)}" for version, names in sorted(versions.items())),
                source=SOURCE,
            )


def _judged(team: TeamLock, wanted: Wanted, matrix: Matrix) -> Iterator[Finding]:
    """What the judge says today of each class and its stack."""
    from bnbenv.judge.candidates import without_accelerator
    from bnbenv.judge.judge import judge
    from bnbenv.workflows.fleet import machine_of, stack_of

    for entry in team.classes:
        machines = ", ".join(entry.machines[:3])
        if entry.variant is None:
            yield finding(
                "lock-stale",
                "warning",
                machines,
                f"nothing in the lock serves {machines}",
                *entry.blocking,
                remedy="Lock again when something has changed for them.",
                commands=(lock_command(Path(team.origin).parent),),
                source=SOURCE,
            )
            continue
        variant = team.variant(entry.variant)
        stack = stack_of(variant, wanted.profile, matrix)
        target = machine_of(entry, team, name=machines)
        seen = without_accelerator(target) if wanted.cpu else target
        for found in judge(stack, replace(seen, pythons=(stack.python,)), matrix).findings:
            if found.severity == "error":
                yield replace(found, subject=f"{machines}: {found.subject}")
    if matrix.is_older_than(team.matrix):
        yield finding(
            "lock-stale",
            "warning",
            "matrix",
            f"judged with the matrix {matrix.revision}; the lock was made with a newer one, {team.matrix}",
            remedy="Upgrade bnbenv.",
            commands=(tooling().upgrade,),
            source=SOURCE,
        )
    elif team.matrix != matrix.revision:
        yield finding(
            "lock-stale",
            "info",
            "matrix",
            f"judged with the matrix {matrix.revision}; the lock was made with {team.matrix}",
            source=SOURCE,
        )


def _withdrawn(
    directory: Path,
    locks: Mapping[str, Pylock],
    sources: Sources,
    matrix: Matrix,
    environ: Mapping[str, str],
) -> tuple[list[Finding], list[str]]:
    """Files that their index has withdrawn, or changed; and what could not be asked."""
    from bnbenv.install.pages import files_of_all

    by_home: dict[str, dict[str, Package]] = {}
    for lock in locks.values():
        for package in lock.packages:
            by_home.setdefault(package.index or "", {})[f"{package.name} {package.version}"] = package
    findings: list[Finding] = []
    silent: list[str] = []
    for home, packages in sorted(by_home.items()):
        index = _index_of(home, sources, matrix)
        if index is None:
            number = counted(len(packages), "package")
            silent.append(f"{number} of {home or 'an unknown index'}: it is not configured here")
            continue
        names = {package.name for package in packages.values()}
        try:
            offered = files_of_all(index, names, sources, environ)
        except ExternalError as problem:
            silent.append(f"{counted(len(packages), 'package')} of `{index.name}`: {problem.message}")
            continue
        for package in packages.values():
            there = {file.name: file for file in offered[package.name]}
            findings += _of_package(directory, package, there, index)
    return findings, silent


def _of_package(
    directory: Path, package: Package, offered: Mapping[str, OfferedFile], index: Index
) -> Iterator[Finding]:
    from bnbenv.errors import DataError

    yanked = []
    for artefact in package.artefacts:
        there = offered.get(artefact.name)
        if there is None:
            continue
        if there.sha256 and artefact.sha256 and there.sha256.lower() != artefact.sha256:
            raise DataError(
                f"`{index.name}` has another `{artefact.name}` than the lock names: "
                f"SHA-256 {there.sha256[:12]}… instead of {artefact.sha256[:12]}…",
                hint="do not install it; ask whoever runs the index",
                code="hash-mismatch",
            )
        if there.yanked is not None:
            yanked.append(there.yanked or "no reason given")
    if yanked:
        yield finding(
            "release-yanked",
            "error",
            package.name,
            f"{package.name} {package.version} was withdrawn: {yanked[0]}",
            remedy="Take another release.",
            commands=(lock_command(directory, f"--upgrade-package {package.name}"),),
            source=f"index `{index.name}`",
        )


def _index_of(home: str, sources: Sources, matrix: Matrix) -> Index | None:
    """The index, or the mirror that stands for it here."""
    from bnbenv.install.uv_files import address
    from bnbenv.lockfile.homes import stand_in

    mirror = stand_in(home, sources, matrix.indexes)
    if mirror is not None:
        return mirror
    return next((index for index in sources.indexes if address(index).rstrip("/") == home.rstrip("/")), None)
