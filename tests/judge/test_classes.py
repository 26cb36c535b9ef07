from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnbenv.judge.classes import solve_all
from bnbenv.judge.kind import class_of
from bnbenv.judge.solve import solve
from bnbenv.judge.stack import Request, Solution
from bnbenv.machine.target import Libc
from bnbenv.units import DottedVersion
from support.judge_facts import amd, gpu, matrix, target

QLORA = Request(profile="qlora")
FACTS = matrix()

MACHINES = st.builds(
    lambda cards, driver, glibc, pythons, name: target(
        *cards,
        driver=driver,
        pythons=pythons,
        name=name,
        libc=Libc(family="glibc", version=DottedVersion.parse(glibc)),
    ),
    cards=st.lists(st.sampled_from(["3.7", "6.1", "7.0", "8.6", "8.9", "12.0"]), max_size=3),
    driver=st.sampled_from(["440.1", "470.82", "525.60.12", "525.60.13", "580.65.06", "581.2", "590.44"]),
    glibc=st.sampled_from(["2.17", "2.24", "2.27", "2.28", "2.35", "2.39"]),
    pythons=st.sampled_from([(), ("3.9",), ("3.11", "3.12")]),
    name=st.sampled_from(["a", "b"]),
)


@settings(max_examples=25, deadline=None)
@given(machines=st.lists(MACHINES, min_size=1, max_size=8), env=st.booleans())
def test_a_batch_answers_as_one_by_one(machines: list[Any], env: bool) -> None:
    request = replace(QLORA, env={"CUDA_VISIBLE_DEVICES": "0"} if env else {})
    together = list(solve_all(request, machines, FACTS, explain=True))
    assert together == [solve(request, machine, FACTS) for machine in machines]


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (target("8.9"), target("8.9", name="b"), True),
        (target("8.9", "8.9"), target("8.9", "8.9", "8.9"), True),
        (target("8.9", driver="550.54"), target("8.9", driver="550.163"), True),
        (target("8.9", "6.1"), target("6.1", "8.9"), True),
        (target("8.9", driver="525.60.12"), target("8.9", driver="525.60.13"), False),
        (target("8.9", driver="580.95"), target("8.9", driver="590.44"), True),
        (target("6.1", driver="580.95"), target("6.1", driver="590.44"), False),
        (target("8.9"), target("8.9", gpu("6.1")), False),
        (target("8.9"), target("8.9", wsl=True), False),
        (target(), target(cpu_flags=frozenset({"avx2"})), True),
        (target(), target(cpu_flags=frozenset({"avx512_bf16"})), False),
        (target(amd("gfx1100"), accelerator="rocm"), target(amd("gfx1201"), accelerator="rocm"), False),
    ],
    ids=[
        "name",
        "count",
        "driver-patch",
        "order",
        "floor",
        "branch-that-changes-nothing",
        "branch-that-drops-the-gpu",
        "gpus",
        "wsl",
        "flags-of-no-rule",
        "flag-of-a-rule",
        "gfx",
    ],
)
def test_classes(one: Any, two: Any, same: bool) -> None:
    assert (class_of(one, FACTS) == class_of(two, FACTS)) is same


def test_the_systems_rocm_counts_where_variables_may_ask_for_it() -> None:
    one, two = (target(amd("gfx1100"), accelerator="rocm", rocm=rocm) for rocm in ("6.4.1", "7.0.0"))
    assert class_of(one, FACTS) == class_of(two, FACTS)
    assert class_of(one, FACTS, positions=True) != class_of(two, FACTS, positions=True)


@settings(max_examples=60, deadline=None)
@given(one=MACHINES, two=MACHINES)
def test_machines_of_one_class_get_one_stack(one: Any, two: Any) -> None:
    """The key leaves out a driver's number, and a library's version, only where no answer depends on it."""
    if class_of(one, FACTS) == class_of(two, FACTS):
        first, second = solve(QLORA, one, FACTS), solve(QLORA, two, FACTS)
        assert type(first) is type(second)
        assert not isinstance(first, Solution) or first.stack == second.stack  # type: ignore[union-attr]
