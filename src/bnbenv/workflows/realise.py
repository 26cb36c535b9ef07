"""From a lock to a current generation: build, compare with RECORD, self-test, switch. The only road there."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bnbenv import __version__
from bnbenv.dataclass import dataclass, replace
from bnbenv.errors import BnbenvError, ExternalError, UnsolvableError
from bnbenv.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future

    from bnbenv.env.generation import Generation
    from bnbenv.env.guard import Guard
    from bnbenv.env.installed import Installed
    from bnbenv.env.layout import Layout, Place
    from bnbenv.env.locking import Hold
    from bnbenv.env.record import RecordFault
    from bnbenv.env.state import State
    from bnbenv.install.link_mode import LinkMode
    from bnbenv.install.uv import Uv
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.selftest.verdict import Verdict
    from bnbenv.workflows.choose import Choice
    from bnbenv.workflows.order import Means, Order
    from bnbenv.workflows.request import CreateRequest
    from bnbenv.workflows.voice import Voice

T = TypeVar("T")

# A file that carries the base's search path into the environment; `site` reads it also under -I.
_BASE_PATH_FILE = "_bnbenv_base.pth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Realised:
    """What became of a lock.

    Attributes:
        generation: the current one; with a failed verdict, the one that was current before, if any. In a
            plain directory nothing is left of that.
        changed: false where the environment was there already, as locked.
        link_mode: ``None`` where nothing was installed.
    """

    generation: Generation | None
    changed: bool
    verdict: Verdict
    link_mode: LinkMode | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """What a repair adds to the road: `create` and `sync` go it without.

    Attributes:
        furnish: brings what the user had added into the new generation, given the lock's descriptors.
        approve: looks at the finished generation before it is switched to; raises if it must not be.
    """

    furnish: Callable[[Generation, tuple[int, ...]], None]
    approve: Callable[[Generation], None]


def realise(order: Order, place: Place, means: Means, *, layout: Layout, command: str = "create") -> Realised:
    """Make the order's lock the current generation of `place`, or leave everything as it was.

    A plain directory is changed where it is, and after a failure unfinished.

    Args:
        command: for those who wait for the place.

    Raises:
        DataError: code ``lock-invalid``; an outlined lock does not follow the standard.
        ExternalError: uv, the disk or the network failed; the old generation is current.
        UnsolvableError: the environment was made for an accelerator that is not visible here.
        UsageError: the place is occupied.
    """
    from bnbenv.env.layout import prepare
    from bnbenv.env.locking import hold

    prepare(place)
    layout.remember(place)
    with hold(place.lock, means.voice.progress, command=f"bnbenv {command} {place.name}") as held:
        return realise_held(order, place, means, held=held)


def realise_held(
    order: Order, place: Place, means: Means, *, held: Hold, rebuild: Rebuild | None = None
) -> Realised:
    """The same, for a caller that holds the environment's lock already.

    Args:
        rebuild: a generation is built even where one with this lock is there.
    """
    from bnbenv.env import generation as generations
    from bnbenv.env.switch import current, mend, switch
    from bnbenv.workflows.guard import guard_of

    choice, lock, voice = order.choice, order.lock, means.voice
    for debris in generations.sweep(place, report=voice.progress):
        voice.progress(f"cleared what an interrupted run had left: {debris.name}")
    mend(place)
    present = current(place)
    if present is not None:
        refuse_downgrade(present, choice, cpu=order.request.wanted.cpu)
        if rebuild is None and (verdict := _as_locked(present, lock, choice)):
            voice.progress("it is there already, as locked")
            return Realised(generation=present, changed=False, verdict=verdict, link_mode=None)
    made = generations.begin(place, lock.digest)
    try:
        guard = cache(partial(guard_of, order.request, choice, lock, place, means.uv))
        mode = _build(made, order, means, guard=guard, held=held)
        if rebuild is not None:
            with means.watch.phase("furnish"):
                rebuild.furnish(made, held.pass_fds)
        with _beside(partial(_settle, made, order)) as settled, means.watch.phase("self-test"):
            verdict = prove(made, choice, order.request, held=held, voice=voice, environ=means.environ)
        _write_facts(made, settled.result(), verdict)
        if verdict.verdict == "failed":
            generations.discard(made)
            kept = None if place.form == "plain" else present
            return Realised(generation=kept, changed=False, verdict=verdict, link_mode=mode)
        if rebuild is not None:
            rebuild.approve(made)
        generations.mark_ready(place, made)
        switch(place, made)
    except BaseException:
        if not made.ready:
            generations.discard(made)
            if place.form == "plain":
                voice.progress(f"`{place.link}` is left unfinished, and of no use until it is made anew")
        raise
    _prune(place, made, voice, means.environ)
    return Realised(generation=made, changed=True, verdict=verdict, link_mode=mode)


def _prune(place: Place, made: Generation, voice: Voice, environ: Mapping[str, str]) -> None:
    """Delete the generations that the configuration does not keep; `made` stands even where that fails."""
    from bnbenv.env import generation as generations
    from bnbenv.workflows.config import read_config

    try:
        generations.prune(place, current=made, keep=read_config(environ).keep)
    except BnbenvError as problem:
        voice.progress(f"old generations are left there: {problem.message}")


@contextmanager
def _beside(work: Callable[[], T]) -> Iterator[Future[T]]:
    """Do `work` in a thread beside the block; at the block's end wait for it, and raise what it raised."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=1) as aside:
        future = aside.submit(work)
        yield future
        future.result()


def _settle(made: Generation, order: Order) -> State:
    """See that what `_build` wrote of ours is on the disk, and gather the facts, which lack the verdict.

    Until READY stands there, nobody misses what a power cut takes.

    Raises:
        ExternalError: codes ``disk-full``, ``permission``.
    """
    from bnbenv.env import durable, guard

    durable.flush_all([made.lock_file, *guard.files(made.directory)])
    return _facts(order)


def refuse_downgrade(present: Generation, choice: Choice, *, cpu: bool) -> None:
    """Stop before an environment made for an accelerator is rebuilt for the CPU.

    Raises:
        UnsolvableError: code ``no-usable-gpu``.
    """
    from bnbenv.env import state

    known = state.read_whole(present.state_file)
    if known is None:
        return  # it is mended by being written anew
    made_for = known.target.get("accelerator", "cpu")
    if made_for != "cpu" and choice.target.accelerator == "cpu" and not cpu:
        raise UnsolvableError(
            f"the environment was made for {made_for}, and no such accelerator is visible here; "
            "it is left as it is",
            hint="--target FILE (a machine that has it), or --cpu to give the accelerator up",
            code="no-usable-gpu",
            data={"blocking": [f"no {made_for} accelerator is visible"], "nearest": []},
        )


def remembered(present: Generation, lock: Pylock, choice: Choice) -> tuple[State, Verdict] | None:
    """What is stored of a generation that was built from exactly `lock`, for what `choice` computes on.

    ``None`` too where the verdict is ``failed``, and where a file of ours cannot be read: it is built anew.
    """
    import json

    from bnbenv.env import state
    from bnbenv.lockfile import pylock
    from bnbenv.selftest.document import verdict_from_dict

    try:
        known = state.read(present.state_file)
        verdict = verdict_from_dict(json.loads(present.verdict_file.read_text(encoding="utf-8")))
        same = known.lock == lock.digest == pylock.digest(present.lock_file)
    except (BnbenvError, OSError, ValueError):
        return None
    other = known.target.get("accelerator") != choice.target.accelerator
    return None if not same or other or verdict.verdict == "failed" else (known, verdict)


def _as_locked(present: Generation, lock: Pylock, choice: Choice) -> Verdict | None:
    """The stored verdict of a generation that holds exactly `lock`, undamaged and proven; else ``None``.

    What was built for another machine is proven only where it is meant to run, and for what it computes on.
    """
    from bnbenv.env.base import changes_since

    stored = remembered(present, lock, choice)
    if stored is None:
        return None
    known, verdict = stored
    provable = choice.solution.stack.bitsandbytes is not None and not choice.elsewhere
    unproven = verdict.verdict == "not-run" and provable
    changed = known.base is not None and changes_since(known.base)
    return None if unproven or changed or _compared(present)[1] else verdict


def _build(
    made: Generation, order: Order, means: Means, *, guard: Callable[[], Guard], held: Hold
) -> LinkMode:
    """Fill the generation, and let no file into it that its RECORD does not know.

    What uv does not wait for is done while it works: it takes as long as all the rest.
    """
    import tempfile

    from bnbenv.env import durable
    from bnbenv.env.guard import stand
    from bnbenv.install.build import create_venv, sync
    from bnbenv.install.link_mode import choose_link_mode, wanted_link_mode
    from bnbenv.install.uv import cache_directory
    from bnbenv.lockfile import pylock

    choice, lock = order.choice, order.lock
    uv, voice, environ, watch = means.uv, means.voice, means.environ, means.watch
    wanted_mode = wanted_link_mode(order.request.link_mode, choice.sources.link_mode)
    mode = choose_link_mode(cache_directory(environ), made.directory, requested=wanted_mode)
    if mode.mode == "copy" and wanted_mode is None:
        voice.progress(f"copying files: {mode.reason}")
    with tempfile.TemporaryDirectory(prefix="bnbenv-") as scratch:
        file = Path(scratch) / "pylock.toml"  # uv knows a lock by its name

        def write() -> None:
            text = pylock.dump(order.reachable or lock, largest_first=True)
            durable.write_whole(file, text.encode(), flush=False)

        if choice.interpreter is None:
            pylock.check(lock)  # before a Python is fetched for it
        with watch.phase("venv"):
            create_venv(
                uv,
                made.directory,
                interpreter(uv, choice, environ, voice),
                environ=environ,
                prompt=order.request.name,
                allow_existing=True,
                pass_fds=held.pass_fds,
                meanwhile=write,
            )
            if choice.base is not None:
                _join_base(made, choice.base.paths)
        voice.progress(f"installing {counted(len(lock.packages), 'package')}")

        def prepare() -> None:
            durable.write_whole(made.lock_file, pylock.dump(lock).encode(), flush=False)
            guard()

        def install(refresh: tuple[str, ...] = (), meanwhile: Callable[[], None] | None = None) -> None:
            sync(
                uv,
                file,
                made.directory,
                choice.sources,
                mode.mode,
                environ=environ,
                refresh=refresh,
                pass_fds=held.pass_fds,
                report=voice.progress,
                meanwhile=meanwhile,
            )

        try:
            with watch.phase("sync"):
                install(meanwhile=prepare)
        except ExternalError:
            pylock.check(lock)  # a lock that is none is told of before what uv has made of it
            raise
        # Until here the lock was outlined: where the standard refuses it, what it has made is discarded, and
        # nothing of that has run.
        with watch.phase("record"), _beside(partial(pylock.check, lock)):
            installed, faults = _compared(made)
        if faults:
            damaged = tuple(sorted({fault.package for fault in faults}))
            voice.progress(f"uv's cache holds damaged files of {', '.join(damaged)}: fetching them anew")
            install(refresh=damaged)
            installed, faults = _compared(made)
            if faults:
                raise ExternalError(
                    "files differ from what their packages record: "
                    + "; ".join(f"{fault.package}: {fault.path} ({fault.kind})" for fault in faults[:5]),
                    hint="uv cache clean " + " ".join(damaged),
                    code="corrupt-cache",
                )
        stand(made.directory, guard(), installed)
    return mode


def interpreter(uv: Uv, choice: Choice, environ: Mapping[str, str], voice: Voice) -> Path:
    """The Python to build with, fetched by uv where the machine has none; that is said first.

    Raises:
        ExternalError: code ``python-missing``.
    """
    from bnbenv.workflows.choose import refuse_without_python, without_python

    if choice.interpreter is not None:
        return choice.interpreter
    refuse_without_python(choice, environ)
    wanted = choice.solution.stack.python
    voice.progress(f"there is no Python {wanted} on this machine: uv fetches one")
    try:
        uv.run(["python", "install", wanted, "--no-config"], environ=environ, report=voice.progress)
        found = uv.run(["python", "find", wanted, "--managed-python", "--no-config"], environ=environ)
    except ExternalError as error:
        raise without_python(choice, f"uv cannot fetch it: {error.message}", environ) from error
    return Path(found.stdout.strip())


def _compared(made: Generation) -> tuple[Installed, tuple[RecordFault, ...]]:
    """What is installed, and its files that are not as RECORD says: a damaged cache would bring such."""
    from bnbenv.env.installed import read_installed
    from bnbenv.env.record import check_record

    installed = read_installed(made.directory)
    return installed, check_record(installed)


def _join_base(made: Generation, paths: tuple[Path, ...]) -> None:
    """Let the environment see the base's packages, behind its own; `.pth` files in the base stay in force."""
    from bnbenv.env import durable
    from bnbenv.env.installed import read_installed

    # In ASCII: until 3.13 Python reads such a file in the user's code page on Windows.
    lines = [f"import site; site.addsitedir({str(path)!a})\n" for path in paths]
    site = read_installed(made.directory).site_packages[0]
    durable.write_whole(site / _BASE_PATH_FILE, "".join(lines).encode())


def prove(
    made: Generation,
    choice: Choice,
    request: CreateRequest,
    *,
    held: Hold,
    voice: Voice,
    environ: Mapping[str, str],
) -> Verdict:
    """The self-test; for another machine, the link check alone."""
    from bnbenv.env.layout import Layout
    from bnbenv.judge import lookup
    from bnbenv.selftest.import_check import import_check
    from bnbenv.selftest.link_check import link_check
    from bnbenv.selftest.runner import run
    from bnbenv.workflows.profiles import modules_of

    if choice.solution.stack.bitsandbytes is None:
        voice.progress("importing what it is made of: the self-test computes with bitsandbytes alone")
        row = lookup.profile(choice.matrix, choice.solution.stack.profile)
        return import_check(made.python, modules_of(row), environ=environ)
    library = choice.solution.judgement.library
    if choice.elsewhere:
        voice.progress("loading the native library without a GPU (link check)")
        return link_check(made.python, library=library, environ=environ)
    voice.progress("self-test: computing with every kernel the profile uses")
    return run(
        made.python,
        level="quick",
        accelerator=choice.target.accelerator if not request.wanted.cpu else "cpu",
        environ=environ,
        cwd=request.cwd,
        known_faults=choice.matrix.known_faults,
        cpu_flags=choice.host.target.cpu_flags,
        report=voice.progress,
        bytecode=Layout.find(environ).bytecode,
        pass_fds=held.pass_fds,
    )


def _facts(order: Order) -> State:
    """What is known of the environment before the self-test."""
    from bnbenv.env.state import Base, State
    from bnbenv.judge.document import finding_document
    from bnbenv.judge.evidence import evidence
    from bnbenv.machine.document import target_to_dict

    request, choice = order.request, order.choice
    base = choice.base
    stack = choice.solution.stack
    return State(
        name=request.name,
        profile=request.wanted.profile,
        request=request.wanted.to_dict(),
        target=target_to_dict(choice.target),
        matrix=choice.matrix.revision,
        lock=order.lock.digest,
        created=datetime.now(tz=timezone.utc).isoformat(timespec="seconds"),
        python=stack.python,
        bnbenv=__version__,
        torch={"version": stack.torch.version, "build": stack.torch.build, "index": stack.torch.index},
        bitsandbytes=_bitsandbytes(choice),
        base=None
        if base is None
        else Base(
            python=str(base.python),
            packages={name: base.packages[name] for name in sorted(base.held)},
            record=base.torch.record_sha256 if base.torch else None,
            torch=base.torch.full_version if base.torch else None,
            directory=str(base.torch.directory) if base.torch else None,
            metadata=str(base.torch.metadata) if base.torch and base.torch.metadata else None,
        ),
        findings=tuple(finding_document(finding) for finding in choice.solution.judgement.findings),
        driver=str(choice.host.target.driver) if choice.host.target.driver else None,
        evidence=evidence(stack, choice.target, choice.matrix),
    )


def _write_facts(made: Generation, facts: State, verdict: Verdict) -> None:
    from bnbenv.env import durable, state
    from bnbenv.selftest import document

    state.write(made.state_file, replace(facts, verdict=verdict.verdict), flush=False)
    durable.write_whole(made.verdict_file, document.dump(verdict), flush=False)
    durable.flush_all([made.state_file, made.verdict_file])  # once for both: a disk takes as long for one


def _bitsandbytes(choice: Choice) -> dict[str, Any] | None:
    wheel = choice.solution.stack.bitsandbytes
    if wheel is None:
        return None
    return {
        "version": wheel.version,
        "wheel": wheel.wheel,
        "sha256": wheel.sha256,
        "library": choice.solution.judgement.library,
    }
