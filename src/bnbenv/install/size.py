"""What an installation fetches and stores, and whether each file system has room for it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from bnbenv.dataclass import dataclass
from bnbenv.errors import ExternalError
from bnbenv.install.addresses import file_path
from bnbenv.install.compiled import files
from bnbenv.install.uv_cache import has_wheel, unpacked_packages
from bnbenv.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

# Unpacked over packed. Measured 2026-11-23 on wheels: 52 packages of a QLoRA environment 3.5 together and
# at most 5.0 each; bitsandbytes 0.50.2 3.0, triton 3.8.0 3.8; torch 2.15.0 (CUDA 13.2) 2.1;
# nvidia-cublas 13.8.2 1.4, nvidia-cudnn-cu13 9.28.1 1.8.
_RATIO = 4.0
_RATIO_CUDA = 2.2
# Directories and links of 51 packages took 13 MB where their contents of 1.3 GB were shared.
_SHARED_SHARE = 0.02
# What a lock, a state file and a log take; never the reason to refuse.
_TEMPORARY = 20_000_000


class HasDocument(Protocol):
    """A lock whose contents are at hand as TOML has them."""

    @property
    def document(self) -> Mapping[str, Any]:
        """The parsed `pylock.toml`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSize:
    """One package of a lock.

    Attributes:
        download: bytes to fetch: 0 from a directory or where uv's cache seems to have it; ``None`` where
            the lock does not tell.
        unpacked: bytes in an environment, estimated from the file's size: reading each archive's list
            of members takes longer than installing them.
        cached: uv's cache seems to hold it unpacked.
        local: it comes from a directory of this machine.
    """

    name: str
    version: str
    file: str
    index: str | None
    download: int | None
    unpacked: int
    cached: bool
    local: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """The bytes of an installation.

    Attributes:
        packages: in the lock's order.
    """

    packages: tuple[PackageSize, ...]

    @property
    def download(self) -> int:
        """Bytes to fetch at most: uv may have more in its cache than can be seen."""
        return sum(package.download or 0 for package in self.packages)

    @property
    def unpacked(self) -> int:
        """Bytes of the unpacked packages, estimated."""
        return sum(package.unpacked for package in self.packages)

    @property
    def into_cache(self) -> int:
        """Bytes by which uv's cache grows, estimated."""
        return sum(package.unpacked for package in self.packages if not package.cached)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Packages whose size the lock does not tell."""
        return tuple(package.name for package in self.packages if package.download is None)

    @property
    def sentence(self) -> str:
        """The whole in one line."""
        cached = sum(package.cached for package in self.packages)
        told = f"{counted(len(self.packages), 'package')}, {cached} of them in uv's cache: "
        known = f"at most {shown(self.download)} to fetch, about {shown(self.unpacked)} in the environment"
        if not self.unknown:
            return told + known
        names = f"{', '.join(self.unknown[:5])}{', …' if len(self.unknown) > 5 else ''}"
        return told + (
            f"{known}, and what is of unknown size: {names}" if self.unpacked else "of unknown size"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """One file system and what is wanted of it.

    Attributes:
        purposes: what lies on it: ``uv's cache``, ``the environment``, ``temporary files``.
        path: a directory on it.
        needed: bytes.
        free: bytes.
        at_least: the size of some packages is unknown, and nothing is counted for them.
    """

    purposes: tuple[str, ...]
    path: Path
    needed: int
    free: int
    at_least: bool = False

    @property
    def sentence(self) -> str:
        """What is needed and what is there, in one line."""
        purposes = " and ".join(self.purposes)
        little = ", which is too little" if self.needed > self.free else ""
        how = "at least" if self.at_least else "about"
        return f"{self.path} ({purposes}): {how} {shown(self.needed)} needed, {shown(self.free)} free{little}"


def measure(lock: HasDocument, *, cache: Path, environ: Mapping[str, str] | None = None) -> Footprint:
    """The sizes of a lock's packages.

    Args:
        lock: a read lock.
        cache: uv's cache directory.
        environ: ``UV_NO_CACHE`` in it makes every file a download.
    """
    unpacked = {} if (environ or {}).get("UV_NO_CACHE") else unpacked_packages(cache)
    return Footprint(packages=tuple(_measure(entry, unpacked) for entry in lock.document.get("packages", [])))


def rooms(
    footprint: Footprint,
    *,
    cache: Path,
    target: Path,
    temporary: Path | None = None,
    link_mode: str | None = None,
    free: Callable[[Path], int] | None = None,
) -> tuple[Room, ...]:
    """What each file system must hold.

    Args:
        footprint: of the lock.
        cache: uv's cache directory.
        target: where the environment will stand; need not exist yet.
        temporary: for temporary files, by default where Python puts them.
        link_mode: ``copy`` stores every file a second time, as different file systems do.
        free: bytes free at an existing directory; by default asks the file system.
    """
    import tempfile
    from pathlib import Path

    ask = free or (lambda path: shutil.disk_usage(path).free)
    cache_at, target_at = _existing(cache), _existing(target)
    temporary_at = _existing(temporary or Path(tempfile.gettempdir()))
    shared = link_mode != "copy" and cache_at.stat().st_dev == target_at.stat().st_dev
    environment = int(footprint.unpacked * _SHARED_SHARE) if shared else footprint.unpacked
    wanted = (
        ("uv's cache", cache_at, footprint.into_cache),
        ("the environment", target_at, environment),
        ("temporary files", temporary_at, _TEMPORARY),
    )
    by_device: dict[int, list[tuple[str, Path, int]]] = {}
    for purpose, path, needed in wanted:
        by_device.setdefault(path.stat().st_dev, []).append((purpose, path, needed))
    return tuple(
        Room(
            purposes=tuple(purpose for purpose, _, _ in parts),
            path=parts[0][1],
            needed=sum(needed for _, _, needed in parts),
            free=ask(parts[0][1]),
            at_least=bool(footprint.unknown),
        )
        for parts in by_device.values()
    )


def refuse_too_small(found: Sequence[Room]) -> None:
    """Stop before anything is started where a file system has too little space.

    Raises:
        ExternalError: code ``disk-full``, with the numbers of every file system that is too small.
    """
    small = [room for room in found if room.needed > room.free]
    if small:
        raise ExternalError(
            "there is too little space, and nothing was started:\n"
            + "\n".join(room.sentence for room in small),
            code="disk-full",
            hint="free some space (`uv cache prune`, `bnbenv prune`), or use another file system: "
            "`UV_CACHE_DIR`, `BNBENV_HOME` or `--path DIR`",
        )


def shown(size: int) -> str:
    """A number of bytes as people read it, in powers of ten."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            value = size / scale
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{size} B"


def _measure(package: Mapping[str, Any], unpacked: Mapping[str, Sequence[str]]) -> PackageSize:
    candidates = list(package.get("wheels", [])) or files(package)
    # A source release is built only where there is no wheel. Of several wheels uv installs one;
    # the largest is the safe guess.
    chosen: dict[str, Any] = max(candidates, key=lambda file: file.get("size") or 0, default={})
    url = str(chosen.get("url") or chosen.get("path") or "")
    path = file_path(url) if url.startswith("file:") else None
    file = unquote(urlsplit(url).path).rpartition("/")[2]
    local = path is not None or "directory" in package
    cached = has_wheel(unpacked, file)
    size = chosen.get("size") or (_size(path) if path is not None else None)
    return PackageSize(
        name=package["name"],
        version=str(package.get("version", "")),
        file=file,
        index=package.get("index"),
        download=0 if local or cached else size,
        unpacked=int((size or 0) * _ratio(package["name"], size or 0)),
        cached=cached,
        local=local,
    )


def _ratio(name: str, size: int) -> float:
    return _RATIO_CUDA if name.startswith("nvidia-") or size >= 400_000_000 else _RATIO


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
