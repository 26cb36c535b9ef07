"""The order of stacks, in this one place: which of two is the better choice.

1. no error
2. nothing undecided: every GPU served by images that are known to run, not by PTX alone
3. no warning
4. a build of torch that is made for the accelerator (on a machine without one: a CPU build, and of these
   one whose row is confirmed)
5. the newest package set of the profile, then the newest torch, bitsandbytes, Python
6. ties: the library of exactly torch's CUDA version; PyPI, then the user's own files, then other indexes;
   the newest CUDA or ROCm; names
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from bnbenv.judge import coverage
from bnbenv.judge.loader import backend_of
from bnbenv.judge.ranges import version
from bnbenv.units import RocmVersion

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from bnbenv.judge.stack import Finding, Stack
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import TorchBuild

ERROR, UNDECIDED, WARNING = 4, 2, 1
"""What weighs against a stack, as bits; `standing` puts them in order."""


def weight(findings: Iterable[Finding]) -> int:
    """The bits that findings set; infos that decide nothing set none."""
    bits = 0
    for finding in findings:
        if finding.severity == "error":
            bits |= ERROR
        if finding.undecided:
            bits |= UNDECIDED
        if finding.severity == "warning":
            bits |= WARNING
    return bits


def standing(weighs: int, target: Target, *, made: bool) -> int:
    """Steps 1 to 4 as one number, the least for the best stack; `made` says whether the build is `made_for`.

    Step 2 is about GPUs. Without one, what is undecided is a row that nobody confirmed: that its Pythons are
    not known for certain is no reason to take a build for GPUs in place of one for the CPU, so that it tells
    only builds of the same kind apart.
    """
    if target.accelerator != "cpu":
        return weighs << 1 | (not made)
    known_faults = (weighs & ERROR) << 1 | (weighs & WARNING) << 2
    return known_faults | (not made) << 1 | (weighs & UNDECIDED) >> 1


class Newest:
    """A version that sorts the newest first."""

    __slots__ = ("_key",)

    def __init__(self, text: str) -> None:
        self._key = version(text)

    def __lt__(self, other: Newest) -> bool:
        return other._key < self._key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Newest) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=4096)
def newest(text: str) -> Newest:
    """A sort key that puts the newest version first."""
    return Newest(text)


def made_for(build: TorchBuild, target: Target) -> bool:
    """Whether the build is made for the target's accelerator; macOS has one build for both of its own."""
    backend = backend_of(build)
    return backend == target.accelerator or (target.os == "macos" and backend in ("cpu", "mps"))


def index_tie(build: TorchBuild, own: frozenset[str]) -> tuple[int, tuple[int, int], str, str]:
    """The order among builds of one release: by index, then the newest CUDA or ROCm, then by name.

    `own` holds the names of indexes that are the user's files.
    """
    place = 0 if build.index == "pypi" else 1 if build.index in own else 2
    toolkit = build.cuda or (RocmVersion.parse(build.rocm) if build.rocm else (0, 0))
    return place, (-toolkit[0], -toolkit[1]), build.index, build.build


def rank(
    stack: Stack,
    findings: Iterable[Finding],
    set_place: int,
    target: Target,
    matrix: Matrix,
    own: frozenset[str] = frozenset(),
) -> tuple[Any, ...]:
    """The sort key of a judged stack; the least is the best.

    `set_place` is the place of the stack's package set in its profile, newest first; `own` holds the
    names of indexes that are the user's files.
    """
    wheel = stack.bitsandbytes
    return (
        standing(weight(findings), target, made=made_for(stack.torch, target)),
        set_place,
        newest(stack.torch.version),
        newest(wheel.version) if wheel else newest("0"),
        newest(stack.python),
        inexact(stack, target, matrix),
        index_tie(stack.torch, own),
    )


def inexact(stack: Stack, target: Target, matrix: Matrix) -> bool:
    """Whether the loader has to take another library than the one of torch's own version."""
    choice = coverage.chosen_library(stack, target, matrix)
    return choice is not None and choice.how == "nearest"
