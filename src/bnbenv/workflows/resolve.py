"""Choose the best stack for a machine, or say why there is none, or why it is not another one. No network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bnbenv.errors import UsageError
from bnbenv.judge.stack import Offers, Request, Solution
from bnbenv.workflows.answers import finding_to_dict, rejection_to_dict, solution_to_dict, stack_to_dict
from bnbenv.workflows.choose import JUDGED, judge_request, unsolvable, without

if TYPE_CHECKING:
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.workflows.request import Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The answer of `resolve`.

    Attributes:
        without: indexes that were left out on request.
    """

    solution: Solution
    target: Target
    matrix: Matrix
    without: tuple[str, ...]

    def to_dict(self, *, explain: bool = False) -> dict[str, Any]:
        """The envelope's ``data``."""
        data = solution_to_dict(self.solution, self.target, self.matrix.revision)
        data["without_indexes"] = list(self.without)
        if explain:
            data["passed_over"] = [rejection_to_dict(it) for it in self.solution.passed_over]
        return data


def load_matrix() -> Matrix:
    """The parts that the judge reads."""
    from bnbenv.matrix.load import load

    return load(*JUDGED)


def resolve(wanted: Wanted, target: Target, matrix: Matrix) -> Resolved:
    """The best stack, where every index that is not left out is believed to answer.

    Raises:
        UnsolvableError: no stack serves the target.
        UsageError: a version, profile or index cannot be read.
    """
    from bnbenv.judge.solve import solve

    left_out = without(wanted, matrix)
    answer = solve(judge_request(wanted), with_pythons(wanted, target), matrix, Offers(unavailable=left_out))
    if not isinstance(answer, Solution):
        raise unsolvable(answer)
    return Resolved(solution=answer, target=target, matrix=matrix, without=tuple(sorted(left_out)))


def with_pythons(wanted: Wanted, target: Target) -> Target:
    """The target with the Python that was asked for, or that uv could fetch where none is known."""
    from bnbenv.workflows.choose import DOWNLOADABLE_PYTHONS

    if wanted.python:
        return replace(target, pythons=(wanted.python,))
    return target if target.pythons else replace(target, pythons=DOWNLOADABLE_PYTHONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyNot:
    """The answer of `why-not`.

    Attributes:
        chosen: it *is* what would be chosen.
        possible: it could be had by asking for it.
        reasons: what speaks against it, a sentence each.
        needs: what would have to be otherwise.
    """

    package: str
    version: str
    chosen: bool
    possible: bool
    reasons: tuple[str, ...]
    needs: tuple[str, ...]
    data: dict[str, Any]


def why_not(package: str, version: str, wanted: Wanted, target: Target, matrix: Matrix) -> WhyNot:
    """Why a release is not what would be chosen for a machine.

    Raises:
        UsageError: the package or version is not in the matrix.
    """
    from bnbenv.judge.solve import solve

    release, _, build = version.partition("+")
    _check_known(package, release, build, matrix)
    request: Request = judge_request(wanted)
    asked = (
        replace(request, torch=f"=={release}")
        if package == "torch"
        else replace(request, bitsandbytes=f"=={release}")
    )
    if build:
        asked = replace(asked, cuda=_cuda_of(build))
    here, offers = with_pythons(wanted, target), Offers(unavailable=without(wanted, matrix))
    best, answer = solve(request, here, matrix, offers), solve(asked, here, matrix, offers)
    base: dict[str, Any] = {
        "package": package,
        "version": version,
        "target": target.name,
        "matrix": matrix.revision,
    }
    if not isinstance(answer, Solution):
        nearest = answer.nearest[:1]
        return WhyNot(
            package=package,
            version=version,
            chosen=False,
            possible=False,
            reasons=tuple(answer.blocking),
            needs=tuple(nearest[0][1]) if nearest else (),
            data={
                **base,
                "findings": [finding_to_dict(finding) for finding in answer.findings],
                "instead": None,
            },
        )
    findings = [finding_to_dict(finding) for finding in answer.judgement.findings]
    same = isinstance(best, Solution) and _of(package, best) == _of(package, answer)
    reasons: tuple[str, ...] = ()
    instead = None
    if not same and isinstance(best, Solution):
        instead = stack_to_dict(best.stack)
        reasons = tuple(
            finding.summary for finding in answer.judgement.findings if finding.severity != "info"
        ) or (f"nothing is wrong with it; {package} {_of(package, best)} ranks before it",)
    return WhyNot(
        package=package,
        version=version,
        chosen=same,
        possible=True,
        reasons=reasons,
        needs=(),
        data={**base, "findings": findings, "instead": instead},
    )


def _of(package: str, solution: Solution) -> str:
    stack = solution.stack
    if package == "torch":
        return f"{stack.torch.version} ({stack.torch.build})"
    return stack.bitsandbytes.version if stack.bitsandbytes else ""


def _cuda_of(build: str) -> str:
    from bnbenv.units import CudaVersion

    try:
        return str(CudaVersion.parse(build))
    except ValueError:
        raise UsageError(
            f"`+{build}` is no CUDA build of torch",
            hint="bnbenv why-not torch==2.9.1, or torch==2.9.1+ and a CUDA tag",
        ) from None


def _check_known(package: str, release: str, build: str, matrix: Matrix) -> None:
    if package not in {"torch", "bitsandbytes"}:
        raise UsageError(
            f"`why-not` answers for torch and bitsandbytes, not for `{package}`",
            hint="bnbenv why-not torch==2.9.1",
        )
    known = {row.version for row in (matrix.torch if package == "torch" else matrix.bitsandbytes)}
    if release not in known:
        newest = sorted(known, key=_numbers)[-3:]
        raise UsageError(
            f"the matrix (revision {matrix.revision}) holds no {package} {release}; "
            f"the newest it knows are {', '.join(newest)}",
            hint=f"bnbenv why-not {package}=={newest[-1]}" if newest else None,
        )
    if (
        build
        and package == "torch"
        and not any(row.version == release and row.build == build for row in matrix.torch)
    ):
        builds = sorted({row.build for row in matrix.torch if row.version == release})
        raise UsageError(f"torch {release} has no build `{build}`; it has {', '.join(builds)}")


def _numbers(version: str) -> tuple[int, ...]:
    import re

    return tuple(int(part) for part in re.findall(r"\d+", version))
