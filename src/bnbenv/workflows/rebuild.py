"""A new generation of one of bnbenv's own environments, with all that the user had added to the old one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bnbenv.errors import ExternalError, UnsolvableError
from bnbenv.units import CudaVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bnbenv.doctor.plan import Mode, Plan
    from bnbenv.env.additions import Addition, Additions
    from bnbenv.env.generation import Generation
    from bnbenv.env.installed import Installed
    from bnbenv.env.locking import Hold
    from bnbenv.env.state import State
    from bnbenv.install.uv import Uv
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.workflows.choose import Choice
    from bnbenv.workflows.environment import Located
    from bnbenv.workflows.order import Means, Order
    from bnbenv.workflows.realise import Realised
    from bnbenv.workflows.request import CreateRequest, Wanted


@dataclass(slots=True)
class Carried:
    """What of the user's came along.

    Attributes:
        installed: packages that were installed again, as requirements.
        copied: packages that could not be fetched and were copied with their RECORD.
        files: files that no package owns, relative to the environment.
        left: what was not brought along, and why.
        conflicts: what the user's packages ask for and do not find now.
    """

    installed: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What became of a rebuild."""

    realised: Realised
    carried: Carried


def decide(
    known: State,
    lock: Pylock | None,
    installed: Installed,
    plan: Plan,
    mode: Mode,
    request: CreateRequest,
    means: Means,
) -> Order:
    """What to build from: the lock one that is there, or a new one in which all stays that can stay.

    Raises:
        UnsolvableError: no stack serves the machine, or none holds the torch that must be kept.
        ExternalError: an index cannot be reached.
    """
    from bnbenv.workflows.choose import choose, recall
    from bnbenv.workflows.create import tell_choice, write_lock
    from bnbenv.workflows.order import Order

    voice, environ = means.voice, means.environ
    if lock is not None and plan.subjects("rebuild"):
        return Order(request=request, choice=recall(known, lock, request, environ), lock=lock)
    prefer = () if mode == "upgrade" or lock is None else kept_versions(lock)
    kept = "torch" in plan.subjects("solve")
    asked = replace(request, wanted=wanted_anew(request.wanted, installed, mode, keep_torch=kept))
    try:
        choice = choose(asked, voice, environ)
        tell_choice(choice, voice)
        made = write_lock(asked, choice, means.uv, voice, environ, prefer=prefer)
        return Order(request=asked, choice=choice, lock=made)
    except (UnsolvableError, ExternalError) as problem:
        # Kept only where it can be: nobody asked for it by an option.
        settled = problem.no_versions or problem.code == "unsolvable"
        if not kept or mode != "auto" or lock is None or not settled:
            raise
        voice.progress(f"torch {installed.versions.get('torch')} cannot stay: {problem.message}")
        voice.progress("returning to the lock instead")
        return Order(request=request, choice=recall(known, lock, request, environ), lock=lock)


def rebuild(
    located: Located,
    order: Order,
    means: Means,
    old: Installed,
    locked: Mapping[str, str],
    approve: Callable[[Generation], None],
    *,
    held: Hold,
) -> Rebuilt:
    """Build, bring along, prove, look again, switch; or leave everything as it was.

    Args:
        old: the generation that is replaced.
        locked: name → version of the lock that it was built from.
        approve: raises if the finished generation must not become the current one.

    Raises:
        ExternalError: uv, the disk or the network failed; the old generation is current.
    """
    from bnbenv.env.additions import find_additions
    from bnbenv.install.link_mode import wanted_link_mode
    from bnbenv.workflows.realise import Rebuild, realise_held

    if located.place is None:
        raise AssertionError("only an environment with a place has generations")
    carried = Carried()
    names = {package.name for package in order.lock.packages}
    additions = find_additions(old, locked)

    def furnish(made: Generation, pass_fds: tuple[int, ...]) -> None:
        link_mode = wanted_link_mode(order.request.link_mode, order.choice.sources.link_mode)
        _bring(
            additions, old, made, names, carried, order.choice, link_mode,
            uv=means.uv, environ=means.environ, pass_fds=pass_fds,
        )  # fmt: skip

    rebuild = Rebuild(furnish=furnish, approve=approve)
    realised = realise_held(order, located.place, means, held=held, rebuild=rebuild)
    return Rebuilt(realised=realised, carried=carried)


def kept_versions(lock: Pylock) -> tuple[str, ...]:
    """The lock's versions as constraints, without torch's family and bitsandbytes: these are chosen."""
    from bnbenv.torch_family import is_torch_family

    return tuple(
        f"{package.name}=={package.version}"
        for package in lock.packages
        if package.version and not is_torch_family(package.name) and package.name != "bitsandbytes"
    )


def wanted_anew(wanted: Wanted, installed: Installed, mode: Mode, *, keep_torch: bool) -> Wanted:
    """The request that is solved again: upon the same Python, whose directory holds what the user added."""
    if installed.minor and wanted.base is None:
        wanted = replace(wanted, python=installed.minor)
    if mode == "upgrade":
        return replace(wanted, torch=None, bitsandbytes=None, cuda=None)
    found = installed.find("torch")
    if not keep_torch or found is None:
        return wanted
    public, _, local = found.version.partition("+")
    cuda = None if wanted.cpu else _cuda_of(local)
    return replace(wanted, torch=f"=={public}", cuda=cuda, bitsandbytes=None)


def _cuda_of(local: str) -> str | None:
    """The CUDA version that a local version names, dotted."""
    try:
        return str(CudaVersion.parse(local)) if local.startswith("cu") else None
    except ValueError:
        return None


def _bring(
    additions: Additions,
    old: Installed,
    made: Generation,
    names: set[str],
    carried: Carried,
    choice: Choice,
    link_mode: str | None,
    *,
    uv: Uv,
    environ: Mapping[str, str],
    pass_fds: tuple[int, ...],
) -> None:
    """Install again what can be had, copy the rest, list what clashes."""
    from bnbenv.env.additions import conflicts, copy_distribution, copy_file
    from bnbenv.env.installed import read_installed

    wanted = [found for found in additions.packages if found.distribution.name not in names]
    carried.left += additions.left
    carried.left += [
        f"{found.distribution.name} {found.distribution.version}: the lock has it now"
        for found in additions.packages
        if found.distribution.name in names
    ]
    for group in ([wanted], [[found] for found in wanted]):
        missing = [
            batch
            for batch in group
            if batch and not _install(batch, made, choice, link_mode, uv, environ, pass_fds)
        ]
        if not missing:
            carried.installed += [found.requirement for found in wanted]
            break
        if len(wanted) == 1 or len(group) > 1:
            failed = [found for batch in missing for found in batch]
            for found in failed:
                copy_distribution(found.distribution, old.prefix, to=made.directory)
            carried.copied += [f"{it.distribution.name} {it.distribution.version}" for it in failed]
            carried.installed += [it.requirement for it in wanted if it not in failed]
            break
    for relative in additions.files:
        copy_file(old.prefix / relative, old.prefix, to=made.directory)
        carried.files.append(str(relative))
    if wanted:
        now = read_installed(made.directory)
        carried.conflicts += conflicts(now, [found.distribution.name for found in wanted])


def _install(
    batch: list[Addition],
    made: Generation,
    choice: Choice,
    link_mode: str | None,
    uv: Uv,
    environ: Mapping[str, str],
    pass_fds: tuple[int, ...],
) -> bool:
    from bnbenv.install.build import add
    from bnbenv.install.link_mode import choose_link_mode
    from bnbenv.install.uv import cache_directory

    lines = [f"-e {found.requirement}" if found.editable else found.requirement for found in batch]
    mode = choose_link_mode(cache_directory(environ), made.directory, requested=link_mode).mode
    try:
        add(uv, lines, made.directory, choice.sources, mode, environ=environ, pass_fds=pass_fds)
    except ExternalError as problem:
        if problem.code in {"disk-full", "permission", "tool-missing"}:
            raise
        return False
    return True


def request_of(known: State, located: Located, asked: CreateRequest) -> CreateRequest:
    """What `create` was asked for then, with what this command says about here and now."""
    from bnbenv.workflows.request import Wanted

    wanted = Wanted.from_dict(known.request)
    place = located.place
    path: Path | None = place.link if place is not None and place.form != "home" else None
    return replace(
        asked,
        wanted=replace(wanted, cpu=wanted.cpu or asked.wanted.cpu),
        name=known.name,
        path=path,
        generations=place is None or place.form != "plain",
    )
