"""`bundle`: everything that a lock names, in one directory, for a site without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass, field
from bnbenv.errors import ExternalError, UsageError
from bnbenv.lockfile.commands import lock_command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.install.sources import Sources
    from bnbenv.lockfile.index import TeamLock, Variant
    from bnbenv.lockfile.pylock import Artefact
    from bnbenv.workflows.voice import Voice

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRequest:
    """One call of `bundle`.

    Attributes:
        directory: where the locks stand.
        output: the directory to fill; what stands there already is kept.
        variants: which; empty for all.
    """

    directory: Path
    output: Path
    variants: tuple[str, ...] = ()
    allow_local: bool = False
    dry_run: bool = False
    mirrors: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = field(default_factory=Path.cwd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundled:
    """The answer of `bundle`.

    Attributes:
        files: file name → SHA-256.
        by_variant: variant → its files.
        fetched: how many were not there already.
        size: bytes of all of them; ``None`` after a dry run.
    """

    output: Path
    files: Mapping[str, str]
    by_variant: Mapping[str, tuple[str, ...]]
    fetched: int
    size: int | None


def bundle(request: BundleRequest, voice: Voice, environ: Mapping[str, str]) -> Bundled:
    """Fetch the one file of each package that machines of each variant install, checked by its hash.

    Raises:
        UsageError: the lock has no such variant.
        DataError: a lock is invalid, unsafe or was changed, or a file is not the one that was locked.
        ExternalError: an index or the disk failed; what was fetched stays, and the next call goes on.
    """
    from bnbenv.install.sources import read_sources
    from bnbenv.lockfile import index, platforms
    from bnbenv.lockfile.homes import reachable
    from bnbenv.matrix.load import load
    from bnbenv.workflows.sync import checked_lock

    team = index.read(request.directory)
    chosen = [team.variant(name) for name in request.variants] or list(team.variants)
    if not chosen:
        raise UsageError("the lock has no variant", hint=lock_command(request.directory))
    matrix = load("indexes")
    sources = read_sources(
        environ=environ,
        cwd=request.cwd,
        index_rows=matrix.indexes,
        mirrors=request.mirrors,
    )
    wanted: dict[str, Artefact] = {}
    by_variant: dict[str, tuple[str, ...]] = {}
    for variant in chosen:
        lock = checked_lock(request.directory, team, variant, sources, allow_local=request.allow_local)
        here = lock if request.dry_run else reachable(lock, sources, matrix.indexes, environ=environ)
        files = platforms.files_of(here, variant)
        by_variant[variant.name] = tuple(sorted(file.name for file in files))
        wanted.update((file.name, file) for file in files)
    hashes = {name: wanted[name].sha256 or "" for name in sorted(wanted)}
    fetched = 0
    if not request.dry_run:
        _copy_locks(request, team, chosen)
        relock = lock_command(request.directory, "--upgrade")
        fetched = _fetch(request.output / "wheels", wanted, sources, voice, environ, relock)
        _write_manifest(request.output, team, by_variant, hashes)
    return Bundled(
        output=request.output,
        files=hashes,
        by_variant=by_variant,
        fetched=fetched,
        size=None if request.dry_run else _size(request.output / "wheels", hashes),
    )


def _fetch(
    directory: Path,
    wanted: Mapping[str, Artefact],
    sources: Sources,
    voice: Voice,
    environ: Mapping[str, str],
    relock: str,
) -> int:
    from bnbenv.env import durable
    from bnbenv.install.fetch import fetch
    from bnbenv.install.parallel import side_by_side

    with durable.told(directory, "create"):
        directory.mkdir(parents=True, exist_ok=True)

    def one(file: Artefact) -> bool:
        if file.sha256 is None or file.url is None:
            raise ExternalError(f"`{file.name}` has no address or no SHA-256", code="package-unavailable")
        with durable.told(directory / file.name, "write"):
            new = fetch(
                file.url,
                directory / file.name,
                file.sha256,
                sources=sources,
                environ=environ,
                index=_index_of(file.url, sources),
                relock=relock,
            )
        if new:
            voice.progress(f"fetched {file.name}")
        return new

    return sum(side_by_side(one, [wanted[name] for name in sorted(wanted)], most=4))


def _index_of(url: str, sources: Sources) -> Any:
    from bnbenv.install.pages import same_host

    return next((index for index in sources.indexes if same_host(url, index)), None)


def _copy_locks(request: BundleRequest, team: TeamLock, chosen: list[Variant]) -> None:
    from bnbenv.env import durable
    from bnbenv.lockfile import index

    with durable.told(request.output, "create"):
        request.output.mkdir(parents=True, exist_ok=True)
    for variant in chosen:
        data = index.locked_bytes(request.directory, variant, origin=team.origin)
        durable.write_whole(index.destination(request.output, variant.file), data)
    index.write(request.output, team)


def _write_manifest(
    output: Path, team: TeamLock, by_variant: Mapping[str, tuple[str, ...]], hashes: Mapping[str, str]
) -> None:
    """Written last: where it stands, the bundle is whole."""
    from bnbenv.env import durable

    document = {
        "schema": 1,
        "locks": {name: team.variant(name).sha256 for name in sorted(by_variant)},
        "variants": {name: list(by_variant[name]) for name in sorted(by_variant)},
        "files": {
            name: {"sha256": sha256, "size": (output / "wheels" / name).stat().st_size}
            for name, sha256 in hashes.items()
        },
    }
    durable.write_whole(output / MANIFEST, (json.dumps(document, indent=1) + "\n").encode())


def holds(directory: Path, variant: str) -> bool:
    """Whether a directory is a bundle with the files of this variant; other tools write manifests too."""
    try:
        document = json.loads((directory / MANIFEST).read_bytes())
        return document["schema"] == 1 and variant in document["variants"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _size(directory: Path, names: Mapping[str, str]) -> int:
    return sum((directory / name).stat().st_size for name in names)
