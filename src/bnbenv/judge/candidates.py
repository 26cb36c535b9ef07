"""The stacks that a request, a target and the indexes leave to choose from."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, replace
from bnbenv.errors import UsageError
from bnbenv.judge import lookup
from bnbenv.judge.loader import backend_of
from bnbenv.judge.order import index_tie, made_for
from bnbenv.judge.ranges import specifier, version, within
from bnbenv.judge.stack import Stack
from bnbenv.machine.target import Target
from bnbenv.units import CudaVersion, minor_release

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnbenv.judge.stack import Offers, Request
    from bnbenv.machine.target import Accelerator, Arch, OsName
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import BitsandbytesWheel, PackageSet, TorchBuild


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What may be combined, each part in the order of `bnbenv.judge.order`.

    Attributes:
        target: the machine as the request wants it seen: with ``cpu`` it has no accelerator.
        sets: package sets of the profile, newest first.
        torch: builds by release, newest release first, each release's builds by preference.
        wheels: newest first; ``None`` stands for a profile without bitsandbytes.
        pythons: newest first.
        own: names of indexes that are the user's own files.
        packages: by set, the packages beside torch and bitsandbytes; the same objects for every stack.
    """

    request: Request
    target: Target
    sets: tuple[PackageSet, ...]
    torch: tuple[tuple[TorchBuild, ...], ...]
    wheels: tuple[BitsandbytesWheel | None, ...]
    pythons: tuple[str, ...]
    own: frozenset[str]
    packages: Mapping[str, Mapping[str, str]]

    def stack(
        self, group: PackageSet, build: TorchBuild, wheel: BitsandbytesWheel | None, python: str
    ) -> Stack:
        """One combination."""
        return Stack(
            python=python,
            torch=build,
            bitsandbytes=wheel,
            profile=self.request.profile,
            packages=self.packages[group.name],
            env=self.request.env,
        )

    def admits(
        self, group: PackageSet, build: TorchBuild, wheel: BitsandbytesWheel | None, python: str
    ) -> bool:
        """Whether the set's own ranges take the others in."""
        return (
            admits_build(group, build)
            and within(python, group.python)
            and admits_wheel(group, wheel)
            and (not build.pythons or python in build.pythons)
        )


def admits_build(group: PackageSet, build: TorchBuild) -> bool:
    """Whether a set stands beside the build's release, its toolkit and its platform."""
    return (
        within(build.version, group.torch)
        and lookup.takes_toolkit(group, build)
        and lookup.published_for(group, build)
    )


def admits_wheel(group: PackageSet, wheel: BitsandbytesWheel | None) -> bool:
    """Whether a set has bitsandbytes, or none, as the wheel says."""
    wanted = group.packages.get("bitsandbytes")
    if wheel is None or wanted is None:
        return wheel is None and wanted is None
    return within(wheel.version, wanted)


def candidates(request: Request, target: Target, matrix: Matrix, offers: Offers) -> Candidates:
    """All that the request leaves open.

    Raises:
        UsageError: the profile is unknown, or a version or specifier cannot be read.
    """
    _check(request)
    if request.cpu:
        target = without_accelerator(target)
    profile = lookup.profile(matrix, request.profile)
    if request.bitsandbytes is not None and not any("bitsandbytes" in it.packages for it in profile.sets):
        raise UsageError(
            f"the profile {profile.name} has no bitsandbytes, and `{request.bitsandbytes}` asks for one",
            hint="leave --bitsandbytes out, or take the profile qlora, int8 or inference",
            code="bad-request",
        )
    own = frozenset(build.index for build in offers.builds)
    releases = _releases(request, target, matrix, offers, own)
    builds = [build for release in releases for build in release]
    wheels: list[BitsandbytesWheel | None] = [
        wheel
        for wheel in lookup.wheels(matrix, target.os, target.arch)
        if request.bitsandbytes is None or within(wheel.version, request.bitsandbytes)
    ]
    if any("bitsandbytes" not in group.packages for group in profile.sets):
        wheels.append(None)
    return Candidates(
        request=request,
        target=target,
        sets=profile.sets,
        torch=releases,
        wheels=tuple(wheels),
        pythons=_pythons(request, target, builds),
        own=own,
        packages={
            group.name: {name: text for name, text in group.packages.items() if name != "bitsandbytes"}
            for group in profile.sets
        },
    )


def without_accelerator(target: Target) -> Target:
    """The machine as a process sees it that is told to leave the accelerator alone."""
    return replace(target, accelerator="cpu", gpus=(), driver=None, tegra=False, l4t=None)


def _offered(request: Request, builds: tuple[TorchBuild, ...], offers: Offers) -> Iterator[TorchBuild]:
    cuda = CudaVersion.parse(request.cuda) if request.cuda else None
    for build in builds:
        if build.index in offers.unavailable:
            continue
        if request.torch is not None and not within(build.version, request.torch):
            continue
        if cuda is not None and build.cuda != cuda:
            continue
        if request.cpu and not _for_processor(build):
            continue
        # What was seen on an index of the user's is a row of its own; the listing is about the matrix's rows.
        listed = None if build in offers.builds else offers.listed.get(build.index)
        if listed is None:
            yield build
            continue
        seen = tuple(python for python in build.pythons if (build.version, build.build, python) in listed)
        if seen:
            yield build if seen == build.pythons else build._replace(pythons=seen)


def _for_processor(build: TorchBuild) -> bool:
    """Whether it is a CPU build, macOS' only one, somebody's own that tells nothing, or a base's."""
    return backend_of(build) in ("cpu", "mps") or build.index == "base"


def _releases(
    request: Request, target: Target, matrix: Matrix, offers: Offers, own: frozenset[str]
) -> tuple[tuple[TorchBuild, ...], ...]:
    """What is offered, by release."""
    if own:
        mine = [row for row in offers.builds if (row.os, row.arch) == (target.os, target.arch)]
        rows = (*lookup.torch_builds(matrix, target.os, target.arch), *mine)
        every = _by_release(rows, target, own)
    else:
        every = _published(matrix, target.os, target.arch, target.accelerator)
    offered = (tuple(_offered(request, rows, offers)) for rows in every)
    return tuple(rows for rows in offered if rows)


@lru_cache(maxsize=64)
def _published(
    matrix: Matrix, os: OsName, arch: Arch, accelerator: Accelerator
) -> tuple[tuple[TorchBuild, ...], ...]:
    machine = Target(name="", os=os, arch=arch, accelerator=accelerator)
    return _by_release(lookup.torch_builds(matrix, os, arch), machine, frozenset())


def _by_release(
    builds: tuple[TorchBuild, ...], target: Target, own: frozenset[str]
) -> tuple[tuple[TorchBuild, ...], ...]:
    releases: dict[str, list[TorchBuild]] = {}
    for build in builds:
        releases.setdefault(build.version, []).append(build)
    return tuple(
        tuple(sorted(releases[release], key=lambda row: (not made_for(row, target), index_tie(row, own))))
        for release in sorted(releases, key=version, reverse=True)
    )


def _pythons(request: Request, target: Target, builds: list[TorchBuild]) -> tuple[str, ...]:
    every = {python for build in builds for python in build.pythons}
    at_hand = {minor_release(python) for python in target.pythons} or every
    if request.python is None:
        found = at_hand
    elif request.python[:1].isdigit():
        found = {minor_release(request.python)}
    else:
        found = {python for python in at_hand if within(python, request.python)}
    return tuple(sorted(found, key=version, reverse=True))


def _check(request: Request) -> None:
    from packaging.specifiers import InvalidSpecifier
    from packaging.version import InvalidVersion

    _check_specifier("torch", request.torch)
    _check_specifier("bitsandbytes", request.bitsandbytes)
    if request.cuda:
        try:
            CudaVersion.parse(request.cuda)
        except ValueError:
            raise UsageError(
                f"`{request.cuda}` is not a CUDA version", hint="such as `12.6`", code="bad-request"
            ) from None
    if request.python:
        try:
            if request.python[:1].isdigit():
                version(request.python)
            else:
                specifier(request.python)
        except (InvalidVersion, InvalidSpecifier):
            raise UsageError(
                f"`{request.python}` is not a Python version", hint="such as `3.12`", code="bad-request"
            ) from None


def _check_specifier(option: str, text: str | None) -> None:
    from packaging.specifiers import InvalidSpecifier

    try:
        if text is not None:
            specifier(text)
    except InvalidSpecifier:
        raise UsageError(
            f"`{text}` is not a specifier on {option}",
            hint="such as `==2.14.1` or `>=2.8,<2.10`",
            code="bad-request",
        ) from None
