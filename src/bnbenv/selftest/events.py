"""Reads the event lines of a self-test script, and names the check at which a process died."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from bnbenv.selftest.verdict import Check, CheckState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_STATES = frozenset(get_args(CheckState))


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What one process told.

    Attributes:
        checks: those that ended, in order.
        open: the check that was begun and never ended: name, dtype, shape; ``None`` after a clean end.
        index: the script's number of the check begun last, 0 before the first.
        loaded: the facts about what was imported, empty if it did not get so far.
        done: whether the script came to its end.
    """

    checks: tuple[Check, ...]
    open: Mapping[str, Any] | None
    index: int
    loaded: Mapping[str, Any] = field(default_factory=dict)
    done: bool = False


def read_events(lines: Iterable[str]) -> Story:
    """The story that event lines tell; a line cut off by a crash, and any foreign line, is left out."""
    checks: list[Check] = []
    begun: Mapping[str, Any] | None = None
    index = 0
    loaded: Mapping[str, Any] = {}
    done = False
    for line in lines:
        event = _object(line)
        match event.get("event"):
            case "begin":
                begun = event
                index = max(index, _whole(event.get("index")))
            case "end":
                begun = None
                checks.append(_check(event))
            case "loaded":
                loaded = event
            case "done":
                done = True
            case _:
                pass
    return Story(checks=tuple(checks), open=begun, index=index, loaded=loaded, done=done)


def crashed(story: Story, how: str) -> Check:
    """The check that the process died in, with how it died.

    A process that dies between two checks is named after the last one that ended.
    """
    if story.open is not None:
        return Check(
            name=str(story.open.get("name")),
            dtype=str(story.open.get("dtype") or ""),
            state="crashed",
            shape=_mapping(story.open.get("shape")),
            detail=how,
        )
    last = story.checks[-1].name if story.checks else "the start"
    return Check(name="process", dtype="", state="crashed", detail=f"{how}, after {last}")


def _object(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _check(event: Mapping[str, Any]) -> Check:
    state: CheckState = event["state"] if event.get("state") in _STATES else "failed"
    return Check(
        name=str(event.get("name")),
        dtype=str(event.get("dtype") or ""),
        state=state,
        error=_number(event.get("error")),
        tolerance=_number(event.get("tolerance")),
        ms=_number(event.get("ms")),
        shape=_mapping(event.get("shape")),
        detail=None if event.get("detail") is None else str(event["detail"]),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
