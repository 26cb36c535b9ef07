from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.errors import UsageError
from bnbenv.lockfile.index import MachineClass, TeamLock
from bnbenv.machine.document import target_from_dict
from bnbenv.workflows.fleet import Fleet, Given, facts_of
from support.judge_facts import matrix

if TYPE_CHECKING:
    from collections.abc import Iterable

MATRIX = matrix()


def given(origin: str, name: str, card: str | None, driver: str = "580.95.05", **more: Any) -> Given:
    gpus = [{"name": f"a GPU of {card}", "compute_capability": card}] if card else []
    facts = {"accelerator": "cuda" if card else "cpu", "driver": driver if card else None, "gpus": gpus}
    document = {"schema": 1, "name": name, "os": "linux", "arch": "x86_64", **facts, **more}
    return Given(target=target_from_dict(document), origin=origin)


def fleet_of(machines: Iterable[Given]) -> Fleet:
    fleet = Fleet(matrix=MATRIX)
    for machine in machines:
        fleet.add(machine, today="2026-11-23")
    return fleet


@pytest.mark.parametrize(
    "other",
    [
        given("`m/bob.json`", "ubuntu", "9.0", arch="aarch64"),
        given("`m/bob.json`", "ubuntu", "12.0"),
        given("`m/bob.json`", "ubuntu", None),
    ],
)
def test_two_machines_of_one_name_are_refused_in_any_order(other: Given) -> None:
    alice, ci = given("`m/alice.json`", "ubuntu", "9.0"), given("`m/ci.json`", "ci", None)
    for machines in permutations((alice, other, ci)):
        with pytest.raises(UsageError) as caught:
            fleet_of(machines)
        assert caught.value.code == "bad-target"
        assert all(word in caught.value.message for word in ("m/alice.json", "m/bob.json", "`ubuntu`"))


def test_nor_does_a_lost_gpu_hide_the_second_of_them() -> None:
    """The one without a GPU is taken for the other, whose GPU is not visible, wherever that is known."""
    both = given("`a.json`", "ubuntu", "9.0"), given("`b.json`", "ubuntu", None)
    facts = facts_of(both[0].target)
    known = MachineClass(variant=None, machines=("ubuntu",), facts=facts, seen="2026-11-20")
    for machines in permutations(both):
        fleet = Fleet(matrix=MATRIX)
        fleet.recall(TeamLock(request={}, matrix="2026.11.23", classes=(known,)))
        with pytest.raises(UsageError):
            for machine in machines:
                fleet.add(machine, today="2026-11-23")


def test_a_machine_that_is_described_twice_is_one() -> None:
    twice = given("`a.json`", "ubuntu", "9.0"), given("`b.json`", "ubuntu", "9.0", driver="580.105.08")
    [members] = fleet_of(twice).classes.values()
    assert members.machines == {"ubuntu"}
