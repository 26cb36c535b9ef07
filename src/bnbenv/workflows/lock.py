"""`lock`: from a fleet of machines to the fewest standard locks that serve it, and the index of them."""

from __future__ import annotations

import os
import re
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass, field, replace
from bnbenv.errors import DataError, EnvironmentProblem, ExternalError, UnsolvableError, UsageError
from bnbenv.judge.cover import cover, identity
from bnbenv.judge.stack import Offers, Solution
from bnbenv.lockfile.commands import lock_command
from bnbenv.lockfile.index import MachineClass, TeamLock, Variant
from bnbenv.machine.host import Host
from bnbenv.torch_family import TORCH_FAMILY, differs_by_build
from bnbenv.words import counted
from bnbenv.workflows.choose import JUDGED, Choice
from bnbenv.workflows.create import write_lock
from bnbenv.workflows.fleet import Fleet, Given, assigned, stored_facts
from bnbenv.workflows.request import CreateRequest, Wanted, request_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping
    from concurrent.futures import Future

    from bnbenv.install.availability import Availability
    from bnbenv.install.sources import Sources
    from bnbenv.install.uv import Uv
    from bnbenv.judge.cover import Cover
    from bnbenv.judge.evidence import Evidence
    from bnbenv.judge.stack import Stack, Unsolvable
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.machine.target import Libc, Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.workflows.voice import Voice

# Seconds that an index has to answer: a lock is made seldom, and an index that is late stops it.
_PATIENCE = 15.0

# Seconds for which an answer is not asked for again: uv takes a page for as fresh as public indexes say.
_FRESH = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LockRequest:
    """One call of `lock`.

    Attributes:
        asked: what the environments shall be, by the names of `Wanted`; without a profile, what differs
            from what the present lock was asked for.
        directory: where the locks stand.
        targets: machines as they are now; those of the present lock that are not among them stay.
        this_machine: take in the machine at hand.
        forget: names of machines that are no longer there.
        repack: assign anew, whatever the present lock assigns.
        upgrade: choose every version anew.
        upgrade_packages: choose the versions of these anew.
        allow_local: files of this machine's disk may be locked.
        write: false only tells what would change.
        today: ISO 8601; the day that new facts get.
        command: the line that asks for it, to be typed again with more options.
    """

    asked: Mapping[str, Any]
    directory: Path
    targets: Iterable[Given] = ()
    this_machine: bool = False
    forget: tuple[str, ...] = ()
    repack: bool = False
    upgrade: bool = False
    upgrade_packages: tuple[str, ...] = ()
    allow_local: bool = False
    offline: bool = False
    write: bool = True
    today: str
    mirrors: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = field(default_factory=Path.cwd)
    command: str = "bnbenv lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """The answer of `lock`.

    Attributes:
        before: the present lock; ``None`` for a first one.
        files: file name → text, the index included.
        changes: what changed for whom, a sentence each.
        changed: whether any file is another one than before.
        written: false where it was not to be, and for a first lock that would serve no machine.
        lost: machines whose accelerator was not visible: their last facts were kept.
        local: packages that only this machine has.
        left_out: places of this machine's disk that were not used.
        seconds: by phase.
    """

    before: TeamLock | None
    lock: TeamLock
    files: Mapping[str, str]
    changes: tuple[str, ...]
    changed: bool
    written: bool
    lost: tuple[str, ...]
    local: tuple[str, ...]
    left_out: tuple[str, ...]
    seconds: Mapping[str, float]


def lock(request: LockRequest, voice: Voice, environ: Mapping[str, str]) -> Locked:
    """Tell machines apart, choose the fewest stacks, lock each with uv, and write the files.

    Raises:
        UsageError: the request or a target cannot be read, or a machine to forget or a package to upgrade is
            not there.
        DataError: the present lock is invalid, or a newer matrix made it.
        UnsolvableError: another request than that of the present lock would leave machines of it unserved.
        ExternalError: uv failed for every variant, or for one that has a lock; or an index whose torch would
            be taken does not answer.
        EnvironmentProblem: there is no lock to add to.
    """
    from bnbenv.install.uv import find_uv
    from bnbenv.matrix.load import load
    from bnbenv.workflows.realise import Stopwatch

    watch = Stopwatch()
    uv = find_uv(environ, log=voice.ran)
    matrix = load(*JUDGED, platform="every")
    present = _present(request)
    before = present.lock
    wanted = _wanted(request, before)
    request = replace(request, upgrade_packages=_to_upgrade(request, wanted, present))
    kept = _kept(request, wanted, before, matrix)
    with watch.phase("classes"):
        fleet = _gather(request, wanted, present, matrix, environ)
    voice.progress(
        f"{counted(sum(len(members.machines) for members in fleet.classes.values()), 'machine')}, "
        f"{counted(len(fleet.classes), 'kind')} that the rules can tell apart"
    )
    sources, left_out = _sources(request, matrix, environ)
    with watch.phase("cover"):
        plan = _plan(wanted, fleet, matrix, _unasked(sources, wanted, matrix), before, kept)

    def compiled_from(plan: _Plan, environ: Mapping[str, str], unneeded: Event | None = None) -> _Compiled:
        _refuse_unknown_indexes(plan.found, sources, request.command, local=bool(left_out))
        return _compile(request, wanted, plan, sources, matrix, present, uv, voice, environ, unneeded)

    with ThreadPoolExecutor(max_workers=1) as aside, _set_at_the_end() as unneeded:
        ahead = None
        if plan.names and _foreseeable(sources):
            ahead = aside.submit(compiled_from, plan, _hasty(environ), unneeded)
        availability = _fresh(plan, matrix, sources, environ)
        compiled = None
        if availability is not None:
            with watch.phase("compile"):
                compiled = _in_haste(ahead)
        if availability is None or compiled is None:
            with watch.phase("indexes"):
                availability = _ask(wanted, fleet, matrix, sources, voice, environ)
            with watch.phase("cover"):
                if not _confirmed(plan, availability):
                    unneeded.set()
                    offers = _offers(availability, wanted, matrix)
                    plan, ahead = _plan(wanted, fleet, matrix, offers, before, kept), None
                again = _Again(command=request.command, local=bool(left_out))
                _refuse_silence(wanted, fleet, matrix, availability, kept, plan.found, again)
            with watch.phase("compile"):
                compiled = _in_haste(ahead) or compiled_from(plan, environ)
    offers = _offers(availability, wanted, matrix)
    environments = counted(len(plan.names), "environment")
    voice.progress(
        f"for them: {environments} ({', '.join(sorted(plan.names.values())) or 'nothing serves them'})"
    )
    found, names, served = plan.found, plan.names, plan.served
    locks = compiled.locks
    local = tuple(sorted({line for made in locks.values() for line in made.not_portable()}))
    files, variants = _files(locks, names, served)
    index = TeamLock(
        request=wanted.to_dict(),
        matrix=matrix.revision,
        variants=tuple(variants),
        classes=tuple(
            _classes(fleet, found, names, wanted, matrix, offers, availability, failed=compiled.failed)
        ),
    )
    if not request.repack:
        _refuse_loss(wanted, before, index)
    return _finish(request, present, index, files, fleet, local, left_out, watch.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Present:
    """What is there, as far as it can be taken for what was locked.

    Attributes:
        lock: the index; ``None`` where there is none, or none that can be read.
        texts: its files by variant, with newlines alone.
        unsound: why a file counts for nothing, by name.
        unreadable: what is wrong with an index that `--repack` makes from nothing.
    """

    lock: TeamLock | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    unsound: Mapping[str, str] = field(default_factory=dict)
    unreadable: DataError | None = None


def _present(request: LockRequest) -> _Present:
    """Read what is there; of a file that is not the one its index names, nothing is taken.

    Raises:
        DataError: the index cannot be read, and shall be built upon.
        EnvironmentProblem: there is none, and this machine shall be added to it.
    """
    from bnbenv.lockfile import index

    try:
        before = index.read(request.directory)
    except EnvironmentProblem:
        if request.this_machine:
            raise
        return _Present()
    except DataError as problem:
        if request.this_machine or not request.repack:
            raise
        return _Present(unsound={index.NAME: problem.message}, unreadable=problem)
    found = [(variant, _content(request.directory, variant)) for variant in before.variants]
    return _Present(
        lock=before,
        texts={variant.name: content for variant, content in found if isinstance(content, str)},
        unsound={
            variant.file: content.message for variant, content in found if isinstance(content, DataError)
        },
    )


def _content(directory: Path, variant: Variant) -> str | DataError:
    """The text of a variant's lock, or why it is not what was locked, or no lock at all."""
    from bnbenv.lockfile import index, pylock, text

    try:
        content = text.decode(index.locked_bytes(directory, variant), variant.file)
        pylock.parse(content, origin=variant.file)  # whoever wrote it may have written its hash too
    except DataError as problem:
        return problem
    return content.replace("\r\n", "\n")  # as its hash counts them


def _to_upgrade(request: LockRequest, wanted: Wanted, present: _Present) -> tuple[str, ...]:
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


def _wanted(request: LockRequest, before: TeamLock | None) -> Wanted:
    if "profile" in request.asked or before is None:
        return Wanted.from_dict({"profile": "qlora", **request.asked})
    return Wanted.from_dict({**request_of(before), **request.asked})


def _kept(
    request: LockRequest, wanted: Wanted, before: TeamLock | None, matrix: Matrix
) -> Mapping[Hashable, Stack]:
    """Class → stack, as far as the present lock decides.

    Raises:
        DataError: the matrix does not know a release of the lock, and would take older ones for everybody.
    """
    if before is None or request.repack:
        return {}
    present = assigned(before, matrix)
    chosen_anew = request.upgrade or {"torch", "bitsandbytes"} & set(request.upgrade_packages)
    asked = _asked(before)
    same = asked is not None and _stack_request(asked) == _stack_request(wanted)
    return present if same and not chosen_anew else {}


def _asked(before: TeamLock) -> Wanted | None:
    """What the present lock was asked for; ``None`` where that cannot be read: a new one mends it."""
    try:
        return Wanted.from_dict(request_of(before))
    except DataError:
        return None


def _gather(
    request: LockRequest, wanted: Wanted, present: _Present, matrix: Matrix, environ: Mapping[str, str]
) -> Fleet:
    fleet, before = Fleet(matrix=matrix), present.lock
    known = {name for entry in (before.classes if before else ()) for name in entry.machines}
    if strange := [name for name in request.forget if name not in known]:
        raise UsageError(
            f"`--forget {strange[0]}`: the lock has no such machine",
            hint="the machines stand in bnbenv.lock, by the names of their target files",
        )
    if before is not None:
        fleet.recall(before, forget=request.forget)
    for given in request.targets:
        fleet.add(given, today=request.today, cpu=wanted.cpu)
    if present.unreadable is not None and not fleet.classes:
        raise present.unreadable  # it may name many machines: this one is no lock of a team
    if request.this_machine or (before is None and not fleet.classes):
        from bnbenv.machine.probe import probe
        from bnbenv.workflows.choose import refuse_lost_gpu

        host = probe(environ=environ)
        if not wanted.cpu:
            if request.this_machine:
                line, otherwise = lock_command(request.directory), "the same line where the GPU can be used"
            else:
                line, otherwise = request.command, "--cpu"
            refuse_lost_gpu(host, line, otherwise=otherwise)
        here = Given(target=host.target, origin="this machine")
        fleet.add(here, today=request.today, cpu=wanted.cpu)
    if not fleet.classes:
        raise UsageError(
            "the lock would be for no machine: none of it is left, and none is given",
            hint="--target FILE or --add-this-machine, for one to lock for",
        )
    return fleet


def _sources(
    request: LockRequest, matrix: Matrix, environ: Mapping[str, str]
) -> tuple[Sources, tuple[str, ...]]:
    """Where packages come from; what only this machine has is left out, so that others can use the lock."""
    from bnbenv.install.sources import read_sources

    sources = read_sources(
        environ=environ,
        cwd=request.cwd,
        home=Path.home(),
        index_rows=matrix.indexes,
        mirrors=request.mirrors,
    )
    if request.offline:
        sources = sources.going_offline()
    if request.allow_local:
        return sources, ()
    local = tuple(index for index in sources.indexes if index.local)
    kept = tuple(index for index in sources.indexes if not index.local)
    return replace(sources, indexes=kept), tuple(str(index.directory) for index in local)


def _refuse_unknown_indexes(found: Cover, sources: Sources, command: str, *, local: bool) -> None:
    """Say what to type where the present lock has torch from an index that is not in use here.

    Raises:
        UsageError: it has.
    """
    known = {index.name for index in sources.indexes}
    gone = sorted({stack.torch.index for stack in found.stacks.values()} - known)
    if gone:
        own = f"{command} --allow-local (with what only this machine has)" if local else "configure it anew"
        raise UsageError(
            f"the present lock has torch from {', '.join(f'`{name}`' for name in gone)}, "
            "which is no index in use here",
            hint=f"{own}; or choose anew: {command} --repack",
        )


def _foreseeable(sources: Sources) -> bool:
    """Whether the indexes can be expected to have what the matrix says: no place of the user's own."""
    return not sources.offline and all(index.role in ("explicit", "default") for index in sources.indexes)


def _unasked(sources: Sources, wanted: Wanted, matrix: Matrix) -> Offers:
    """What the indexes have if every one that is configured has what the matrix says."""
    from bnbenv.install.availability import assemble

    names = [row.name for row in matrix.indexes if row.name != "pypi"]
    return _offers(assemble((), sources, known=matrix.torch, all_names=names), wanted, matrix)


def _confirmed(plan: _Plan, availability: Availability) -> bool:
    """Whether the indexes have all that was expected of them, so that nothing else would be chosen."""
    if availability.builds:
        return False
    for key, stack in plan.found.stacks.items():
        torch = stack.torch
        if key in plan.found.kept:
            continue
        if torch.index in availability.unavailable:
            return False
        listed = availability.listed.get(torch.index)
        if listed is not None and (torch.version, torch.build, stack.python) not in listed:
            return False
    return True


def _hasty(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables with which uv gives up as soon as the question to the indexes does."""
    seconds = f"{_PATIENCE:.0f}"
    return {**environ, "UV_HTTP_RETRIES": "0", "UV_HTTP_TIMEOUT": seconds, "UV_HTTP_CONNECT_TIMEOUT": seconds}


@contextmanager
def _set_at_the_end() -> Iterator[Event]:
    """An event that tells a thread, however the block is left, that nobody waits for the rest of its work."""
    event = Event()
    try:
        yield event
    finally:
        event.set()


def _in_haste(ahead: Future[_Compiled] | None) -> _Compiled | None:
    """What was compiled while the indexes were asked; ``None`` where it has to be done with more patience."""
    if ahead is None:
        return None
    try:
        compiled = ahead.result()
    except ExternalError:
        return None
    return None if compiled.failed else compiled


def _ask(
    wanted: Wanted,
    fleet: Fleet,
    matrix: Matrix,
    sources: Sources,
    voice: Voice,
    environ: Mapping[str, str],
) -> Availability:
    from bnbenv.workflows.choose import ask_indexes

    targets = [kind.target for kind in fleet.kinds()]
    return ask_indexes(wanted, targets, matrix, sources, voice, environ, timeout=_PATIENCE)


def _fresh(plan: _Plan, matrix: Matrix, sources: Sources, environ: Mapping[str, str]) -> Availability | None:
    """What the indexes said some minutes ago, where that bears the plan out."""
    import time

    from bnbenv.env.layout import Layout
    from bnbenv.install.availability import assemble
    from bnbenv.install.remembered import recall

    if environ.get("UV_NO_CACHE") or not _foreseeable(sources):
        return None
    cache = Layout.find(environ).cache
    answers = recall(sources, cache, environ=environ, now=time.time(), max_age=_FRESH)
    needed = {stack.torch.index for stack in plan.found.stacks.values()}
    needed |= {index.name for index in sources.indexes if index.role == "default"}
    told = {answer.index for answer in answers or () if answer.problem is None}
    if answers is None or not needed <= told:
        return None
    kept = [answer for answer in answers if answer.index in needed or answer.problem is not None]
    names = [row.name for row in matrix.indexes if row.name != "pypi"]
    found = assemble(kept, sources, known=matrix.torch, all_names=names)
    return found if _confirmed(plan, found) else None


def _offers(availability: Availability, wanted: Wanted, matrix: Matrix) -> Offers:
    from bnbenv.workflows.choose import without

    offers = availability.offers()
    return replace(offers, unavailable=offers.unavailable | without(wanted, matrix))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """Which stacks serve the fleet; each by its identity.

    Attributes:
        names: of the variants.
        served: what each is locked for.
    """

    found: Cover
    names: Mapping[Any, str]
    served: Mapping[Any, _Served]


def _plan(
    wanted: Wanted,
    fleet: Fleet,
    matrix: Matrix,
    offers: Offers,
    before: TeamLock | None,
    kept: Mapping[Hashable, Stack],
) -> _Plan:
    found = _cover(wanted, fleet, matrix, offers, kept)
    return _Plan(
        found=found, names=_names(found, before, matrix), served=_served(found, fleet, cpu=wanted.cpu)
    )


def _cover(
    wanted: Wanted, fleet: Fleet, matrix: Matrix, offers: Offers, kept: Mapping[Hashable, Stack]
) -> Cover:
    """The assignment; where the Pythons that all machines have leave one unserved, with those of uv."""
    from bnbenv.workflows.choose import judge_request

    asked = judge_request(wanted)
    found = cover(asked, fleet.kinds(), matrix, offers, present=kept)
    if found.unserved and wanted.python is None:
        wider = cover(asked, fleet.kinds(wide=True), matrix, offers, present=kept)
        if len(wider.unserved) < len(found.unserved):
            return wider
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Again:
    """The line that was typed.

    Attributes:
        local: places of this machine's disk were left out.
    """

    command: str
    local: bool

    def without(self, indexes: Iterable[str]) -> str:
        """What to type where these indexes do not answer."""
        excluded = " ".join(f"--without-index {name}" for name in sorted(indexes))
        if not excluded:
            return "try again later; or take it out of the configuration (`bnbenv config`)"
        own = f"with what only this machine has: {self.command} --allow-local {excluded}; or "
        return f"{own if self.local else ''}try again later; or lock without it: {self.command} {excluded}"


def _refuse_silence(
    wanted: Wanted,
    fleet: Fleet,
    matrix: Matrix,
    availability: Availability,
    kept: Mapping[Hashable, Stack],
    found: Cover,
    again: _Again,
) -> None:
    """Refuse to lock another torch because the index of the right one does not answer just now.

    Raises:
        ExternalError: code ``index-unreachable``; the message names every such index.
    """
    from bnbenv.workflows.choose import without

    silent = {
        problem.index: problem for problem in availability.problems if problem.code == "index-unreachable"
    }
    if not silent or found.kept == frozenset(fleet.classes):
        return
    shut = without(wanted, matrix)
    offers = availability.offers()
    answering = replace(offers, unavailable=(offers.unavailable - silent.keys()) | shut)
    wished = _cover(wanted, fleet, matrix, answering, kept)
    held = {key: identity(stack) for key, stack in found.stacks.items()}
    needed = {
        stack.torch.index for key, stack in wished.stacks.items() if held.get(key) != identity(stack)
    } & silent.keys()
    # What an index of the user's own would have, nobody knows.
    known = {row.name for row in matrix.indexes} | {"pypi"}
    needed |= silent.keys() - known
    if not needed:
        return
    raise ExternalError(
        "an index that this lock needs does not answer, and another torch is not taken in silence:\n"
        + "\n".join(silent[name].message for name in sorted(needed)),
        hint=again.without(needed & known),
        code="index-unreachable",
    )


def _stack_request(wanted: Wanted) -> Wanted:
    """The part of a request that decides stacks."""
    return replace(wanted, packages=(), requirements=(), constraints=(), exclude_newer=None)


def _names(found: Cover, before: TeamLock | None, matrix: Matrix) -> dict[Any, str]:
    """Identity of a stack → name of its variant; a stack that has a name keeps it."""
    from bnbenv.workflows.fleet import stack_of

    stacks = {identity(stack): stack for stack in found.stacks.values()}
    names: dict[Any, str] = {}
    for variant in before.variants if before else ():
        try:
            held = identity(stack_of(variant, "", matrix))
        except DataError:
            continue
        if held in stacks:
            names.setdefault(held, variant.name)
    for key in sorted(stacks):
        if key in names:
            continue
        base = _name(stacks[key])
        taken = set(names.values())
        candidates = [base, f"{base}-torch{stacks[key].torch.version}".replace(".", "-")]
        candidates += [f"{candidates[1]}-{number}" for number in range(2, 100)]
        names[key] = next(name for name in candidates if name not in taken)
    return names


def _name(stack: Stack) -> str:
    torch = stack.torch
    parts = [torch.build.replace(".", "")]
    if torch.os != "linux":
        parts.append(torch.os)
    if torch.arch != "x86_64" and torch.os != "macos":
        parts.append(torch.arch)
    return "-".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Served:
    """One stack and the machine that it is locked for: the least of those that it serves.

    Attributes:
        evidence: the weakest of what is known of the stack on the machines that it serves.
    """

    solution: Solution
    target: Target
    evidence: Evidence


# From the weakest to the strongest.
_EVIDENCE: tuple[Evidence, ...] = ("none", "neighbour", "verified")


def _served(found: Cover, fleet: Fleet, *, cpu: bool) -> dict[Any, _Served]:
    from bnbenv.judge.candidates import without_accelerator
    from bnbenv.judge.evidence import evidence
    from bnbenv.judge.judge import judge

    by_identity: dict[Any, list[Hashable]] = {}
    for key, stack in found.stacks.items():
        by_identity.setdefault(identity(stack), []).append(key)
    served = {}
    for key, keys in by_identity.items():
        stack = found.stacks[keys[0]]
        targets = sorted((fleet.classes[key].target for key in keys), key=repr)
        libcs = [target.libc for target in targets if target.libc is not None]
        families = {libc.family for libc in libcs}
        # Wheels that run on the oldest C library of them run on all.
        libc = min(libcs, key=lambda libc: tuple(libc.version)) if len(families) == 1 else None
        target = replace(targets[0], libc=libc or targets[0].libc, pythons=(stack.python,))
        served[key] = _Served(
            solution=Solution(stack=stack, judgement=judge(stack, target, fleet.matrix)),
            target=target,
            evidence=min(
                (evidence(stack, without_accelerator(one) if cpu else one, fleet.matrix) for one in targets),
                key=_EVIDENCE.index,
            ),
        )
    return served


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compiled:
    """What uv made of the stacks; by identity.

    Attributes:
        failed: why a stack has no lock, in uv's words.
    """

    locks: dict[Any, Pylock]
    failed: Mapping[Any, str]


def _compile(
    request: LockRequest,
    wanted: Wanted,
    plan: _Plan,
    sources: Sources,
    matrix: Matrix,
    present: _Present,
    uv: Uv,
    voice: Voice,
    environ: Mapping[str, str],
    unneeded: Event | None,
) -> _Compiled:
    """Lock one variant and then the others at once; then once more those that differ where they need not.

    Raises:
        ExternalError: an index failed; or uv finds no set of versions for any variant, or for one that the
            present lock has: its file stays as it is.
        CancelledError: `unneeded` was set before the last variant was begun.
    """
    from bnbenv.lockfile import homes
    from bnbenv.lockfile.safety import refuse_unsafe

    names, served = plan.names, plan.served
    asked = CreateRequest(wanted=wanted, name="lock", mirrors=request.mirrors, cwd=request.cwd)
    kept = {} if request.upgrade else present.texts
    standing = {variant.name for variant in present.lock.variants} if present.lock else set()
    # A new variant starts from the versions of one that is there.
    fallback = next((kept[name] for name in sorted(kept)), None)

    def one(key: Any, preferred: str | None) -> Pylock:
        if unneeded is not None and unneeded.is_set():
            raise CancelledError
        made = write_lock(
            asked,
            _choice(served[key], sources, matrix),
            uv,
            voice,
            environ,
            preferred=preferred,
            upgrade=request.upgrade_packages,
            table=_provenance(names[key], served[key], wanted, matrix),
        )
        found = homes.canonical(made, sources, matrix.indexes)
        named = replace(found, origin=f"pylock.{names[key]}.toml")
        refuse_unsafe(named, trusted=sources.trusted_hosts, allow_local=request.allow_local)
        return named

    def tried(key: Any, preferred: str | None) -> Pylock | ExternalError:
        try:
            return one(key, kept.get(names[key], preferred))
        except ExternalError as problem:
            if problem.code not in {"conflict", "package-unavailable"} or names[key] in standing:
                raise
            return problem

    keys = sorted(names, key=lambda key: names[key])
    first: dict[Any, Pylock | ExternalError] = {}
    with ThreadPoolExecutor(max_workers=max(1, min(8, (os.cpu_count() or 1) * 2))) as pool:
        if keys:
            # The first one fills uv's cache, and its versions suit the others where any do.
            made = first[keys[0]] = tried(keys[0], fallback)
            if fallback is None and not isinstance(made, ExternalError):
                fallback = _preferences({keys[0]: made})
            first.update(zip(keys[1:], pool.map(lambda key: tried(key, fallback), keys[1:]), strict=True))
        locks = {key: made for key, made in first.items() if not isinstance(made, ExternalError)}
        problems = {key: made for key, made in first.items() if isinstance(made, ExternalError)}
        if problems and not locks:
            raise next(iter(problems.values()))
        if odd := _differing(locks):
            common = _preferences(locks)
            voice.progress(f"{len(odd)} variants differ in versions: trying to make them alike")
            again = pool.map(lambda key: one(key, common), odd)
            locks.update(zip(odd, again, strict=True))
    _refuse_two_homes(locks.values(), sources, matrix, environ)
    return _Compiled(locks=locks, failed={key: problem.message for key, problem in problems.items()})


def _choice(served: _Served, sources: Sources, matrix: Matrix) -> Choice:
    return Choice(
        host=Host(target=served.target, driver_state="absent", facts=()),
        target=served.target,
        elsewhere=True,  # locked for a platform, whatever machine locks it
        matrix=matrix,
        sources=sources,
        solution=served.solution,
        given_up=(),
        base=None,
        interpreter=None,
    )


def _provenance(name: str, served: _Served, wanted: Wanted, matrix: Matrix) -> dict[str, Any]:
    torch = served.solution.stack.torch
    return {
        "variant": name,
        "matrix": matrix.revision,
        "request": wanted.to_dict(),
        "torch": {"version": torch.version, "build": torch.build, "index": torch.index},
    }


def ordinary_versions(made: Pylock) -> dict[str, str]:
    """Package → version, of those that need not differ between builds of torch."""
    return {
        package.name: package.version or "" for package in made.packages if not differs_by_build(package.name)
    }


def _differing(locks: Mapping[Any, Pylock]) -> list[Any]:
    """The variants in which an ordinary package has another version than the oldest of them."""
    oldest = _oldest(locks.values())
    return [
        key
        for key, made in locks.items()
        if any(version != oldest[name] for name, version in ordinary_versions(made).items())
    ]


def _oldest(locks: Iterable[Pylock]) -> dict[str, str]:
    from packaging.version import Version

    found: dict[str, str] = {}
    for made in locks:
        for name, version in ordinary_versions(made).items():
            if name not in found or Version(version) < Version(found[name]):
                found[name] = version
    return found


def _preferences(locks: Mapping[Any, Pylock]) -> str:
    """A lock with the versions that all variants should have; uv reads no more than these from it."""
    import tomli_w

    packages = [
        {"name": name, "version": version, "wheels": [_NO_WHEEL]}
        for name, version in sorted(_oldest(locks.values()).items())
    ]
    return tomli_w.dumps({"lock-version": "1.0", "created-by": "bnbenv", "packages": packages})


_NO_WHEEL = {
    "url": "https://none.invalid/none-0-py3-none-any.whl",
    "hashes": {"sha256": "0" * 64},
}


def _refuse_two_homes(
    locks: Iterable[Pylock], sources: Sources, matrix: Matrix, environ: Mapping[str, str]
) -> None:
    """Refuse a package that two of the configured indexes have, unless both have the very same file.

    Raises:
        DataError: code ``lock-invalid``.
    """
    from bnbenv.install.pages import files_of_all
    from bnbenv.lockfile.homes import canonical_address

    general = [index for index in sources.with_role("extra", "default") if not index.local]
    if len(general) < 2 or sources.offline:
        return
    pinned = {row.url for row in matrix.indexes if row.url}
    wanted: dict[str, dict[str, str]] = {}
    for made in locks:
        for package in made.packages:
            if package.index in pinned or package.name in TORCH_FAMILY:
                continue
            hashes = {artefact.name: artefact.sha256 or "" for artefact in package.artefacts}
            wanted.setdefault(package.name, {}).update(hashes)
    offered = {index.name: files_of_all(index, wanted, sources, environ) for index in general}
    for name, hashes in wanted.items():
        having = [index for index in general if offered[index.name][name]]
        if len(having) < 2:
            continue
        for index in having:
            there = {file.name: file.sha256 for file in offered[index.name][name]}
            if any(there.get(file, "missing") not in (sha256, None) for file, sha256 in hashes.items()):
                places = " and ".join(canonical_address(one, matrix.indexes) for one in having)
                raise DataError(
                    f"`{name}` is on two indexes, and they do not have the same files: {places}; whoever can "
                    "upload to one of them decides what is installed",
                    hint="leave one of them out of the configuration (`bnbenv config` shows it)",
                    code="lock-invalid",
                )


def _files(
    locks: Mapping[Any, Pylock], names: Mapping[Any, str], served: Mapping[Any, _Served]
) -> tuple[dict[str, str], list[Variant]]:
    from bnbenv.lockfile import pylock
    from bnbenv.lockfile.index import sha256_of

    files: dict[str, str] = {}
    variants = []
    for key, made in locks.items():
        content = pylock.dump(made)
        stack, target = served[key].solution.stack, served[key].target
        torch, wheel = stack.torch, stack.bitsandbytes
        pins = {"version": torch.version, "build": torch.build, "index": torch.index, "local": torch.local}
        variants.append(
            Variant(
                name=names[key],
                sha256=sha256_of(content),
                python=stack.python,
                os=torch.os,
                arch=torch.arch,
                glibc=_glibc(target.libc),
                torch={key: value for key, value in pins.items() if value is not None},
                bitsandbytes=None
                if wheel is None
                else {"version": wheel.version, "wheel": wheel.wheel, "sha256": wheel.sha256},
                packages=dict(stack.packages),
                evidence=served[key].evidence,
            )
        )
        files[f"pylock.{names[key]}.toml"] = content
    return files, variants


def _glibc(libc: Libc | None) -> str | None:
    return str(libc.version) if libc is not None and libc.family == "glibc" else None


def _classes(
    fleet: Fleet,
    found: Cover,
    names: Mapping[Any, str],
    wanted: Wanted,
    matrix: Matrix,
    offers: Offers,
    availability: Availability,
    *,
    failed: Mapping[Any, str],
) -> Iterable[MachineClass]:
    for key, members in fleet.classes.items():
        stack = found.stacks.get(key)
        blocking: tuple[str, ...] = ()
        if stack is None:
            blocking = _blocking(found.unserved[key], members.target, wanted, matrix, offers, availability)
        elif identity(stack) in failed:
            torch, told = stack.torch, failed[identity(stack)]
            blocking = (f"torch {torch.version} ({torch.build}) would serve it", told)
            stack = None
        yield MachineClass(
            variant=None if stack is None else names[identity(stack)],
            machines=tuple(sorted(members.machines)),
            facts=stored_facts(members),
            seen=members.seen,
            # uv and indexes speak in several lines, and a lock keeps nothing that a terminal would obey.
            blocking=tuple(
                "".join(letter if letter.isprintable() else " " for letter in line).strip()
                for told in blocking
                for line in told.splitlines()
                if line.strip()
            ),
        )


def _blocking(
    answer: Unsolvable,
    target: Target,
    wanted: Wanted,
    matrix: Matrix,
    offers: Offers,
    availability: Availability,
) -> tuple[str, ...]:
    """Why nothing serves a class: the judge's smallest set of facts, or the indexes that do not answer."""
    from bnbenv.judge.solve import solve
    from bnbenv.workflows.choose import judge_request, without

    everywhere = Offers(builds=offers.builds, unavailable=without(wanted, matrix))
    wished = solve(judge_request(wanted), target, matrix, everywhere, explain=False)
    if not isinstance(wished, Solution):
        # What an index of the user's own would have, nobody knows.
        known = {row.name for row in matrix.indexes}
        own = [problem.message for problem in availability.problems if problem.index not in known]
        return (*answer.blocking, *own)
    torch = wished.stack.torch
    refused = [problem.message for problem in availability.problems if problem.index == torch.index]
    told = refused or [f"index `{torch.index}` cannot be used"]
    return (f"torch {torch.version} ({torch.build}) would serve it", *told)


def _refuse_loss(wanted: Wanted, before: TeamLock | None, after: TeamLock) -> None:
    """Refuse to take their stack from machines because something else is asked for, which may be a typo.

    Raises:
        UnsolvableError: it names the machines, with what blocks them.
    """
    from bnbenv.lockfile.difference import some

    if before is None or _asked(before) == wanted:
        return
    served = {name for entry in before.classes if entry.variant is not None for name in entry.machines}
    losing = {
        names: entry.blocking
        for entry in after.classes
        if entry.variant is None and (names := tuple(name for name in entry.machines if name in served))
    }
    if losing:
        raise UnsolvableError(
            "what is asked for serves machines no longer that the present lock serves; nothing was written:\n"
            + "\n".join(f"{some(names)}: {'; '.join(blocking)}" for names, blocking in losing.items()),
            hint="ask for something else; or `--repack` locks it without them, `--forget NAME` takes one out",
            data={
                "blocking": sorted({fact for blocking in losing.values() for fact in blocking}),
                "unserved": [
                    {"machines": list(names), "blocking": list(blocking)}
                    for names, blocking in losing.items()
                ],
            },
        )


def _finish(
    request: LockRequest,
    present: _Present,
    lock: TeamLock,
    files: dict[str, str],
    fleet: Fleet,
    local: tuple[str, ...],
    left_out: tuple[str, ...],
    seconds: Mapping[str, float],
) -> Locked:
    from bnbenv.lockfile import index
    from bnbenv.lockfile.difference import differences

    before = present.lock
    old = {f"pylock.{name}.toml": content for name, content in present.texts.items()}
    files[index.NAME] = index.dump(lock)
    if before is not None:
        old[index.NAME] = index.dump(before)
    anew = [f"{name} is made anew: {why}" for name, why in sorted(present.unsound.items()) if name in files]
    changes = (*anew, *differences(before, present.texts, lock, files))
    written = request.write and bool(lock.variants or before or present.unsound)
    if written:
        _write(request.directory, files, old, present.unsound)
    return Locked(
        before=before,
        lock=lock,
        files=files,
        changes=changes,
        changed=old != files,
        written=written,
        lost=tuple(sorted(fleet.lost)),
        local=local,
        left_out=left_out,
        seconds=seconds,
    )


def _write(directory: Path, files: Mapping[str, str], old: Mapping[str, str], unsound: Iterable[str]) -> None:
    """The locks first, then the index that names them, then away with what it no longer names.

    What is there with these very words stays as a checkout has made its line ends.
    """
    from bnbenv.env import durable
    from bnbenv.lockfile import index

    with durable.told(directory, "create"):
        directory.mkdir(parents=True, exist_ok=True)
    for name in sorted(files, key=lambda name: (name == index.NAME, name)):
        if old.get(name) != files[name]:
            durable.write_whole(directory / name, files[name].encode())
    for name in {*old, *unsound} - files.keys():
        with durable.told(directory / name, "remove"):
            (directory / name).unlink(missing_ok=True)
