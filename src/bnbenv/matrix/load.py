"""Reads the parts of the matrix that a command asks for, and no other file."""

from __future__ import annotations

import gc
import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bnbenv import toml
from bnbenv.errors import DataError
from bnbenv.home import data_home
from bnbenv.matrix.codec import CODECS, LIBRARY, FieldError
from bnbenv.matrix.matrix import PARTS, Matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bnbenv.machine.target import Arch, OsName
    from bnbenv.matrix.rows import NativeLibrary

SCHEMA = 1

FILES: Mapping[str, str] = {
    "bitsandbytes": "bitsandbytes.json",
    "torch": "torch.json",
    "gpus": "gpus.json",
    "gpus_named": "gpus_named.toml",
    "driver_floors": "drivers.toml",
    "driver_branches": "drivers.toml",
    "architectures": "drivers.toml",
    "toolkits": "toolkits.toml",
    "capabilities": "toolkits.toml",
    "forward_compatibility": "toolkits.toml",
    "indexes": "indexes.toml",
    "floors": "floors.toml",
    "profiles": "profiles.toml",
    "hazards": "hazards.toml",
    "coexistence": "coexistence.json",
    "known_faults": "known_faults.toml",
    "causes": "causes.toml",
    "loaders": "loaders.toml",
    "claims": "claims.toml",
    "broken": "broken.toml",
    "caveats": "broken.toml",
    "verified": "verified.json",
    "bitsandbytes_published": "bitsandbytes_published.toml",
    "torch_published": "torch_published.toml",
    "symptoms": "symptoms.toml",
    "implications": "symptoms.toml",
    "precedences": "symptoms.toml",
    "questions": "symptoms.toml",
    "model_types": "model_types.toml",
}
"""Which file of `compat/` holds a part. The part's name is also the name of the list inside the file.

An installed bnbenv has what is TOML here as JSON, see `hatch_build.py`.
"""

_MEASURED = frozenset({"bitsandbytes", "torch"})
_OF_A_PACKAGE = "loaders.json"  # TOML in a checkout
_HEAD_BYTES = 4096
_TOGETHER = 32  # lines
_LIBRARIES, _NO_LIBRARIES = '"libraries": [{', '"libraries": [], '
_REVISION = re.compile(rb"""^(?:\{.*)?"?revision"?\s*[=:]\s*"(\d{4}\.\d{2}\.\d{2})\"""", re.MULTILINE)


def compat_directory() -> Path:
    """Where the data files lie: ``BNBENV_COMPAT``, beside an installed package, or in the checkout.

    Raises:
        DataError: there are none.
    """
    if given := os.environ.get("BNBENV_COMPAT"):
        candidates = [Path(given)]
    else:
        package = Path(__file__).resolve().parents[1]
        candidates = [package / "_compat", package.parents[1] / "compat"]
    for candidate in candidates:
        if place(candidate, FILES["loaders"]).is_file():
            return candidate
    raise DataError(
        f"the compatibility matrix is missing: looked in {', '.join(map(str, candidates))}",
        hint="reinstall bnbenv, or set BNBENV_COMPAT to a directory that holds it",
    )


def place(directory: Path, name: str) -> Path:
    """Where a file of `FILES` lies; in place of TOML an installed bnbenv has JSON."""
    path = directory / name
    if path.suffix == ".json" or path.is_file():
        return path
    packaged = path.with_suffix(".json")
    return packaged if packaged.is_file() or (directory / _OF_A_PACKAGE).is_file() else path


def load(
    *parts: str,
    directory: Path | None = None,
    platform: tuple[OsName, Arch] | Literal["every"] | None = None,
    release: str = "",
) -> Matrix:
    """Read some parts of the matrix.

    Args:
        parts: names out of `matrix.PARTS`; none stands for all.
        directory: instead of `compat_directory()`, and without what the user's own bnbenv has measured.
        platform: of bitsandbytes only the wheels that an installer takes for this system and architecture, or
            for ``every`` one; of torch the builds for it and those for x86-64 Linux, by which the judge tells
            what a toolkit can make. Wheels tagged ``any`` are left out: all of them hold x86-64 Linux
            libraries, and none is chosen. ``None`` for all there are.
        release: also the wheels of this bitsandbytes release, for whatever platform.

    Raises:
        DataError: a file is missing or a row is invalid; the message names file, row and key.
    """
    wanted = parts or PARTS
    home = directory or compat_directory()
    documents: dict[str, dict[str, Any]] = {}
    loaded: dict[str, Any] = {}
    collecting = gc.isenabled()
    gc.disable()  # everything made here stays: looking for garbage in it is a third of the time
    try:
        for part in wanted:
            path = place(home, FILES[part])
            if FILES[part].endswith(".json"):
                loaded[part], _ = _read_part(part, path, _narrowing(part, platform, release))
                continue
            if path.name not in documents:
                documents[path.name] = read_document(path)
            loaded[part] = read_rows(part, documents[path.name], path)
        added = "" if directory else _add(loaded, platform, release)
    finally:
        if collecting:
            gc.freeze()  # nor is there any to be looked for later
            gc.enable()
    return Matrix(revision=revision(home) + (f"+{added}" if added else ""), **loaded)


def added_directory() -> Path:
    """Where rows stand that this user's bnbenv has measured, and no release of bnbenv ships yet."""
    return data_home(os.environ) / "matrix"


def _add(
    loaded: dict[str, Any], platform: tuple[OsName, Arch] | Literal["every"] | None, release: str
) -> str:
    """Join the user's own rows to those that were loaded, and give their revision, or nothing.

    Raises:
        DataError: such a file is damaged.
    """
    newest = ""
    for part in _MEASURED & loaded.keys():
        path = added_directory() / FILES[part]
        if not os.path.isfile(path):  # noqa: PTH113 - a home that may not be entered holds no rows either
            continue
        try:
            rows, added = _read_part(part, path, _narrowing(part, platform, release))
        except DataError as error:
            raise DataError(
                error.message, hint=f"delete {path}; `bnbenv matrix update` measures it anew"
            ) from error
        loaded[part] = joined(part, loaded[part], rows)
        newest = max(newest, added)
    return newest


def joined(part: str, shipped: tuple[Any, ...], added: tuple[Any, ...]) -> tuple[Any, ...]:
    """Shipped rows and added ones; of two with one key the shipped, unless only the added one is measured."""
    key = CODECS[part].key
    rows = {tuple(getattr(row, name) for name in key): row for row in shipped}
    for row in added:
        place = tuple(getattr(row, name) for name in key)
        held = rows.get(place)
        if held is None or (held.provenance.how == "published" and row.provenance.how == "measured"):
            rows[place] = row
    return tuple(rows.values())


def revision(directory: Path) -> str:
    """The newest revision among the files of the matrix, read from their heads alone."""
    newest = ""
    for name in sorted(set(FILES.values())):
        path = place(directory, name)
        try:
            with path.open("rb") as file:
                head = file.read(_HEAD_BYTES)
        except FileNotFoundError:
            continue  # an error only for those who ask for the part
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from error
        if found := _REVISION.search(head):
            newest = max(newest, found[1].decode())
    if not newest:
        raise DataError(f"{directory}: no file of the matrix tells its revision")
    return newest


def read_document(path: Path) -> dict[str, Any]:
    """Read one data file as plain values, schema and revision checked.

    Raises:
        DataError: the file is missing, unreadable, or of another schema.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: the file is missing", hint="reinstall bnbenv") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    return parse_document(text, path)


def _narrowing(
    part: str, platform: tuple[OsName, Arch] | Literal["every"] | None, release: str
) -> Callable[[str], bool] | None:
    """Whether a line is wanted; nothing where all are."""
    if platform is None or part not in _MEASURED:
        return None
    marks = [""] if platform == "every" else [f'"os": "{platform[0]}", "arch": "{platform[1]}"']
    if part == "torch":
        marks.append('"os": "linux", "arch": "x86_64"')
        return lambda line: any(mark in line for mark in marks)
    named = bare_release(release)

    def keep(line: str) -> bool:
        if marks[0] in line and '"platform": "any"' not in line:
            return True
        return bare_release(line.removeprefix('{"version": "').partition('"')[0]) == named

    return keep


def bare_release(release: str) -> str:
    """A release as it can be compared by text: ``0.46`` and ``v0.46.0`` are one."""
    return re.sub(r"(?:\.0+)+$", "", release.strip().lower().removeprefix("v"))


def _read_part(part: str, path: Path, keep: Callable[[str], bool] | None) -> tuple[tuple[Any, ...], str]:
    """The rows of a JSON file and its revision.

    Args:
        keep: which lines of a script-made file to read; one of another form is read whole.

    Raises:
        DataError: the file is missing, unreadable, of another schema, or a row is invalid.
    """
    try:
        found = _read_lines(part, path, keep)
    except (OSError, ValueError, RecursionError):  # told exactly by those who read the whole
        found = None
    if found is not None:
        return found
    document = read_document(path)
    return read_rows(part, document, path), document["revision"]


def _read_lines(
    part: str, path: Path, keep: Callable[[str], bool] | None
) -> tuple[tuple[Any, ...], str] | None:
    """The same for a script-made file, where a row is a line: few are held as plain values at a time.

    Memory that was never used before is what costs a young process most.
    """
    rows: list[Any] = []
    lines: list[str] = []
    read = _wheels if part == "bitsandbytes" else _plain_rows
    with path.open(encoding="utf-8", newline="\n") as file:
        head = file.readline()
        if not head.endswith('"rows": [\n'):
            return None
        document = parse_document(head + "]}", path)
        for line in file:
            ended = not line.startswith("{")
            if not ended and (keep is None or keep(line)):
                lines.append(line.removesuffix(",\n"))
            if ended or len(lines) == _TOGETHER:
                rows += read(part, lines)
                lines.clear()
            if ended:
                whole = line == "]}\n" and not file.read(1)
                return (tuple(rows), document["revision"]) if whole else None
    return None


def _plain_rows(part: str, lines: list[str]) -> Iterable[Any]:
    return map(CODECS[part].read, json.loads(f"[{','.join(lines)}]"))


def _wheels(part: str, lines: list[str]) -> Iterable[Any]:
    """Wheels whose libraries are read apart.

    Three of four are spelt as in the release before, and a text that was read once is not read again.
    """
    bare, libraries = [], []
    for line in lines:
        head, _, rest = line.partition(_LIBRARIES)
        held, closing, tail = rest.partition("}], ")
        bare.append(head + _NO_LIBRARIES + tail if closing else line)
        libraries.append(held.split("}, {") if closing else ())
    for row, texts in zip(_plain_rows(part, bare), libraries, strict=True):
        yield row._replace(libraries=tuple(map(_library, texts))) if texts else row


@lru_cache(maxsize=1024)
def _library(text: str) -> NativeLibrary:
    """The library that a text between braces describes."""
    return LIBRARY.read(json.loads(f"{{{text}}}"))  # type: ignore[no-any-return]


def parse_document(text: str, path: Path) -> dict[str, Any]:
    """The same for a text; `path` decides between JSON and TOML and stands in the messages.

    Raises:
        DataError: the text is malformed, or of another schema.
    """
    try:
        document = json.loads(text) if path.suffix == ".json" else toml.loads(text)
    except (ValueError, RecursionError) as error:  # both readers' errors are ValueErrors
        raise DataError(f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise DataError(f"{path}: the top must be a table")
    if document.get("schema") != SCHEMA:
        raise DataError(
            f"{path}: schema {document.get('schema')!r} is not the one this bnbenv reads ({SCHEMA})",
            hint="upgrade bnbenv, or remove BNBENV_COMPAT",
        )
    if not re.fullmatch(r"\d{4}\.\d{2}\.\d{2}", str(document.get("revision"))):
        raise DataError(f"{path}: `revision` must be YYYY.MM.DD, not {document.get('revision')!r}")
    return document


def read_rows(part: str, document: Mapping[str, Any], path: Path) -> tuple[Any, ...]:
    """The rows of a part out of a document.

    Raises:
        DataError: a row is invalid; the message names file, row and key.
    """
    name = "rows" if FILES[part].endswith(".json") else part
    entries = document.get(name)
    if not isinstance(entries, list):
        raise DataError(f"{path}: the list `{name}` is missing")
    codec = CODECS[part]
    built = []
    for number, entry in enumerate(entries, start=1):
        try:
            built.append(codec.read(entry))
        except FieldError as error:  # noqa: PERF203 - costs nothing where nothing is raised
            who = codec.identity(entry) if isinstance(entry, dict) else "not a table"
            raise DataError(f"{path}: {name} row {number} ({who}): {error}") from None
    return tuple(built)
