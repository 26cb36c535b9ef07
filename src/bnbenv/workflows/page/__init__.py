"""The matrix as one page: the judge's findings, and a script that puts them together for any machine."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass, field
from bnbenv.judge.coverage import integrated
from bnbenv.judge.facets import take_apart
from bnbenv.machine.target import Gpu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnbenv.judge.facets import Facets, Taken, Tolds
    from bnbenv.machine.target import Accelerator, Arch, OsName, Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import GpuRow, TorchBuild

SYSTEMS: tuple[tuple[OsName, Arch, str, tuple[Accelerator, ...]], ...] = (
    ("linux", "x86_64", "Linux, x86-64", ("cuda", "rocm", "xpu", "cpu")),
    ("linux", "aarch64", "Linux, aarch64", ("cuda", "cpu")),
    ("windows", "x86_64", "Windows, x86-64", ("cuda", "rocm", "xpu", "cpu")),
    ("windows", "aarch64", "Windows, Arm64", ("cuda", "cpu")),
    ("macos", "aarch64", "macOS, Apple chip", ("mps",)),
)
PARTS = ("gpus", "driver_branches", "capabilities", "architectures")
"""Beside what the judge reads."""
_SEVERITIES = {"error": 0, "warning": 1, "info": 2}
_INTEL = "Intel GPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What the page shows first."""

    system: str
    driver: str
    gpus: tuple[str, ...]

    @classmethod
    def usual(cls) -> Start:
        """A common machine, where none is named: the page is passed on, and tells nothing of its maker's."""
        return cls(system="linux-x86_64", driver="580", gpus=("NVIDIA GeForce RTX 4090",))

    @classmethod
    def of(cls, target: Target) -> Start:
        """A machine's own."""
        return cls(
            system=f"{target.os}-{target.arch}",
            driver=str(target.driver.branch) if target.driver and target.accelerator == "cuda" else "",
            gpus=tuple(_name(gpu) for gpu in target.gpus),
        )


def _name(gpu: Gpu) -> str:
    """By which the page finds it; one that was described by a number is called by that."""
    described = gpu.name.startswith(("GPU of", "AMD GPU gfx"))
    return str(gpu.compute_capability or gpu.gfx) if described else gpu.name


@dataclass(slots=True)
class _Table:
    """Findings and lists of findings, each once, named by their place."""

    told: dict[Any, int] = field(default_factory=dict)
    lists: dict[tuple[int, ...], int] = field(default_factory=dict)

    def place(self, found: Tolds) -> int:
        """The place of a list."""
        numbers = tuple(self.told.setdefault(one, len(self.told)) for one in found)
        return self.lists.setdefault(numbers, len(self.lists))


def make_page(matrix: Matrix, start: Start) -> str:
    """The page.

    Args:
        matrix: with the parts that the judge reads, and `PARTS`.
        start: what it shows before anybody chooses.
    """
    template = files(__name__).joinpath("matrix.html").read_text(encoding="utf-8")
    # A `</script>` in a text would end the data; no text needs a bare `<`.
    data = json.dumps(page_data(matrix, start), ensure_ascii=False, separators=(",", ":"))
    return template.replace("{{data}}", data.replace("<", "\\u003c"))


def page_data(matrix: Matrix, start: Start) -> dict[str, Any]:
    """Everything that the page's script reads."""
    table = _Table()
    tegra = {row.capability for row in matrix.capabilities if row.tegra}
    known = {one for row in matrix.architectures for one in row.capabilities}
    devices = {
        "cuda": tuple(str(one) for one in sorted(known - tegra)),
        "rocm": tuple(sorted({gfx for row in matrix.gpus for gfx in row.gfx})),
        "xpu": ("xpu",),
    }
    drivers = tuple(str(row.branch) for row in sorted(matrix.driver_branches, key=lambda row: row.branch))
    systems = [
        {
            "id": f"{os}-{arch}",
            "label": label,
            "kinds": {
                kind: _facets(
                    take_apart(matrix, os, arch, kind, devices=devices.get(kind, ("",)), drivers=drivers),
                    matrix,
                    table,
                )
                for kind in kinds
            },
        }
        for os, arch, label, kinds in SYSTEMS
    ]
    return {
        "revision": matrix.revision,
        "held": f"{len(matrix.bitsandbytes)} wheels of bitsandbytes, {len(matrix.torch)} builds of torch",
        "start": {"system": start.system, "driver": start.driver, "gpus": list(start.gpus)},
        "drivers": [
            [str(row.branch), str(row.cuda)]
            for row in sorted(matrix.driver_branches, key=lambda row: row.branch)
        ],
        "gpus": [*_names(matrix.gpus, set(devices["cuda"])), [_INTEL, "xpu"]],
        "systems": systems,
        "told": [
            {
                "code": one.code,
                "severity": _SEVERITIES[one.severity],
                "undecided": one.undecided,
                "summary": one.summary,
                "evidence": list(one.evidence),
                "need": one.need,
                "source": one.source,
                "order": one.order,
            }
            for one in table.told
        ],
        "lists": [list(numbers) for numbers in table.lists],
    }


def _names(rows: Sequence[GpuRow], served: set[str]) -> list[list[str]]:
    """Every product with what decides: one entry for each kind of chip sold under a name."""
    found = []
    for row in sorted(rows, key=lambda row: row.name):
        kinds = [*(str(one) for one in row.capabilities if str(one) in served), *row.gfx]
        found += [[row.name if len(kinds) == 1 else f"{row.name} ({kind})", kind] for kind in kinds]
    return found


def _facets(facets: Facets, matrix: Matrix, table: _Table) -> dict[str, Any]:
    served = _Once()
    taken = _Once()
    by_driver = _Once()
    where: dict[tuple[str, str], list[str]] = {}
    for row in matrix.torch:
        if facets.builds and (row.os, row.arch) == (facets.builds[0].os, facets.builds[0].arch):
            where.setdefault((row.version, row.build), []).append(row.index)
    builds = []
    for number, build in enumerate(facets.builds):
        told = [[table.place(under) for under in device] for device in facets.serves[number]]
        builds.append(
            {
                **_build(build, where[build.version, build.build]),
                "by": table.place(facets.by_build[number]),
                "drv": by_driver.place([table.place(under) for under in facets.by_driver[number]]),
                "serve": served.place({"told": told, "by": list(facets.torch_by[number])}),
                "pairs": [table.place(found) for found in facets.pairs[number]]
                if facets.taken[number]
                else [],
                "taken": [
                    taken.place([_taken(one, table) for one in wheel]) for wheel in facets.taken[number]
                ],
            }
        )
    return {
        "devices": list(facets.devices),
        "integrated": [
            place for place, name in enumerate(facets.devices) if integrated(Gpu(name=name, gfx=name))
        ],
        "drivers": list(facets.drivers),
        "builds": builds,
        "wheels": [
            {
                "version": wheel.version,
                "file": wheel.wheel,
                "sha256": wheel.sha256,
                "uploaded": wheel.uploaded,
                "broken": bool(wheel.broken),
            }
            for wheel in facets.wheels
        ],
        "known": [[table.place(under) for under in device] for device in facets.known],
        "byDriver": by_driver.values,
        "serves": served.values,
        "taken": taken.values,
    }


class _Once:
    """Values each once, named by their place."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, value: Any) -> int:
        key = json.dumps(value)
        if key not in self._places:
            self._places[key] = len(self.values)
            self.values.append(value)
        return self._places[key]


def _build(build: TorchBuild, indexes: Sequence[str]) -> dict[str, Any]:
    return {
        "version": build.version,
        "build": build.build,
        "indexes": sorted(set(indexes)),
        "pythons": list(build.pythons),
        "cubins": " ".join(map(str, build.cubins)),
        "how": build.provenance.how,
        "source": build.provenance.source,
    }


def _taken(taken: Taken, table: _Table) -> dict[str, Any]:
    return {
        "highest": list(taken.highest),
        "library": taken.library,
        "found": table.place(taken.found),
        "served": {str(position): table.place(found) for position, found in taken.served.items()},
        "by": {str(position): text for position, text in taken.by.items()},
    }
