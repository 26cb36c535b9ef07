"""A verdict as JSON and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args

from bnbenv.dataclass import fields
from bnbenv.errors import UPGRADE, EnvironmentProblem
from bnbenv.selftest.verdict import Check, CheckState, Device, Level, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = 1
_KEYS = tuple(field.name for field in fields(Check))
_OUTCOMES, _LEVELS, _STATES = map(frozenset, (get_args(Outcome), get_args(Level), get_args(CheckState)))


def verdict_to_dict(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain JSON values, with a `schema`."""
    return {
        "schema": SCHEMA,
        "verdict": verdict.verdict,
        "level": verdict.level,
        "library": verdict.library,
        "devices": [
            {
                "device": device.device,
                "name": device.name,
                "judged": device.judged,
                "capability": device.capability,
                "checks": [{key: getattr(check, key) for key in _KEYS} for check in device.checks],
            }
            for device in verdict.devices
        ],
        "versions": dict(verdict.versions),
        "notes": list(verdict.notes),
        "faults": list(verdict.faults),
        "seconds": verdict.seconds,
    }


def dump(verdict: Verdict) -> bytes:
    """The verdict as the file that is kept beside an environment: hundreds of checks, in one line."""
    return (json.dumps(verdict_to_dict(verdict)) + "\n").encode()


def verdict_from_dict(data: Mapping[str, Any]) -> Verdict:
    """The verdict that `verdict_to_dict` wrote; unknown keys are left out.

    Raises:
        EnvironmentProblem: it was written by a newer bnbenv, or is none.
    """
    schema = data.get("schema", SCHEMA)
    if isinstance(schema, int) and schema > SCHEMA:
        raise EnvironmentProblem(
            f"the verdict has schema {schema}; this bnbenv knows {SCHEMA}",
            hint=UPGRADE,
            code="state-too-new",
        )
    try:
        return Verdict(
            verdict=_one_of(data["verdict"], _OUTCOMES),
            level=_one_of(data["level"], _LEVELS),
            library=data["library"],
            devices=tuple(_device(device) for device in data["devices"]),
            versions=dict(data.get("versions", {})),
            notes=tuple(data.get("notes", ())),
            faults=tuple(data.get("faults", ())),
            seconds=data.get("seconds"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EnvironmentProblem(
            f"the verdict cannot be read: {type(error).__name__} at {error}",
            hint="bnbenv verify (writes a new one)",
            code="state-broken",
        ) from error


def _device(data: Mapping[str, Any]) -> Device:
    return Device(
        device=data["device"],
        name=data["name"],
        judged=bool(data["judged"]),
        capability=data.get("capability"),
        checks=tuple(_check(check) for check in data["checks"]),
    )


def _check(data: Mapping[str, Any]) -> Check:
    _one_of(data["state"], _STATES)
    return Check(**{key: data[key] for key in _KEYS if key in data})


def _one_of(value: Any, allowed: frozenset[str]) -> Any:
    if value not in allowed:
        raise ValueError(f"`{value}`, which is none of {', '.join(sorted(allowed))}")
    return value
