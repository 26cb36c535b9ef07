"""Reads the parts of the matrix that a command asks for, and no other file."""

from __future__ import annotations

import gc
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bnbenv import toml
from bnbenv.errors import DataError
from bnbenv.home import data_home
from bnbenv.matrix.codec import CODECS, FieldError
from bnbenv.matrix.matrix import PARTS, Matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bnbenv.machine.target import Arch, OsName

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
    "torch_published": "torch_published.toml",
    "symptoms": "symptoms.toml",
    "implications": "symptoms.toml",
    "precedences": "symptoms.toml",
    "questions": "symptoms.toml",
    "model_types": "model_types.toml",
}
"""Which file of `compat/` holds a part. The part's name is also the name of the list inside the file."""

_MEASURED = frozenset({"bitsandbytes", "torch"})
_HEAD_BYTES = 4096
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
        if (candidate / FILES["loaders"]).is_file():
            return candidate
    raise DataError(
        f"the compatibility matrix is missing: looked in {', '.join(map(str, candidates))}",
        hint="reinstall bnbenv, or set BNBENV_COMPAT to a directory that holds it",
    )


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
        platform: of wheels and torch builds only those that an installer takes for this system and
            architecture, or for ``every`` one; ``None`` for all there are.
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
            file_name = FILES[part]
            if file_name not in documents:
                narrow = narrowing(platform, release) if platform and part in _MEASURED else None
                documents[file_name] = read_document(home / file_name, narrow=narrow)
            loaded[part] = read_rows(part, documents[file_name], home / file_name)
        added = "" if directory else _add(loaded, platform, release)
    finally:
        if collecting:
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
        if not path.is_file():
            continue
        try:
            document = read_document(path, narrow=narrowing(platform, release) if platform else None)
            loaded[part] = joined(part, loaded[part], read_rows(part, document, path))
        except DataError as error:
            raise DataError(
                error.message, hint=f"delete {path}; `bnbenv matrix update` measures it anew"
            ) from error
        newest = max(newest, str(document["revision"]))
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
        path = directory / name
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


def read_document(path: Path, *, narrow: Callable[[str], bool] | None = None) -> dict[str, Any]:
    """Read one data file as plain values, schema and revision checked.

    Args:
        narrow: which lines of a script-made file to keep: a row is a line there, and parsing is what costs.

    Raises:
        DataError: the file is missing, unreadable, or of another schema.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: the file is missing", hint="reinstall bnbenv") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    return parse_document(_narrowed(text, narrow) if narrow else text, path)


def narrowing(platform: tuple[OsName, Arch] | Literal["every"], release: str) -> Callable[[str], bool]:
    """Whether a line holds a row for a platform, or a wheel of one release.

    Other wheels tagged ``any`` are left out: all of them hold x86-64 Linux libraries, and none is chosen.
    """
    marked = "" if platform == "every" else f'"os": "{platform[0]}", "arch": "{platform[1]}"'
    named = f'{{"version": "{release}", "wheel": '

    def keep(line: str) -> bool:
        return (marked in line and '"platform": "any"' not in line) or line.startswith(named)

    return keep


def _narrowed(text: str, keep: Callable[[str], bool]) -> str:
    lines = text.splitlines()
    if len(lines) < 3 or not lines[0].endswith('"rows": [') or lines[-1] != "]}":
        return text  # somebody's own form
    return lines[0] + ",".join(line.removesuffix(",") for line in lines[1:-1] if keep(line)) + lines[-1]


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
    name = "rows" if path.suffix == ".json" else part
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
