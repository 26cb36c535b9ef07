"""Near misses, on the real matrix: what one needs can be had together, and then the stack serves."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.judge.explain import why_not
from bnbenv.judge.near import _together, asks_less
from bnbenv.judge.ranges import as_range, within
from bnbenv.judge.solve import solvable, solve
from bnbenv.judge.stack import Offers, Request, Unsolvable
from bnbenv.matrix.load import load
from bnbenv.units import DriverVersion
from bnbenv.workflows.choose import JUDGED
from support.judge_facts import target

if TYPE_CHECKING:
    from bnbenv.judge.stack import Stack
    from bnbenv.machine.target import Target

REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no-python": {"python": "3.99"},
    "old-python": {"python": "3.8"},
    "old-bitsandbytes": {"bitsandbytes": "<0.44"},
    "old-both": {"bitsandbytes": "<0.44", "python": "3.9"},
    "pin": {"bitsandbytes": "==0.46.1", "python": "3.14"},
    "old-torch": {"torch": "<2"},
    "torch-2.15": {"torch": "==2.15.0"},
    "unlike-torch": {"torch": "==2.5.1", "bitsandbytes": ">=0.50"},
    "cuda": {"cuda": "13.2", "python": "3.9"},
}
CARDS = (("3.7",), ("5.2",), ("6.1",), ("8.9", "8.9"), ("12.0",), ("6.1", "12.0"), ("5.2", "6.1", "6.1"))
# A thing, and the releases of it.
NEED = re.compile(r"(driver|Python|bitsandbytes|torch) ?([<>=!~].*|[0-9.]+)")


@cache
def matrix() -> Any:
    return load(*JUDGED)


def near(request: Request, here: Target) -> tuple[tuple[Stack, tuple[str, ...]], ...]:
    answer = solve(request, here, matrix(), explain=False)
    return answer.nearest if isinstance(answer, Unsolvable) else ()


@pytest.mark.parametrize("asked", REQUESTS)
@pytest.mark.parametrize("cards", CARDS, ids=" ".join)
def test_what_a_near_miss_needs_makes_it_serve(cards: tuple[str, ...], asked: str) -> None:
    for profile in ("qlora", "int8"):
        for driver in ("470.82.01", "550.54.15", "591.44"):
            for pythons in ((), ("3.10",)):
                request = Request(profile=profile, **REQUESTS[asked])
                here = target(*cards, driver=driver, pythons=pythons)
                for stack, needs in near(request, here):
                    assert needs
                    check(stack, needs, request, here)


def check(stack: Stack, needs: tuple[str, ...], request: Request, here: Target) -> None:
    named = [found[1] if (found := NEED.fullmatch(need)) else need for need in needs]
    assert len(set(named)) == len(named), needs
    request = replace(request, torch=f"=={stack.torch.version}")
    every = here.gpus
    for need in needs:
        match NEED.fullmatch(need):
            case None if need.startswith("drop GPU "):
                numbers = re.findall(r"\d+", need.partition("(")[0])
                gone = [every[int(number)] for number in numbers]
                here = replace(
                    here, gpus=tuple(gpu for gpu in here.gpus if not any(gpu is one for one in gone))
                )
                assert here.gpus, needs
            case None if "VISIBLE_DEVICES=" not in need:
                return  # another GPU, build or library, which nothing here can put in
            case None:
                pass
            case found:
                request, here = meeting(found[1], found[2], request, here)
    index = frozenset(row.index for row in matrix().torch) - {stack.torch.index}
    assert solvable(request, here, matrix(), Offers(unavailable=index)), needs


def meeting(thing: str, releases: str, request: Request, here: Target) -> tuple[Request, Target]:
    """The request and the machine where a need is met."""
    match thing:
        case "driver":
            driver = DriverVersion.parse(f"{re.sub('[^0-9]', '', releases)}.999")
            return request, replace(here, driver=driver)
        case "Python":
            minors = [f"3.{minor}" for minor in range(20) if within(f"3.{minor}", as_range(releases))]
            return replace(request, python=None), replace(here, pythons=tuple(minors))
        case "bitsandbytes":
            return replace(request, bitsandbytes=as_range(releases)), here
        case _:
            raise AssertionError(f"a stack that needs another {thing} is no near miss: {releases}")


ADA, MAXWELL = target("8.9"), target("5.2")
SPARK = target("12.1", os="windows", arch="aarch64", driver="616.41", pythons=("3.12",))


@pytest.mark.parametrize(
    ("here", "request_", "expected"),
    [
        pytest.param(ADA, {"python": "3.99"}, {("Python >=3.11,<3.15",)}, id="python"),
        pytest.param(replace(ADA, driver=DriverVersion.parse("550.54.15")), {"bitsandbytes": "<0.44"},
                     {("bitsandbytes >=0.46.1,<0.51",), ("bitsandbytes >=0.46.1,<0.51", "driver >= 580")},
                     id="bitsandbytes"),
        pytest.param(MAXWELL, {"bitsandbytes": "<0.44", "cuda": "12.6"}, {("bitsandbytes 0.47.0",)},
                     id="one-bitsandbytes-of-the-range"),
        pytest.param(SPARK, {"cuda": "13.4"}, {("Python 3.13",)}, id="one-python-of-the-range"),
    ],
)  # fmt: skip
def test_needs(here: Target, request_: dict[str, Any], expected: set[tuple[str, ...]]) -> None:
    assert {needs for _, needs in near(Request(profile="qlora", **request_), here)} == expected


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        pytest.param(("driver >= 450", "driver >= 580"), ("driver >= 580",), id="floors"),
        pytest.param(("driver >= 450", "driver 470"), ("driver 470",), id="floor-and-branch"),
        pytest.param(("driver >= 570", "driver 470"), None, id="contradiction"),
        pytest.param(("Python >=3.11", "Python 3.15", "Python <3.15"), None, id="no-python"),
        pytest.param(("x >=1,<5", "x >=2,<6"), ("x >=1,<5,>=2,<6",), id="overlap"),
        pytest.param(("a newer x", "y", "x >=2"), ("y", "x >=2"), id="vague"),
        pytest.param(
            ("torch with CUDA >= 11.8", "torch with CUDA 12.6"), ("torch with CUDA 12.6",), id="toolkit"
        ),
    ],
)
def test_needs_name_each_thing_once(needs: tuple[str, ...], expected: tuple[str, ...] | None) -> None:
    assert _together(needs) == expected


def test_a_torch_that_no_set_takes_is_no_near_miss_and_says_what_is_wrong() -> None:
    answer = solve(Request(profile="int8", torch="==2.0.1"), target("8.9"), matrix())
    assert isinstance(answer, Unsolvable)
    assert answer.nearest == ()
    assert "bnb-torch-requirement" in {found.code for found in answer.findings}
    asked = why_not("torch==2.0.1", Request(profile="int8"), target("8.9"), matrix())
    assert asked.needs == ("torch >=2.6,<2.16",)


def test_the_least_of_two_needs_comes_first() -> None:
    found = near(Request(profile="qlora", torch="==2.9.1"), target("12.0", driver="560.35"))
    assert [needs for _, needs in found][:2] == [("driver >= 570",), ("driver >= 580",)]


@pytest.mark.parametrize(
    ("less", "more"),
    [
        (("driver >= 570",), ("driver >= 580",)),
        (("driver >= 570",), ("driver >= 570", "Python 3.12")),
        (("bitsandbytes >=0.46",), ("bitsandbytes >=0.46,<0.50",)),
    ],
)
def test_what_asks_for_less(less: tuple[str, ...], more: tuple[str, ...]) -> None:
    assert asks_less(less, more)
    assert not asks_less(more, less)
    assert not asks_less(less, less)
    assert not asks_less(less, ("drop GPU 1 (6.1)",))
