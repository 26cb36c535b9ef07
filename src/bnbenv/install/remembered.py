"""Keeps the answers of the last probe for a day: `resolve` knows what was reachable without asking.

A page on disk is read again when it has changed, and a directory of wheels always.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from bnbenv.install.listing import Answer
    from bnbenv.install.sources import Index, Sources

MAX_AGE = 86_400.0  # seconds
_SCHEMA = 1
_FILE = "availability.json"
_ROUNDS = 100_000  # some 20 ms, which only those pay who have a credential for an index


def remember(
    answers: Sequence[Answer], sources: Sources, directory: Path, *, environ: Mapping[str, str], now: float
) -> None:
    """Write the answers of indexes and pages; where nothing can be written, nothing is remembered.

    Args:
        answers: of a probe; those made up offline are of no use later and are left out.
        sources: under which they were given.
        directory: bnbenv's cache directory, made if missing.
        environ: the caller's variables.
        now: seconds since the epoch.
    """
    if sources.offline:
        return
    local = {index.name: _stamp(index) for index in sources.indexes if index.local}
    entries = [
        {**_to_dict(answer), "stamp": local.get(answer.index)}
        for answer in answers
        if local.get(answer.index, []) is not None
    ]
    document = {
        "schema": _SCHEMA,
        "at": now,
        "sources": fingerprint(sources, _refusing(entries), environ),
        "answers": entries,
    }
    scratch = directory / f"{_FILE}.{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(document), encoding="utf-8")
        scratch.replace(directory / _FILE)
    except OSError:
        with contextlib.suppress(OSError):
            scratch.unlink()


def anything_kept(directory: Path) -> bool:
    """Whether answers of some age stand there, without reading them."""
    return os.path.isfile(directory / _FILE)  # noqa: PTH113 - a home that may not be entered keeps nothing


def recall(
    sources: Sources,
    directory: Path,
    *,
    environ: Mapping[str, str],
    now: float,
    max_age: float = MAX_AGE,
) -> tuple[Answer, ...] | None:
    """The remembered answers, if they are younger than `max_age` seconds and of the same sources.

    A file that cannot be read counts as none: it is only a cache.
    """
    try:
        document = json.loads((directory / _FILE).read_text(encoding="utf-8"))
        if document["schema"] != _SCHEMA or not 0 <= now - float(document["at"]) < max_age:
            return None
        if document["sources"] != fingerprint(sources, _refusing(document["answers"]), environ):
            return None
        local = {index.name: _stamp(index) for index in sources.indexes if index.local}
        return tuple(
            _from_dict(entry)
            for entry in document["answers"]
            if entry.get("stamp") == local.get(entry["index"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _stamp(index: Index) -> list[int] | None:
    """What changes with the page of an index on disk; ``None`` where there is none."""
    from bnbenv.install.listing import page_of

    page = page_of(index)
    try:
        status = page.stat() if page is not None else None
    except OSError:
        return None
    return None if status is None else [status.st_mtime_ns, status.st_size]


def _refusing(entries: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The names of the indexes that refused access."""
    problems = {entry["index"]: entry["problem"] for entry in entries}
    return frozenset(name for name, it in problems.items() if it and it["code"] == "index-forbidden")


def fingerprint(sources: Sources, refusing: frozenset[str], environ: Mapping[str, str]) -> str:
    """A digest of what decides the answers of indexes.

    Credentials are part of it, in a form that is slow to guess them from: those that stand in addresses, and
    with which an index was asked that refused, wherever that one came from.
    """
    facts = [
        [index.name, index.url, index.role, index.flat, index.credential is not None]
        for index in sources.indexes
    ]
    text = json.dumps([facts, sources.proxy, str(sources.cert), sources.trusted_hosts]).encode()
    secrets = [
        (index.name, held.username, held.password)
        for index in sources.indexes
        if (held := index.credential) is not None
    ]
    if refusing:
        from bnbenv.install.session import login  # to load it takes longer than all else here

        concerned = [index for index in sources.indexes if index.name in refusing]
        secrets += [(index.name, *found) for index in concerned if (found := login(index, environ))]
    if not secrets:
        return hashlib.sha256(text).hexdigest()
    return hashlib.pbkdf2_hmac("sha256", json.dumps(secrets).encode(), text, _ROUNDS).hex()


def _to_dict(answer: Answer) -> dict[str, Any]:
    problem = answer.problem
    return {
        "index": answer.index,
        "files": [list(entry) for entry in answer.files],
        "problem": None
        if problem is None
        else {"url": problem.url, "code": problem.code, "message": problem.message, "hint": problem.hint},
    }


def _from_dict(entry: dict[str, Any]) -> Answer:
    from bnbenv.install.listing import Answer, IndexProblem

    problem = entry["problem"]
    return Answer(
        index=str(entry["index"]),
        files=tuple((str(name), None if size is None else int(size)) for name, size in entry["files"]),
        problem=None
        if problem is None
        else IndexProblem(
            index=str(entry["index"]),
            url=str(problem["url"]),
            code=str(problem["code"]),
            message=str(problem["message"]),
            hint=str(problem["hint"]),
        ),
    )
