"""What a rule is: a named pure function, the parts of the stack that it reads, and its source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bnbenv.dataclass import dataclass, replace
from bnbenv.judge import coverage
from bnbenv.judge.stack import Finding, Remedy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bnbenv.judge.stack import Severity, Stack
    from bnbenv.machine.target import Gpu, Target
    from bnbenv.matrix.matrix import Matrix

Part = Literal["torch", "bitsandbytes", "python", "packages"]
Check = "Callable[[Stack, Target, Matrix], Iterable[Finding]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of the judge.

    Attributes:
        name: what it holds, in words joined by hyphens.
        reads: the parts of the stack that it looks at. The solver asks a rule once for each combination
            of these parts, so a part that is read and not named here would make the solver err.
        source: where the rule comes from.
        check: finds what breaks the rule.
    """

    name: str
    reads: frozenset[Part]
    source: str
    check: Callable[[Stack, Target, Matrix], Iterable[Finding]]

    def __call__(self, stack: Stack, target: Target, matrix: Matrix) -> tuple[Finding, ...]:
        """The findings of this rule, each with the rule's source where it names none."""
        if stack.env and len(possible := coverage.selections(stack, target)) > 1:
            return self._of_one_of(possible, stack, target, matrix)
        return tuple(self.check(stack, target, matrix))

    def _of_one_of(
        self, possible: tuple[tuple[Gpu, ...], ...], stack: Stack, target: Target, matrix: Matrix
    ) -> tuple[Finding, ...]:
        """What holds whichever of these GPUs the process sees; what does not for all is undecided."""
        chosen = [name for name in coverage.visibility(target) if name in stack.env]
        told = f"which GPU is meant by {chosen[0]}={stack.env[chosen[0]]} is not known"
        fixed = replace(stack, env={name: text for name, text in stack.env.items() if name not in chosen})
        answers = [
            tuple(
                self.check(fixed, replace(target, gpus=tuple(replace(g, visible=True) for g in gpus)), matrix)
            )
            for gpus in possible
        ]
        if all(any(found.severity == "error" for found in answer) for answer in answers):
            return tuple(dict.fromkeys(found for answer in answers for found in answer))
        return tuple(
            found
            if all(found in answer for answer in answers)
            else replace(
                found,
                severity="warning" if found.severity == "error" else found.severity,
                evidence=(*found.evidence, told),
                undecided=True,
            )
            for found in dict.fromkeys(found for answer in answers for found in answer)
        )


def rule(*reads: Part, source: str) -> Callable[[Callable[[Stack, Target, Matrix], Iterable[Finding]]], Rule]:
    """Make a function a rule; its name becomes the rule's."""

    def decorate(check: Callable[[Stack, Target, Matrix], Iterable[Finding]]) -> Rule:
        return Rule(name=check.__name__.replace("_", "-"), reads=frozenset(reads), source=source, check=check)

    return decorate


def finding(
    code: str,
    severity: Severity,
    subject: str,
    summary: str,
    *evidence: str,
    need: str = "",
    remedy: str = "",
    commands: tuple[str, ...] = (),
    undecided: bool = False,
    source: str = "",
) -> Finding:
    """A finding, written in one call."""
    return Finding(
        code=code,
        severity=severity,
        subject=subject,
        summary=summary,
        evidence=evidence,
        remedy=Remedy(summary=remedy, commands=commands) if remedy or commands else None,
        source=source,
        undecided=undecided,
        need=need,
    )
