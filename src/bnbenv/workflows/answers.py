"""The judge's values as the JSON of `resolve`, `check`, `create` and `why-not`: one spelling for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnbenv.judge.stack import Coverage, Finding, Rejection, Solution, Stack
    from bnbenv.machine.target import Target


def finding_to_dict(finding: Finding) -> dict[str, Any]:
    """A finding, as DESIGN's contract has it."""
    remedy = finding.remedy
    return {
        "code": finding.code,
        "severity": finding.severity,
        "subject": finding.subject,
        "summary": finding.summary,
        "evidence": list(finding.evidence),
        "remedy": {"summary": remedy.summary, "commands": list(remedy.commands)} if remedy else None,
        "source": finding.source,
    }


def coverage_to_dict(coverage: Coverage) -> dict[str, Any]:
    """How one GPU is served."""
    gpu = coverage.gpu
    told: dict[str, Any] = {"name": gpu.name}
    if gpu.compute_capability is not None:
        told["compute_capability"] = str(gpu.compute_capability)
    if gpu.gfx is not None:
        told["gfx"] = gpu.gfx
    return {**told, "torch": coverage.torch, "bitsandbytes": coverage.bitsandbytes}


def stack_to_dict(stack: Stack) -> dict[str, Any]:
    """A stack in short, for lists of those passed over."""
    return {
        "python": stack.python,
        "torch": stack.torch.version,
        "build": stack.torch.build,
        "index": stack.torch.index,
        "bitsandbytes": stack.bitsandbytes.version if stack.bitsandbytes else None,
    }


def solution_to_dict(solution: Solution, target: Target, revision: str) -> dict[str, Any]:
    """The answer of `resolve`."""
    stack, wheel = solution.stack, solution.stack.bitsandbytes
    return {
        "profile": stack.profile,
        "target": target.name,
        "python": stack.python,
        "torch": {
            "version": stack.torch.version,
            "build": stack.torch.build,
            "cuda": str(stack.torch.cuda) if stack.torch.cuda else None,
            "index": stack.torch.index,
        },
        "bitsandbytes": {
            "version": wheel.version,
            "wheel": wheel.wheel,
            "sha256": wheel.sha256,
            "library": solution.judgement.library,
        }
        if wheel
        else None,
        "gpus": [coverage_to_dict(coverage) for coverage in solution.judgement.coverage],
        "packages": dict(stack.packages),
        # Runs on real machines are recorded by users; none of this stack's has been taken in yet.
        "evidence": "none",
        "findings": [finding_to_dict(finding) for finding in solution.judgement.findings],
        "matrix": revision,
    }


def rejection_to_dict(rejection: Rejection) -> dict[str, Any]:
    """A stack that was passed over, with the rule that rejected it."""
    return {**stack_to_dict(rejection.stack), "finding": finding_to_dict(rejection.finding)}
