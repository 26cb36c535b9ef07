"""`lock`: from a fleet of machines to the fewest standard locks that serve it, and the index of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass, field, replace
from bnbenv.errors import UnsolvableError, UsageError
from bnbenv.judge.cover import identity
from bnbenv.judge.stack import Offers, Solution
from bnbenv.lockfile.commands import lock_command
from bnbenv.lockfile.index import MachineClass, TeamLock, Variant
from bnbenv.words import counted
from bnbenv.workflows.choose import JUDGED
from bnbenv.workflows.fleet import Fleet, Given, stored_facts
from bnbenv.workflows.lock_compile import (
    Compiled,
    HeldVoice,
    compile_stacks,
    hasty,
    in_haste,
    set_at_the_end,
)
from bnbenv.workflows.lock_offers import (
    Again,
    ask_for,
    confirmed,
    foreseeable,
    foreseen,
    offers_of,
    refuse_silence,
    refuse_unknown_indexes,
    remembered,
)
from bnbenv.workflows.lock_plan import Plan, make_plan
from bnbenv.workflows.lock_present import asked_of, kept_stacks, read_present, to_upgrade, wanted_now

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from threading import Event

    from bnbenv.install.availability import Availability
    from bnbenv.install.sources import Sources
    from bnbenv.judge.cover import Cover
    from bnbenv.judge.stack import Unsolvable
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.machine.target import Libc, Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.workflows.lock_plan import Served
    from bnbenv.workflows.lock_present import PresentLock
    from bnbenv.workflows.request import Wanted
    from bnbenv.workflows.voice import Voice


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
        files: file name → text, the index included.
        changes: what changed for whom, a sentence each.
        changed: whether any file is another one than before.
        written: false where it was not to be, and for a first lock that would serve no machine.
        linked: file name → where a link in its place led what was written.
        lost: machines whose accelerator was not visible: their last facts were kept.
        local: packages that only this machine has.
        left_out: places of this machine's disk that were not used.
        seconds: by phase.
    """

    lock: TeamLock
    files: Mapping[str, str]
    changes: tuple[str, ...]
    changed: bool
    written: bool
    linked: Mapping[str, Path]
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
    from bnbenv.workflows.order import Stopwatch

    watch = Stopwatch()
    uv = find_uv(environ, log=voice.ran)
    matrix = load(*JUDGED, platform="every")
    present = read_present(request)
    before = present.lock
    wanted = wanted_now(request, before)
    request = replace(request, upgrade_packages=to_upgrade(request, wanted, present))
    kept = kept_stacks(request, wanted, before, matrix)
    with watch.phase("classes"):
        fleet = _gather(request, wanted, present, matrix, environ)
    voice.progress(
        f"{counted(sum(len(members.machines) for members in fleet.classes.values()), 'machine')}, "
        f"{counted(len(fleet.classes), 'kind')} that the rules can tell apart"
    )
    sources, left_out = _sources(request, matrix, environ)
    for note in sources.notes:
        voice.progress(note)
    with watch.phase("cover"):
        plan = make_plan(wanted, fleet, matrix, foreseen(sources, wanted, matrix), before, kept)

    def compiled_from(
        plan: Plan, voice: Voice, environ: Mapping[str, str], unneeded: Event | None = None
    ) -> Compiled:
        refuse_unknown_indexes(plan.found, sources, request.command, local=bool(left_out))
        return compile_stacks(request, wanted, plan, sources, matrix, present, uv, voice, environ, unneeded)

    held = HeldVoice(voice)

    with ThreadPoolExecutor(max_workers=1) as aside, set_at_the_end() as unneeded:
        ahead = None
        if plan.names and foreseeable(sources):
            ahead = aside.submit(compiled_from, plan, held, hasty(environ), unneeded)
        availability = remembered(plan, matrix, sources, environ)
        compiled = None
        if availability is not None:
            with watch.phase("compile"):
                compiled = in_haste(ahead, held)
        if availability is None or compiled is None:
            with watch.phase("indexes"):
                availability = ask_for(wanted, fleet, matrix, sources, voice, environ)
            with watch.phase("cover"):
                if not confirmed(plan, availability):
                    unneeded.set()
                    offers = offers_of(availability, wanted, matrix)
                    plan, ahead = make_plan(wanted, fleet, matrix, offers, before, kept), None
                again = Again(command=request.command, local=bool(left_out))
                refuse_silence(wanted, fleet, matrix, availability, kept, plan.found, again)
            with watch.phase("compile"):
                compiled = in_haste(ahead, held) or compiled_from(plan, voice, environ)
    offers = offers_of(availability, wanted, matrix)
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


def _gather(
    request: LockRequest, wanted: Wanted, present: PresentLock, matrix: Matrix, environ: Mapping[str, str]
) -> Fleet:
    fleet, before = Fleet(matrix=matrix), present.lock
    known = {name for entry in (before.classes if before else ()) for name in entry.machines}
    if strange := [name for name in request.forget if name not in known]:
        from bnbenv.lockfile.difference import some

        raise UsageError(
            f"`--forget {strange[0]}`: the lock has no such machine; it has {some(sorted(known)) or 'none'}",
            hint="their names are those of their target files; all of them stand in bnbenv.lock",
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
        index_rows=matrix.indexes,
        mirrors=request.mirrors,
        offline=request.offline,
    )
    if request.allow_local:
        return sources, ()
    local = tuple(index for index in sources.indexes if index.local)
    kept = tuple(index for index in sources.indexes if not index.local)
    return replace(sources, indexes=kept), tuple(str(index.directory) for index in local)


def _files(
    locks: Mapping[Any, Pylock], names: Mapping[Any, str], served: Mapping[Any, Served]
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

    if before is None or asked_of(before) == wanted:
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
    present: PresentLock,
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
    held = set() if request.upgrade else {f"pylock.{name}.toml" for name in present.versions}
    anew = [
        f"{name} is made anew: {why}" + ("; with the versions that it holds, where they fit" * (name in held))
        for name, why in sorted(present.unsound.items())
        if name in files
    ]
    changes = (*anew, *differences(before, present.texts, lock, files))
    written = request.write and bool(lock.variants or before or present.unsound)
    linked = _write(request.directory, files, old, present.unsound) if written else {}
    return Locked(
        lock=lock,
        files=files,
        changes=changes,
        changed=old != files,
        written=written,
        linked=linked,
        lost=tuple(sorted(fleet.lost)),
        local=local,
        left_out=left_out,
        seconds=seconds,
    )


def _write(
    directory: Path, files: Mapping[str, str], old: Mapping[str, str], unsound: Iterable[str]
) -> dict[str, Path]:
    """The locks first, then the index that names them, then away with what it no longer names.

    What is there with these very words stays as a checkout has made its line ends.

    Returns:
        What was written through a link, and where to.
    """
    from bnbenv.env import durable
    from bnbenv.lockfile import index

    with durable.told(directory, "create"):
        directory.mkdir(parents=True, exist_ok=True)
    changed = [name for name in files if old.get(name) != files[name]]
    places = {name: index.destination(directory, name) for name in changed}
    for name in sorted(changed, key=lambda name: (name == index.NAME, name)):
        durable.write_whole(places[name], files[name].encode())
    for name in {*old, *unsound} - files.keys():
        with durable.told(directory / name, "remove"):
            (directory / name).unlink(missing_ok=True)
    return {name: place for name, place in places.items() if place != directory / name}
