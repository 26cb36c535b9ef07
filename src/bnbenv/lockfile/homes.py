"""Addresses in locks: canonical ones for everybody, and from them those that can be reached from here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin

from bnbenv.errors import DataError, ExternalError, UsageError
from bnbenv.install.compiled import files
from bnbenv.install.pages import files_of_all, same_host
from bnbenv.install.redact import redact, split_credential
from bnbenv.install.uv_files import address, default_address
from bnbenv.lockfile import pylock
from bnbenv.typed_paths import to_type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bnbenv.install.pages import OfferedFile
    from bnbenv.install.sources import Index, Sources
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.matrix.rows import IndexRow


def canonical(lock: Pylock, sources: Sources, rows: Sequence[IndexRow]) -> Pylock:
    """The same lock with the addresses that everybody knows instead of this site's mirrors.

    What comes from an index of the user's own keeps its address, which is the only one it has. A mirror that
    hands out the original addresses of its files leaves nothing to do but to name the index.
    """
    packages = [_canonical_package(entry, sources, rows) for entry in lock.document["packages"]]
    return pylock.from_document({**lock.document, "packages": packages}, origin=lock.origin)


def _canonical_package(
    entry: Mapping[str, Any], sources: Sources, rows: Sequence[IndexRow]
) -> dict[str, Any]:
    index = _by_address(sources, entry.get("index"))
    package = _each_file(entry, lambda file: {**file, **_bare(file)})
    if index is None or index.local:
        return package
    home = canonical_address(index, rows)
    package["index"] = home
    if home == address(index):
        return package

    def moved(file: Mapping[str, Any]) -> dict[str, Any]:
        url = str(file.get("url", ""))
        if not url or not same_host(url, index):
            return dict(file)
        name = str(file.get("name") or _file_name(url))
        return {**file, "url": _canonical_file(home, str(entry["name"]), name, rows)}

    return _each_file(package, moved)


def canonical_address(index: Index, rows: Sequence[IndexRow]) -> str:
    """The address that everybody knows an index by."""
    if index.role == "default":
        return default_address()
    for row in rows:
        if index.role == "explicit" and row.name == index.name and row.url is not None:
            return row.url
    return split_credential(address(index))[0]


def _canonical_file(home: str, project: str, name: str, rows: Sequence[IndexRow]) -> str:
    """Where a file stands at home: beside its index, or at the predictable place of the default index."""
    if any(row.url == home for row in rows):
        return f"{home.rstrip('/')}/{quote(name)}"
    tag = name.removesuffix(".whl").split("-")[-3] if name.endswith(".whl") else "source"
    tag = "py3" if tag.endswith("py3") else tag.partition(".")[0]
    return urljoin(home, f"/packages/{quote(tag)}/{project[0]}/{quote(project)}/{quote(name)}")


def reachable(
    lock: Pylock,
    sources: Sources,
    rows: Sequence[IndexRow],
    *,
    environ: Mapping[str, str],
    wheelhouse: Path | None = None,
) -> Pylock:
    """The same lock with the addresses at which this site has the files: same names, same hashes.

    Args:
        lock: with canonical addresses. An outlined one is checked before anybody is asked for its files.
        sources: what is configured here.
        rows: the indexes of the matrix.
        environ: the caller's variables.
        wheelhouse: take everything from this directory, and nothing from the network.

    Raises:
        UsageError: the wheelhouse is no directory.
        DataError: codes ``lock-invalid``; ``hash-mismatch``: a mirror or the wheelhouse has another file.
        ExternalError: codes ``package-unavailable``, ``index-…``, ``offline``.
    """
    if wheelhouse is not None:
        pylock.check(lock)
        return _from_directory(lock, wheelhouse)
    wanted: dict[str, tuple[Index, list[str]]] = {}
    for entry in lock.document["packages"]:
        index = stand_in(str(entry.get("index") or ""), sources, rows)
        if index is not None:
            wanted.setdefault(index.name, (index, []))[1].append(str(entry["name"]))
    if not wanted:
        return lock
    pylock.check(lock)
    offered: dict[str, dict[str, tuple[OfferedFile, ...]]] = {}
    if not sources.offline:
        offered = {
            name: files_of_all(index, projects, sources, environ)
            for name, (index, projects) in wanted.items()
        }
    packages = []
    for entry in lock.document["packages"]:
        package = dict(entry)
        index = stand_in(str(entry.get("index") or ""), sources, rows)
        if index is not None:
            # uv's cache knows a file by its index and its name, whatever its address: offline that is enough.
            if offered:
                package = _located(entry, index, offered[index.name][str(entry["name"])], lock.origin)
            package["index"] = address(index)
        packages.append(package)
    return pylock.from_document({**lock.document, "packages": packages}, origin=lock.origin)


def stand_in(home: str, sources: Sources, rows: Sequence[IndexRow]) -> Index | None:
    """The mirror that is configured here for an index; ``None`` where the index itself is to be asked."""
    for index in sources.indexes:
        # uv's own default stands for itself.
        if index.role not in ("default", "explicit") or index.url is None:
            continue
        if canonical_address(index, rows).rstrip("/") == home.rstrip("/"):
            return None if address(index).rstrip("/") == home.rstrip("/") else index
    return None


def _located(
    entry: Mapping[str, Any], index: Index, offered: Sequence[OfferedFile], origin: str
) -> dict[str, Any]:
    """A package with its files' addresses on a mirror; files that the mirror lacks are left out."""
    by_name = {file.name: file for file in offered}
    package = dict(entry)
    answers = [_same_file(file, by_name, index, origin) for file in package.pop("wheels", [])]
    kept = [file for file in answers if file is not None]
    sdist = package.pop("sdist", None)
    if sdist is not None and (found := _same_file(sdist, by_name, index, origin)) is not None:
        package["sdist"] = found
    if kept:
        package["wheels"] = kept
    if not kept and "sdist" not in package:
        raise ExternalError(
            f"`{index.name}` at {redact(address(index))} has no file that the lock names of "
            f"{entry['name']} {entry.get('version', '')}",
            hint="let the mirror fetch it, or take the mirror away: "
            + (
                f"bnbenv config unset {index.name}"
                if index.role == "explicit"
                else f"it stands in {index.origin}"
            ),
            code="package-unavailable",
        )
    return package


def _same_file(
    file: Mapping[str, Any], by_name: Mapping[str, OfferedFile], index: Index, origin: str
) -> dict[str, Any] | None:
    name = str(file.get("name") or _file_name(str(file.get("url", ""))))
    found = by_name.get(name)
    if found is None:
        return None
    locked = file["hashes"].get("sha256")
    if found.sha256 is not None and locked is not None and found.sha256.lower() != locked.lower():
        raise DataError(
            f"`{index.name}` at {redact(address(index))} has another `{name}` than `{origin}` names: "
            f"SHA-256 {found.sha256[:12]}… instead of {locked[:12]}…",
            hint="do not install it; ask whoever runs the mirror",
            code="hash-mismatch",
        )
    return {**file, "name": name, "url": found.url}


def _from_directory(lock: Pylock, directory: Path) -> Pylock:
    if not directory.is_dir():
        raise UsageError(
            f"the wheelhouse `{directory}` is no directory",
            hint="name what `bnbenv bundle -o DIR` has filled, or a directory of wheels",
        )
    places = [directory / "wheels", directory] if (directory / "wheels").is_dir() else [directory]
    packages = []
    taken: dict[Path, str] = {}
    for entry in lock.document["packages"]:
        package = {key: value for key, value in entry.items() if key not in ("wheels", "sdist", "index")}
        found = {
            path: {**{key: value for key, value in file.items() if key != "url"}, "name": path.name}
            for file in files(entry)
            for name in [str(file.get("name") or _file_name(str(file.get("url", ""))))]
            for path in [next((place / name for place in places if (place / name).is_file()), None)]
            if path is not None
        }
        wheels = [path for path in found if path.suffix == ".whl"]
        chosen = wheels or list(found)[:1]
        if not chosen:
            raise ExternalError(
                f"the wheelhouse `{directory}` has no file of {entry['name']} {entry.get('version', '')}",
                hint=f"bnbenv bundle LOCKDIR -o {to_type(directory)} (where there is a network)",
                code="package-unavailable",
            )
        located = [{**found[path], "url": path.absolute().as_uri()} for path in chosen]
        package.update({"wheels": located} if wheels else {"sdist": located[0]})
        packages.append(package)
        taken |= {path: found[path]["hashes"].get("sha256", "") for path in chosen}
    _refuse_other_files(taken, lock.origin)
    return pylock.from_document({**lock.document, "packages": packages}, origin=lock.origin)


def _refuse_other_files(taken: Mapping[Path, str], origin: str) -> None:
    """Read the files of a wheelhouse once: what was changed on the way is named before anything is built.

    Raises:
        DataError: code ``hash-mismatch``.
    """
    from concurrent.futures import ThreadPoolExecutor

    from bnbenv.install.fetch import sha256_of

    with ThreadPoolExecutor(max_workers=4) as pool:
        read = dict(zip(taken, pool.map(sha256_of, taken), strict=True))
    others = [path for path, sha256 in taken.items() if sha256 and read[path] != sha256.lower()]
    if others:
        raise DataError(
            "\n".join(
                f"`{path}` is not the file that `{origin}` names: "
                f"SHA-256 {read[path][:12]}… instead of {taken[path][:12]}…"
                for path in others
            ),
            hint="do not install it; `bnbenv bundle LOCKDIR -o DIR` fetches it anew where there is a network",
            code="hash-mismatch",
        )


def _by_address(sources: Sources, home: object) -> Index | None:
    if not isinstance(home, str):
        return None
    bare = split_credential(home)[0].rstrip("/")
    return next((index for index in sources.indexes if address(index).rstrip("/") == bare), None)


def _each_file(
    entry: Mapping[str, Any], change: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    package = dict(entry)
    if "wheels" in package:
        package["wheels"] = [change(file) for file in package["wheels"]]
    for kind in ("sdist", "archive"):
        if kind in package:
            package[kind] = change(package[kind])
    return package


def _bare(file: Mapping[str, Any]) -> dict[str, str]:
    return {"url": split_credential(str(file["url"]))[0]} if "url" in file else {}


def _file_name(url: str) -> str:
    from urllib.parse import unquote, urlsplit

    return unquote(urlsplit(url).path).rpartition("/")[2]
