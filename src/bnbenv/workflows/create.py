"""`create`: from a bare machine to an environment that provably computes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass, replace
from bnbenv.errors import ExternalError, Interrupted, UnsolvableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.env.layout import Place
    from bnbenv.install.size import Footprint
    from bnbenv.install.uv import Uv
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.workflows.choose import Choice
    from bnbenv.workflows.realise import Realised
    from bnbenv.workflows.request import CreateRequest
    from bnbenv.workflows.voice import Voice


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """The answer of `create`.

    Attributes:
        realised: ``None`` after a dry run.
        footprint: bytes to fetch and to store.
        seconds: by phase.
    """

    request: CreateRequest
    place: Place
    choice: Choice
    lock: Pylock
    footprint: Footprint
    realised: Realised | None
    seconds: Mapping[str, float]


def create(request: CreateRequest, voice: Voice, environ: Mapping[str, str], *, yes: bool = False) -> Created:
    """Probe, choose, lock, build, prove, switch.

    Raises:
        UnsolvableError, UsageError, ExternalError: see `choose`, `admit_named`, `write_lock` and `realise`.
        Interrupted: the user said no.
    """
    from bnbenv.env.layout import Layout, check_free
    from bnbenv.install.link_mode import wanted_link_mode
    from bnbenv.install.noexec import refuse_noexec
    from bnbenv.install.uv import find_uv
    from bnbenv.workflows.choose import choose
    from bnbenv.workflows.held_back import tell_held_back
    from bnbenv.workflows.order import Means, Order, Stopwatch
    from bnbenv.workflows.realise import realise
    from bnbenv.workflows.room import look_for_room
    from bnbenv.workflows.toolchain import require_toolchain

    watch = Stopwatch()
    layout = Layout.find(environ)
    place = (
        layout.at(request.path, generations=request.generations)
        if request.path
        else layout.named(request.name)
    )
    check_free(place)
    refuse_noexec(place.generations)
    tell_note(request, voice)
    uv = find_uv(environ, log=voice.ran)
    with watch.phase("choose"):
        choice = choose(request, voice, environ, command=f"bnbenv create {quote(request.wanted.profile)}")
    tell_choice(choice, voice)
    require_toolchain(request, choice, voice, environ)
    if choice.elsewhere and not request.dry_run:
        refuse_other_platform(choice)
    request = admit_named(request, choice)
    with watch.phase("compile"):
        try:
            lock = write_lock(request, choice, uv, voice, environ)
        except ExternalError as problem:
            raise _beside_the_profile(problem, request, choice) from problem
    request, lock = admit_brought(request, choice, lock)
    tell_held_back(request.wanted.packages, lock, choice.sources, voice, environ)
    footprint = look_for_room(
        lock,
        place.generations,
        link_mode=wanted_link_mode(request.link_mode, choice.sources.link_mode),
        building=not request.dry_run,
        voice=voice,
        environ=environ,
    )
    realised = None
    if not request.dry_run:
        if not voice.confirm(f"build `{place.name}` at {place.link}?", yes=yes):
            raise Interrupted("nothing was changed")
        order = Order(request=request, choice=choice, lock=lock)
        means = Means(uv=uv, voice=voice, environ=environ, watch=watch)
        realised = realise(order, place, means, layout=layout)
    return Created(
        request=request,
        place=place,
        choice=choice,
        lock=lock,
        footprint=footprint,
        realised=realised,
        seconds=watch.seconds,
    )


def _beside_the_profile(problem: ExternalError, request: CreateRequest, choice: Choice) -> ExternalError:
    """What the user adds and the profile exclude each other: which of it, and what to do; else the problem.

    What no index has would be had nowhere else: the advice on that stands.
    """
    import shlex

    added, stack = request.wanted.packages, choice.solution.stack
    words = problem.message.replace("bnbenv-request depends on", "the environment needs")
    if problem.code != "conflict" or not (added or request.wanted.requirements):
        return ExternalError(words, hint=problem.hint, code=problem.code, data=problem.data)
    shown = ", ".join(f"`{text}`" for text in added) or "what the files ask for"
    hint = "leave it out"
    if added:
        name = shlex.quote(f"{request.name}-plain")
        install = f"uv pip install --python {name} {shlex.join(added)}"
        hint += f", or: uv venv {name}; {install} (an environment without a profile)"
    profile = f"the profile `{stack.profile}` with torch {stack.torch.version}"
    return ExternalError(
        f"{shown} cannot stand beside {profile}:\n{words}",
        hint=hint,
        code=problem.code,
    )


def tell_choice(choice: Choice, voice: Voice) -> None:
    """One line for the machine, one for the stack, one for each thing given up."""
    target, stack = choice.target, choice.solution.stack
    voice.progress(f"for {target}")
    bitsandbytes = f", bitsandbytes {stack.bitsandbytes.version}" if stack.bitsandbytes else ""
    origin = f"of {choice.base.python}" if choice.base else f"from `{stack.torch.index}`"
    voice.progress(
        f"chosen: Python {stack.python}, torch {stack.torch.version} ({stack.torch.build}) {origin}"
        f"{bitsandbytes}"
    )
    for sentence in choice.given_up:
        voice.progress(sentence)


def tell_note(request: CreateRequest, voice: Voice) -> None:
    """Say what the profile is not for, where that is known."""
    from bnbenv.matrix.load import load
    from bnbenv.workflows.profiles import with_definition

    profiles = with_definition(load("profiles"), request.wanted).profiles
    # A profile that is not there has no note: the judge will say so, with the names that there are.
    note = next((row.note for row in profiles if row.name == request.wanted.profile), "")
    if note:
        voice.progress(note)


def refuse_other_platform(choice: Choice) -> None:
    """Only a machine with this one's operating system and processor can be built for here.

    Raises:
        UsageError: the target's differ.
    """
    here, there = choice.host.target, choice.target
    if (here.os, here.arch) != (there.os, there.arch):
        raise UsageError(
            f"an environment for {there.os} {there.arch} cannot be built on {here.os} {here.arch}",
            hint="add --dry-run to see what would be built there",
            code="bad-target",
        )


def admit_named(request: CreateRequest, choice: Choice) -> CreateRequest:
    """The request, with the asked packages that break others recorded where the user insists on them.

    Raises:
        UnsolvableError: code ``hazard``; the user does not.
    """
    from bnbenv.workflows.hazards import let_in_named

    wanted = request.wanted
    let_in = let_in_named(
        choice,
        (*wanted.packages, *wanted.requirements),
        recorded=wanted.anyway,
        anyway=request.anyway,
        refusal=_hazard,
    )
    return _with_let_in(request, let_in)


def admit_brought(request: CreateRequest, choice: Choice, lock: Pylock) -> tuple[CreateRequest, Pylock]:
    """The same of what came into the lock behind another package; the lock tells of it too.

    Raises:
        UnsolvableError: see `admit_named`.
    """
    from bnbenv.lockfile import pylock
    from bnbenv.workflows.hazards import let_in_brought

    versions = lock.versions
    let_in = let_in_brought(
        choice, {}, versions, recorded=request.wanted.anyway, anyway=request.anyway, refusal=_hazard
    )
    if not let_in:
        return request, lock
    request = _with_let_in(request, let_in)
    return request, pylock.with_provenance(lock, provenance(request, choice))


def _with_let_in(request: CreateRequest, let_in: Mapping[str, str]) -> CreateRequest:
    anyway = tuple(dict.fromkeys((*request.wanted.anyway, *let_in)))
    return replace(request, wanted=replace(request.wanted, anyway=anyway))


def _hazard(text: str, mechanism: str, way_out: str | None) -> UnsolvableError:
    return UnsolvableError(
        f"`{text}` does not belong into the environment: {mechanism}",
        hint=f"{way_out or 'leave it out'}, or --anyway",
        code="hazard",
        data={"blocking": [mechanism], "nearest": []},
    )


def write_lock(
    request: CreateRequest,
    choice: Choice,
    uv: Uv,
    voice: Voice,
    environ: Mapping[str, str],
    *,
    keep: frozenset[str] = frozenset(),
    preferred: str | None = None,
    upgrade: tuple[str, ...] = (),
    prefer: tuple[str, ...] = (),
    table: Mapping[str, Any] | None = None,
) -> Pylock:
    """Let uv lock the stack that the judge chose.

    Args:
        keep: packages left out of the lock, because what is there stays.
        preferred: the text of a lock whose versions are kept where they fit.
        upgrade: packages that are not kept.
        prefer: exact versions that are kept as long as they fit, such as those of an earlier lock.
        table: what ``[tool.bnbenv]`` tells, instead of the `provenance` of an environment.

    Raises:
        ExternalError: codes ``conflict``, ``package-unavailable``, ``index-…``, ``offline``.
        UsageError: a requirement cannot be read.
    """
    from bnbenv.install.compile import CompileRequest, compile_lock, platform_name
    from bnbenv.lockfile import pylock

    stack, target, base = choice.solution.stack, choice.target, choice.base
    voice.progress("locking every package with its hash")
    with tempfile.TemporaryDirectory(prefix="bnbenv-") as scratch:
        files: tuple[Path, ...] = ()
        if request.wanted.requirements:
            given = Path(scratch) / "requirements.txt"
            given.write_text("".join(f"{line}\n" for line in request.wanted.requirements), encoding="utf-8")
            files = (given,)
        asked = requirements(choice, request)
        rounds = _constraint_rounds(choice, asked, prefer)
        for number, constraints in enumerate(rounds, start=1):
            try:
                compiled = compile_lock(
                    uv,
                    CompileRequest(
                        python=stack.python,
                        requirements=asked,
                        torch=None if base else stack.torch,
                        interpreter=choice.interpreter,
                        platform=platform_name(os=target.os, arch=target.arch, libc=target.libc)
                        if choice.elsewhere
                        else None,
                        requirement_files=files,
                        constraints=(*constraints, *request.wanted.constraints),
                        provided=provided(choice) | keep,
                        exclude_newer=request.wanted.exclude_newer,
                        preferred=preferred,
                        upgrade=upgrade,
                    ),
                    choice.sources,
                    Path(scratch) / "pylock.toml",
                    environ=environ,
                    # A round that fails is followed by a looser one: uv's words on it would only frighten.
                    report=voice.progress if number == len(rounds) else None,
                )
            except ExternalError as problem:  # noqa: PERF203 - three rounds at most
                if not problem.no_versions or number == len(rounds):
                    raise
                voice.progress("what is there does not fit as it is: some packages get another version")
            else:
                lock = pylock.read(compiled.path)
                return pylock.with_provenance(lock, provenance(request, choice) if table is None else table)
    raise AssertionError("the last round answers or fails")


def requirements(choice: Choice, request: CreateRequest) -> tuple[str, ...]:
    """What uv is asked for: the profile's ranges, the judged bitsandbytes, pip, and the user's additions."""
    stack = choice.solution.stack
    asked = {name: f"{name}{spec}" for name, spec in stack.packages.items() if name != "torch"}
    if stack.bitsandbytes is not None:
        asked["bitsandbytes"] = f"bitsandbytes=={stack.bitsandbytes.version}"
    asked.setdefault("pip", "pip")
    return (*asked.values(), *request.wanted.packages)


def _constraint_rounds(
    choice: Choice, asked: tuple[str, ...], prefer: tuple[str, ...]
) -> tuple[tuple[str, ...], ...]:
    """The constraints to try, one after the other: what is there stays as long as it fits."""
    if choice.base is None:
        return tuple(dict.fromkeys((prefer, ())))
    from bnbenv.install.compile_inputs import name_of

    return choice.base.constraint_rounds({name_of(line) for line in asked})


def provided(choice: Choice) -> frozenset[str]:
    """Packages kept out of the lock: the base brings them, or they would bring another torch."""
    from bnbenv.torch_family import TORCH_FAMILY

    return choice.base.held | TORCH_FAMILY if choice.base else frozenset()


def provenance(request: CreateRequest, choice: Choice) -> dict[str, Any]:
    """What `[tool.bnbenv]` of the lock tells; installers ignore it."""
    from bnbenv.machine.document import target_to_dict

    stack = choice.solution.stack
    return {
        "matrix": choice.matrix.revision,
        "request": request.wanted.to_dict(),
        "target": target_to_dict(choice.target),
        "torch": {"version": stack.torch.version, "build": stack.torch.build, "index": stack.torch.index},
    }
