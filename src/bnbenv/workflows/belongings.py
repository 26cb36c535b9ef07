"""What in bnbenv's home is bnbenv's, told by the names it gives: others may use that directory too."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from bnbenv.env import durable
from bnbenv.env import generation as generations
from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from bnbenv.env.layout import Layout, Place

# Texts, not patterns: every command that keeps a log reads this module, and wants one of them.
_HASH = r"[0-9a-f]{12}"
_STAMP = r"[0-9]{8}T[0-9]{6}-[0-9]+"
_LOG = rf"{_STAMP}\.log"
_REPORT = rf"bug-{_STAMP}\.txt"
_NOTE = rf"{_HASH}\.json"
_LOCK = rf"{_HASH}\.lock(\.d)?"
_ANSWERS = r"availability\.json(\.[0-9]+)?"
_COMPILED = r"[0-9a-f]{64}(\.[0-9]+)?"
_ROWS = r"(bitsandbytes|torch)\.json"
_ASIDE = rf"\.gone-{_HASH}"
_OF_PLACE = rf"{_ASIDE}|\.lock(\.d)?|current\.json|\.gitignore"
_TEMPORARY = r"\.(?P<of>.+)\.[0-9]+-([0-9a-f]{8}|[0-9a-f]{16})\.tmp"


def run_logs(directory: Path) -> list[Path]:
    """The logs of past runs in a directory, oldest first."""
    return _files(directory, _LOG)


def logs(layout: Layout) -> list[Path]:
    """The logs of past runs, and the reports of bnbenv's own failures."""
    return [*run_logs(layout.runs), *_files(layout.reports, _REPORT)]


def compiled(layout: Layout) -> list[Path]:
    """The compiled sources: their directory, where nothing else is in it."""
    files = _files(layout.bytecode, _COMPILED)
    whole = len(files) == len(durable.names_in(layout.bytecode))
    return [layout.bytecode] if whole and _is_directory(layout.bytecode) else files


def answers(layout: Layout) -> list[Path]:
    """What indexes answered."""
    return _files(layout.cache, _ANSWERS)


def rows(layout: Layout) -> list[Path]:
    """What this user's bnbenv has measured of releases."""
    files = _files(layout.rows, _ROWS)
    return [path for path in files if path.name != _made_for(path.name) or _holds_rows(path)]


def records(layout: Layout) -> list[Path]:
    """The notes of where environments stand, the locks of those that are others', and links half made."""
    begun = (layout.envs / name for name in durable.names_in(layout.envs) if re.fullmatch(_TEMPORARY, name))
    links = [path for path in begun if path.is_symlink()]
    return [*_files(layout.paths, _NOTE), *_files(layout.locks, _LOCK), *links]


def noted(layout: Layout) -> list[Place]:
    """The places that the notes tell, whether anything stands there or not."""
    places = (_noted_in(path, layout) for path in _files(layout.paths, _NOTE))
    return [place for place in places if place is not None]


def of_place(place: Place) -> list[Path]:
    """What stands among the generations of an environment and is bnbenv's: they, locks, what is half made."""
    if place.form == "plain":  # it stands among the user's own
        return []
    return [
        place.generations / name
        for name in durable.names_in(place.generations)
        if re.fullmatch(_OF_PLACE, _made_for(name)) or generations.is_generation(place.generations / name)
    ]


def put_aside(place: Place) -> list[Path]:
    """What could not be deleted with generations that are gone, such as a file that was open."""
    return [path for path in of_place(place) if re.fullmatch(_ASIDE, path.name)]


def is_whole(place: Place) -> bool:
    """Whether the directory of the generations holds something, and nothing that is not bnbenv's."""
    mine = of_place(place)
    return bool(mine) and len(mine) == len(durable.names_in(place.generations))


def built_in(layout: Layout) -> list[Place]:
    """The places with generations, finished or not, or with what is left of a build or of a deletion.

    Nothing need stand under their names: a first build that was killed has no link.
    """
    places = [place for place in noted(layout) if place.form == "path"]
    for name in durable.names_in(layout.generations):
        with suppress(UsageError):  # a stray file is none of ours
            places.append(layout.named(name))
    return [place for place in places if is_whole(place) or _was_built_in(place.generations)]


def _was_built_in(directory: Path) -> bool:
    names = durable.names_in(directory)
    return any(re.fullmatch(_ASIDE, name) or generations.is_generation(directory / name) for name in names)


def _files(directory: Path, names: str) -> list[Path]:
    found = []
    for name in durable.names_in(directory):
        path = directory / name
        # A lock without flock is a directory; nothing else is.
        if re.fullmatch(names, _made_for(name)) and (not _is_directory(path) or ".lock.d" in name):
            found.append(path)
    return found


def _noted_in(note: Path, layout: Layout) -> Place | None:
    try:
        record = json.loads(note.read_bytes())
        return layout.at(record["path"], generations=record["form"] == "path")
    except (OSError, ValueError, KeyError, TypeError, UsageError):
        return None


def _is_directory(path: Path) -> bool:
    # By os.path: what may not be entered, such as another user's directory, is none.
    return os.path.isdir(path) and not os.path.islink(path)  # noqa: PTH112, PTH114


def _made_for(name: str) -> str:
    """The name that a temporary entry would have become; any other name as it is."""
    match = re.fullmatch(_TEMPORARY, name) if name.endswith(".tmp") else None
    return match["of"] if match else name


def _holds_rows(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return re.match(rb'\{"schema": \d+, "revision": ', stream.read(64)) is not None
    except OSError:
        return False
