"""Rules on the packages beside torch and bitsandbytes: run-time floors, and packages that break others."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from bnbenv.judge import lookup
from bnbenv.judge.loader import backend_of
from bnbenv.judge.ranges import as_range, meet, members, within
from bnbenv.judge.rules.rule import finding, rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnbenv.judge.stack import Finding, Stack
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import Floor, Hazard, PackageSet, Profile


_TRITON = "triton, as torch brings it"  # no name of a package; empty where only its presence is known


def everything(stack: Stack) -> dict[str, str]:
    """Every package of the stack with its version or range, the three that stand apart included."""
    found = dict(stack.packages)
    found["torch"] = stack.torch.version
    if stack.bitsandbytes is not None:
        found["bitsandbytes"] = stack.bitsandbytes.version
    found["python"] = stack.python
    return found


@rule("torch", "bitsandbytes", "python", "packages", source="compat/floors.toml, each row with its own")
def run_time_floors_are_met(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """Each package finds what it needs of the others at run time, whatever its metadata says.

    A range in the stack is met when some release in it is; where only older ones are, that is a warning.
    """
    del target
    own = tuple(everything(stack).items())
    brings_triton = stack.torch.os == "linux" and backend_of(stack.torch) in ("cuda", "rocm")
    yield from _broken_floors(matrix, own, stack.torch.triton if brings_triton else None, brings_triton)


@lru_cache(maxsize=16384)
def _broken_floors(
    matrix: Matrix,
    packages: tuple[tuple[str, str], ...],
    triton: str | None,
    brings_triton: bool,  # noqa: FBT001 - a key of the cache
) -> tuple[Finding, ...]:
    own = dict(packages)
    if brings_triton and "triton" not in own:
        own[_TRITON] = _pinned_triton(triton) or ""
    found: list[Finding] = []
    for package, _ in packages:
        if rows := lookup.floors(matrix, package):
            judged = _exact if package in ("torch", "bitsandbytes") else _ranged
            found.extend(judged(own, package, rows))
    return tuple(found)


def _exact(own: Mapping[str, str], package: str, rows: tuple[Floor, ...]) -> Iterator[Finding]:
    for row in rows:
        if within(own[package], row.versions):
            for need in _unmet(row, own):
                yield _told(package, row, need, own)


def _ranged(own: Mapping[str, str], package: str, rows: tuple[Floor, ...]) -> Iterator[Finding]:
    text = own[package]
    broken = [row for row in rows if _unmet(row, own)]
    if not broken:
        return
    ranges = tuple(row.versions for row in rows)
    releases = members(text, *ranges)
    bad = [release for release in releases if any(within(release, row.versions) for row in broken)]
    if not bad:
        return
    certain = len(bad) == len(releases)
    for row in broken:
        if any(within(release, row.versions) for release in releases):
            for need in _unmet(row, own):
                told = _told(package, row, need, own)
                if certain:
                    yield told
                elif need != "python":  # what a release needs of Python, every installer heeds
                    yield _softened(told, package, text)


def _softened(told: Finding, package: str, text: str) -> Finding:
    """The finding for a range in which some releases are free of it."""
    return finding(
        told.code,
        "warning",
        told.subject,
        f"some releases of {package} {text} have a need that is not met",
        told.summary,
        *told.evidence,
        need=told.need,
        source=told.source,
    )


def _unmet(row: Floor, own: Mapping[str, str]) -> tuple[str, ...]:
    """The names whose need is not met; a package that is not there meets every need."""
    if "triton" in row.needs:
        return _unmet_triton(row, own)
    return tuple(
        name for name, floor in row.needs.items() if name in own and not _satisfied(own[name], floor)
    )


def _unmet_triton(row: Floor, own: Mapping[str, str]) -> tuple[str, ...]:
    """Needs on triton hold only where triton is; where its version is not told, torch's stands for it."""
    triton = own.get("triton") or own.get(_TRITON)
    if triton:
        return () if _satisfied(triton, row.needs["triton"]) else ("triton",)
    floor = row.needs.get("torch")
    if triton is None or floor is None or _satisfied(own["torch"], floor):
        return ()
    return ("torch",)


@lru_cache(maxsize=1024)
def _pinned_triton(requirement: str | None) -> str | None:
    """``3.5.0`` of ``triton==3.5.0``; ``None`` where nothing is pinned."""
    found = re.search(r"==\s*([0-9][0-9.]*)", requirement or "")
    return found[1].rstrip(".") if found else None


@lru_cache(maxsize=16384)
def _satisfied(what: str, floor: str) -> bool:
    return meet(what, floor) if floor else True


def _told(package: str, row: Floor, need: str, own: Mapping[str, str]) -> Finding:
    codes = {"triton": "triton-ops-removed", "numpy": "numpy-abi", "python": "python-unsupported"}
    code = codes.get(need, "hf-stack-version-mismatch")
    if "triton" in row.needs:
        code = "triton-ops-removed"
    elif need == "bitsandbytes":
        code = "bnb-too-old"
    elif package == "bitsandbytes" and need == "torch":
        code = "bnb-torch-requirement"
    floor = row.needs[need]
    has = own.get(need) or (own.get(_TRITON) if need == "triton" else None)
    return finding(
        code,
        "error",
        package,
        f"{package} {own[package]} needs {need} {floor} at run time",
        *((f"the stack has {need} {has}",) if has else ()),
        row.effect,
        need=f"{'Python' if need == 'python' else need} {floor}",
        source=row.provenance.source,
    )


@rule("torch", "bitsandbytes", "packages", source="compat/hazards.toml, each row with its own")
def no_package_breaks_others(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """No package stands there that breaks the others by its mere presence."""
    del target
    if not stack.packages:
        return
    own = everything(stack)
    for row in matrix.hazards:
        if row.package in stack.packages and not row.itself and hazard_applies(row, own):
            # A row that names no versions tells of a risk; one that does, of a known break.
            bounded = bool(row.versions) or any(row.when.values())
            yield finding(
                "quant-lib-presence",
                "error" if bounded else "warning",
                row.package,
                f"{row.package} {own[row.package]} breaks the others by being installed",
                row.mechanism,
                need=f"remove {row.package}",
                remedy=f"Remove {row.package}, or keep it in an environment of its own.",
                source=row.provenance.source,
            )


def hazard_applies(row: Hazard, own: Mapping[str, str]) -> bool:
    """Whether some release in the given ranges does what the row tells; ``""`` is any release."""
    if row.versions and not meet(own[row.package], row.versions):
        return False
    if any(name in own for name in row.absent):
        return False
    return all(name in own and (not text or meet(own[name], text)) for name, text in row.when.items())


@rule("bitsandbytes", "packages", source="bitsandbytes 0.49.0 to 0.50.2, backends/cpu/ops.py")
def import_asks_no_hub(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """Importing bitsandbytes fetches a kernel where the package `kernels` is and the processor suits it."""
    del matrix
    wheel = stack.bitsandbytes
    if wheel is None or "kernels" not in stack.packages or "avx512_bf16" not in (target.cpu_flags or ()):
        return
    if within(wheel.version, ">=0.49"):
        yield finding(
            "hub-at-import",
            "warning",
            "kernels",
            f"importing bitsandbytes {wheel.version} asks the Hugging Face hub for a kernel",
            f"kernels {stack.packages['kernels']} is installed, and this processor has AVX512-BF16",
            "without a network the import waits, and then goes on without that kernel",
            need="remove kernels",
            remedy="Remove `kernels`, or let nothing be asked with `HF_HUB_OFFLINE=1`.",
            commands=("export HF_HUB_OFFLINE=1",),
        )


@rule("bitsandbytes", "packages", source="compat/profiles.toml")
def profile_excludes_are_absent(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """Nothing stands there that the profile wants in an environment of its own."""
    del target
    if not stack.profile or not stack.packages:
        return
    row = lookup.profile(matrix, stack.profile)
    own = everything(stack)
    for name in row.excludes:
        if name in own:
            yield finding(
                "quant-lib-presence",
                "warning",
                name,
                f"{name} should not stand in an environment for {row.name}",
                need=f"remove {name}",
                remedy=f"Keep {name} in an environment of its own.",
                source=row.provenance.source,
            )


@rule("bitsandbytes", source="compat/profiles.toml")
def profile_has_bitsandbytes(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """The stack has bitsandbytes where every set of the profile names it."""
    del target
    if stack.bitsandbytes is not None or not stack.profile:
        return
    row = lookup.profile(matrix, stack.profile)
    if row.sets and all("bitsandbytes" in group.packages for group in row.sets):
        yield finding(
            "bnb-not-installed",
            "error",
            "bitsandbytes",
            f"the profile {row.name} needs bitsandbytes",
            need="bitsandbytes " + as_range(row.sets[0].packages["bitsandbytes"]),
        )


@rule("torch", "bitsandbytes", "python", "packages", source="compat/profiles.toml: resolved with uv")
def profile_set_takes_releases(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """A package set of the profile stands beside the releases that it was proven with."""
    del target
    if not stack.profile or not stack.packages:
        return
    row = lookup.profile(matrix, stack.profile)
    own = {"torch": stack.torch.version, "python": stack.python}
    if stack.bitsandbytes is not None:
        own["bitsandbytes"] = stack.bitsandbytes.version
    for group in row.sets:
        wanted = dict(group.packages)
        ranges = {"torch": group.torch, "python": group.python}
        ranges["bitsandbytes"] = wanted.pop("bitsandbytes", "")
        if wanted != stack.packages:
            continue
        for name, release in own.items():
            if not within(release, ranges[name]):
                yield finding(
                    "hf-stack-version-mismatch",
                    "error",
                    name,
                    f"the package set {group.name} of {row.name} was not proven with {name} {release}",
                    f"it stands beside {name} {ranges[name]}",
                    need=f"{'Python' if name == 'python' else name} {ranges[name]}",
                    source=row.provenance.source,
                )
        yield from _files_of_set(group, stack, row)
        return


def _files_of_set(group: PackageSet, stack: Stack, row: Profile) -> Iterator[Finding]:
    """The set's compiled packages are published for the platform, and linked with the toolkit."""
    build = stack.torch
    if not lookup.published_for(group, build):
        yield finding(
            "no-wheel-for-platform",
            "error",
            row.name,
            f"packages of {row.name} are published for {' and '.join(group.platforms)} alone",
            f"the machine is {build.os}-{build.arch}",
            need=f"one of {', '.join(group.platforms)}",
            source=row.provenance.source,
        )
    if not lookup.takes_toolkit(group, build):
        yield finding(
            "quant-ext-torch-abi",
            "error",
            "torch",
            f"the kernels of {row.name} were linked with CUDA {group.cuda}",
            f"torch {build.version} is built with {f'CUDA {build.cuda}' if build.cuda else 'no CUDA'}",
            need=f"torch with CUDA {group.cuda}",
            source=row.provenance.source,
        )
