"""The judge's findings taken apart by what each depends on, to be put together again for any machine.

A machine's verdict on a torch build beside a bitsandbytes wheel is the union of: what the build says by
itself, what the pair says, what the driver says of the build, what the driver says of each GPU, what the
build says of each GPU, and what the library that the loader takes says of each GPU. The loader looks at
the highest compute capability of all GPUs, the rest at one GPU at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, field, replace
from bnbenv.judge import coverage, lookup
from bnbenv.judge.check import find_torch, fitting_python
from bnbenv.judge.ranges import version
from bnbenv.judge.rules import RULES
from bnbenv.judge.rules.accelerator import build_is_for_accelerator
from bnbenv.judge.stack import Stack
from bnbenv.machine.target import Gpu, Target
from bnbenv.units import ComputeCapability, DriverVersion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnbenv.judge.rules import Rule
    from bnbenv.judge.stack import Finding
    from bnbenv.machine.target import Accelerator, Arch, OsName
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import BitsandbytesWheel, TorchBuild

_DRIVER = frozenset({"driver-runs-cuda"})
_KNOWN = frozenset({"driver-knows-gpus"})
_SERVE = frozenset({"torch-serves-gpus"})
_LOADER = frozenset(
    {
        "loader-finds-library",
        "library-dependencies-are-there",
        "rocm-libraries-are-there",
        "library-symbols-exist",
        "windows-runtime-is-named",
    }
)
_COVER = frozenset({"library-serves-gpus"})
# A page has a GPU chosen, so that what is said where none is seen never applies.
_APART = _DRIVER | _KNOWN | _SERVE | _LOADER | _COVER | frozenset({"process-sees-gpus"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A finding as a page can say it: ``{gpu}`` stands for the GPU concerned.

    Attributes:
        order: the place of its rule, which decides among findings of one severity.
    """

    code: str
    severity: str
    undecided: bool
    summary: str
    evidence: tuple[str, ...]
    need: str
    remedy: str
    source: str
    order: int


Tolds = tuple[Told, ...]
_Serving = tuple[tuple[tuple[Tolds, ...], ...], tuple["str | None", ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What the loader takes, for some highest capabilities, and what follows.

    Attributes:
        highest: positions in `Facets.devices` for which this is taken, as the highest of a machine.
        library: the file, ``None`` where none is found.
        found: what is said whatever the GPU.
        served: a device's position → what is said of it.
        by: a device's position → the image that serves it.
    """

    highest: tuple[int, ...]
    library: str | None
    found: Tolds
    served: Mapping[int, Tolds]
    by: Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facets:
    """All findings for one system and kind of accelerator.

    Attributes:
        devices: compute capabilities or gfx targets; one nameless device for kinds without any.
        drivers: branches, ascending; the last, empty one stands for an unknown driver.
        builds, wheels: rows and columns, newest first.
        by_build: what a build says whatever the machine's driver and GPUs.
        by_driver: build → driver → findings.
        known: device → driver → findings.
        serves: build → device → driver → findings; one entry stands for every driver.
        torch_by: build → device → the image that serves it.
        pairs: build → wheel → findings.
        taken: build → wheel → what the loader takes; empty for builds for another kind of accelerator,
            of which `by_build` says enough.
    """

    accelerator: Accelerator
    devices: tuple[str, ...]
    drivers: tuple[str, ...]
    builds: tuple[TorchBuild, ...]
    wheels: tuple[BitsandbytesWheel, ...]
    by_build: tuple[Tolds, ...]
    by_driver: tuple[tuple[Tolds, ...], ...]
    known: tuple[tuple[Tolds, ...], ...]
    serves: tuple[tuple[tuple[Tolds, ...], ...], ...]
    torch_by: tuple[tuple[str | None, ...], ...]
    pairs: tuple[tuple[Tolds, ...], ...]
    taken: tuple[tuple[tuple[Taken, ...], ...], ...]


@dataclass(slots=True)
class _Asked:
    """One system and kind of accelerator, and what has been asked already."""

    matrix: Matrix
    blank: Target
    devices: tuple[Gpu, ...]
    drivers: tuple[DriverVersion | None, ...]
    serve: dict[object, _Serving] = field(default_factory=dict)
    load: dict[object, tuple[Taken, ...]] = field(default_factory=dict)
    pythons: dict[object, str] = field(default_factory=dict)

    def target(self, *gpus: Gpu, driver: DriverVersion | None = None) -> Target:
        return replace(self.blank, gpus=gpus, driver=driver)

    def tell(self, names: frozenset[str], stack: Stack, target: Target) -> Tolds:
        """What the rules of these names say, notices left out, of the first GPU where there are two."""
        return tuple(
            _told(found, rule, order, stack, target)
            for order, rule in enumerate(RULES)
            if rule.name in names
            for found in rule(stack, target, self.matrix)
            if (found.severity != "info" or found.undecided) and _about_first(found, target)
        )


def take_apart(
    matrix: Matrix,
    os: OsName,
    arch: Arch,
    accelerator: Accelerator,
    *,
    devices: Sequence[str],
    drivers: Sequence[str],
) -> Facets:
    """Ask the judge for every combination that can differ.

    Args:
        devices: compute capabilities, ascending, or gfx targets; for other kinds one nameless device.
        drivers: branches, ascending.
    """
    asked = _Asked(
        matrix=matrix,
        blank=Target(name="any", os=os, arch=arch, accelerator=accelerator),
        devices=tuple(_device(text, accelerator) for text in devices),
        drivers=(*map(DriverVersion, drivers), None),
    )
    # No board is asked about, and builds for one run nowhere else.
    wheels = [row for row in matrix.bitsandbytes if (row.os, row.arch) == (os, arch) and row.l4t is None]
    wheels.sort(key=lambda wheel: version(wheel.version), reverse=True)
    builds = _builds(asked)
    stacks = [[_stack(asked, build, wheel) for wheel in wheels] for build in builds]
    alone = [replace(row[0], bitsandbytes=None) for row in stacks]
    every = frozenset(rule.name for rule in RULES)
    single = frozenset(rule.name for rule in RULES if "bitsandbytes" not in rule.reads)
    fitting = [_fits(asked, stack) for stack in alone]
    serving = [_serving(asked, stack) for stack in alone]
    return Facets(
        accelerator=accelerator,
        devices=tuple(devices),
        drivers=(*drivers, ""),
        builds=tuple(builds),
        wheels=tuple(wheels),
        by_build=tuple(asked.tell(single - _APART, stack, asked.target()) for stack in alone),
        by_driver=tuple(
            tuple(asked.tell(_DRIVER, stack, asked.target(driver=driver)) for driver in asked.drivers)
            for stack in alone
        ),
        known=tuple(
            tuple(asked.tell(_KNOWN, alone[0], asked.target(gpu, driver=driver)) for driver in asked.drivers)
            for gpu in asked.devices
        ),
        serves=tuple(table for table, _ in serving),
        torch_by=tuple(by for _, by in serving),
        pairs=tuple(
            tuple(asked.tell(every - single - _APART, stack, asked.target()) for stack in row)
            if fits
            else ((),) * len(row)  # the build itself says that it is for something else
            for row, fits in zip(stacks, fitting, strict=True)
        ),
        taken=tuple(
            tuple(_loading(asked, stack) for stack in row) if fits else ()
            for row, fits in zip(stacks, fitting, strict=True)
        ),
    )


def _about_first(found: Finding, target: Target) -> bool:
    return len(target.gpus) < 2 or found.subject == coverage.gpu_label(target.gpus[0], 0)


def _fits(asked: _Asked, stack: Stack) -> bool:
    found = build_is_for_accelerator(stack, asked.target(), asked.matrix)
    return not any(one.severity == "error" for one in found)


def _device(text: str, accelerator: Accelerator) -> Gpu:
    if accelerator == "cuda":
        return Gpu(name=text, compute_capability=ComputeCapability.parse(text))
    return Gpu(name=text, gfx=text if accelerator == "rocm" else None)


def _builds(asked: _Asked) -> list[TorchBuild]:
    """Every release and build once, newest first: the row that `check` takes for it."""
    blank = asked.blank
    rows = [row for row in lookup.torch_builds(asked.matrix, blank.os, blank.arch) if row.l4t is None]
    named = dict.fromkeys(f"{row.version}+{row.build}" for row in rows)
    return [find_torch(name, blank, asked.matrix) for name in named]


def _stack(asked: _Asked, build: TorchBuild, wheel: BitsandbytesWheel) -> Stack:
    key = (build.pythons, wheel.requires_python)
    if key not in asked.pythons:
        asked.pythons[key] = fitting_python(None, asked.blank, build, wheel)
    return Stack(python=asked.pythons[key], torch=build, bitsandbytes=wheel, profile="")


def _serving(asked: _Asked, stack: Stack) -> _Serving:
    """What torch says of each device under each driver, and the image that serves it."""
    build = stack.torch
    key = (build.cuda, build.rocm, build.build, build.cubins, build.ptx, build.provenance.how)
    if key not in asked.serve:
        # Only PTX is the driver's to compile; without any the driver makes no difference.
        drivers = asked.drivers if build.ptx else (None,)
        table = tuple(
            tuple(asked.tell(_SERVE, stack, asked.target(gpu, driver=driver)) for driver in drivers)
            for gpu in asked.devices
        )
        by = tuple(
            coverage.by_torch(gpu, build, asked.target(gpu), asked.matrix).text for gpu in asked.devices
        )
        asked.serve[key] = (table, by)
    return asked.serve[key]


def _loading(asked: _Asked, stack: Stack) -> tuple[Taken, ...]:
    """What the loader takes, for each highest device that makes a difference."""
    wheel, build = stack.bitsandbytes, stack.torch
    if wheel is None:
        return ()
    # The loader looks at the toolkit; of builds for anything else it may look at the release.
    key = (wheel.wheel, build.cuda, "" if build.cuda else (build.version, build.build))
    if key not in asked.load:
        together: dict[str, list[int]] = {}
        for position, gpu in enumerate(asked.devices):
            choice = coverage.chosen_library(stack, asked.target(gpu), asked.matrix)
            together.setdefault(repr(choice and (choice.name, choice.how, choice.wanted)), []).append(
                position
            )
        asked.load[key] = tuple(_taken(asked, stack, tuple(highest)) for highest in together.values())
    return asked.load[key]


def _taken(asked: _Asked, stack: Stack, highest: tuple[int, ...]) -> Taken:
    """For machines whose highest device is one of these: all of them get the same library."""
    top = asked.devices[highest[-1]]
    choice = coverage.chosen_library(stack, asked.target(top), asked.matrix)
    served: dict[int, Tolds] = {}
    by: dict[int, str] = {}
    for position, gpu in enumerate(asked.devices[: highest[-1] + 1]):
        machine = asked.target(gpu) if gpu is top else asked.target(gpu, top)
        if told := asked.tell(_COVER, stack, machine):
            served[position] = told
        if choice and choice.library:
            by[position] = coverage.by_library(gpu, choice.library, machine, stack.env).text or ""
    return Taken(
        highest=highest,
        library=choice.name if choice else None,
        found=asked.tell(_LOADER, stack, asked.target(top)),
        served=served,
        by={position: text for position, text in by.items() if text},
    )


def _told(found: Finding, rule: Rule, order: int, stack: Stack, target: Target) -> Told:
    """The finding in words that fit every build, wheel and GPU of which the same is said."""
    build, wheel = stack.torch, stack.bitsandbytes
    holes = {f"torch {build.version} ({build.build})": "torch {torch}"}
    if wheel is not None:
        holes[f"bitsandbytes {wheel.version}"] = "bitsandbytes {bitsandbytes}"
    if target.gpus:
        holes[coverage.gpu_label(target.gpus[0], 0)] = "{gpu}"

    def worded(text: str) -> str:
        for words, hole in holes.items():
            text = text.replace(words, hole)
        return text

    source = found.source or rule.source
    return Told(
        code=found.code,
        severity=found.severity,
        undecided=found.undecided,
        summary=worded(found.summary),
        evidence=tuple(worded(text) for text in found.evidence),
        need=worded(found.need),
        remedy=found.remedy.summary if found.remedy else "",
        source="{source}" if source == build.provenance.source else source,
        order=order,
    )
