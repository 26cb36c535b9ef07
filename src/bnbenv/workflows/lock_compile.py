"""Lock the stacks of a plan with uv, all at once, with the same versions wherever that is possible."""

from __future__ import annotations

import os
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass, replace
from bnbenv.errors import DataError, ExternalError
from bnbenv.lockfile.pylock import ordinary_versions, preferences
from bnbenv.machine.host import Host
from bnbenv.torch_family import TORCH_FAMILY
from bnbenv.workflows.choose import Choice
from bnbenv.workflows.create import write_lock
from bnbenv.workflows.lock_offers import PATIENCE
from bnbenv.workflows.request import CreateRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from concurrent.futures import Future

    from bnbenv.install.sources import Sources
    from bnbenv.install.uv import Uv
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.workflows.lock import LockRequest
    from bnbenv.workflows.lock_plan import Plan, Served
    from bnbenv.workflows.lock_present import PresentLock
    from bnbenv.workflows.request import Wanted
    from bnbenv.workflows.voice import Voice


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What uv made of the stacks; by identity.

    Attributes:
        failed: why a stack has no lock, in uv's words.
    """

    locks: dict[Any, Pylock]
    failed: Mapping[Any, str]


def compile_stacks(
    request: LockRequest,
    wanted: Wanted,
    plan: Plan,
    sources: Sources,
    matrix: Matrix,
    present: PresentLock,
    uv: Uv,
    voice: Voice,
    environ: Mapping[str, str],
    unneeded: Event | None,
) -> Compiled:
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
    kept = {} if request.upgrade else {**present.versions, **present.texts}
    standing = {variant.name for variant in present.lock.variants} if present.lock else set()
    # A new variant starts from the versions of one that is there.
    names_kept = (*sorted(present.texts), *sorted(present.versions))
    fallback = next((kept[name] for name in names_kept if name in kept), None)

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
            if not problem.no_versions or names[key] in standing:
                raise
            return problem

    keys = sorted(names, key=lambda key: names[key])
    first: dict[Any, Pylock | ExternalError] = {}
    with ThreadPoolExecutor(max_workers=max(1, min(8, (os.cpu_count() or 1) * 2))) as pool:
        if keys:
            # The first one fills uv's cache, and its versions suit the others where any do.
            made = first[keys[0]] = tried(keys[0], fallback)
            if fallback is None and not isinstance(made, ExternalError):
                fallback = preferences(ordinary_versions(made))
            first.update(zip(keys[1:], pool.map(lambda key: tried(key, fallback), keys[1:]), strict=True))
        locks = {key: made for key, made in first.items() if not isinstance(made, ExternalError)}
        problems = {key: made for key, made in first.items() if isinstance(made, ExternalError)}
        if problems and not locks:
            raise next(iter(problems.values()))
        if odd := _differing(locks):
            common = preferences(_oldest(locks.values()))
            voice.progress(f"{len(odd)} variants differ in versions: trying to make them alike")
            again = pool.map(lambda key: one(key, common), odd)
            locks.update(zip(odd, again, strict=True))
    _refuse_two_homes(locks.values(), sources, matrix, environ)
    return Compiled(locks=locks, failed={key: problem.message for key, problem in problems.items()})


def _choice(served: Served, sources: Sources, matrix: Matrix) -> Choice:
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


def _provenance(name: str, served: Served, wanted: Wanted, matrix: Matrix) -> dict[str, Any]:
    torch = served.solution.stack.torch
    return {
        "variant": name,
        "matrix": matrix.revision,
        "request": wanted.to_dict(),
        "torch": {"version": torch.version, "build": torch.build, "index": torch.index},
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


def hasty(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables with which uv gives up as soon as the question to the indexes does."""
    seconds = f"{PATIENCE:.0f}"
    return {**environ, "UV_HTTP_RETRIES": "0", "UV_HTTP_TIMEOUT": seconds, "UV_HTTP_CONNECT_TIMEOUT": seconds}


@contextmanager
def set_at_the_end() -> Iterator[Event]:
    """An event that tells a thread, however the block is left, that nobody waits for the rest of its work."""
    event = Event()
    try:
        yield event
    finally:
        event.set()


class HeldVoice:
    """A voice that keeps progress to itself until it is known that the work is of use."""

    def __init__(self, voice: Voice) -> None:
        self.confirm, self.ran = voice.confirm, voice.ran
        self._voice = voice
        self._lock = Lock()
        self._held: list[str] | None = []

    def progress(self, text: str) -> None:
        """Keep the line; once released, tell it at once."""
        with self._lock:
            if self._held is not None:
                self._held.append(text)
                return
        self._voice.progress(text)

    def release(self) -> None:
        """Tell what was kept, and from now on all."""
        with self._lock:
            held, self._held = self._held or (), None
            for text in held:
                self._voice.progress(text)


def in_haste(ahead: Future[Compiled] | None, held: HeldVoice) -> Compiled | None:
    """What was compiled while the indexes were asked; ``None`` where it has to be done with more patience."""
    if ahead is None:
        return None
    held.release()
    try:
        compiled = ahead.result()
    except ExternalError:
        return None
    return None if compiled.failed else compiled
