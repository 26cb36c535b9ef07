"""The order of findings: what explains most, and what is most often the cause, first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bnbenv.judge.stack import Finding

_SEVERITY = {"error": 0, "warning": 1, "info": 2}

# A cause before its consequences: an interpreter that does not start explains everything, a damaged file
# what the loader misses, a replaced torch the library that is not there. What is not named stands last.
_ORDER = (
    "windows-environment",
    "interpreter-broken",
    "emulated-interpreter",
    "state-broken",
    "driver-broken",
    "no-gpu-visible",
    "bnb-cuda-override-wrong",
    "torch-not-installed",
    "bnb-not-installed",
    "file-damaged",
    "record-missing",
    "stale-library",
    "duplicate-package",
    "cwd-shadowing",
    "source-build-no-native-lib",
    "base-changed",
    "no-wheel-for-platform",
    "windows-no-binary",
    "macos-unsupported",
    "driver-too-old",
    "driver-drops-gpu",
    "torch-cpu-build",
    "windows-cpu-torch",
    "installer-replaced-torch",
    "torch-arch-unsupported",
    "no-kernel-image",
    "missing-cuda-binary",
    "bnb-torch-requirement",
    "triton-ops-removed",
    "hf-stack-version-mismatch",
    "environment-changed",
    "environment-moved",
    "cuda-conflict-ldpath",
    "quant-lib-presence",
)
_PLACE = {code: place for place, code in enumerate(_ORDER)}


def rank(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings, most likely cause first, each said once."""
    seen: dict[tuple[str, str, str], Finding] = {}
    for found in findings:
        seen.setdefault((found.code, found.subject, found.summary), found)
    return tuple(
        sorted(
            seen.values(), key=lambda found: (_SEVERITY[found.severity], _PLACE.get(found.code, len(_ORDER)))
        )
    )
