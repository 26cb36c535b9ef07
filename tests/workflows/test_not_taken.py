"""A newer torch that no rule rejects is not passed over in silence."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.judge.stack import Offers
from bnbenv.matrix.load import load
from bnbenv.workflows.choose import JUDGED
from bnbenv.workflows.request import Wanted
from bnbenv.workflows.resolve import Known, resolve, why_not
from support.judge_facts import target

if TYPE_CHECKING:
    from bnbenv.matrix.rows import TorchBuild

MATRIX = load(*JUDGED, platform=("linux", "x86_64"))
QLORA = Wanted(profile="qlora")
HOST = target(pythons=("3.12",))
CARD = target("8.9", driver="580.95.05", pythons=("3.12",))


ASSUMED = Known(offers=Offers(), how="assumed", without=())
NEW = resolve(QLORA, HOST, MATRIX, ASSUMED)["torch"]["version"]
GPU_BUILD = next(row.build for row in MATRIX.torch if (row.version, row.index) == (NEW, "pypi"))


def _row(version: str, build: str) -> TorchBuild:
    return next(row for row in MATRIX.torch if (row.version, row.build) == (version, build))


WHEELHOUSE = (_row("2.13.0", "cpu")._replace(index="wheelhouse"),)
SHUT = Known(
    offers=Offers(unavailable=frozenset({"pytorch-cpu"}), builds=WHEELHOUSE), how="remembered", without=()
)


def told(data: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [(row["torch"], row["build"], row["reason"], row["summary"]) for row in data["not_taken"]]


NEWEST = [
    (NEW, "cpu", "unavailable", "`pytorch-cpu` cannot be used now"),
    (NEW, GPU_BUILD, "accelerator", "it is built for GPUs, and there is none"),
]


def test_an_index_that_cannot_be_used_is_named() -> None:
    data = resolve(QLORA, HOST, MATRIX, SHUT, explain=True)
    assert (data["torch"]["version"], data["torch"]["index"]) == ("2.13.0", "wheelhouse")
    assert told(data)[:2] == NEWEST
    assert len(told(data)) == 6
    assert "2.13.0" not in {row[0] for row in told(data)}


def test_one_release_is_answered_for() -> None:
    data = why_not(f"torch=={NEW}", QLORA, HOST, MATRIX, SHUT)
    assert (data["possible"], data["chosen"]) == (True, False)
    assert told(data) == NEWEST
    assert told(why_not("torch==2.13.0", QLORA, HOST, MATRIX, SHUT)) == []
    assert told(why_not("torch==2.12.0", QLORA, HOST, MATRIX, SHUT)) == []
    assert told(why_not("bitsandbytes==0.49.2", QLORA, HOST, MATRIX, SHUT)) == []


def test_what_cannot_serve_is_told_by_the_judge_alone() -> None:
    data = why_not(f"torch=={NEW}+cpu", QLORA, HOST, MATRIX, SHUT)
    assert [found["code"] for found in data["findings"]] == ["index-unavailable"]
    assert told(data) == []


def test_one_build_is_answered_for() -> None:
    assert told(why_not(f"torch=={NEW}+{GPU_BUILD}", QLORA, HOST, MATRIX, SHUT)) == NEWEST[1:]


def test_a_release_that_the_index_does_not_list() -> None:
    listed = {"pytorch-cpu": frozenset({("2.14.1", "cpu", "3.12"), (NEW, "cpu", "3.14")})}
    known = Known(offers=Offers(listed=listed), how="remembered", without=())
    data = resolve(QLORA, HOST, MATRIX, known, explain=True)
    assert data["torch"]["version"] == "2.14.1"
    assert (NEW, "cpu", "not-listed", "`pytorch-cpu` does not list it for Python 3.12") in told(data)


def test_what_was_left_out_on_request_is_said_to_be() -> None:
    known = replace(SHUT, without=("pytorch-cpu",))
    data = resolve(QLORA, HOST, MATRIX, known, explain=True)
    assert told(data)[0] == (NEW, "cpu", "left-out", "`pytorch-cpu` is left out, as was asked")


@pytest.mark.parametrize("pin", [None, f"torch=={NEW}"])
def test_what_a_rule_rejects_is_told_by_the_rule_alone(pin: str | None) -> None:
    pascal = target("6.1", driver="580.95.05", pythons=("3.12",))
    lost = Known(offers=Offers(unavailable=frozenset({f"pytorch-{GPU_BUILD}"})), how="remembered", without=())
    data = (
        why_not(pin, QLORA, pascal, MATRIX, lost)
        if pin
        else resolve(QLORA, pascal, MATRIX, lost, explain=True)
    )
    assert told(data) == []
    assert data["findings"] if pin else data["passed_over"]


def test_where_nothing_newer_is_there_nothing_is_told() -> None:
    for machine in (HOST, CARD):
        assert told(resolve(QLORA, machine, MATRIX, ASSUMED, explain=True)) == []
        assert "not_taken" not in resolve(QLORA, machine, MATRIX, ASSUMED)
