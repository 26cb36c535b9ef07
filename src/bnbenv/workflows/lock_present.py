"""The lock that stands: what it was asked for, and what of it a new one takes over."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, field, replace
from bnbenv.errors import UPGRADE, BnbenvError, DataError, EnvironmentProblem, UsageError
from bnbenv.lockfile.commands import lock_command
from bnbenv.workflows.fleet import assigned
from bnbenv.workflows.request import Wanted, request_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping
    from pathlib import Path

    from bnbenv.judge.stack import Stack
    from bnbenv.lockfile.index import TeamLock, Variant
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.workflows.lock import LockRequest


_NO_INDEX = "no index names it"


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentLock:
    """What is there, as far as it can be taken for what was locked.

    Attributes:
        lock: the index; ``None`` where there is none, or none that can be read.
        texts: its files by variant, with newlines alone.
        unsound: why a file is not what was locked, by name.
        versions: by variant, the versions of an unsound file that is a lock, as a lock of no files: whatever
            else stands in it may be anybody's.
        unreadable: what is wrong with an index that `--repack` makes from nothing.
    """

    lock: TeamLock | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    unsound: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    unreadable: DataError | None = None


def read_present(request: LockRequest) -> PresentLock:
    """Read what is there; of a file that is not the one its index names, its versions alone are taken.

    Raises:
        DataError: the index cannot be read, and shall be built upon; or a newer bnbenv wrote a lock.
        EnvironmentProblem: there is none, and this machine shall be added to it; or its locks stand there.
    """
    from bnbenv.lockfile import index

    try:
        before = index.read(request.directory)
    except EnvironmentProblem:
        # Locks without their index are a team's of which something is missing: a first one would bury them.
        if request.this_machine or (index.made_here(request.directory) and not request.repack):
            raise
        made = index.made_here(request.directory)
        return PresentLock(
            unsound=dict.fromkeys(made, _NO_INDEX), versions=_versions(request.directory, made)
        )
    except DataError as problem:
        if request.this_machine or not request.repack:
            raise
        return PresentLock(
            unsound={index.NAME: problem.message},
            versions=_versions(request.directory, index.made_here(request.directory)),
            unreadable=problem,
        )
    found = [(variant, _content(request.directory, variant)) for variant in before.variants]
    for _, content in found:
        if isinstance(content, DataError) and content.hint == UPGRADE and not request.repack:
            raise content
    unsound = {variant.file: content.message for variant, content in found if isinstance(content, DataError)}
    return PresentLock(
        lock=before,
        texts={variant.name: content for variant, content in found if isinstance(content, str)},
        unsound=unsound,
        versions=_versions(request.directory, unsound),
    )


def _versions(directory: Path, names: Iterable[str]) -> dict[str, str]:
    """What `PresentLock.versions` holds, of those files that can be read; of two sides of a merge, ours."""
    from bnbenv.lockfile import conflict, pylock, text

    found = {}
    for name in names:
        try:
            content = text.decode(text.read_bytes(directory / name), name)
            if conflict.marked(content):
                content = conflict.sides(content)[0]
            # Who changes a version by hand leaves its files as they were, which makes it no lock.
            lock = pylock.outlined(text.parse(content, name), origin=name)
        except BnbenvError:  # it is gone, or was cut off
            continue
        known = {package: version for package, version in pylock.ordinary_versions(lock).items() if version}
        found[name.removeprefix("pylock.").removesuffix(".toml")] = pylock.preferences(known)
    return found


def _content(directory: Path, variant: Variant) -> str | DataError:
    """The text of a variant's lock, or why it is not what was locked, or no lock at all."""
    from bnbenv.lockfile import index

    try:
        return index.locked_text(directory, variant, name=variant.file)
    except DataError as problem:
        return problem


def wanted_now(request: LockRequest, before: TeamLock | None) -> Wanted:
    """The request: what is asked now; without a profile, over what the present lock was asked for.

    Packages are added then, and one that is there gets the version that is asked for now.
    """
    from bnbenv.install.compile_inputs import name_of

    if "profile" in request.asked or before is None:
        return Wanted.from_dict({"profile": "qlora", **request.asked})
    stood = request_of(before)
    more = tuple(request.asked.get("packages", ()))
    names = {name_of(line) for line in more}
    packages = [line for line in stood.get("packages", ()) if name_of(str(line)) not in names]
    return Wanted.from_dict({**stood, **request.asked, "packages": (*packages, *more)})


def asked_of(before: TeamLock) -> Wanted | None:
    """What the present lock was asked for; ``None`` where that cannot be read: a new one mends it."""
    try:
        return Wanted.from_dict(request_of(before))
    except DataError:
        return None


def kept_stacks(
    request: LockRequest, wanted: Wanted, before: TeamLock | None, matrix: Matrix
) -> Mapping[Hashable, Stack]:
    """Class → stack, as far as the present lock decides.

    Raises:
        DataError: the matrix does not know a release of the lock, and would take older ones for everybody;
            or it is older than the one that judged, and would take back what that one knew.
    """
    if before is None or request.repack:
        return {}
    present = assigned(before, matrix)
    if matrix.is_older_than(before.matrix):
        again = lock_command(request.directory, "--repack")
        raise DataError(
            f"the lock was judged by the matrix {before.matrix}, and this bnbenv has an older one, "
            f"{matrix.revision}",
            hint=f"{UPGRADE}; or, to judge every machine anew by the older one, {again}",
            code="matrix-invalid",
        )
    chosen_anew = request.upgrade or {"torch", "bitsandbytes"} & set(request.upgrade_packages)
    asked = asked_of(before)
    same = asked is not None and _stack_request(asked) == _stack_request(wanted)
    return present if same and not chosen_anew else {}


def _stack_request(wanted: Wanted) -> Wanted:
    """The part of a request that decides stacks."""
    return replace(wanted, packages=(), requirements=(), constraints=(), exclude_newer=None)


def to_upgrade(request: LockRequest, wanted: Wanted, present: PresentLock) -> tuple[str, ...]:
    """The packages to upgrade, by their normalized names.

    Raises:
        UsageError: a name that is none, or that no lock has: it would change nothing, in silence.
    """
    if not request.upgrade_packages:
        return ()
    from packaging.utils import canonicalize_name

    from bnbenv.lockfile import pylock

    known = {package.name for text in present.texts.values() for package in pylock.parse(text).packages}
    known |= {
        canonicalize_name(re.split(r"[^\w.-]", line.strip(), maxsplit=1)[0]) for line in wanted.packages
    }
    for name in request.upgrade_packages:
        if not re.fullmatch(r"(?i)[a-z0-9]([a-z0-9._-]*[a-z0-9])?", name):
            raise UsageError(
                f"`--upgrade-package {name}`: a name is wanted, without a version",
                hint=lock_command(request.directory, "--with 'NAME==VERSION'") + ", for a version",
            )
        if present.texts and not present.unsound and canonicalize_name(name) not in known:
            raise UsageError(
                f"`--upgrade-package {name}`: no lock there has such a package",
                hint=f"{lock_command(request.directory, '--upgrade')}, for all of them; "
                f"to add one: {lock_command(request.directory, '--with NAME')}",
            )
    return tuple(canonicalize_name(name) for name in request.upgrade_packages)
