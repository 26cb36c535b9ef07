"""Packages that may not come into a stack: what its profile excludes, and what breaks it by being there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.judge import lookup
from bnbenv.judge.rules.packages import everything, hazard_applies

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.judge.stack import Stack
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import Hazard


@dataclass(frozen=True, slots=True, kw_only=True)
class Barred:
    """A package that may not come in.

    Attributes:
        mechanism: what it would do.
        instead: the profile that serves what it is for; ``None`` where none does.
        successor: the profile of what is maintained in its place, where `instead` holds the package itself.
        source: where that is known from.
    """

    package: str
    mechanism: str
    instead: str | None
    successor: str | None
    source: str


def barred(stack: Stack, matrix: Matrix) -> tuple[Barred, ...]:
    """Every package, whatever its version, that the stack's environment keeps out; sorted by name."""
    row = lookup.profile(matrix, stack.profile)
    names = dict.fromkeys(row.excludes)
    own = everything(stack)
    for hazard in matrix.hazards:
        of_any_version = not hazard.versions and not hazard.itself
        if of_any_version and hazard_applies(hazard, {**own, hazard.package: ""}):
            names.setdefault(hazard.package)
    return tuple(_barred(name, stack, matrix) for name in sorted(set(names) - set(own)))


def hazards_of(stack: Stack, versions: Mapping[str, str], matrix: Matrix) -> dict[str, str]:
    """What breaks others by standing among these packages → what it does.

    Args:
        stack: for its torch, its Python and its profile.
        versions: name → exact version of all that is to stand there.
    """
    own = {**everything(stack), **versions}
    found = {
        hazard.package: hazard.mechanism
        for hazard in matrix.hazards
        if hazard.package in versions and not hazard.itself and hazard_applies(hazard, own)
    }
    for name in lookup.profile(matrix, stack.profile).excludes:
        if name in versions:
            found.setdefault(name, _barred(name, stack, matrix).mechanism)
    return found


def hazard_beside(name: str, packages: Mapping[str, str], matrix: Matrix) -> Hazard | None:
    """What a package is known to do beside others; what every release does comes before what some did.

    Args:
        packages: name → version or range of what stands there.
    """
    own = {**packages, name: ""}
    applying = (it for it in matrix.hazards if it.package == name and hazard_applies(it, own))
    return min(applying, key=lambda hazard: bool(hazard.versions), default=None)


def _barred(name: str, stack: Stack, matrix: Matrix) -> Barred:
    rows = [hazard for hazard in matrix.hazards if hazard.package == name]
    told = hazard_beside(name, everything(stack), matrix)
    apart = f"the profile {stack.profile} keeps it apart"
    if told is not None:
        mechanism = told.mechanism
    elif rows:  # elsewhere it breaks something; of what stands here that is not known
        mechanism = f"{apart}, though nothing that stands here is known to break"
    else:
        mechanism = apart
    return Barred(
        package=name,
        mechanism=mechanism,
        instead=next((row.instead for row in rows if row.instead), None),
        successor=next((row.successor for row in rows if row.successor), None),
        source=told.provenance.source if told else "compat/profiles.toml",
    )
