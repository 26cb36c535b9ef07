"""What works on one machine: the judge's word on torch releases by bitsandbytes releases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.judge import lookup
from bnbenv.judge.check import fitting_python
from bnbenv.judge.coverage import l4t_major
from bnbenv.judge.judge import judge
from bnbenv.judge.loader import backend_of
from bnbenv.judge.stack import Stack
from bnbenv.units import minor_release

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bnbenv.judge.stack import Finding, Judgement
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import BitsandbytesWheel, TorchBuild


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The best that can be had of a torch release beside a bitsandbytes release.

    Attributes:
        build: the build of torch that is judged best.
        works: as the judge says.
        reason: the first finding against it; ``None`` where there is none.
    """

    bitsandbytes: str
    build: TorchBuild
    works: bool | None
    reason: Finding | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A torch release, and a cell for each bitsandbytes release."""

    torch: str
    cells: tuple[Cell, ...]


def works_table(target: Target, matrix: Matrix, *, every: bool = False) -> tuple[Line, ...]:
    """The table, newest first.

    Args:
        every: every release; by default the newest patch of each minor release.
    """
    board = l4t_major(target)
    wheels = [row for row in lookup.wheels(matrix, target.os, target.arch) if row.l4t in (None, board)]
    builds: dict[str, list[TorchBuild]] = {}
    for build in lookup.torch_builds(matrix, target.os, target.arch):
        builds.setdefault(build.version, []).append(build)
    columns = wheels if every else _newest(wheels)
    lines = []
    for release in builds if every else _newest_releases(builds):
        fitting = [one for one in builds[release] if backend_of(one) == target.accelerator] or builds[release]
        cells = tuple(_best(fitting, wheel, target, matrix) for wheel in columns)
        lines.append(Line(torch=release, cells=cells))
    return tuple(lines)


def _best(builds: Sequence[TorchBuild], wheel: BitsandbytesWheel, target: Target, matrix: Matrix) -> Cell:
    judged = []
    for build in builds:
        python = fitting_python(None, target, build, wheel)
        stack = Stack(python=python, torch=build, bitsandbytes=wheel, profile="")
        judged.append((build, judge(stack, target, matrix)))
    build, judgement = max(judged, key=_rank)
    return Cell(bitsandbytes=wheel.version, build=build, works=judgement.works, reason=_reason(judgement))


def _rank(judged: tuple[TorchBuild, Judgement]) -> tuple[int, int, bool, tuple[int, int]]:
    """Fewest troubles, then what was measured, then the newest CUDA."""
    build, judgement = judged
    works = {True: 2, None: 1, False: 0}[judgement.works]
    troubles = sum(1 for found in judgement.findings if found.severity != "info")
    return works, -troubles, build.provenance.how == "measured", build.cuda or (0, 0)


def _reason(judgement: Judgement) -> Finding | None:
    """What stands first against it: an error, else what is undecided, else a warning."""
    found = judgement.findings
    for wanted in (
        [one for one in found if one.severity == "error"],
        [one for one in found if one.undecided],
        [one for one in found if one.severity == "warning"],
    ):
        if wanted:
            return wanted[0]
    return None


def _newest(wheels: Iterable[BitsandbytesWheel]) -> tuple[BitsandbytesWheel, ...]:
    """The newest sound patch of each minor release, those for a board apart; they come newest first."""
    found: dict[tuple[str, int | None], BitsandbytesWheel] = {}
    for wheel in wheels:
        minor = (minor_release(wheel.version), wheel.l4t)
        held = found.setdefault(minor, wheel)
        if held.broken and not wheel.broken:
            found[minor] = wheel
    return tuple(found.values())


def _newest_releases(releases: Iterable[str]) -> tuple[str, ...]:
    found: dict[str, str] = {}
    for release in releases:
        found.setdefault(minor_release(release), release)
    return tuple(found.values())
