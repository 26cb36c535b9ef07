"""Whether the files of a lock are what its request asks for: a merge takes each file from anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from bnbenv.errors import DataError, UsageError
from bnbenv.judge.rules.rule import finding
from bnbenv.lockfile.commands import lock_command
from bnbenv.workflows.request import Wanted, request_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnbenv.judge.stack import Finding
    from bnbenv.lockfile.index import TeamLock, Variant
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.matrix.matrix import Matrix

SOURCE = "the lock and its index"


def disagreements(team: TeamLock, locks: Mapping[str, Pylock], matrix: Matrix) -> Iterator[Finding]:
    """What each lock has otherwise than the index says or the request asks for.

    Args:
        team: the index.
        locks: its locks, by variant.
        matrix: which knows the builds of torch and their indexes.

    Raises:
        DataError: code ``lock-invalid``; the request cannot be read, or names an index that is none.
    """
    wanted = Wanted.from_dict(request_of(team))
    command = lock_command(Path(team.origin).parent)
    told: set[str] = set()
    for variant in team.variants:
        try:
            found = [
                *_of_index(variant, locks[variant.name]),
                *_of_request(variant, wanted, matrix),
                *_of_lines(variant, locks[variant.name], wanted),
            ]
        except (UsageError, ValueError) as problem:
            raise DataError(
                f"`{team.origin}`: its request cannot be read: {problem}",
                hint=lock_command(Path(team.origin).parent, "PROFILE"),
                code="lock-invalid",
            ) from problem
        for subject, what in found:
            told.add(subject)
            yield _disagrees(f"{variant.file}: {subject} is not as asked: {what}", subject, command)
    for key, versions in _of_makers(team, locks):
        if key not in told:
            summary = f"`{key}` is not what the locks were made for"
            yield _disagrees(summary, key, command, *versions)


def _disagrees(summary: str, subject: str, command: str, *evidence: str) -> Finding:
    return finding(
        "lock-disagrees",
        "error",
        subject,
        summary,
        *evidence,
        remedy="Lock again.",
        commands=(command,),
        source=SOURCE,
    )


def _of_index(variant: Variant, lock: Pylock) -> Iterator[tuple[str, str]]:
    """Whether a lock holds the stack that the index names, for the machines that it names."""
    from bnbenv.lockfile.platforms import files_of

    torch = variant.torch["version"]
    local = variant.torch.get("local")
    exact = {"torch": f"{torch}+{local}" if local else torch}
    if variant.bitsandbytes is not None:
        exact["bitsandbytes"] = variant.bitsandbytes["version"]
    for name, version in exact.items():
        found = [package.version for package in lock.find(name)]
        if found != [version]:
            yield name, f"the index says {version}, the lock has {_told(found)}"
    for package in lock.find("bitsandbytes"):
        if variant.bitsandbytes is not None and variant.bitsandbytes["sha256"] not in {
            artefact.sha256 for artefact in package.artefacts
        }:
            yield "bitsandbytes", "it is not the wheel that was judged"
    try:
        files_of(lock, variant)
    except DataError as problem:
        what = f"the index says {variant.python} on {variant.os} {variant.arch}, and {problem.message}"
        yield "python", what


def _of_request(variant: Variant, wanted: Wanted, matrix: Matrix) -> Iterator[tuple[str, str]]:
    """Whether the stack that the index names is one that the request allows."""
    from bnbenv.judge.ranges import within
    from bnbenv.units import CudaVersion, minor_release
    from bnbenv.workflows.choose import judge_request, without
    from bnbenv.workflows.fleet import stack_of

    request = judge_request(wanted)
    torch, wheel = stack_of(variant, wanted.profile, matrix).torch, variant.bitsandbytes
    asked = wanted.python or ""
    exact = asked[:1].isdigit()
    if not (minor_release(asked) == variant.python if exact else within(variant.python, asked)):
        yield "python", _asked(asked, variant.python)
    if request.torch and not within(torch.version, request.torch):
        yield "torch", _asked(wanted.torch, torch.version)
    if request.bitsandbytes and not (wheel and within(wheel["version"], request.bitsandbytes)):
        yield "bitsandbytes", _asked(wanted.bitsandbytes, wheel["version"] if wheel else "none")
    if request.cuda and torch.cuda != CudaVersion.parse(request.cuda):
        yield "cuda", _asked(request.cuda, f"torch {torch.version} ({torch.build})")
    if variant.torch["index"] in without(wanted, matrix):
        yield "without-index", f"torch comes from `{variant.torch['index']}`, which was to be left out"


def _of_lines(variant: Variant, lock: Pylock, wanted: Wanted) -> Iterator[tuple[str, str]]:
    """Whether a lock has what requirements ask for, and nothing that constraints keep out."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    from bnbenv.lockfile.platforms import environment_of

    values = cast("dict[str, str]", environment_of(variant))
    profile = [f"{name}{spec}" for name, spec in variant.packages.items() if name != "torch"]
    needed = (*profile, *wanted.packages, *wanted.requirements)
    for number, line in enumerate((*needed, *wanted.constraints)):
        try:
            requirement = Requirement(line.split(" --", maxsplit=1)[0])  # options such as --hash may follow
        except InvalidRequirement:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate(values):
            continue
        found = [package.version for package in lock.find(canonicalize_name(requirement.name))]
        if not found and number >= len(needed):  # a constraint asks for nothing
            continue
        if not any(one and requirement.specifier.contains(one, prereleases=True) for one in found):
            yield requirement.name, _asked(line, _told(found))


def _of_makers(team: TeamLock, locks: Mapping[str, Pylock]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What a lock, by its own provenance, was made for otherwise: a key of the request, and who says what."""
    others = {lock.origin: team.asked_otherwise(lock.provenance) for lock in locks.values()}
    for key in sorted({key for other in others.values() for key in other}):
        said = {Path(team.origin).name: team.request.get(key)}
        said |= {origin: other[key] for origin, other in others.items() if key in other}
        lines = (f"{origin}: {'nothing' if value is None else value}" for origin, value in said.items())
        yield key.replace("_", "-"), tuple(lines)


def _asked(line: str | None, has: str) -> str:
    return f"`{line}` was asked for, the lock has {has}"


def _told(versions: list[str | None]) -> str:
    return ", ".join(str(one) for one in versions) or "none"
