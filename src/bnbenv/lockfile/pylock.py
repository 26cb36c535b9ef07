"""Locks in the standard format (PEP 751): reading, checking, writing, digest and our provenance table."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlparse

from bnbenv.dataclass import dataclass, replace
from bnbenv.env import durable
from bnbenv.errors import UPGRADE, DataError
from bnbenv.lockfile import text
from bnbenv.sha256 import hexdigest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import packaging.pylock
    from packaging.markers import Environment
    from packaging.tags import Tag

_TOP_KEYS = (
    "lock-version", "environments", "requires-python", "extras", "dependency-groups", "default-groups",
    "created-by", "packages", "tool",
)  # fmt: skip
_PACKAGE_KEYS = (
    "name", "version", "marker", "requires-python", "dependencies", "index", "vcs", "directory", "archive",
    "sdist", "wheels", "attestation-identities", "tool",
)  # fmt: skip

# What taking apart a value of another shape than expected raises.
_MISSHAPEN = (ValueError, TypeError, AttributeError, KeyError, RecursionError)

Kind = Literal["wheel", "sdist", "archive", "vcs", "directory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """One file, or one source tree, that a package can be installed from.

    Attributes:
        name: the file name; of a tree, its URL or path.
        url: where it can be had, or ``None``.
        path: where it lies beside the lock, or ``None``.
        size: bytes, where the lock says.
        hashes: algorithm → hex digits; empty for trees.
    """

    kind: Kind
    name: str
    url: str | None
    path: str | None
    size: int | None
    hashes: Mapping[str, str]

    @property
    def sha256(self) -> str | None:
        """The SHA-256, in lower case."""
        found = self.hashes.get("sha256")
        return None if found is None else found.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One entry of a lock; a name may stand there twice, under different markers."""

    name: str
    version: str | None
    marker: str | None
    index: str | None
    artefacts: tuple[Artefact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What an installer would take for one environment."""

    package: Package
    artefact: Artefact


@dataclass(frozen=True, slots=True, kw_only=True)
class Pylock:
    """A lock: valid, or outlined (`outlined`) until `check` has seen it.

    Attributes:
        origin: the file it was read from, for messages.
        document: the whole of it as TOML values, unknown keys included.
        packages: its entries, in the lock's order.
        digest: SHA-256 of what it installs, 64 hex digits; the same for two locks that install the same,
            wherever the files are downloaded from and whatever stands in ``[tool]``.
    """

    origin: str
    document: Mapping[str, Any]
    packages: tuple[Package, ...]
    digest: str

    @property
    def requires_python(self) -> str | None:
        """The Pythons it is for."""
        value = self.document.get("requires-python")
        return None if value is None else str(value)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Our own table, ``[tool.bnbenv]``; it never changes what is installed."""
        table = (self.document.get("tool") or {}).get("bnbenv", {})
        return table if isinstance(table, dict) else {}

    @property
    def versions(self) -> dict[str, str]:
        """Normalized name → version, of the packages that tell one; of a name that stands twice, the last."""
        return {package.name: package.version for package in self.packages if package.version}

    @property
    def all_wheels(self) -> bool:
        """Whether each package has a wheel: what has none is built, which runs its code."""
        return all(any(file.kind == "wheel" for file in package.artefacts) for package in self.packages)

    def find(self, name: str) -> tuple[Package, ...]:
        """The entries of one package, by its normalized name."""
        return tuple(package for package in self.packages if package.name == name)

    def not_portable(self) -> tuple[str, ...]:
        """What only this machine can install: files and trees of the local disk, one line each."""
        found = []
        for package in self.packages:
            for artefact in package.artefacts:
                url = artefact.url or ""
                if url.lower().startswith("file:") or artefact.path is not None:
                    found.append(f"{package.name}: `{artefact.url or artefact.path}`")
        return tuple(found)

    def select(
        self,
        *,
        environment: Environment | None = None,
        tags: Sequence[Tag] | None = None,
        extras: Sequence[str] = (),
    ) -> tuple[Chosen, ...]:
        """What an installer takes for a Python and platform; the running one where none is given.

        Args:
            environment: marker values; must be complete, or packaging fills in those of the running Python.
            tags: wheel tags that can be installed, best first.
            extras: extras of a multi-use lock.

        Raises:
            DataError: code ``lock-invalid``; the lock serves no such environment.
        """
        import packaging.pylock as standard

        parsed = _parsed(self.document, self.origin)
        numbers = {id(entry): number for number, entry in enumerate(parsed.packages)}
        chosen = []
        try:
            for entry, source in parsed.select(environment=environment, tags=tags, extras=extras):
                package = self.packages[numbers[id(entry)]]
                name = (
                    getattr(source, "filename", None)
                    if not isinstance(source, standard.PackageArchive)
                    else None
                )
                artefact = next(
                    (found for found in package.artefacts if found.name == name), package.artefacts[0]
                )
                chosen.append(Chosen(package=package, artefact=artefact))
        except (standard.PylockSelectError, ValueError) as error:
            raise DataError(
                f"`{self.origin}` does not serve this environment: {error}", code="lock-invalid"
            ) from error
        return tuple(chosen)


def read(path: Path) -> Pylock:
    """Read and check a lock.

    Raises:
        DataError: code ``lock-invalid``; the message names the key, such as ``packages[3].wheels[0].hashes``.
        ExternalError: the file cannot be read.
    """
    return parse(text.decode(text.read_bytes(path), str(path)), origin=str(path))


def parse(content: str, *, origin: str = "lock") -> Pylock:
    """Check the text of a lock.

    Raises:
        DataError: code ``lock-invalid``.
    """
    return from_document(text.parse(content, origin), origin=origin)


def from_document(document: Mapping[str, Any], *, origin: str = "lock") -> Pylock:
    """Check a lock given as TOML values.

    Raises:
        DataError: code ``lock-invalid``.
    """
    _parsed(document, origin)
    return outlined(document, origin=origin)


def outlined(document: Mapping[str, Any], *, origin: str = "lock") -> Pylock:
    """A lock of which only what is used here has been checked: to decide by, and to begin to build from.

    Nothing that was built from it may be used before `check`, which wants the standard's own reader: loading
    that takes as long as an installer needs to make an environment.

    Raises:
        DataError: code ``lock-invalid``.
    """
    try:
        packages = tuple(
            _package(entry, f"packages[{number}]", origin)
            for number, entry in enumerate(document["packages"])
        )
        return Pylock(origin=origin, document=document, packages=packages, digest=_digest(document))
    except _MISSHAPEN as error:
        raise _not_standard(origin, error) from error


def check(lock: Pylock) -> None:
    """See that an outlined lock follows the standard in every part.

    Raises:
        DataError: code ``lock-invalid``.
    """
    _parsed(lock.document, lock.origin)


def digest(path: Path) -> str:
    """The digest of the lock at `path` (`Pylock.digest`).

    Raises:
        DataError: code ``lock-invalid``.
    """
    return read(path).digest


def ordinary_versions(lock: Pylock) -> dict[str, str]:
    """Package → version, of those that need not differ between builds of torch."""
    from bnbenv.torch_family import differs_by_build

    return {
        package.name: package.version or "" for package in lock.packages if not differs_by_build(package.name)
    }


def preferences(versions: Mapping[str, str]) -> str:
    """The text of a lock that names versions and no file: uv keeps them where they fit, and takes no more."""
    import tomli_w

    packages = [
        {"name": name, "version": version, "wheels": [_NO_WHEEL]}
        for name, version in sorted(versions.items())
    ]
    return tomli_w.dumps({"lock-version": "1.0", "created-by": "bnbenv", "packages": packages})


_NO_WHEEL = {
    "url": "https://none.invalid/none-0-py3-none-any.whl",
    "hashes": {"sha256": "0" * 64},
}


def with_provenance(lock: Pylock, table: Mapping[str, Any]) -> Pylock:
    """The same lock with `table` as ``[tool.bnbenv]``; other tools' tables stay, and so does the digest."""
    tool = {**(lock.document.get("tool") or {}), "bnbenv": _without_none(table)}
    return replace(lock, document={**lock.document, "tool": tool})


def dump(lock: Pylock, *, largest_first: bool = False) -> str:
    """The lock as text: keys in the standard's order, packages by name; equal locks give equal text.

    Args:
        lock: what to write.
        largest_first: packages by the size of their files instead. uv begins to link them in the lock's
            order, several at once: what takes long must not begin last, and torch comes late by name.
    """
    import tomli_w

    document = dict(lock.document)
    packages = [
        {**_ordered(entry, _PACKAGE_KEYS), **_ordered_wheels(entry)}
        for entry in sorted(document["packages"], key=_largest_first if largest_first else _sort_key)
    ]
    return tomli_w.dumps(_ordered({**document, "packages": packages}, _TOP_KEYS))


def write(path: Path, lock: Pylock) -> None:
    """Write the lock whole, or leave what was there.

    Raises:
        ExternalError: codes ``permission``, ``disk-full``.
    """
    durable.write_whole(path, dump(lock).encode())


def _parsed(document: Mapping[str, Any], origin: str) -> packaging.pylock.Pylock:
    import packaging.pylock as standard

    try:
        return standard.Pylock.from_dict(document)
    except standard.PylockUnsupportedVersionError as error:
        raise text.invalid(origin, str(error), hint=UPGRADE) from error
    except standard.PylockValidationError as error:
        raise text.invalid(origin, str(error)) from error
    except _MISSHAPEN as error:
        # The reader is strict about shapes, but not about every combination of them.
        raise _not_standard(origin, error) from error


def _not_standard(origin: str, error: Exception) -> DataError:
    return text.invalid(origin, f"it does not follow PEP 751 ({type(error).__name__}: {error})")


def _package(entry: Mapping[str, Any], key: str, origin: str) -> Package:
    wheels = entry.get("wheels", [])
    if not isinstance(wheels, list):
        raise text.invalid(origin, f"`{key}.wheels` is not a list")
    kinds: tuple[Kind, ...] = ("sdist", "archive", "vcs", "directory")
    sources: list[tuple[Kind, str, Any]] = [
        *(("wheel", f"wheels[{number}]", wheel) for number, wheel in enumerate(wheels)),
        *((kind, kind, entry[kind]) for kind in kinds if entry.get(kind) is not None),
    ]
    artefacts = tuple(
        (_tree if kind in ("vcs", "directory") else _file)(kind, source, f"{key}.{place}", origin)
        for kind, place, source in sources
    )
    name = _text(entry, "name", key, origin)
    if not name:
        raise text.invalid(origin, f"`{key}` has no name")
    if not artefacts:
        raise text.invalid(origin, f"`{key}` ({name}) names nothing to install")
    return Package(
        name=name,
        version=_version(entry, key, origin),
        marker=_text(entry, "marker", key, origin),
        index=_text(entry, "index", key, origin),
        artefacts=artefacts,
    )


def _file(kind: Kind, source: Mapping[str, Any], key: str, origin: str) -> Artefact:
    url, path = _text(source, "url", key, origin), _text(source, "path", key, origin)
    if kind == "archive":
        name = url or path or ""
    else:
        name = _text(source, "name", key, origin) or _name_in_path(path) or _name_in_url(url)
        if "/" in name or "\\" in name or "\0" in name:
            raise text.invalid(origin, f"the file name {name!r} in `{key}` is a path")
    if not name:
        raise text.invalid(origin, f"`{key}` names no file")
    hashes = source["hashes"]
    for algorithm in hashes:
        value = _text(hashes, algorithm, f"{key}.hashes", origin) or ""
        length = _hash_length(algorithm)
        if length is not None and (len(value) != length or not _is_hex(value)):
            raise text.invalid(origin, f"{value!r} in `{key}.hashes.{algorithm}` is not a hash")
    if not hashes:
        raise text.invalid(origin, f"`{key}.hashes` is empty")
    if "\0" in unquote(f"{url or ''}{path or ''}"):
        raise text.invalid(origin, f"the address in `{key}` holds a NUL")
    size = source.get("size")
    if size is not None and not (type(size) is int and 0 <= size < 1 << 63):
        raise text.invalid(origin, f"`{key}.size` is not a number of bytes")
    return Artefact(kind=kind, name=name, url=url, path=path, size=size, hashes=dict(hashes))


def _name_in_path(path: str | None) -> str:
    return re.split(r"[/\\]", path or "")[-1]


def _name_in_url(url: str | None) -> str:
    return unquote(urlparse(url or "").path.rpartition("/")[2])


def _version(entry: Mapping[str, Any], key: str, origin: str) -> str | None:
    from packaging.version import InvalidVersion, Version

    value = _text(entry, "version", key, origin)
    try:
        return None if value is None else str(Version(value))
    except InvalidVersion as error:
        raise text.invalid(origin, f"`{key}.version` is {value!r}, which is no version") from error


def _text(table: Mapping[str, Any], name: str, key: str, origin: str) -> str | None:
    value = table.get(name)
    if value is not None and not isinstance(value, str):
        raise text.invalid(origin, f"`{key}.{name}` is not text")
    return value


def _tree(kind: Kind, source: Mapping[str, Any], key: str, origin: str) -> Artefact:
    url, path = _text(source, "url", key, origin), _text(source, "path", key, origin)
    commit = f"@{source['commit-id']}" if kind == "vcs" else ""
    return Artefact(kind=kind, name=f"{url or path or ''}{commit}", url=url, path=path, size=None, hashes={})


def _hash_length(algorithm: str) -> int | None:
    if algorithm == "sha256":
        return 64
    import hashlib

    try:
        return hashlib.new(algorithm, usedforsecurity=False).digest_size * 2 or None
    except ValueError:
        return None


def _is_hex(text: str) -> bool:
    return all(character in "0123456789abcdefABCDEF" for character in text)


def _digest(document: Mapping[str, Any]) -> str:
    """SHA-256 over what decides the installed files, in a spelling without order or addresses."""
    content = {
        "environments": sorted(document.get("environments") or ()),
        "requires-python": document.get("requires-python"),
        "extras": sorted(document.get("extras") or ()),
        "dependency-groups": sorted(document.get("dependency-groups") or ()),
        "default-groups": sorted(document.get("default-groups") or ()),
        "packages": sorted((_installed_by(entry) for entry in document["packages"]), key=json.dumps),
    }
    return hexdigest(json.dumps(content, sort_keys=True, ensure_ascii=True).encode())


def _installed_by(entry: Mapping[str, Any]) -> dict[str, Any]:
    files = [*(entry.get("wheels") or ()), *([entry["sdist"]] if entry.get("sdist") else [])]
    trees = {key: entry[key] for key in ("vcs", "directory", "archive") if entry.get(key) is not None}
    return {
        "name": entry["name"],
        "version": entry.get("version"),
        "marker": entry.get("marker"),
        "requires-python": entry.get("requires-python"),
        "files": sorted((_hashes(file) for file in files), key=json.dumps),
        "trees": json.loads(json.dumps(trees, sort_keys=True, default=str)),
    }


def _hashes(file: Mapping[str, Any]) -> list[list[str]]:
    return sorted([algorithm, value.lower()] for algorithm, value in file["hashes"].items())


def _sort_key(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(entry["name"]), str(entry.get("version", "")), str(entry.get("marker", ""))


def _largest_first(entry: Mapping[str, Any]) -> tuple[int, tuple[str, str, str]]:
    files = (*(entry.get("wheels") or ()), *filter(None, (entry.get("sdist"), entry.get("archive"))))
    return -max((file.get("size") or 0 for file in files), default=0), _sort_key(entry)


def _ordered(table: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    known = {key: table[key] for key in keys if key in table}
    return {**known, **{key: table[key] for key in sorted(table) if key not in known}}


def _ordered_wheels(entry: Mapping[str, Any]) -> dict[str, Any]:
    if "wheels" not in entry:
        return {}
    return {"wheels": sorted(entry["wheels"], key=lambda wheel: (_wheel_name(wheel), _hashes(wheel)))}


def _wheel_name(wheel: Mapping[str, Any]) -> str:
    return str(wheel.get("name") or wheel.get("url") or wheel.get("path")).rpartition("/")[2]


def _without_none(value: Any) -> Any:
    """TOML has no null: what is unknown is left out."""
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(key): _without_none(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(inner) for inner in value if inner is not None]
    return value
