"""Answers of the judge in the shapes that commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnbenv.judge.check import Checked
    from bnbenv.judge.explain import WhyNot
    from bnbenv.judge.stack import Coverage, Finding, Request, Solution, Stack, Unsolvable
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix


def resolution_document(
    solution: Solution, target: Target, matrix: Matrix, request: Request, *, explain: bool = False
) -> dict[str, Any]:
    """The ``data`` of ``bnbenv resolve``; with `explain`, also what was passed over and why."""
    from bnbenv.judge.candidates import without_accelerator
    from bnbenv.judge.evidence import evidence

    stack = solution.stack
    wheel = stack.bitsandbytes
    if request.cpu:
        target = without_accelerator(target)
    document: dict[str, Any] = {
        "profile": request.profile,
        "target": target.name,
        "python": stack.python,
        "torch": torch_document(stack),
        "bitsandbytes": None
        if wheel is None
        else {
            "version": wheel.version,
            "wheel": wheel.wheel,
            "sha256": wheel.sha256,
            "library": solution.judgement.library,
        },
        "gpus": [coverage_document(cover) for cover in solution.judgement.coverage],
        "packages": dict(stack.packages),
        "evidence": evidence(stack, target, matrix),
        "findings": [finding_document(finding) for finding in solution.judgement.findings],
        "matrix": matrix.revision,
    }
    if explain:
        document["passed_over"] = [
            {**stack_document(rejection.stack), "finding": finding_document(rejection.finding)}
            for rejection in solution.passed_over
        ]
    return document


def unsolvable_document(
    answer: Unsolvable, target: Target, matrix: Matrix, request: Request
) -> dict[str, Any]:
    """The ``data`` of a command that found no stack."""
    return {
        "profile": request.profile,
        "target": target.name,
        "blocking": list(answer.blocking),
        "nearest": [{**stack_document(stack), "needs": list(needs)} for stack, needs in answer.nearest],
        "findings": [finding_document(finding) for finding in answer.findings],
        "matrix": matrix.revision,
    }


def check_document(checked: Checked, target: Target, matrix: Matrix) -> dict[str, Any]:
    """The ``data`` of ``bnbenv check``."""
    return {
        "target": target.name,
        **stack_document(checked.stack),
        "works": checked.judgement.works,
        "library": checked.library,
        "gpus": [coverage_document(cover) for cover in checked.judgement.coverage],
        "findings": [finding_document(finding) for finding in checked.judgement.findings],
        "matrix": matrix.revision,
    }


def why_not_document(answer: WhyNot, target: Target, matrix: Matrix) -> dict[str, Any]:
    """The ``data`` of ``bnbenv why-not``."""
    return {
        "pin": answer.pin,
        "target": target.name,
        "possible": answer.possible,
        "stack": stack_document(answer.stack) if answer.stack else None,
        "needs": list(answer.needs),
        "ways": [{**stack_document(stack), "needs": list(needs)} for stack, needs in answer.ways],
        "findings": [finding_document(finding) for finding in answer.reasons],
        "matrix": matrix.revision,
    }


def torch_document(stack: Stack) -> dict[str, Any]:
    """The torch of a stack."""
    build = stack.torch
    return {
        "version": build.version,
        "build": build.build,
        "cuda": str(build.cuda) if build.cuda else None,
        "index": build.index,
    }


def stack_document(stack: Stack) -> dict[str, Any]:
    """A stack in a few words: as ``check`` and lists of stacks name it."""
    return {
        "python": stack.python,
        "torch": stack.torch.version,
        "build": stack.torch.build,
        "index": stack.torch.index,
        "bitsandbytes": stack.bitsandbytes.version if stack.bitsandbytes else None,
        "packages": dict(stack.packages),
    }


def coverage_document(cover: Coverage) -> dict[str, Any]:
    """How one GPU is served."""
    gpu = cover.gpu
    document: dict[str, Any] = {
        "compute_capability": str(gpu.compute_capability) if gpu.compute_capability else None,
        "torch": cover.torch,
        "bitsandbytes": cover.bitsandbytes,
    }
    if gpu.gfx:
        document["gfx"] = gpu.gfx
    return document


def finding_document(finding: Finding) -> dict[str, Any]:
    """A finding, as every command prints it."""
    return {
        "code": finding.code,
        "severity": finding.severity,
        "subject": finding.subject,
        "summary": finding.summary,
        "evidence": list(finding.evidence),
        "remedy": None
        if finding.remedy is None
        else {"summary": finding.remedy.summary, "commands": list(finding.remedy.commands)},
        "source": finding.source,
    }
