"""Choose the best stack for a machine, or say why it is not another one, without asking the network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bnbenv.dataclass import dataclass, replace
from bnbenv.errors import UnsolvableError
from bnbenv.judge.document import resolution_document, unsolvable_document, why_not_document
from bnbenv.judge.stack import Offers, Solution, Unsolvable
from bnbenv.workflows.choose import (
    DOWNLOADABLE_PYTHONS,
    JUDGED,
    given_up,
    judge_request,
    pinned_indexes,
    unsolvable,
    without,
)
from bnbenv.workflows.not_taken import not_taken

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bnbenv.judge.stack import Request
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.workflows.request import Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of the indexes without asking them.

    Attributes:
        how: ``assumed``: every configured index is believed to answer; ``remembered``: as they did less than
            a day ago.
        without: what was left out on request.
    """

    offers: Offers
    how: Literal["assumed", "remembered"]
    without: tuple[str, ...]


def load_matrix(target: Target | None = None, *, release: str | None = None) -> Matrix:
    """The parts that the judge reads, without what can never be chosen.

    Args:
        target: only the rows that can be chosen for it; those for every platform by default.
        release: and those of this bitsandbytes release for other platforms, so that they can be named.
    """
    from bnbenv.matrix.load import load

    return load(*JUDGED, platform=(target.os, target.arch) if target else "every", release=release or "")


def known_indexes(
    wanted: Wanted, matrix: Matrix, mirrors: Mapping[str, str], environ: Mapping[str, str]
) -> Known:
    """What the last probe found, if it is young enough, less what is left out.

    Raises:
        UsageError: there is no such index, or a configuration cannot be read.
    """
    from bnbenv.env.layout import Layout
    from bnbenv.install.remembered import anything_kept

    left_out = without(wanted, matrix)
    memory = Layout.find(environ).cache
    found = None
    if anything_kept(memory):
        from bnbenv.install.availability import recalled
        from bnbenv.install.sources import read_sources

        sources = read_sources(environ=environ, cwd=Path.cwd(), index_rows=matrix.indexes, mirrors=mirrors)
        found = recalled(
            sources, memory=memory, environ=environ, known=matrix.torch, all_names=pinned_indexes(matrix)
        )
    offers = found.offers() if found else Offers()
    return Known(
        offers=replace(offers, unavailable=offers.unavailable | left_out),
        how="remembered" if found else "assumed",
        without=tuple(sorted(left_out)),
    )


def resolve(
    wanted: Wanted, target: Target, matrix: Matrix, known: Known, *, explain: bool = False
) -> dict[str, Any]:
    """The best stack, as the ``data`` of `resolve`, and what indexes cost that did not answer.

    Raises:
        UnsolvableError: no stack serves the target.
        UsageError: a version or the profile cannot be read.
    """
    data = resolver(wanted, matrix, known, explain=explain)(target)
    lost: tuple[str, ...] = ()
    if known.offers.unavailable - set(known.without) or known.offers.listed:
        everywhere = Offers(builds=known.offers.builds, unavailable=frozenset(known.without))
        best = resolver(wanted, matrix, replace(known, offers=everywhere))(target)
        lost = given_up(best["torch"], data["torch"])
    return {**data, "given_up": list(lost)}


def resolver(
    wanted: Wanted, matrix: Matrix, known: Known, *, explain: bool = False
) -> Callable[[Target], dict[str, Any]]:
    """`resolve` for one machine after another: those that no rule can tell apart are solved once.

    Raises:
        UsageError: a version cannot be read.
    """
    from bnbenv.judge.classes import Fleet

    request = judge_request(wanted)
    fleet = Fleet(request, matrix, known.offers)

    def answer(target: Target) -> dict[str, Any]:
        machine = with_pythons(wanted, target)
        found = fleet.solve(machine, explain=explain)
        if isinstance(found, Unsolvable) and wanted.python is None and _by_its_pythons(found):
            machine = replace(target, pythons=DOWNLOADABLE_PYTHONS)  # as `create`, which lets uv fetch one
            second = fleet.solve(machine, explain=explain)
            found = second if isinstance(second, Solution) else found
        if not isinstance(found, Solution):
            raise _as_document(unsolvable(found), unsolvable_document(found, target, matrix, request))
        data = resolution_document(found, target, matrix, request, explain=explain)
        if explain:
            data["not_taken"] = not_taken(request, machine, matrix, known, found)
        return {
            **data,
            "python_at_hand": not target.pythons or found.stack.python in target.pythons,
            "indexes": known.how,
            "without_indexes": list(known.without),
        }

    return answer


def _by_its_pythons(answer: Unsolvable) -> bool:
    """Whether other Pythons could serve: what is not in the blocking set changes nothing."""
    return any(fact.startswith("Python ") for fact in answer.blocking)


def why_not(pin: str, wanted: Wanted, target: Target, matrix: Matrix, known: Known) -> dict[str, Any]:
    """Why a release is not what would be chosen, as the ``data`` of `why-not`.

    Raises:
        UsageError: the pin, a version or the profile cannot be read.
    """
    from bnbenv.judge import explain
    from bnbenv.judge.solve import solve

    request, machine = judge_request(wanted), with_pythons(wanted, target)
    answer = explain.why_not(pin, request, machine, matrix, known.offers)
    best = solve(request, machine, matrix, known.offers, explain=False)
    chosen = isinstance(best, Solution) and answer.possible and best.stack == answer.stack
    instead = None
    kept_back: list[dict[str, Any]] = []
    if isinstance(best, Solution) and not chosen:
        instead = resolution_document(best, target, matrix, request)
        if answer.possible:
            kept_back = _kept_back(pin, request, machine, matrix, known, best)
    return {
        **why_not_document(answer, target, matrix),
        "not_taken": kept_back,
        "chosen": chosen,
        "instead": instead,
        "indexes": known.how,
        "without_indexes": list(known.without),
    }


def _kept_back(
    pin: str, request: Request, target: Target, matrix: Matrix, known: Known, chosen: Solution
) -> list[dict[str, Any]]:
    """The builds of a pinned torch that only their index or their accelerator keeps from being chosen."""
    from bnbenv.judge.explain import read_pin

    name, specification, build = read_pin(pin)
    if name != "torch":
        return []
    return not_taken(replace(request, torch=specification), target, matrix, known, chosen, build=build)


def with_pythons(wanted: Wanted, target: Target) -> Target:
    """The target with the Python that was asked for, or those that uv could fetch where none is known."""
    if wanted.python:
        return replace(target, pythons=(wanted.python,))
    return target if target.pythons else replace(target, pythons=DOWNLOADABLE_PYTHONS)


def _as_document(error: UnsolvableError, data: dict[str, Any]) -> UnsolvableError:
    return UnsolvableError(error.message, hint=error.hint, code=error.code, data=data)
