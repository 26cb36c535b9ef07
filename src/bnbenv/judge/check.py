"""Judges a combination that somebody names, whether the matrix has rows for it or not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, field
from bnbenv.errors import UsageError
from bnbenv.judge import coverage, lookup
from bnbenv.judge.judge import judge
from bnbenv.judge.ranges import version, within
from bnbenv.judge.stack import Stack
from bnbenv.matrix.rows import BitsandbytesWheel, Provenance, TorchBuild
from bnbenv.names import normalized
from bnbenv.units import CudaVersion, RocmVersion, minor_release

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.judge.stack import Judgement
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix

_NOWHERE = Provenance(how="published", source=lookup.NOT_IN_MATRIX, checked="", confidence="low")


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """What is to be judged, as it is typed.

    Attributes:
        torch: such as ``2.9.1+cu128``; without a local part, PyPI's build for the target.
        bitsandbytes: a version, or ``None`` for none.
        python: such as ``3.12``; ``None`` for the newest that fits.
        packages: name → version or specifier.
        profile: the purpose; ``""`` for none in particular.
    """

    torch: str
    bitsandbytes: str | None
    python: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    profile: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The answer.

    Attributes:
        library: what the release's loader takes for the CUDA version named, also where the machine has no
            GPU; ``None`` where it would find none, or nothing is known of the release.
        library_known: whether that is known.
    """

    stack: Stack
    judgement: Judgement
    library: str | None
    library_known: bool


def check(combination: Combination, target: Target, matrix: Matrix) -> Checked:
    """Whether a named combination works on a machine.

    Raises:
        UsageError: a version cannot be read, or the profile is unknown.
    """
    return checked_stack(named_stack(combination, target, matrix), target, matrix)


def checked_stack(stack: Stack, target: Target, matrix: Matrix) -> Checked:
    """The same for a stack whose rows are known."""
    choice = coverage.library_of_build(stack, target, matrix)
    wheel = stack.bitsandbytes
    elsewhere = wheel is None or (wheel.os, wheel.arch) != (target.os, target.arch)
    return Checked(
        stack=stack,
        judgement=judge(stack, target, matrix),
        library=choice.name if choice else None,
        library_known=choice is not None or elsewhere,
    )


def named_stack(combination: Combination, target: Target, matrix: Matrix) -> Stack:
    """The stack that a combination names, with the rows that stand for it.

    Raises:
        UsageError: a version cannot be read.
    """
    build = find_torch(combination.torch, target, matrix)
    wheel = (
        find_wheel(combination.bitsandbytes, target, matrix) if combination.bitsandbytes is not None else None
    )
    return Stack(
        python=fitting_python(combination.python, target, build, wheel),
        torch=build,
        bitsandbytes=wheel,
        profile=combination.profile,
        packages={normalized(name): text.removeprefix("==") for name, text in combination.packages.items()},
        env=combination.env,
    )


def find_torch(text: str, target: Target, matrix: Matrix) -> TorchBuild:
    """The row for a torch version, or one made of what the name alone tells.

    Raises:
        UsageError: the text is no version.
    """
    release, local = _split(text, "torch")
    wanted = version(release)
    rows = [
        row for row in lookup.torch_builds(matrix, target.os, target.arch) if version(row.version) == wanted
    ]
    if local is None:
        named = [row for row in rows if row.index == "pypi"] or rows
    else:
        local = _build_tag(local)
        named = [row for row in rows if row.build == local]
        if not named and local.startswith("rocm"):  # the index says 6.2.4 where the local version says 6.2
            named = [row for row in rows if row.build.startswith(local)]
        # Rows of PyPI carry the facts, rows of an index the local version: either will do.
    if named:
        return named[0]
    build, cuda, rocm = "unknown", None, None  # of somebody's own build the name tells nothing
    try:
        if local and re.fullmatch(r"cu\d{2,3}", local):
            build, cuda = local, CudaVersion.parse(local)
        elif local and local.startswith("rocm"):
            build, rocm = local, str(RocmVersion.parse(local))
        elif local in ("cpu", "xpu"):
            build = local
    except ValueError:
        raise UsageError(
            f"`{text}` names no build of torch", hint="such as `2.9.1+cu128`", code="bad-request"
        ) from None
    return TorchBuild(
        version=release,
        build=build,
        index="unknown",
        local=local,
        os=target.os,
        arch=target.arch,
        pythons=(),
        provenance=_NOWHERE,
        cuda=cuda,
        rocm=rocm,
    )


def _build_tag(local: str) -> str:
    """``cu128`` for ``cu12.8`` as well."""
    if re.fullmatch(r"cu\d+\.\d+", local):
        return CudaVersion.parse(local.removeprefix("cu")).tag
    return local


def find_wheel(text: str, target: Target, matrix: Matrix) -> BitsandbytesWheel:
    """The wheel of a release that an installer takes on the target, or the nearest thing to it.

    Where the release has no wheel for the target, one of another platform is returned, for the rules to
    say so; where the matrix does not know the release, an empty one.

    Raises:
        UsageError: the text is no version.
    """
    release, local = _split(text, "bitsandbytes")
    wanted = version(release)
    rows = [row for row in matrix.bitsandbytes if version(row.version) == wanted] if local is None else []
    for row in rows:
        if (row.os, row.arch) == (target.os, target.arch):
            return row
    if rows:
        return min(rows, key=lambda row: (row.platform != "any", row.os != target.os, row.wheel))
    return BitsandbytesWheel(
        version=release,
        wheel="",
        sha256="",
        size=0,
        platform="",
        os=target.os,
        arch=target.arch,
        uploaded="",
        requires_python=None,
        requires_torch=None,
        requires=(),
        libraries=(),
        provenance=_NOWHERE,
    )


def _split(text: str, option: str) -> tuple[str, str | None]:
    from packaging.version import InvalidVersion, Version

    try:
        read = Version(text.strip())
    except InvalidVersion:
        raise UsageError(
            f"`{text}` is not a version of {option}",
            hint="such as `2.9.1+cu128`" if option == "torch" else "such as `0.50.2`",
            code="bad-request",
        ) from None
    return read.public, read.local


def fitting_python(
    asked: str | None, target: Target, build: TorchBuild, wheel: BitsandbytesWheel | None
) -> str:
    """The Python that is meant: the one asked for, else the newest at hand that both take.

    Raises:
        UsageError: what is asked for is no version.
    """
    if asked is not None:
        from packaging.version import InvalidVersion

        try:
            version(asked)
        except InvalidVersion:
            raise UsageError(
                f"`{asked}` is not a Python version", hint="such as `3.12`", code="bad-request"
            ) from None
        return minor_release(asked)
    known = {minor_release(python) for python in target.pythons} or set(build.pythons) or {"3.12"}
    fitting = {
        python
        for python in known
        if (not build.pythons or python in build.pythons)
        and (wheel is None or not wheel.requires_python or within(python, wheel.requires_python))
    }
    # Where none at hand fits, the newest that does is meant: the machine's Pythons are not in question.
    return max(fitting or set(build.pythons) or known, key=version)
