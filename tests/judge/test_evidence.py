from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bnbenv.judge.classes import Fleet
from bnbenv.judge.evidence import evidence
from bnbenv.judge.solve import solve
from bnbenv.judge.stack import Request, Solution
from bnbenv.matrix.rows import VerifiedStack
from support.judge_facts import MEASURED, matrix, target

QLORA = Request(profile="qlora")


def seen(torch: str, build: str, bnb: str, capability: str | None = "8.9", **more: Any) -> VerifiedStack:
    given: dict[str, Any] = {
        "torch": torch, "build": build, "bitsandbytes": bnb, "python": "3.12", "os": "linux",
        "arch": "x86_64",
        "accelerator": "cuda" if capability else "cpu", "device": "a card", "capability": capability,
        "driver": "580.95.05" if capability else None, "level": "full", "verdict": "passed",
        "digest": "0" * 64, "provenance": MEASURED,
    }  # fmt: skip
    return VerifiedStack(**{**given, **more})


def chosen(machine: Any, rows: tuple[VerifiedStack, ...], request: Request = QLORA) -> Solution:
    facts = matrix(verified=rows)
    answer = solve(request, machine, facts)
    assert isinstance(answer, Solution)
    assert Fleet(request, facts).solve(machine, explain=True) == answer
    return answer


@pytest.mark.parametrize(
    ("machine", "rows", "expected"),
    [
        pytest.param(target("8.9"), (), "none", id="nothing-known"),
        pytest.param(target("8.9"), (seen("2.15.0", "cu132", "0.50.2"),), "verified", id="same"),
        pytest.param(target("8.6"), (seen("2.15.0", "cu132", "0.50.2"),), "neighbour", id="architecture"),
        pytest.param(target("9.0"), (seen("2.15.0", "cu132", "0.50.2"),), "none", id="other-gpu"),
        pytest.param(target("8.9"), (seen("2.15.0", "cu130", "0.50.2"),), "neighbour", id="other-build"),
        pytest.param(target("8.9"), (seen("2.14.1", "cu130", "0.50.2"),), "none", id="other-torch"),
        pytest.param(target("8.9"), (seen("2.15.0", "cu132", "0.49.2"),), "none", id="other-bitsandbytes"),
        pytest.param(
            target("8.9"), (seen("2.15.0", "cu132", "0.50.2", os="windows"),), "none", id="other-system"
        ),
        pytest.param(
            target("8.9", "8.0"), (seen("2.15.0", "cu132", "0.50.2"),), "neighbour", id="one-of-two"
        ),
        pytest.param(
            target("8.9", "8.0"),
            (seen("2.15.0", "cu132", "0.50.2"), seen("2.15.0", "cu132", "0.50.2", "8.0")),
            "verified",
            id="both-of-two",
        ),
        pytest.param(target(), (seen("2.14.1", "cpu", "0.50.2", None),), "verified", id="cpu"),
    ],
)
def test_evidence(machine: Any, rows: tuple[VerifiedStack, ...], expected: str) -> None:
    answer = chosen(machine, rows)
    assert evidence(answer.stack, machine, matrix(verified=rows)) == expected


def test_verified_comes_first_where_it_is_preferred() -> None:
    rows = (
        seen("2.11.0", "cu128", "0.49.2"),
        seen("2.14.1", "cu126", "0.50.2"),
        seen("2.15.0", "cu132", "9"),
    )
    preferring = replace(QLORA, prefer="verified")
    answer = chosen(target("8.9"), rows, preferring)
    assert (answer.stack.torch.version, answer.stack.torch.build) == ("2.14.1", "cu126")
    assert chosen(target("8.9"), rows).stack.torch.version == "2.15.0"


@pytest.mark.parametrize(
    ("machine", "row"),
    [
        (target("8.6"), seen("2.14.1", "cu126", "0.50.2")),
        (target("8.9", driver="470.82"), seen("2.14.1", "cu126", "0.50.2")),
        (target("8.9"), seen("2.14.1", "cu126", "0.42.0")),
    ],
    ids=["a-neighbour-is-not-enough", "nothing-that-has-an-error", "nothing-that-is-not-offered"],
)
def test_where_nothing_was_verified_the_newest_is_taken(machine: Any, row: VerifiedStack) -> None:
    preferring = replace(QLORA, prefer="verified")
    one, other = solve(preferring, machine, matrix(verified=(row,))), solve(QLORA, machine, matrix())
    assert type(one) is type(other)
    assert not isinstance(one, Solution) or one.stack == other.stack  # type: ignore[union-attr]
