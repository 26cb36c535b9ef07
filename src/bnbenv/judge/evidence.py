"""Whether a stack was seen to compute rightly: on such a machine, on one like it, or nowhere yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bnbenv.dataclass import replace
from bnbenv.judge import coverage
from bnbenv.judge.candidates import candidates, without_accelerator
from bnbenv.judge.judge import judge
from bnbenv.judge.order import newest
from bnbenv.judge.ranges import version
from bnbenv.judge.solve import Search

if TYPE_CHECKING:
    from bnbenv.judge.stack import Offers, Request, Stack
    from bnbenv.machine.target import Gpu, Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import VerifiedStack

Evidence = Literal["verified", "neighbour", "none"]


def evidence(stack: Stack, target: Target, matrix: Matrix) -> Evidence:
    """What is known of a stack from real machines.

    ``verified``: its self-test passed on the same system and kind of processor with a GPU of the same compute
    capability or gfx target, for every GPU that the process sees. ``neighbour``: with one of the same
    architecture, or with another patch release or build of the same torch release beside the same
    bitsandbytes.
    """
    rows = [
        row
        for row in matrix.verified
        if (row.os, row.arch, row.accelerator) == (target.os, target.arch, target.accelerator)
        and stack.bitsandbytes is not None
        and version(row.bitsandbytes) == version(stack.bitsandbytes.version)
    ]
    gpus = coverage.seen_gpus(stack, target)
    same = [row for row in rows if (row.torch, row.build) == (stack.torch.version, stack.torch.build)]
    if same and all(any(_same(row, gpu) for row in same) for gpu in gpus):
        return "verified"
    if same and all(any(_alike(row, gpu) for row in same) for gpu in gpus):
        return "neighbour"
    near = [row for row in rows if _minor(row.torch) == _minor(stack.torch.version)]
    if near and all(any(_alike(row, gpu) for row in near) for gpu in gpus):
        return "neighbour"
    return "none"


def newest_verified(request: Request, target: Target, matrix: Matrix, offers: Offers) -> Stack | None:
    """The newest stack that was verified on such a machine and has no error now; ``None`` where none is.

    Raises:
        UsageError: the request cannot be read.
    """
    seen = without_accelerator(target) if request.cpu else target
    pairs = {(row.torch, row.build, row.bitsandbytes) for row in matrix.verified}
    for torch, build, release in sorted(pairs, key=lambda pair: (newest(pair[0]), newest(pair[2]), pair[1])):
        choices = candidates(request, target, matrix, offers)
        narrowed = replace(
            choices,
            torch=tuple(
                rows
                for release_rows in choices.torch
                if (rows := tuple(row for row in release_rows if (row.version, row.build) == (torch, build)))
            ),
            wheels=tuple(wheel for wheel in choices.wheels if wheel and wheel.version == release),
        )
        stack = Search(narrowed, matrix).best()
        if (
            stack is not None
            and evidence(stack, seen, matrix) == "verified"
            and judge(stack, seen, matrix).works
        ):
            return stack
    return None


def _same(row: VerifiedStack, gpu: Gpu) -> bool:
    return row.capability is not None and row.capability in (str(gpu.compute_capability), gpu.gfx)


def _alike(row: VerifiedStack, gpu: Gpu) -> bool:
    """Whether both are of one major version of compute capability, or of one family of gfx targets."""
    if row.capability is None:
        return False
    if gpu.compute_capability is not None:
        return row.capability.split(".")[0] == str(gpu.compute_capability.major)
    return gpu.gfx is not None and row.capability[:-2] == gpu.gfx[:-2]


def _minor(release: str) -> tuple[int, ...]:
    return version(release).release[:2]
