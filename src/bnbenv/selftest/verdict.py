"""What the self-test said, as a value; the script that produces it writes the same keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from bnbenv.dataclass import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Mapping

CheckState = Literal["passed", "failed", "not-offered", "crashed", "degraded", "known-fault"]
Outcome = Literal["passed", "degraded", "failed", "not-run"]
Level = Literal["quick", "full", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check on one device and dtype.

    Attributes:
        name: stable, such as ``dequantize_4bit/nf4/b64``.
        dtype: ``float32``, ``float16``, ``bfloat16`` or ``""``.
        state: ``not-offered`` is never counted as passed.
        error: the largest deviation from the reference, in the unit of `tolerance`.
        ms: milliseconds of the library's own call.
        shape: the facts of the case, such as ``{"rows": 2, "cols": 96, "blocksize": 64}``.
        detail: what was seen, for a person.
        fault: the id of the known fault that explains it.
    """

    name: str
    dtype: str
    state: CheckState
    error: float | None = None
    tolerance: float | None = None
    ms: float | None = None
    shape: Mapping[str, Any] = field(default_factory=dict)
    detail: str | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device and its checks.

    Attributes:
        device: ``cpu``, ``cuda:0``, …
        judged: whether the profile uses it, so that it decides the verdict.
        capability: compute capability or gfx target, ``None`` where it has none.
    """

    device: str
    name: str
    judged: bool
    checks: tuple[Check, ...]
    capability: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The self-test's answer.

    Attributes:
        library: the native library that was really loaded.
        versions: package → version as seen inside.
        notes: what else was seen: a variable that breaks it, a shadowed module, a second copy.
        faults: ids of the known faults that were met.
    """

    verdict: Outcome
    level: Level
    library: str | None
    devices: tuple[Device, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    seconds: float | None = None
