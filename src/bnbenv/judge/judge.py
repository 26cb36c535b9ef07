"""The one judge: all rules over one stack on one target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.dataclass import replace
from bnbenv.judge import coverage
from bnbenv.judge.loader import backend_of
from bnbenv.judge.rules import RULES
from bnbenv.judge.stack import Coverage, Judgement

if TYPE_CHECKING:
    from bnbenv.judge.stack import Finding, Stack
    from bnbenv.machine.target import Gpu, Target
    from bnbenv.matrix.matrix import Matrix

_SEVERITY = {"error": 0, "warning": 1, "info": 2}


def judge(stack: Stack, target: Target, matrix: Matrix) -> Judgement:
    """What the matrix and the rules say of a stack on a machine.

    Raises:
        UsageError: the stack names a profile that the matrix does not know.
    """
    findings: list[Finding] = []
    for rule in RULES:
        findings.extend(
            found if found.source else replace(found, source=rule.source)
            for found in rule(stack, target, matrix)
        )
    findings.sort(key=lambda found: _SEVERITY[found.severity])  # stable: the order of rules among equals
    choice = coverage.chosen_library(stack, target, matrix)
    return Judgement(
        findings=tuple(findings),
        library=choice.name if choice else None,
        coverage=cover(stack, target, matrix),
    )


def cover(stack: Stack, target: Target, matrix: Matrix) -> tuple[Coverage, ...]:
    """How torch and bitsandbytes serve each GPU that the stack's process sees."""
    return tuple(
        Coverage(
            gpu=gpu,
            torch=_told(_by_torch(gpu, stack, target, matrix)),
            bitsandbytes=_told(_by_bitsandbytes(gpu, stack, target, matrix)),
        )
        for gpu in coverage.seen_gpus(stack, target)
    )


def _told(cover: coverage.Cover) -> str | None:
    return cover.text or ("unknown" if cover.state == "unknown" else None)


def _by_torch(gpu: Gpu, stack: Stack, target: Target, matrix: Matrix) -> coverage.Cover:
    if stack.torch.build == "unknown":
        return coverage.UNKNOWN
    if backend_of(stack.torch) != target.accelerator:
        return coverage.NOTHING
    return coverage.by_torch(gpu, stack.torch, target, matrix, stack.env)


def _by_bitsandbytes(gpu: Gpu, stack: Stack, target: Target, matrix: Matrix) -> coverage.Cover:
    wheel = stack.bitsandbytes
    if wheel is None or (wheel.os, wheel.arch) != (target.os, target.arch):
        return coverage.NOTHING
    choice = coverage.chosen_library(stack, target, matrix)
    if choice is None:
        return coverage.UNKNOWN
    if choice.library is None or backend_of(stack.torch) != target.accelerator:
        return coverage.NOTHING
    return coverage.by_library(gpu, choice.library, target, stack.env)
