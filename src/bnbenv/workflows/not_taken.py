"""Newer builds of torch that no rule rejects and that are not taken all the same, each with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from bnbenv.dataclass import replace
from bnbenv.judge.candidates import candidates
from bnbenv.judge.order import made_for, newest, weight
from bnbenv.judge.solve import solve
from bnbenv.judge.stack import Offers, Solution

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnbenv.judge.candidates import Candidates
    from bnbenv.judge.stack import Request
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import TorchBuild
    from bnbenv.workflows.resolve import Known

Reason = Literal["accelerator", "left-out", "unavailable", "not-listed"]
_MOST = 6  # rows; as many as are passed over by rules


def not_taken(
    request: Request,
    target: Target,
    matrix: Matrix,
    known: Known,
    chosen: Solution,
    *,
    build: str | None = None,
) -> list[dict[str, Any]]:
    """The builds of torch that would come before the chosen one, newest first, at most six.

    Of the builds that are made for another accelerator one a release is told, and only where there is none:
    elsewhere a rule rejects them, and a request for the processor leaves them out.

    Args:
        request: what is asked for; `torch` in it narrows what is told.
        target: the machine, with the Pythons that it was solved for.
        build: tell of this one alone, such as ``cu132``.
    """
    choices = candidates(request, target, matrix, Offers(builds=known.offers.builds))
    found: list[dict[str, Any]] = []
    for row, reason, summary in _reasons(choices, known, chosen):
        if build in {None, row.build} and _serves(row, request, target, matrix, chosen):
            found.append(
                {
                    "torch": row.version,
                    "build": row.build,
                    "index": row.index,
                    "reason": reason,
                    "summary": summary,
                }
            )
        if len(found) == _MOST:
            break
    return found


def _reasons(choices: Candidates, known: Known, chosen: Solution) -> Iterator[tuple[TorchBuild, Reason, str]]:
    """The builds in the judge's order, down to the chosen one, as far as something keeps them back."""
    last = chosen.stack.torch
    for rows in choices.torch:
        other = False
        for row in rows:
            if _key(row) == _key(last) or newest(last.version) < newest(row.version):
                return
            if made_for(row, choices.target):
                if (kept := _kept_back(row, choices, known)) is not None:
                    yield row, *kept
            elif choices.target.accelerator == "cpu" and not other and not _kept_back(row, choices, known):
                other = True
                yield row, "accelerator", "it is built for GPUs, and there is none"


def _kept_back(row: TorchBuild, choices: Candidates, known: Known) -> tuple[Reason, str] | None:
    """Why a build cannot be had; ``None`` where it can."""
    if row.index in known.without:
        return "left-out", f"`{row.index}` is left out, as was asked"
    if row.index in known.offers.unavailable:
        return "unavailable", f"`{row.index}` cannot be used now"
    listed = None if row in known.offers.builds else known.offers.listed.get(row.index)
    pythons = [python for python in choices.pythons if not row.pythons or python in row.pythons]
    if listed is None or not pythons or any((row.version, row.build, python) in listed for python in pythons):
        return None
    return "not-listed", f"`{row.index}` does not list it for Python {', '.join(pythons)}"


def _serves(row: TorchBuild, request: Request, target: Target, matrix: Matrix, chosen: Solution) -> bool:
    """Whether no rule says more against the build than against the chosen one."""
    found = solve(replace(request, prefer="newest"), target, matrix.with_torch((row,)), explain=False)
    if not isinstance(found, Solution):
        return False
    return not weight(found.judgement.findings) & ~weight(chosen.judgement.findings)


def _key(row: TorchBuild) -> tuple[str, str, str]:
    return row.version, row.build, row.index
