from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnbenv.judge.cover import Cover, Kind, _compared, _Wish, cover, identity, release_of, serves
from bnbenv.judge.judge import judge
from bnbenv.judge.kind import class_of
from bnbenv.judge.solve import solve
from bnbenv.judge.stack import Offers, Request, Solution
from support.judge_facts import matrix, target

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bnbenv.judge.stack import Stack
    from bnbenv.machine.target import Target

MATRIX = matrix()
QLORA = Request(profile="qlora")
CARDS = ("6.1", "7.0", "7.5", "8.6", "8.9", "9.0", "10.0", "12.0")
DRIVERS = ("470.82.01", "525.60.13", "550.54.15", "570.26", "580.95.05", "610.57.04")


def kinds(targets: Iterable[Target]) -> list[Kind]:
    return [Kind(key=key(machine), target=machine) for machine in targets]


def key(machine: Target) -> object:
    return class_of(replace(machine, pythons=()), MATRIX)


machines = st.builds(
    lambda cards, driver: target(*cards, driver=driver),
    st.lists(st.sampled_from(CARDS), max_size=2, unique=True),
    st.sampled_from(DRIVERS),
)
fleets = st.lists(machines, min_size=1, max_size=6)
relaxed = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def greedy(fleet: Sequence[Kind]) -> int:
    """An independent greedy cover: over every stack of every machine's solve and of its like."""
    stacks: dict[object, Stack] = {}
    for kind in fleet:
        for torch in MATRIX.torch:
            pin = Request(profile="qlora", torch=f"=={torch.version}")
            unavailable = frozenset(row.index for row in MATRIX.torch if row.index != torch.index)
            answer = solve(pin, kind.target, MATRIX, Offers(unavailable=unavailable), explain=False)
            if isinstance(answer, Solution):
                stacks[identity(answer.stack)] = answer.stack
    left = {kind.key: kind for kind in fleet if isinstance(solve(QLORA, kind.target, MATRIX), Solution)}
    count = 0
    while left:
        best = max(
            stacks.values(),
            key=lambda stack: sum(
                serves(stack, kind.target, QLORA, MATRIX, Offers()) for kind in left.values()
            ),
        )
        left = {k: kind for k, kind in left.items() if not serves(best, kind.target, QLORA, MATRIX, Offers())}
        count += 1
    return count


@relaxed
@given(fleets)
def test_every_machine_is_served_by_a_stack_that_the_judge_passes(fleet: list[Target]) -> None:
    # One machine a kind: a refusal is in the words of the machine that stands for its kind.
    every = list({kind.key: kind for kind in kinds(fleet)}.values())
    found = cover(QLORA, every, MATRIX)
    for kind in every:
        best = solve(QLORA, kind.target, MATRIX, explain=False)
        if isinstance(best, Solution):
            judged = judge(found.stacks[kind.key], kind.target, MATRIX)
            assert judged.works == best.judgement.works
        else:
            assert found.unserved[kind.key].blocking == best.blocking
    assert found.stacks.keys() | found.unserved.keys() == {kind.key for kind in every}


@relaxed
@given(fleets, st.randoms(use_true_random=False))
def test_the_order_of_machines_does_not_matter(fleet: list[Target], chance: object) -> None:
    every = kinds(fleet)
    shuffled = list(every)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert assignment(cover(QLORA, every, MATRIX)) == assignment(cover(QLORA, shuffled, MATRIX))


@relaxed
@given(fleets, st.integers(min_value=0, max_value=5))
def test_a_machine_that_disappears_moves_no_other(fleet: list[Target], place: int) -> None:
    every = list({kind.key: kind for kind in kinds(fleet)}.values())
    first = cover(QLORA, every, MATRIX)
    gone = every[place % len(every)]
    left = [kind for kind in every if kind.key != gone.key]
    again = cover(QLORA, left, MATRIX, present=first.stacks)
    assert assignment(again) == {k: v for k, v in assignment(first).items() if k != gone.key}
    assert again.kept == again.stacks.keys()


@relaxed
@given(fleets, machines)
def test_a_machine_that_comes_moves_no_other(fleet: list[Target], new: Target) -> None:
    every = kinds(fleet)
    first = cover(QLORA, every, MATRIX)
    again = cover(QLORA, [*every, *kinds([new])], MATRIX, present=first.stacks)
    assert {k: v for k, v in assignment(again).items() if k in first.stacks} == assignment(first)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(machines, min_size=1, max_size=4))
def test_never_more_environments_than_a_greedy_cover(fleet: list[Target]) -> None:
    every = list({kind.key: kind for kind in kinds(fleet)}.values())
    # Machines without a GPU take a build for the CPU, which the greedy cover of the test does not ask for.
    every = [kind for kind in every if kind.target.gpus]
    assert cover(QLORA, every, MATRIX).environments <= greedy(every)


@relaxed
@given(machines)
def test_one_kind_gets_what_the_search_over_everything_gives_it(machine: Target) -> None:
    [kind] = kinds([machine])
    wish = _Wish.of(kind, QLORA, MATRIX, Offers())
    expected = {} if wish is None else _compared([wish], set())
    assert cover(QLORA, [kind], MATRIX).stacks == expected


def assignment(found: Cover) -> dict[object, object]:
    return {one: identity(stack) for one, stack in found.stacks.items()}


def test_one_release_for_all_before_the_newest_for_each() -> None:
    fleet = kinds([target("6.1", driver="550.54.15"), target("10.0"), target()])
    found = cover(QLORA, fleet, MATRIX)
    assert {release_of(stack)[1] for stack in found.stacks.values()} == {"2.14.1"}
    assert sorted(stack.torch.build for stack in found.stacks.values()) == ["cpu", "cu126", "cu130"]


def test_one_environment_where_one_serves_all() -> None:
    found = cover(QLORA, kinds([target("7.0", driver="570.26"), target("12.0", driver="570.26")]), MATRIX)
    [build] = {(stack.torch.version, stack.torch.build) for stack in found.stacks.values()}
    assert build == ("2.10.0", "cu128")


def test_the_newest_where_nothing_else_decides() -> None:
    [stack] = cover(QLORA, kinds([target("8.9")]), MATRIX).stacks.values()
    assert (stack.torch.version, stack.torch.build) == ("2.15.0", "cu132")


def test_a_machine_without_a_gpu_never_gets_a_build_for_one_where_another_is_there() -> None:
    found = cover(QLORA, kinds([target(), target("8.9")]), MATRIX)
    assert {stack.torch.build for k, stack in found.stacks.items() if k == key(target())} == {"cpu"}


def test_what_is_assigned_stays_although_something_newer_is_there() -> None:
    machine = target("8.9")
    old = solve(replace(QLORA, torch="==2.10.0"), machine, MATRIX)
    assert isinstance(old, Solution)
    found = cover(QLORA, kinds([machine]), MATRIX, present={key(machine): old.stack})
    assert found.stacks[key(machine)] == old.stack


def test_what_is_assigned_goes_when_the_judge_objects() -> None:
    machine = target("8.9", driver="550.54.15")
    new = solve(QLORA, target("8.9"), MATRIX)
    assert isinstance(new, Solution)
    assert new.stack.torch.cuda is not None
    found = cover(QLORA, kinds([machine]), MATRIX, present={key(machine): new.stack})
    assert found.stacks[key(machine)].torch.build == "cu126"
    assert not found.kept


def test_a_new_machine_joins_an_environment_that_is_there() -> None:
    old = solve(replace(QLORA, torch="==2.10.0"), target("9.0"), MATRIX)
    assert isinstance(old, Solution)
    fleet = [target("9.0"), target("8.6")]
    found = cover(QLORA, kinds(fleet), MATRIX, present={key(fleet[0]): old.stack})
    assert found.environments == 1


@pytest.mark.parametrize("cpu", [False, True])
def test_a_machine_that_nothing_serves_stops_no_other(cpu: bool) -> None:
    fleet = kinds([target("8.9", driver="470.82.01"), target("8.9")])
    found = cover(replace(QLORA, cpu=cpu), fleet, MATRIX)
    assert len(found.stacks) == (2 if cpu else 1)
    assert [answer.blocking for answer in found.unserved.values()] == (
        [] if cpu else [("driver 470.82.01", "GPU 0 (8.9)")]
    )


def test_machines_that_one_release_serves_share_it() -> None:
    fleet = kinds(target(card) for card in ("7.5", "8.9", "9.0"))
    found = cover(QLORA, fleet, MATRIX)
    assert len(found.stacks) == 3
    assert all(release_of(one) == release_of(two) for one, two in pairwise(found.stacks.values()))
