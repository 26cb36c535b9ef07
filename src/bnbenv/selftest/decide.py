"""Turns the checks of the devices into one verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bnbenv.selftest.verdict import Device, Outcome

# What every profile needs of its device. Only the self-test's own levels run them.
CORE = ("quantize_4bit/nf4", "dequantize_4bit/nf4", "matmul_4bit/nf4", "linear4bit/nf4")


def outcome(devices: Iterable[Device]) -> Outcome:
    """The verdict: judged devices alone decide, and one that offers nothing has not passed."""
    judged = [device for device in devices if device.judged]
    states = {check.state for device in judged for check in device.checks}
    if not judged or states & {"failed", "crashed"} or any(missing(device) for device in judged):
        return "failed"
    return "degraded" if states & {"degraded", "known-fault"} else "passed"


def missing(device: Device) -> tuple[str, ...]:
    """The core functions of which no check passed on the device."""
    passed = [check.name for check in device.checks if check.state == "passed"]
    return tuple(name for name in CORE if not any(_belongs(check, name) for check in passed))


def _belongs(check: str, name: str) -> bool:
    return check == name or check.startswith(name + "/")
