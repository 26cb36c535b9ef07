"""`split`: one environment per family of quantisation packages, each with the user's other packages."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, field, replace
from bnbenv.errors import BnbenvError, EnvironmentProblem, Interrupted
from bnbenv.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from packaging.requirements import Requirement

    from bnbenv.env.installed import Installed
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.workflows.create import Created
    from bnbenv.workflows.environment import Located
    from bnbenv.workflows.request import CreateRequest, LinkMode
    from bnbenv.workflows.voice import Voice

# Every environment has them, or gets its own.
_OF_EVERY_ENVIRONMENT = frozenset({"pip", "setuptools", "wheel"})
_COMPANIONS = frozenset({"torchaudio", "torchvision"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRequest:
    """One call of `split`.

    Attributes:
        cpu: CPU builds of torch.
        target: another machine that the parts are for; ``None`` for this one.
        mirrors: index name or family → address, from bnbenv's configuration.
    """

    cpu: bool = False
    target: Target | None = None
    offline: bool = False
    dry_run: bool = False
    link_mode: LinkMode = "auto"
    mirrors: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = field(default_factory=Path.cwd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One family and what goes with it.

    Attributes:
        profile: that serves it; ``None`` where bnbenv has none, and the user builds it.
        name: the environment's.
        family: the packages that make it, with their versions here.
        packages: the user's other packages, as requirements.
        note: what is maintained in the family's place; empty where the family is.
        created: what `create` answered; ``None`` where it was not called or failed.
        problem: why it failed.
    """

    profile: str | None
    name: str
    family: Mapping[str, str]
    packages: tuple[str, ...]
    note: str = ""
    created: Created | None = None
    problem: BnbenvError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The answer of `split`.

    Attributes:
        left_out: what goes nowhere, and why.
    """

    located: Located
    parts: tuple[Part, ...]
    left_out: tuple[str, ...]


def split(
    located: Located, asked: SplitRequest, voice: Voice, environ: Mapping[str, str], *, yes: bool = False
) -> Split:
    """Show what goes where, and build each part; the environment itself stays as it is.

    A part that cannot be built is told, and the others are built all the same.

    Raises:
        EnvironmentProblem: there is no family of quantisation packages in it.
        Interrupted: the user said no.
    """
    from bnbenv.machine.probe import probe
    from bnbenv.matrix.load import load
    from bnbenv.workflows.choose import JUDGED
    from bnbenv.workflows.toolchain import foretell

    installed = located.read_installed()
    target = asked.target or probe(environ=environ).target
    matrix = load(*JUDGED, platform=(target.os, target.arch))
    parts, left_out = plan(located, installed, target, matrix)
    for part in parts:
        voice.progress(f"{part.name}: {_words(part)}")
        if part.note:
            voice.progress(f"  {part.note}")
        for text in part.packages:
            voice.progress(f"  with {text}")
        row = next((row for row in matrix.profiles if row.name == part.profile), None)
        if row and (sentence := foretell(row, environ, elsewhere=asked.target is not None)):
            voice.progress(f"  it will not be built: {sentence}")
    if len(parts) < 2:
        voice.progress("one family alone stands there: nothing needs to be taken apart")
        return Split(located=located, parts=parts, left_out=left_out)
    if not asked.dry_run and not voice.confirm(
        f"build {counted(len(parts), 'environment')} beside it?", yes=yes
    ):
        raise Interrupted("nothing was changed")
    built = tuple(_build(part, asked, voice, environ) for part in parts)
    return Split(located=located, parts=built, left_out=left_out)


def plan(
    located: Located, installed: Installed, target: Target, matrix: Matrix
) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """What goes where, without asking an index.

    Args:
        target: the machine that the parts are for.
        matrix: with all that the judge reads.

    Raises:
        EnvironmentProblem: see `split`.
    """
    from bnbenv.env.additions import find_additions

    versions = installed.versions
    families = _families(located, versions, target, matrix)
    if not families:
        raise EnvironmentProblem(
            f"there is no quantisation package in `{located.directory}` to split by",
            hint="bnbenv doctor, or bnbenv create qlora (an environment of its own)",
        )
    of_profiles = {name for row in matrix.profiles for group in row.sets for name in group.packages}
    taken = {name for found in families.values() for name in found} | of_profiles | _OF_EVERY_ENVIRONMENT
    dependencies = _dependencies(installed)
    additions = find_additions(
        installed, {name: versions[name] for name in (taken | dependencies | _COMPANIONS) & versions.keys()}
    )
    # Their releases belong to one torch each, and a part may get another.
    companions = sorted(_COMPANIONS & versions.keys() - dependencies)
    others = (*(it.requirement for it in additions.packages), *companions)
    base = (located.place.link if located.place else located.directory).name  # no generation's
    parts = tuple(
        Part(
            profile=family if family in {row.name for row in matrix.profiles} else None,
            name=f"{base.lstrip('.')}-{family}",
            family={name: versions[name] for name in names},
            packages=others,
            note=_note(names, matrix),
        )
        for family, names in families.items()
    )
    return parts, additions.left


def _families(
    located: Located, versions: Mapping[str, str], target: Target, matrix: Matrix
) -> dict[str, list[str]]:
    """Family → its packages here. A package that no profile serves is a family by itself."""
    from bnbenv.workflows.hazards import profile_instead

    families: dict[str, list[str]] = {}
    if "bitsandbytes" in versions:
        families[_bitsandbytes_profile(located, versions, matrix)] = ["bitsandbytes"]
    rows = {it.package: it for it in matrix.hazards if it.instead}
    for name in dict.fromkeys(name for row in matrix.profiles for name in row.excludes):
        if name in versions and name != "bitsandbytes":
            row = rows.get(name)
            family = profile_instead(row.instead, row.successor, target, matrix) if row else None
            families.setdefault(family or name, []).append(name)
    return families


def _note(names: Iterable[str], matrix: Matrix) -> str:
    """What is maintained in place of these packages."""
    from bnbenv.workflows.hazards import successor_sentence

    successors = {it.package: it.successor for it in matrix.hazards if it.successor}
    return "; ".join(
        successor_sentence(name, successors[name], matrix) for name in names if name in successors
    )


def _bitsandbytes_profile(located: Located, versions: Mapping[str, str], matrix: Matrix) -> str:
    if located.kind == "bnbenv":
        from bnbenv.env import state

        own = state.read(located.generation.state_file).profile
        if not any(row.name == own and "bitsandbytes" in row.excludes for row in matrix.profiles):
            return own
    return "qlora" if "peft" in versions or "trl" in versions else "inference"


def _dependencies(installed: Installed) -> set[str]:
    """Packages that another one asks for, by an extra too: they come along by themselves."""
    from bnbenv.env.additions import requirements_of
    from bnbenv.markers import of_python
    from bnbenv.names import normalized

    values = of_python(installed.python)
    asked = {it.name: list(_requirements(requirements_of(it))) for it in installed.distributions}
    extras = {name: {""} for name in asked}
    while True:
        needed = [it for name, each in asked.items() for it in each if _applies(it, extras[name], values)]
        wanted = {(normalized(it.name), extra) for it in needed for extra in it.extras}
        new = [(name, extra) for name, extra in wanted if extra not in extras.get(name, {extra})]
        if not new:
            return {normalized(it.name) for it in needed}
        for name, extra in new:
            extras[name].add(extra)


def _applies(requirement: Requirement, extras: set[str], values: Mapping[str, str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**values, "extra": extra}) for extra in extras)


def _requirements(texts: Iterable[str]) -> Iterator[Requirement]:
    """Those that can be read."""
    from packaging.requirements import InvalidRequirement, Requirement

    for text in texts:
        with contextlib.suppress(InvalidRequirement):
            yield Requirement(text)


def _build(part: Part, asked: SplitRequest, voice: Voice, environ: Mapping[str, str]) -> Part:
    """Create it; with its packages' versions where they fit, and with what fits else."""
    from bnbenv.workflows.create import create

    if part.profile is None:
        voice.progress(f"{part.name}: no profile serves {', '.join(part.family)}; it is left to you")
        return part
    voice.progress(f"-- {part.name}")
    loose = tuple(text.partition("==")[0] for text in part.packages)
    for packages in dict.fromkeys((part.packages, loose)):
        try:
            created = create(_request(part, packages, asked), voice, environ, yes=True)
        except BnbenvError as problem:  # noqa: PERF203 - two rounds at most
            if not problem.no_versions or packages == loose:
                voice.progress(f"{part.name}: {problem.message}")
                return replace(part, problem=problem)
            voice.progress("the versions that stand here do not fit it: the newest that do are taken")
        else:
            return replace(part, created=created, packages=packages)
    raise AssertionError("the last round answers or fails")


def _request(part: Part, packages: tuple[str, ...], asked: SplitRequest) -> CreateRequest:
    from bnbenv.workflows.request import CreateRequest, Wanted

    return CreateRequest(
        wanted=Wanted(profile=part.profile or "", packages=packages, cpu=asked.cpu),
        name=part.name,
        target=asked.target,
        link_mode=asked.link_mode,
        offline=asked.offline,
        dry_run=asked.dry_run,
        mirrors=asked.mirrors,
        cwd=asked.cwd,
    )


def own_commands(part: Part) -> tuple[str, ...]:
    """What the user types for a family that no profile serves."""
    if part.profile is not None:
        return ()
    install = ("uv", "pip", "install", "--python", part.name, *part.family, *part.packages)
    return (shlex.join(("uv", "venv", part.name)), shlex.join(install))


def _words(part: Part) -> str:
    family = ", ".join(f"{name} {version}" for name, version in part.family.items())
    served = f"profile {part.profile}" if part.profile else "no profile of bnbenv's"
    return f"{served}, for {family}"


def unbuilt(parts: Iterable[Part]) -> tuple[Part, ...]:
    """The parts that failed."""
    return tuple(part for part in parts if part.problem is not None)
