"""`sync`: this machine's own environment from the locks of a team."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, field, replace
from bnbenv.env.layout import VARIANT
from bnbenv.errors import BnbenvError, ExternalError, Interrupted, UnsolvableError, UsageError
from bnbenv.judge.stack import Solution
from bnbenv.lockfile.commands import bundle_command, lock_command, resolve_command, sync_command
from bnbenv.workflows.choose import JUDGED, Choice, refuse_lost_gpu, refuse_without_python
from bnbenv.workflows.fleet import key_of, machine_of, stack_of
from bnbenv.workflows.request import CreateRequest, Wanted, request_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnbenv.env.generation import Generation
    from bnbenv.env.layout import Layout, Place
    from bnbenv.install.sources import Sources
    from bnbenv.lockfile.index import TeamLock, Variant
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.machine.host import Host
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.selftest.verdict import Verdict
    from bnbenv.workflows.order import Stopwatch
    from bnbenv.workflows.realise import Realised
    from bnbenv.workflows.request import LinkMode
    from bnbenv.workflows.voice import Voice


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRequest:
    """One call of `sync`.

    Attributes:
        directory: where the locks stand.
        name: of the environment; by default the profile's. `VARIANT` in it stands for the variant's name.
        path: where it shall stand instead of under bnbenv's home, as it was typed; `VARIANT` the same.
        variant: the one to build, whatever this machine is.
        target: another machine that it is for.
        described: the options that describe `target`, as they are typed.
        frozen: only what the lock says of a machine that it names; nothing is judged anew.
        wheelhouse: everything comes from this directory, nothing from the network.
        allow_local: files of this machine's disk may be installed.
    """

    directory: Path
    name: str | None = None
    path: Path | None = None
    variant: str | None = None
    target: Target | None = None
    described: str = ""
    frozen: bool = False
    offline: bool = False
    wheelhouse: Path | None = None
    allow_local: bool = False
    link_mode: LinkMode = "auto"
    dry_run: bool = False
    mirrors: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = field(default_factory=Path.cwd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """The variant for a machine.

    Attributes:
        why: the reason, a sentence.
        elsewhere: it is for another machine than this one.
    """

    variant: Variant
    target: Target
    why: str
    elsewhere: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """The answer of `sync`.

    Attributes:
        realised: ``None`` after a dry run.
        notes: what the user should know of the lock and of where things lie.
    """

    place: Place
    picked: Picked
    lock: Pylock
    choice: Choice
    realised: Realised | None
    notes: tuple[str, ...]
    seconds: Mapping[str, float]


def sync(request: SyncRequest, voice: Voice, environ: Mapping[str, str], *, yes: bool = False) -> Synced:
    """Choose the variant, build it with hashes required, prove it, switch; nothing where it is there already.

    Raises:
        UsageError: the place is not free, or its name cannot be read.
        EnvironmentProblem: there is no lock.
        DataError: a lock is invalid, unsafe or was changed.
        UnsolvableError: no variant serves this machine.
        ExternalError: uv, an index or the disk failed; the old environment is current.
    """
    from bnbenv.env.layout import Layout, check_free
    from bnbenv.install.network_disk import network_places
    from bnbenv.install.uv import cache_directory
    from bnbenv.lockfile import index, pylock
    from bnbenv.machine.probe import probe
    from bnbenv.workflows.order import Stopwatch
    from bnbenv.workflows.toolchain import require_toolchain

    _refuse_other_placeholders(request)
    watch = Stopwatch()
    team = index.read(request.directory)
    wanted = Wanted.from_dict(request_of(team))
    layout = Layout.find(environ)
    with watch.phase("choose"):
        host = probe(environ=environ)
        matrix = _matrix(request, team, host)
        picked = pick(request, team, wanted, host, matrix)
    place = _place(request, wanted.profile, layout, picked.variant)
    check_free(place)
    voice.progress(f"{picked.variant.name}: {picked.why}")
    sources = _sources(request, matrix, environ)
    lock = _outlined_lock(request.directory, team, picked.variant, sources, allow_local=request.allow_local)
    wanted = replace(wanted, cpu=wanted.cpu or _is_for_cpu(picked))
    asked = CreateRequest(
        wanted=wanted,
        name=place.link.name,
        path=place.link if request.path else None,
        target=picked.target if picked.elsewhere else None,
        link_mode=request.link_mode,
        offline=request.offline,
        dry_run=request.dry_run,
        mirrors=request.mirrors,
        cwd=request.cwd,
    )
    choice = _choice(picked, wanted, host, matrix, _with_torch_index(sources, lock, picked.variant))
    notes = network_places({"UV_CACHE_DIR": cache_directory(environ), "BNBENV_HOME": layout.home})
    for note in notes:
        voice.progress(note)
    with watch.phase("look"):
        realised = standing(place, lock, choice, asked, voice, environ)
    if realised is None:
        require_toolchain(asked, choice, voice, environ, torch_given=True)
        if request.dry_run:
            pylock.check(lock)
            if request.wheelhouse is not None:
                _reachable(request, choice, lock, environ)
    if realised is None and not request.dry_run:
        realised = _build(request, asked, choice, lock, layout, place, voice, environ, watch, yes=yes)
    elif realised is not None:
        voice.progress("it is there already, as locked")
    return Synced(
        place=place,
        picked=picked,
        lock=lock,
        choice=choice,
        realised=realised,
        notes=(*_made_otherwise(team, lock, request.directory), *notes),
        seconds=watch.seconds,
    )


def _refuse_other_placeholders(request: SyncRequest) -> None:
    # Directories above it are as they are: a name in braces is one that a template has left.
    last = Path(request.path).name if request.path else None
    for option, given in (("--name", request.name), ("--path", last)):
        rest = (given or "").replace(VARIANT, "")
        if "{" in rest or "}" in rest:
            raise UsageError(
                f"{option} {given!r}: braces are for `{VARIANT}` alone, in whose place the name of the "
                "variant is put",
                hint=f"{option} 'lab-{VARIANT}'",
                code="bad-name",
            )


def filled(given: str, request: SyncRequest, environ: Mapping[str, str]) -> str:
    """A name or a path with the variant that `sync` would build in the place of `VARIANT`.

    Raises:
        EnvironmentProblem, DataError, UnsolvableError: as `sync` does.
    """
    from bnbenv.lockfile import index
    from bnbenv.machine.probe import probe

    if VARIANT not in given:
        return given
    team, host = index.read(request.directory), probe(environ=environ)
    wanted = Wanted.from_dict(request_of(team))
    picked = pick(request, team, wanted, host, _matrix(request, team, host))
    return given.replace(VARIANT, picked.variant.name)


def _place(request: SyncRequest, profile: str, layout: Layout, variant: Variant) -> Place:
    given = str(request.path or request.name or profile).replace(VARIANT, variant.name)
    return layout.at(given) if request.path else layout.named(given)


def _build(
    request: SyncRequest,
    asked: CreateRequest,
    choice: Choice,
    lock: Pylock,
    layout: Layout,
    place: Place,
    voice: Voice,
    environ: Mapping[str, str],
    watch: Stopwatch,
    *,
    yes: bool,
) -> Realised:
    from bnbenv.install.link_mode import wanted_link_mode
    from bnbenv.install.noexec import refuse_noexec
    from bnbenv.install.uv import find_uv
    from bnbenv.lockfile import pylock
    from bnbenv.workflows.create import refuse_other_platform
    from bnbenv.workflows.order import Means, Order
    from bnbenv.workflows.realise import realise
    from bnbenv.workflows.room import look_for_room

    refuse_other_platform(choice)
    refuse_noexec(place.generations)
    refuse_without_python(choice, environ)
    uv = find_uv(environ, log=voice.ran)
    with watch.phase("addresses"):
        located = _reachable(request, choice, lock, environ)
    footprint = look_for_room(
        located,
        place.generations,
        link_mode=wanted_link_mode(request.link_mode, choice.sources.link_mode),
        building=True,
        voice=voice,
        environ=environ,
    )
    if not voice.confirm(f"build `{place.name}` at {place.link}?", yes=yes):
        raise Interrupted("nothing was changed")
    if footprint.download or footprint.unknown or not lock.all_wheels:
        # Nothing is fetched, and no build is run, for a lock that is none, as far as uv's cache can be seen.
        pylock.check(lock)
    try:
        order = Order(request=asked, choice=choice, lock=lock, reachable=located)
        means = Means(uv=uv, voice=voice, environ=environ, watch=watch)
        return realise(order, place, means, layout=layout, command="sync")
    except ExternalError as problem:
        if problem.code == "offline" and request.wheelhouse is None:
            problem.hint = (  # a lock pins addresses, so that no wheelhouse of pip's settings is looked into
                "run once without `--offline` (and `UV_OFFLINE`); or, where there is a network, "
                + bundle_command(request.directory, "-o DIR")
                + ", and here "
                + sync_command(request.directory, "--wheelhouse DIR")
            )
        raise


def _reachable(request: SyncRequest, choice: Choice, lock: Pylock, environ: Mapping[str, str]) -> Pylock:
    from bnbenv.lockfile.homes import reachable

    return reachable(
        lock, choice.sources, choice.matrix.indexes, environ=environ, wheelhouse=request.wheelhouse
    )


def _matrix(request: SyncRequest, team: TeamLock, host: Host) -> Matrix:
    """The parts that the judge reads: for one platform, unless the variant asked for is for another."""
    from bnbenv.matrix.load import load

    machine = request.target or host.target
    platform = (machine.os, machine.arch)
    named = (it for it in team.variants if it.name == request.variant)
    others = any((it.os, it.arch) != platform for it in named)
    return load(*JUDGED, platform=None if others else platform)


def pick(request: SyncRequest, team: TeamLock, wanted: Wanted, host: Host, matrix: Matrix) -> Picked:
    """The variant for the machine, and why it is that one.

    Raises:
        UnsolvableError: none serves it, or its accelerator cannot be used.
    """
    target = request.target or host.target
    elsewhere = request.target is not None and key_of(target, matrix) != key_of(host.target, matrix)
    if request.variant is not None:
        return _named(team, request.variant, wanted, target, matrix, elsewhere=elsewhere)
    if request.target is None and not wanted.cpu:
        names = ", ".join(variant.name for variant in team.variants)
        refuse_lost_gpu(host, sync_command(request.directory), otherwise=f"--variant NAME (of {names})")
    if (known := _known(request, team, target, matrix)) is not None:
        variant, machine = known
        why = f"the lock has machines like this one ({machine})"
        return Picked(variant=variant, target=target, why=why, elsewhere=elsewhere)
    if request.frozen:
        why = f"the lock names no machine like `{target.name}`, and --frozen was given"
        raise _unserved(team, target, why, hint=_to_add(request, team))
    served_by = judged(team, wanted, target, matrix)
    if served_by is None:
        why = f"no variant of the lock serves `{target.name}`"
        raise _unserved(team, target, why, hint=_to_add(request, team))
    why = f"the lock does not name a machine like `{target.name}`; judged, this variant serves it"
    return Picked(variant=served_by, target=target, why=why, elsewhere=elsewhere)


def _known(
    request: SyncRequest, team: TeamLock, target: Target, matrix: Matrix
) -> tuple[Variant, str] | None:
    """The variant of the class that the machine belongs to, and one of its machines."""
    mine = key_of(target, matrix)
    for entry in team.classes:
        if key_of(machine_of(entry, team), matrix) == mine:
            if entry.variant is None:
                # To lock again would find the same: what the machine lacks has to change first.
                raise _unserved(
                    team,
                    target,
                    f"nothing serves machines like `{target.name}` ({'; '.join(entry.blocking)})",
                    hint=f"{resolve_command(team.request, request.described)} (what it would need)",
                )
            return team.variant(entry.variant), ", ".join(entry.machines[:3])
    return None


def judged(team: TeamLock, wanted: Wanted, target: Target, matrix: Matrix) -> Variant | None:
    """The best of the variants that have no error on the machine."""
    from bnbenv.judge.judge import judge
    from bnbenv.judge.order import ERROR, made_for, newest, standing, weight
    from bnbenv.judge.stack import Stack

    fitting: list[tuple[tuple[object, ...], Variant]] = []
    for variant in team.variants:
        if (variant.os, variant.arch) != (target.os, target.arch):
            continue
        stack: Stack = stack_of(variant, wanted.profile, matrix)
        weighs = weight(judge(stack, replace(target, pythons=(stack.python,)), matrix).findings)
        if weighs < ERROR:
            place = standing(weighs, target, made=made_for(stack.torch, target))
            fitting.append(((place, newest(stack.torch.version), variant.name), variant))
    return min(fitting, key=lambda pair: pair[0], default=(None, None))[1]


def _named(
    team: TeamLock, name: str, wanted: Wanted, target: Target, matrix: Matrix, *, elsewhere: bool
) -> Picked:
    """A variant that the user names: for this machine if it is one of those it is for, else for them.

    A build for a GPU runs on a processor too, but a builder without a GPU is not what it was asked for.
    """
    from bnbenv.judge.judge import judge

    variant = team.variant(name)
    stack = stack_of(variant, wanted.profile, matrix)
    cpu = _without_gpu(target) if stack.torch.build == "cpu" else target
    classes = team.serving(name)
    accelerators = {entry.facts.get("accelerator") for entry in classes}
    meant = not classes or wanted.cpu or stack.torch.build == "cpu" or cpu.accelerator in accelerators
    if meant and judge(stack, replace(cpu, pythons=(stack.python,)), matrix).works is not False:
        return Picked(variant=variant, target=cpu, why="asked for by --variant", elsewhere=elsewhere)
    if not classes:
        raise UsageError(
            f"`{name}` does not serve this machine, and the lock names none that it serves",
            hint="bnbenv sync",
        )
    there = machine_of(classes[0], team, name=next(iter(classes[0].machines), "unnamed"))
    why = f"asked for by --variant, for machines like {there.name}; this one is not like them"
    return Picked(variant=variant, target=there, why=why, elsewhere=True)


def _without_gpu(target: Target) -> Target:
    from bnbenv.judge.candidates import without_accelerator

    return without_accelerator(target)


def _is_for_cpu(picked: Picked) -> bool:
    return picked.variant.torch["build"] == "cpu" and picked.target.accelerator == "cpu"


def _to_add(request: SyncRequest, team: TeamLock) -> str:
    command = add_command(team, request.described)
    return f"{command} (and commit what it writes), or --variant NAME"


def _unserved(team: TeamLock, target: Target, why: str, *, hint: str) -> UnsolvableError:
    gpus = ", ".join(
        f"{gpu.name} ({gpu.compute_capability or gpu.gfx or '?'})" for gpu in target.visible_gpus
    )
    facts = [f"{target.os} {target.arch}", gpus or "no GPU"]
    facts += [f"driver {target.driver}"] if target.driver else []
    return UnsolvableError(
        f"{why}: {', '.join(facts)}",
        hint=hint,
        data={"blocking": facts, "nearest": [], "variants": [variant.name for variant in team.variants]},
    )


def add_command(team: TeamLock, described: str) -> str:
    """What adds this machine to a lock, or the one that options describe."""
    return lock_command(Path(team.origin).parent, described or "--add-this-machine")


def checked_lock(
    directory: Path, team: TeamLock, variant: Variant, sources: Sources, *, allow_local: bool
) -> Pylock:
    """The lock of a variant: the file that the index names, valid, and safe to install from.

    Raises:
        DataError: codes ``lock-invalid``, ``hash-mismatch``, ``insecure-index``.
    """
    from bnbenv.lockfile import pylock

    lock = _outlined_lock(directory, team, variant, sources, allow_local=allow_local)
    pylock.check(lock)
    return lock


def _outlined_lock(
    directory: Path, team: TeamLock, variant: Variant, sources: Sources, *, allow_local: bool
) -> Pylock:
    """The lock of a variant: the file that the index names, and safe; `pylock.check` has still to see it.

    Raises:
        DataError: codes ``lock-invalid``, ``hash-mismatch``, ``insecure-index``.
    """
    from bnbenv.lockfile import index, pylock, text
    from bnbenv.lockfile.safety import refuse_unsafe

    data = index.locked_bytes(directory, variant, origin=team.origin)
    document = text.parse(text.decode(data, variant.file), variant.file)
    lock = pylock.outlined(document, origin=variant.file)
    refuse_unsafe(lock, trusted=sources.trusted_hosts, allow_local=allow_local)
    return lock


def _made_otherwise(team: TeamLock, lock: Pylock, directory: Path) -> Iterator[str]:
    """A word on a lock that was made for another request, as one that a merge left behind."""
    if keys := team.asked_otherwise(lock.provenance):
        what = ", ".join(key.replace("_", "-") for key in keys)
        yield (
            f"{lock.origin} was made for another request than {Path(team.origin).name} holds now ({what}): "
            f"`{lock_command(directory, '--check')}` says more, `{lock_command(directory)}` makes it anew"
        )


def standing(
    place: Place,
    lock: Pylock,
    choice: Choice,
    request: CreateRequest,
    voice: Voice,
    environ: Mapping[str, str],
) -> Realised | None:
    """What is current, where it holds exactly this lock, was proven, and doctor finds no fault in it.

    Hashes nothing: that is for the build where a fault is found. On storage that several kinds of machines
    share, each kind proves the environment once for itself.
    """
    from bnbenv.env.switch import current
    from bnbenv.lockfile import pylock
    from bnbenv.workflows.realise import Realised, refuse_downgrade, remembered

    present = current(place)
    if present is None or not present.ready:
        return None
    refuse_downgrade(present, choice, cpu=request.wanted.cpu)
    stored = remembered(present, lock, choice)
    if stored is None:
        return None
    known, verdict = stored
    pylock.check(lock)
    if not _healthy(present, place, choice, voice, environ):
        return None
    own = _same_kind(known.target, choice)
    unproven = not choice.elsewhere and (verdict.verdict == "not-run" or not own)
    if unproven and not request.dry_run:
        proven = _proven_here(present, place, choice, request, voice, environ, own=own)
        if proven is None:
            return None
        verdict = proven
    return Realised(generation=present, changed=False, verdict=verdict, link_mode=None)


def _same_kind(made_for: Mapping[str, object], choice: Choice) -> bool:
    """Whether the verdict is about machines like this one."""
    from bnbenv.machine.document import target_from_dict

    try:
        before = target_from_dict(dict(made_for))
    except UsageError:
        return False
    return key_of(before, choice.matrix) == key_of(choice.target, choice.matrix)


def _proven_here(
    present: Generation,
    place: Place,
    choice: Choice,
    request: CreateRequest,
    voice: Voice,
    environ: Mapping[str, str],
    *,
    own: bool,
) -> Verdict | None:
    """The verdict of this kind of machine: the environment's `own` where it was built for that kind.

    Of another kind it is kept beside that one. ``None``: whoever had the lock before switched to another.
    """
    import json

    from bnbenv.env import durable, state
    from bnbenv.env.locking import hold
    from bnbenv.env.switch import current
    from bnbenv.selftest import document
    from bnbenv.sha256 import hexdigest
    from bnbenv.workflows.fleet import facts_of
    from bnbenv.workflows.realise import prove

    kind = hexdigest(json.dumps(facts_of(choice.target), sort_keys=True).encode())[:12]
    kept = present.verdict_file if own else present.facts / f"verdict-{kind}.json"
    with hold(place.lock, voice.progress, command=f"bnbenv sync {place.name}") as held:
        if current(place) != present:
            return None
        try:
            verdict = document.verdict_from_dict(json.loads(kept.read_text(encoding="utf-8")))
        except (BnbenvError, OSError, ValueError):
            verdict = None
        if verdict is not None and verdict.verdict != "not-run":
            return verdict
        voice.progress(
            "it is there already, built or proven on another kind of machine: proving it on this one"
        )
        verdict = prove(present, choice, request, held=held, voice=voice, environ=environ)
        durable.write_whole(kept, document.dump(verdict))
        if own:
            state.write(present.state_file, replace(state.read(present.state_file), verdict=verdict.verdict))
    return verdict


def _healthy(
    present: Generation, place: Place, choice: Choice, voice: Voice, environ: Mapping[str, str]
) -> bool:
    from bnbenv.workflows.doctor import examine
    from bnbenv.workflows.environment import Located

    located = Located(directory=present.directory, kind="bnbenv", why="the lock", place=place)
    try:
        examined = examine(located, voice, environ, target=choice.target)
    except BnbenvError as problem:
        voice.progress(f"{problem.message}: building it anew")
        return False
    for finding in examined.findings:
        if finding.severity == "error":
            voice.progress(f"{finding.summary}: building it anew")
    return examined.works


def _choice(picked: Picked, wanted: Wanted, host: Host, matrix: Matrix, sources: Sources) -> Choice:
    from bnbenv.judge.judge import judge
    from bnbenv.workflows.choose import find_interpreter

    stack = stack_of(picked.variant, wanted.profile, matrix)
    seen = replace(picked.target, pythons=(stack.python,))
    return Choice(
        host=host,
        target=picked.target,
        elsewhere=picked.elsewhere,
        matrix=matrix,
        sources=sources,
        solution=Solution(stack=stack, judgement=judge(stack, seen, matrix)),
        given_up=(),
        base=None,
        interpreter=find_interpreter(host, stack.python),
        locked=True,
    )


def _with_torch_index(sources: Sources, lock: Pylock, variant: Variant) -> Sources:
    """The sources with torch's index as the lock names it, where this site does not configure that one."""
    from bnbenv.install.sources import Index

    name = variant.torch["index"]
    if any(index.name == name for index in sources.indexes):
        return sources
    homes = [package.index for package in lock.find("torch")]
    index = Index(name=name, url=homes[0] if homes else None, role="explicit", origin=variant.file)
    return replace(sources, indexes=(*sources.indexes, index))


def _sources(request: SyncRequest, matrix: Matrix, environ: Mapping[str, str]) -> Sources:
    from bnbenv.install.sources import read_sources

    return read_sources(
        environ=environ,
        cwd=request.cwd,
        index_rows=matrix.indexes,
        mirrors=request.mirrors,
        offline=request.offline or request.wheelhouse is not None,
    )
