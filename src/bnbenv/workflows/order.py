"""What is to be built, and what it is built with: handed along the road from a lock to an environment."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnbenv.install.uv import Uv
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.workflows.choose import Choice
    from bnbenv.workflows.request import CreateRequest
    from bnbenv.workflows.voice import Voice


@dataclass(slots=True)
class Stopwatch:
    """Seconds by phase, for the benchmark and the curious."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An environment that is to be.

    Attributes:
        request: what was asked for.
        choice: the stack, and the machine that it was chosen for.
        lock: what is stored with the environment.
        reachable: the same files under the addresses that this site has them at, where they are others.
    """

    request: CreateRequest
    choice: Choice
    lock: Pylock
    reachable: Pylock | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a command works with.

    Attributes:
        environ: the caller's variables.
    """

    uv: Uv
    voice: Voice
    environ: Mapping[str, str]
    watch: Stopwatch = field(default_factory=Stopwatch)
