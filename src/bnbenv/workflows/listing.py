"""What is told of environments: one line each for `list`, everything of one for `info`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import asdict, dataclass
from bnbenv.doctor.changes import check_base
from bnbenv.env import durable, lease, state, switch
from bnbenv.env import generation as generations
from bnbenv.errors import EnvironmentProblem
from bnbenv.judge.document import finding_document

if TYPE_CHECKING:
    from pathlib import Path

    from bnbenv.env.generation import Generation
    from bnbenv.env.layout import Layout, Place
    from bnbenv.env.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One environment in a list.

    Attributes:
        name: how commands name it.
        link: the path that users see.
        current: the generation that is current, if any.
        state: what was asked and decided, if it can be read.
        starts: whether its Python can be started: what it is built upon may be gone.
        problem: why the state cannot be read or the Python not be started, or what else it suffers from.
        generations: how many finished ones there are.
    """

    name: str
    link: Path
    current: Generation | None
    state: State | None
    starts: bool
    problem: str | None
    generations: int

    @property
    def status(self) -> str:
        """``passed``, ``degraded``, ``failed``, ``unverified`` or ``broken``."""
        if self.state is None or not self.starts:
            return "broken"
        return "unverified" if self.state.verdict == "not-run" else self.state.verdict

    def to_dict(self) -> dict[str, Any]:
        """The entry as JSON."""
        facts = self.state
        return {
            "name": self.name,
            "link": str(self.link),
            "path": str(self.current.directory) if self.current else None,
            "generation": self.current.directory.name if self.current else None,
            "generations": self.generations,
            "status": self.status,
            "profile": facts.profile if facts else None,
            "python": facts.python if facts else None,
            "torch": dict(facts.torch) if facts and facts.torch else None,
            "bitsandbytes": dict(facts.bitsandbytes) if facts and facts.bitsandbytes else None,
            "verdict": facts.verdict if facts else None,
            "created": facts.created if facts else None,
            "problem": self.problem,
        }


def entry_of(place: Place) -> Entry:
    """What can be told of one environment; a broken one is an entry too."""
    try:
        current, count = switch.current(place), len(generations.list_generations(place))
    except PermissionError as error:  # another user's, who keeps it to themselves
        current, count, facts = None, 0, None
        problem: str | None = durable.explained(error, place.generations, "read").message
    else:
        facts, problem = _read(current)
    return Entry(
        name=place.name,
        link=place.link,
        current=current,
        state=facts,
        starts=current is not None and _starts(current),
        problem=problem,
        generations=count,
    )


def _read(current: Generation | None) -> tuple[State | None, str | None]:
    """The facts of a generation, and what is wrong with it."""
    if current is None:
        return None, "its link leads to no finished generation"
    try:
        facts = state.read(current.state_file)
    except EnvironmentProblem as error:
        return None, error.message
    if not _starts(current):
        return facts, f"its Python cannot be started: `{os.path.realpath(current.python)}`"
    return facts, next((finding.summary for finding in check_base(facts)), None)


def _starts(current: Generation) -> bool:
    return os.access(current.python, os.X_OK)


def list_environments(layout: Layout) -> tuple[Entry, ...]:
    """Every environment with at least one finished generation, or a link.

    Raises:
        ExternalError: code ``permission``; environments may stand where this user may not look.
    """
    from bnbenv.workflows.environment import all_places, refuse_unreadable

    refuse_unreadable(layout)
    entries = (entry_of(place) for place in all_places(layout))
    return tuple(entry for entry in entries if entry.generations or entry.link.is_symlink())


def info(place: Place) -> dict[str, Any]:
    """Everything that is known of one environment, as JSON.

    Raises:
        EnvironmentProblem: it has no current generation, or its state cannot be read.
    """
    current = switch.require_current(place)
    facts = state.read(current.state_file)
    told = entry_of(place).to_dict()
    return {
        **told,
        "request": dict(facts.request),
        "target": dict(facts.target),
        "matrix": facts.matrix,
        "lock": {"path": str(current.lock_file), "digest": facts.lock},
        "base": asdict(facts.base) if facts.base else None,
        "findings": [
            *(finding_document(finding) for finding in check_base(facts)),
            *(dict(finding) for finding in facts.findings),
        ],
        "evidence": facts.evidence,
        "driver": facts.driver,
        "bnbenv": facts.bnbenv,
        "interpreter": str(current.python),
        "packages": packages_of(current),
        "guard": _guard_of(current),
        "let_in": list(facts.request.get("anyway", ())),
        "bytes": size_of(current.directory),
        "history": [
            {
                "generation": found.directory.name,
                "current": found.directory == current.directory,
                "in_use_by": list(lease.users(found.directory)),
            }
            for found in generations.list_generations(place)
        ],
    }


def _guard_of(generation: Generation) -> dict[str, Any] | None:
    """What is held, exactly or to ranges, and what is kept out and why; ``None`` without a guard."""
    from bnbenv.env import guard

    held = guard.read(generation.directory)
    if held is None:
        return None
    return {
        "held": dict(sorted(held.held.items())),
        "ranges": {
            name: specifier
            for name, specifier in sorted(held.ranges.items())
            if specifier and name not in held.held
        },
        "kept_out": {name: entry.why for name, entry in sorted(held.kept_out.items())},
    }


def packages_of(generation: Generation) -> dict[str, str]:
    """Name → version of what is installed, read from its metadata; empty where there is none."""
    from bnbenv.env.installed import read_installed

    try:
        return dict(sorted(read_installed(generation.directory).versions.items()))
    except EnvironmentProblem:
        return {}


def size_of(directory: Path) -> int:
    """Bytes of all files below, each inode once; what is shared with uv's cache counts here too."""
    total = 0
    seen: set[tuple[int, int]] = set()
    for parent, _, files in os.walk(directory):
        for name in files:
            try:
                status = os.lstat(os.path.join(parent, name))  # noqa: PTH118 - fifty thousand files
            except OSError:
                continue
            if status.st_nlink > 1:
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
            total += status.st_size
    return total
