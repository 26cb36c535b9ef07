"""Whether installed files are the ones their wheels brought: the comparison with RECORD."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from bnbenv.env.installed import normalized, read_installed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bnbenv.env.installed import Distribution, Installed

FaultKind = Literal["missing", "altered", "truncated", "unreadable", "no-record", "bad-record"]

_CHUNK = 1 << 20
_SLICE = 512  # files handed to the threads at once
_LARGEST_RECORD = 64 << 20  # bytes; torch's has two million
_CODE = (".py", ".so", ".pyd", ".dll", ".dylib")
_KIND = 0o170000  # the bits of a mode that tell what a file is
_NATIVE = re.compile(r"\.(so(\.\d+)*|pyd|dll|dylib)$", re.IGNORECASE)
# Installers write or change these after unpacking; not every one of them writes the new hash down.
_INSTALLERS_OWN = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json", "uv_build.json"}
# These rewrite what they install: conda its prefix; Linux distributions strip libraries and move scripts.
_REWRITERS = {"conda", "debian", "rpm"}
_NO_RECORD = "RECORD is missing: installers no longer see the package"
_ALGORITHMS = {"sha256", "sha384", "sha512"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFault:
    """One installed file that is not what the wheel brought.

    Attributes:
        package: normalized name.
        path: as RECORD spells it; ``""`` where RECORD itself is the fault.
        kind: ``truncated`` is shorter than recorded; ``no-record`` and ``bad-record`` are about RECORD.
        native: whether it is a native library.
        detail: expected and found, for a person.
    """

    package: str
    path: str
    kind: FaultKind
    native: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    package: str
    path: str
    file: Path
    algorithm: str
    digest: str
    size: int | None
    only_presence: bool

    @property
    def native(self) -> bool:
        return _NATIVE.search(self.path) is not None


def check_record(
    environment: Path | Installed,
    packages: Iterable[str] | None = None,
    *,
    natives_of_others: bool = False,
    workers: int | None = None,
) -> tuple[RecordFault, ...]:
    """Compare installed files with RECORD; sorted by package and path.

    Files that installers generate or rewrite (scripts, byte code, INSTALLER, …) are looked for, or passed
    over, but never hashed. Packages of conda and of Linux distributions are only looked for: these
    installers change what they install.

    Args:
        environment: what `read_installed` reads, or what it returned.
        packages: the packages whose every file is compared; ``None`` for all of them.
        natives_of_others: compares the native libraries of all other packages too.
        workers: threads; hashing lets go of the interpreter's lock.

    Raises:
        EnvironmentProblem: code ``no-environment``.
    """
    installed = environment if not isinstance(environment, Path) else read_installed(environment)
    whole = None if packages is None else {normalized(name) for name in packages}
    faults: list[RecordFault] = []
    entries: list[_Entry] = []
    for distribution in installed.distributions:
        complete = whole is None or distribution.name in whole
        if not complete and not natives_of_others:
            continue
        found, faulty = _entries(distribution)
        if faulty and complete:
            faults.append(faulty)
        entries.extend(entry for entry in found if complete or entry.native)
    # The largest first, so that no thread begins a two-gigabyte library when the others are done.
    entries.sort(key=lambda entry: -(entry.size or 0))
    with ThreadPoolExecutor(max_workers=workers or min(os.cpu_count() or 1, 8)) as pool:
        # A pool keeps what it was given until all is done: in slices, since torch alone has 15,000 files.
        for start in range(0, len(entries), _SLICE):
            compared = pool.map(_compare, entries[start : start + _SLICE])
            faults.extend(fault for fault in compared if fault is not None)
    return tuple(sorted(faults, key=lambda fault: (fault.package, fault.path)))


def check_sizes(
    installed: Installed, *, leave_out: Iterable[str] = (), made: float | None = None
) -> tuple[RecordFault, ...]:
    """Compare code and native libraries with RECORD by size, and by time with when they were installed.

    A hundred times faster than `check_record`, and blind for a change that keeps the size and sets the time
    back. Headers, data and what stands outside site-packages are passed over.

    Args:
        installed: the environment.
        leave_out: packages that are compared otherwise.
        made: when the environment was finished, seconds since the epoch; a file of a package that was
            there then may not be newer.
    """
    passed = {normalized(name) for name in leave_out}
    faults: list[RecordFault] = []
    for distribution in installed.distributions:
        if distribution.name in passed or distribution.metadata.suffix != ".dist-info":
            continue
        if not distribution.has_record:
            faults.append(_about_record(distribution, "no-record", _NO_RECORD))
            continue
        try:
            faults.extend(_wrong_sizes(distribution, made))
        except (OSError, ValueError, csv.Error) as error:
            faults.append(_about_record(distribution, "bad-record", f"RECORD cannot be read ({error})"))
    return tuple(sorted(faults, key=lambda fault: (fault.package, fault.path)))


def _wrong_sizes(distribution: Distribution, made: float | None) -> Iterator[RecordFault]:
    if made is not None and (distribution.metadata / "RECORD").stat().st_mtime > made:
        made = None  # it was installed later than the environment was made
    text = _record_text(distribution)
    lines = [line for line in text.splitlines() if line]
    if not lines:
        raise ValueError("it lists no file")
    if text.count(",") < 2 * len(lines) or "\0" in text:
        raise ValueError("its lines are not `path,hash,size`")
    root, rewritten = f"{distribution.location}{os.sep}", _is_rewritten(distribution)
    latest = float("inf") if made is None or rewritten else made
    look, code = os.stat, _CODE
    # Quoted lines are rare: names with commas. The loop runs twenty thousand times.
    rows = csv.reader(lines) if '"' in text else (line.rsplit(",", 2) for line in lines)
    for path, _, size in rows:
        # A third of torch's files are headers, which nothing reads at run time. What begins with a dot
        # stands outside: scripts, which installers write themselves.
        if not (path.endswith(code) or ".so." in path) or path[0] in "./\\":
            continue
        try:
            status = look(root + path)
            expected = status.st_size if rewritten or not size else int(size)
            sound = status.st_size == expected and status.st_mtime <= latest
            if sound and status.st_mode & _KIND == stat.S_IFREG:
                continue
        except OSError:
            pass
        yield _size_fault(distribution, path, *_wrong_size(root + path, "" if rewritten else size))


def _wrong_size(file: str, recorded: str) -> tuple[FaultKind, str]:
    """What is wrong with a file that is not as it should be."""
    try:
        status = os.stat(file)  # noqa: PTH116 - as the loop that found it
    except FileNotFoundError:
        return "missing", "the file is gone"
    except OSError as error:
        return "unreadable", error.strerror or str(error)
    if not stat.S_ISREG(status.st_mode):
        return "unreadable", "it is no file"
    if recorded and status.st_size != int(recorded):
        kind: FaultKind = "truncated" if status.st_size < int(recorded) else "altered"
        return kind, f"{status.st_size} bytes, recorded were {recorded}"
    return "altered", "it was written after the environment was made"


def _size_fault(distribution: Distribution, path: str, kind: FaultKind, detail: str) -> RecordFault:
    native = _NATIVE.search(path) is not None
    return RecordFault(package=distribution.name, path=path, kind=kind, native=native, detail=detail)


def _entries(distribution: Distribution) -> tuple[list[_Entry], RecordFault | None]:
    if distribution.metadata.suffix != ".dist-info":
        return [], None  # a package of the system, or of an old setuptools: it never had a RECORD
    if not distribution.has_record:
        kind: FaultKind = "no-record"
        return [], _about_record(distribution, kind, _NO_RECORD)
    try:
        entries = list(_parse(_record_text(distribution), distribution))
    except (OSError, ValueError, csv.Error) as error:
        return [], _about_record(distribution, "bad-record", f"RECORD cannot be read ({error})")
    if not entries:
        return [], _about_record(distribution, "bad-record", "RECORD lists no file")
    return entries, None


def _record_text(distribution: Distribution) -> str:
    record = distribution.metadata / "RECORD"
    status = record.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no file")
    if status.st_size > _LARGEST_RECORD:
        raise ValueError(f"it has {status.st_size} bytes")
    return record.read_text(encoding="utf-8")


def _is_rewritten(distribution: Distribution) -> bool:
    """Whether its installer changes the files that it installs."""
    return distribution.installer in _REWRITERS or (
        distribution.installer is None and distribution.location.name == "dist-packages"
    )


def _parse(text: str, distribution: Distribution) -> Iterator[_Entry]:
    own = distribution.metadata.name
    rewritten = _is_rewritten(distribution)
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        if not row:
            continue
        if len(row) < 3 or not row[0] or "\0" in row[0]:
            raise ValueError(f"line {number} is not `path,hash,size`")
        path = row[0].replace("\\", "/")
        algorithm, _, digest = row[1].partition("=")
        if row[2] and not (row[2].isascii() and row[2].isdigit()):
            raise ValueError(f"line {number} has the size {row[2]!r}")
        parts = PurePosixPath(path).parts
        if path.endswith((".pyc", ".pyo")) or "__pycache__" in parts:
            continue
        if parts[0] == own and parts[-1] in _INSTALLERS_OWN and len(parts) == 2:
            continue
        outside = parts[0] == ".." or path.startswith("/")
        if rewritten and (outside or not (path.endswith(".py") or _NATIVE.search(path))):
            continue
        yield _Entry(
            package=distribution.name,
            path=path,
            file=distribution.location / path,
            algorithm=algorithm,
            digest=digest.rstrip("="),
            size=int(row[2]) if row[2] else None,
            only_presence=not digest or outside or rewritten or algorithm not in _ALGORITHMS,
        )


def _compare(entry: _Entry) -> RecordFault | None:
    try:
        status = entry.file.stat()
        size = status.st_size
        if entry.only_presence:
            return None
        if not stat.S_ISREG(status.st_mode):
            return _fault(entry, "unreadable", "it is no file")
        if entry.size is not None and size != entry.size:
            kind: FaultKind = "truncated" if size < entry.size else "altered"
            return _fault(entry, kind, f"{size} bytes, recorded were {entry.size}")
        found = _hash(entry.file, entry.algorithm)
    except FileNotFoundError:
        return _fault(entry, "missing", "the file is gone")
    except OSError as error:
        return _fault(entry, "unreadable", error.strerror or str(error))
    # Some builders of distributions write hex digits, where the standard says base64.
    recorded = base64.urlsafe_b64encode(found).decode().rstrip("=")
    if entry.digest not in {recorded, found.hex()}:
        return _fault(entry, "altered", f"{entry.algorithm} is {recorded}, recorded was {entry.digest}")
    return None


def _hash(file: Path, algorithm: str) -> bytes:
    digest = hashlib.new(algorithm)
    with file.open("rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()


def _fault(entry: _Entry, kind: FaultKind, detail: str) -> RecordFault:
    return RecordFault(package=entry.package, path=entry.path, kind=kind, native=entry.native, detail=detail)


def _about_record(distribution: Distribution, kind: FaultKind, detail: str) -> RecordFault:
    return RecordFault(package=distribution.name, path="", kind=kind, native=False, detail=detail)
