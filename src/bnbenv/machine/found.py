"""What one vendor's look-up brings home."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.units import DriverVersion

if TYPE_CHECKING:
    from bnbenv.machine.host import DriverState, Fact
    from bnbenv.machine.target import Accelerator, Gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The answer of one vendor's drivers, tools and files.

    Attributes:
        accelerator: what its GPUs would be used as.
        state: how its driver answered.
        driver: its version, where it has one.
        gpus: usable ones only.
        facts: what was seen.
        traces: signs of GPUs that cannot be used.
    """

    accelerator: Accelerator
    state: DriverState = "absent"
    driver: DriverVersion | None = None
    gpus: tuple[Gpu, ...] = ()
    facts: tuple[Fact, ...] = ()
    traces: tuple[str, ...] = ()


def driver_version(text: str | None) -> DriverVersion | None:
    """A driver's version, whatever stands behind it."""
    match = re.match(r"\d+(?:\.\d+)+", (text or "").strip())
    return DriverVersion.parse(match[0]) if match else None
