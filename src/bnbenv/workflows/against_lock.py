"""`doctor --lock`: this machine and its environment against the locks of a team."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from bnbenv.dataclass import replace
from bnbenv.judge.rules.rule import finding
from bnbenv.lockfile.commands import resolve_command, sync_command
from bnbenv.typed_paths import to_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnbenv.judge.stack import Finding
    from bnbenv.lockfile.index import TeamLock, Variant
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.workflows.doctor import Examined
    from bnbenv.workflows.environment import Located

SOURCE = "the lock"
_NAMED = 8  # packages that are named one by one


def compare(
    examined: Examined,
    directory: Path,
    environ: Mapping[str, str],
    *,
    mirrors: Mapping[str, str],
    cwd: Path,
    described: str = "",
) -> Examined:
    """The same examination with what differs from the lock, most important first.

    Args:
        described: the options that describe the machine, as they are typed; empty for this one.

    Raises:
        EnvironmentProblem: there is no lock.
        DataError: a lock is invalid, unsafe or was changed.
    """
    from bnbenv.install.sources import read_sources
    from bnbenv.lockfile import index
    from bnbenv.matrix.load import load
    from bnbenv.workflows.choose import JUDGED
    from bnbenv.workflows.sync import checked_lock

    team = index.read(directory)
    matrix = load(*JUDGED)
    found: list[Finding] = []
    variant = _variant(team, examined, matrix, described, found)
    if variant is not None:
        sources = read_sources(environ=environ, cwd=cwd, index_rows=matrix.indexes, mirrors=mirrors)
        lock = checked_lock(directory, team, variant, sources, allow_local=True)
        local = "--allow-local" if lock.not_portable() else ""
        command = _sync_command(examined.located, team, described, local)
        found += _environment(examined, variant, lock, command)
    return replace(examined, findings=(*found, *examined.findings))


def _variant(
    team: TeamLock, examined: Examined, matrix: Matrix, described: str, found: list[Finding]
) -> Variant | None:
    """What the lock has for the machine; says whether it is the machine that the lock knows."""
    from bnbenv.workflows.fleet import key_of, machine_of
    from bnbenv.workflows.request import Wanted, request_of
    from bnbenv.workflows.sync import add_command, judged

    target = examined.target
    mine = key_of(target, matrix)
    known = {name: machine_of(entry, team, name=name) for entry in team.classes for name in entry.machines}
    if (before := known.get(target.name)) is not None:
        found += _moved(before, target, add_command(team, described))
    for entry in team.classes:
        if key_of(machine_of(entry, team), matrix) == mine:
            if entry.variant is not None:
                return team.variant(entry.variant)
            found.append(_unserved(target, entry.blocking, resolve_command(team.request, described)))
            return None
    served_by = judged(team, Wanted.from_dict(request_of(team)), target, matrix)
    commands = (add_command(team, described), _sync_command(examined.located, team, described))
    found.append(_unknown(target, served_by, commands))
    return served_by


def _moved(before: Target, now: Target, command: str) -> Iterator[Finding]:
    """The machine of that name is not as the lock knows it."""
    if before.driver != now.driver and before.driver and now.driver:
        yield finding(
            "driver-changed",
            "info",
            "driver",
            f"the driver is {now.driver}; the lock knows {before.driver}",
            source=SOURCE,
        )
    cards = [
        sorted(f"{gpu.name} ({gpu.compute_capability or gpu.gfx or '?'})" for gpu in one.gpus)
        for one in (before, now)
    ]
    if cards[0] != cards[1]:
        yield finding(
            "gpu-changed",
            "warning",
            "GPU",
            f"the GPUs are not those that the lock knows of `{now.name}`",
            f"lock: {', '.join(cards[0]) or 'none'}",
            f"here: {', '.join(cards[1]) or 'none'}",
            remedy="Lock again with this machine as it is.",
            commands=(command,),
            source=SOURCE,
        )


def _unserved(target: Target, blocking: tuple[str, ...], command: str) -> Finding:
    return finding(
        "lock-stale",
        "error",
        target.name,
        "the lock knows machines like this one, and serves none",
        *blocking,
        remedy="See what it would need.",
        commands=(command,),
        source=SOURCE,
    )


def _unknown(target: Target, served_by: Variant | None, commands: tuple[str, ...]) -> Finding:
    judged = f"; judged, `{served_by.name}` serves it" if served_by else ""
    return finding(
        "lock-stale",
        "error" if served_by is None else "warning",
        target.name,
        f"the lock names no machine like this one{judged}",
        remedy="Add it, and commit what is written.",
        commands=commands,
        source=SOURCE,
    )


def _environment(examined: Examined, variant: Variant, lock: Pylock, command: str) -> Iterator[Finding]:
    """What is installed against what the lock would install."""
    from bnbenv.env.installed import equal_versions
    from bnbenv.lockfile.platforms import environment_of, tags_of

    digest = _built_from(examined.located)
    wanted = {
        one.package.name: one.package.version or ""
        for one in lock.select(environment=environment_of(variant), tags=tags_of(variant))
    }
    there = examined.installed.versions
    differing = [
        f"{name}: {there.get(name, 'missing')} instead of {version}"
        for name, version in sorted(wanted.items())
        if name not in there or not equal_versions(there[name], version)
    ]
    differing += [
        f"{name}: {there[name]}, which the lock does not have" for name in sorted({*there} - {*wanted})
    ]
    if differing:
        more = len(differing) - _NAMED
        yield finding(
            "environment-changed",
            "error",
            "packages",
            f"{len(differing)} package{'s' * (len(differing) != 1)} not as in {variant.file}",
            *differing[:_NAMED],
            *([f"and {more} more"] if more > 0 else []),
            remedy="Build what the lock says.",
            commands=(command,),
            source=SOURCE,
        )
    elif digest is not None and digest != lock.digest:
        yield finding(
            "environment-changed",
            "warning",
            "lock",
            f"the versions are those of {variant.file}, but it was built from other files",
            remedy="Build what the lock says.",
            commands=(command,),
            source=SOURCE,
        )
    else:
        yield finding("environment-changed", "info", "lock", f"as in {variant.file}: the same", source=SOURCE)


def _sync_command(located: Located, team: TeamLock, *words: str) -> str:
    """What builds this very environment from the lock."""
    place, where = located.place, ""
    if place is not None and place.form == "path":
        where = f"--path {to_type(place.link)}"
    elif place is not None and place.form == "home" and place.name != team.request.get("profile"):
        where = f"--name {quote(place.name)}"
    return sync_command(Path(team.origin).parent, where, *words)


def _built_from(located: Located) -> str | None:
    """The digest of the lock that one of bnbenv's own environments was built from."""
    from bnbenv.env import state

    if located.kind != "bnbenv":
        return None
    known = state.read_whole(located.generation.state_file)
    return known.lock if known is not None else None
