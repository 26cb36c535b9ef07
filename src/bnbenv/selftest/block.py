"""The block of text in which a self-test travels: pasted into an issue, or kept in a file of blocks.

Its body is JSON, and its last line holds the sha256 of the body, so that a block that was changed on the way
is refused. `paste.py` prints the same from a machine without bnbenv::

    {"schema": 1, "script": "<sha256 of the self-test>", "level": "full", "date": "2026-11-25",
     "platform": "Linux-6.1…", "driver": "580.95.05" | null, "verdict": "passed" | … | null,
     "library": "libbitsandbytes_cuda128.so", "versions": {"python": …, "torch": …, "bitsandbytes": …},
     "devices": [{"device": "cuda:0", "name": "…", "capability": "8.9" | "gfx1100" | null,
                  "crashed_in": null, "counts": {"passed": 391}, "failures": […]}]}

`verdict` is null where nobody compared the failures with the known faults of upstream.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.selftest.verdict import Device, Verdict

SCHEMA = 1
_SHOWN = 60  # failures listed; the counts always tell all
_KEYS = ("name", "dtype", "state", "shape", "error", "tolerance", "detail", "fault")
_BLOCK = re.compile(
    r"^----- bnbenv self-test -----\n(?P<body>.*?)\n----- sha256 (?P<digest>[0-9a-f]{64}) -----",
    re.DOTALL | re.MULTILINE,
)


def write_block(facts: Mapping[str, Any]) -> str:
    """The block of some facts, with its first and last line."""
    body = json.dumps(facts, indent=1, sort_keys=True)
    digest = hashlib.sha256(body.encode()).hexdigest()
    return f"----- bnbenv self-test -----\n{body}\n----- sha256 {digest} -----\n"


def read_blocks(text: str) -> tuple[dict[str, Any], ...]:
    """The facts of every block in a text, with anything around them left out.

    Raises:
        UsageError: there is no block, or one is not as it was printed.
    """
    found = tuple(_BLOCK.finditer(text.replace("\r\n", "\n")))
    if not found:
        raise UsageError(
            "the text holds no block of the self-test", hint="paste it with its first and last line"
        )
    return tuple(_facts(match["body"], match["digest"]) for match in found)


def facts_of(
    verdict: Verdict, *, script: str, date: str, platform: str, driver: str | None
) -> dict[str, Any]:
    """What a block tells of a verdict.

    Args:
        script: sha256 of the self-test.
        date: ISO 8601.
        platform: the system, as `platform.platform` names it.
        driver: of the accelerator; ``None`` where there is none.
    """
    return {
        "schema": SCHEMA,
        "script": script,
        "level": verdict.level,
        "date": date,
        "platform": platform,
        "driver": driver,
        "verdict": verdict.verdict,
        "library": verdict.library,
        "versions": dict(verdict.versions),
        "devices": [_device(device) for device in verdict.devices],
    }


def _device(device: Device) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for check in device.checks:
        counts[check.state] = counts.get(check.state, 0) + 1
    bad = [check for check in device.checks if check.state not in {"passed", "not-offered"}]
    return {
        "device": device.device,
        "name": device.name,
        "capability": device.capability,
        "crashed_in": next((check.name for check in bad if check.state == "crashed"), None),
        "counts": counts,
        "failures": [{key: getattr(check, key) for key in _KEYS} for check in bad[:_SHOWN]],
    }


def _facts(body: str, digest: str) -> dict[str, Any]:
    if hashlib.sha256(body.encode()).hexdigest() != digest:
        raise UsageError("the block was changed after it was printed", hint="paste it as it was printed")
    facts = json.loads(body)
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
        raise UsageError(
            f"the block is not of schema {SCHEMA}", hint="take a block of this bnbenv's `verify --record`"
        )
    return facts
