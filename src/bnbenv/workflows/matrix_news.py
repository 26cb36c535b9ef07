"""Measure what an index lists and the matrix does not hold, and keep the rows for this user."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass, replace
from bnbenv.errors import ExternalError
from bnbenv.matrix.load import FILES, added_directory, joined, load, read_document, read_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import requests
    from pypi_simple import DistributionPackage

    from bnbenv.install.sources import Index, Sources
    from bnbenv.machine.target import Arch, OsName
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.news import Group, Listed
    from bnbenv.matrix.rows import BitsandbytesWheel, TorchBuild
    from bnbenv.workflows.voice import Voice

PARTS = ("bitsandbytes", "torch", "broken", "indexes")


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What an index lists and the matrix has not measured.

    Attributes:
        index: its name in the matrix, such as ``pypi``.
    """

    index: str
    bitsandbytes: tuple[Listed, ...]
    torch: tuple[Group, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The files that would be read."""
        return (*(one.wheel for one in self.bitsandbytes), *(one.chosen.wheel for one in self.torch))


class Reader:
    """An index, reached as the user's configuration says.

    Args:
        index: the name of one, an address, or ``None`` for the default.
    """

    def __init__(self, index: str | None, environ: Mapping[str, str], *, offline: bool = False) -> None:
        if offline:
            raise ExternalError(
                "an index is not asked under --offline", code="offline", hint="leave out `--offline`"
            )
        self.matrix = load(*PARTS)
        self.index, self._sources = _find_index(index, self.matrix, environ)
        self._environ = environ
        self._session: requests.Session | None = None
        self._stranger: requests.Session | None = None

    @property
    def session(self) -> requests.Session:
        """Opened when it is first needed."""
        from bnbenv.install.session import open_session

        if self._session is None:
            self._session = open_session(self.index, self._sources, self._environ)
        return self._session

    def _session_for(self, url: str) -> requests.Session:
        """The session for a file; one on another host is not shown the index's credentials."""
        from urllib.parse import urlsplit

        from bnbenv.install.session import open_session
        from bnbenv.install.uv_files import address

        if urlsplit(url).netloc == urlsplit(address(self.index)).netloc:
            return self.session
        if self._stranger is None:
            self._stranger = open_session(self.index, self._sources, self._environ)
            self._stranger.auth = None
        return self._stranger

    def files(self, project: str) -> list[DistributionPackage]:
        """The files of a project; none where the index does not have it.

        Raises:
            ExternalError: the index does not answer, or not as one.
        """
        from bnbenv.install.pages import project_page

        page = project_page(self.index, project, self._sources, self.session, self._environ)
        return [] if page is None else page.packages

    def news(self, platform: tuple[OsName, Arch] | None, releases: Sequence[str] = ()) -> News:
        """What is new there.

        Args:
            platform: only for this one; ``None`` for all.
            releases: of torch, only these.

        Raises:
            ExternalError: the index cannot be read.
        """
        from bnbenv.matrix.measure import platform_of
        from bnbenv.matrix.news import candidates, groups, listed_wheels, unknown_groups, unknown_wheels

        name = self.index.name
        wheels = unknown_wheels(listed_wheels(self.files("bitsandbytes")), self.matrix.bitsandbytes)
        builds = unknown_groups(groups(candidates(self.files("torch"))), self.matrix.torch, index=name)
        return News(
            index=name,
            bitsandbytes=tuple(
                one
                for one in wheels
                if platform in (None, platform_of(one.wheel.removesuffix(".whl").rpartition("-")[2]))
            ),
            torch=tuple(
                one
                for one in builds
                if platform in (None, platform_of(one.chosen.platform))
                and (not releases or one.chosen.version in releases)
            ),
        )

    def measure(
        self, news: News, voice: Voice
    ) -> tuple[tuple[BitsandbytesWheel, ...], tuple[TorchBuild, ...]]:
        """Read the files by ranges.

        Raises:
            DamagedFileError: a file is damaged.
            ExternalError: its bytes cannot be had.
        """
        from bnbenv.matrix.news import as_its_index_has_it, bitsandbytes_row, measured_torch, why_broken
        from bnbenv.matrix.remote import RemoteFile

        wheels = []
        for listed in news.bitsandbytes:
            voice.progress(f"reading {listed.wheel}")
            file = RemoteFile(self._session_for(listed.url), listed.url, name=listed.wheel, size=listed.size)
            row = bitsandbytes_row(file, listed)
            wheels.append(row._replace(broken=why_broken(row, self.matrix.broken)))
        builds = []
        for group in news.torch:
            chosen = group.chosen
            voice.progress(f"reading {chosen.wheel}")
            file = RemoteFile(self._session_for(chosen.url), chosen.url, name=chosen.wheel, size=chosen.size)
            measured = measured_torch(file, group, index=news.index)
            builds.append(as_its_index_has_it(measured, self.matrix.torch))
        return tuple(wheels), tuple(builds)


def _find_index(text: str | None, matrix: Matrix, environ: Mapping[str, str]) -> tuple[Index, Sources]:
    """The index that is meant: a name, an address, or the default one.

    Raises:
        UsageError: there is no such index, or its address is not safe.
        ExternalError: the configuration allows none.
    """
    from bnbenv.install.addresses import name_for, refuse_insecure
    from bnbenv.install.sources import Index, read_sources
    from bnbenv.workflows.config import read_config

    sources = read_sources(
        environ=environ,
        cwd=Path.cwd(),
        index_rows=matrix.indexes,
        mirrors=read_config(environ).mirrors,
    )
    if text is None:
        if sources.default is None:
            raise ExternalError(
                f"{sources.no_index_origin or 'the configuration'} allows no index",
                code="offline",
                hint="name one: `bnbenv matrix measure --index URL`",
            )
        return sources.default, sources
    if "://" not in text:
        return sources.find(text), sources
    address = text.rstrip("/")
    for row in matrix.indexes:
        if row.url and row.url.rstrip("/") == address:
            return replace(sources.find(row.name), url=address), sources
    refuse_insecure(address, origin="--index", trusted=sources.trusted_hosts)
    known = {row.name for row in matrix.indexes}
    # A mirror keeps the last part of PyTorch's addresses: its builds are the same.
    mirrored = (f"pytorch-{part}" for part in reversed(address.split("/")) if f"pytorch-{part}" in known)
    name = next(mirrored, None) or name_for(address, flat=False)
    return Index(name=name, url=address, role="explicit", origin="--index"), sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """The user's own rows after a change.

    Attributes:
        added: their revision; ``None`` where there are none.
        rows: how many there are by part.
    """

    directory: Path
    added: str | None
    rows: Mapping[str, int]


def save(wheels: Sequence[BitsandbytesWheel], builds: Sequence[TorchBuild]) -> Saved:
    """Put rows into the user's data directory, beside those that are there; drop what is shipped by now.

    Raises:
        DataError: what is there is damaged.
        ExternalError: it cannot be written.
    """
    from bnbenv.env import durable
    from bnbenv.matrix.dump import dump_json, sort_rows
    from bnbenv.matrix.load import compat_directory

    shipped = load("bitsandbytes", "torch", directory=compat_directory())
    directory, counts, revision = added_directory(), {}, date.today().isoformat().replace("-", ".")  # noqa: DTZ011 - the user's day
    for part, new in (("bitsandbytes", wheels), ("torch", builds)):
        path = directory / FILES[part]
        held = read_rows(part, read_document(path), path) if path.is_file() else ()
        base = getattr(shipped, part)
        own = tuple({_key(part, row): row for row in (*held, *new)}.values())
        taken = set(map(id, joined(part, base, own)))
        rows = [row for row in own if id(row) in taken]
        counts[part] = len(rows)
        if rows:
            with durable.told(directory, "create"):
                directory.mkdir(parents=True, exist_ok=True)
            durable.write_whole(path, dump_json(part, sort_rows(part, rows), revision=revision).encode())
        else:
            path.unlink(missing_ok=True)
    return Saved(directory=directory, added=revision if any(counts.values()) else None, rows=counts)


def _key(part: str, row: Any) -> tuple[Any, ...]:
    from bnbenv.matrix.codec import CODECS

    return tuple(getattr(row, name) for name in CODECS[part].key)
