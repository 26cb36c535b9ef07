"""Facets put together again say what the judge says, on machines that nobody chose by hand."""

from __future__ import annotations

import random
from functools import cache
from typing import TYPE_CHECKING

import pytest

from bnbenv.judge.check import Combination, check
from bnbenv.judge.facets import Facets, Told, take_apart
from bnbenv.judge.rules import RULES
from bnbenv.machine.target import Gpu, Target
from bnbenv.matrix.load import load
from bnbenv.units import ComputeCapability, DriverVersion
from bnbenv.workflows.choose import JUDGED

if TYPE_CHECKING:
    from bnbenv.machine.target import Accelerator, Arch, OsName
    from bnbenv.matrix.matrix import Matrix

PLATFORMS: tuple[tuple[OsName, Arch, Accelerator], ...] = (
    ("linux", "x86_64", "cuda"),
    ("linux", "x86_64", "rocm"),
    ("linux", "x86_64", "cpu"),
    ("linux", "aarch64", "cuda"),
    ("windows", "x86_64", "cuda"),
    ("windows", "x86_64", "xpu"),
    ("macos", "aarch64", "mps"),
)
CASES = 400
_RANK = {"error": 0, "warning": 1, "info": 2}


@cache
def matrix() -> Matrix:
    return load(*JUDGED)


def devices(accelerator: Accelerator) -> tuple[str, ...]:
    if accelerator == "cuda":
        known = {one for row in matrix().architectures for one in row.capabilities}
        return tuple(map(str, sorted(known)))
    return ("gfx90a", "gfx1030", "gfx1100") if accelerator == "rocm" else ("",)


def put_together(
    facets: Facets, build: int, wheel: int, driver: str, gpus: list[int]
) -> list[tuple[str, bool]]:
    """What `page.html` does: code and whether it is undecided, most severe first."""
    under = facets.drivers.index(driver)
    found: list[Told] = [
        *facets.by_build[build],
        *facets.by_driver[build][under],
        *facets.pairs[build][wheel],
    ]
    if facets.taken[build]:
        library = next(one for one in facets.taken[build][wheel] if max(gpus) in one.highest)
        found += library.found
        found += [told for gpu in gpus for told in library.served.get(gpu, ())]
    for gpu in gpus:
        served = facets.serves[build][gpu]
        found += [*facets.known[gpu][under], *served[under if len(served) > 1 else 0]]
    found.sort(key=lambda told: (_RANK[told.severity], told.order))
    return [(told.code, told.undecided) for told in found]


@pytest.mark.parametrize("platform", PLATFORMS, ids=" ".join)
def test_they_say_what_the_judge_says(platform: tuple[OsName, Arch, Accelerator]) -> None:
    os, arch, accelerator = platform
    kinds = devices(accelerator)
    drivers = tuple(str(row.branch) for row in matrix().driver_branches)
    facets = take_apart(matrix(), os, arch, accelerator, devices=kinds, drivers=drivers)
    chance = random.Random(f"{platform}")
    for _ in range(CASES):
        build, wheel = chance.randrange(len(facets.builds)), chance.randrange(len(facets.wheels))
        gpus = (
            sorted(chance.sample(range(len(kinds)), chance.randint(1, min(3, len(kinds))))) if kinds else []
        )
        driver = chance.choice(facets.drivers) if accelerator == "cuda" else ""
        machine = Target(
            name="a",
            os=os,
            arch=arch,
            accelerator=accelerator,
            driver=DriverVersion(driver) if driver else None,
            gpus=tuple(_gpu(kinds[gpu], accelerator) for gpu in gpus if kinds[gpu]),
        )
        row, column = facets.builds[build], facets.wheels[wheel]
        asked = Combination(torch=f"{row.version}+{row.build}", bitsandbytes=column.version)
        judged = check(asked, machine, matrix()).judgement
        want = [
            (one.code, one.undecided, one.severity)
            for one in judged.findings
            if one.severity != "info" or one.undecided
        ]
        got = put_together(facets, build, wheel, driver, gpus)
        if facets.taken[build]:
            taken = next(one for one in facets.taken[build][wheel] if max(gpus) in one.highest)
            assert taken.library == judged.library, (asked, machine)
            assert sorted(got) == sorted(one[:2] for one in want), (asked, machine)
            assert [code for code, _ in got][:1] == [code for code, *_ in want][:1], (asked, machine)
        else:  # a build for something else: that alone is told
            assert got, (asked, machine)
            assert judged.works is False, (asked, machine)


def _gpu(text: str, accelerator: Accelerator) -> Gpu:
    if accelerator == "cuda":
        return Gpu(name=text, compute_capability=ComputeCapability.parse(text))
    return Gpu(name=text, gfx=text)


def test_a_rule_that_is_forgotten_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = tuple(rule for rule in RULES if rule.name != "torch-serves-gpus")
    monkeypatch.setattr("bnbenv.judge.facets.RULES", rules)
    with pytest.raises(AssertionError):
        test_they_say_what_the_judge_says(("linux", "x86_64", "cuda"))


def test_words_fit_every_build_of_which_they_are_said() -> None:
    facets = take_apart(matrix(), "linux", "x86_64", "cuda", devices=("6.1", "12.0"), drivers=("570",))
    told = {one for row in facets.serves for device in row for under in device for one in under}
    assert "torch {torch} holds no kernel for {gpu}" in {one.summary for one in told}
    assert all("GPU 0" not in one.summary for one in told)
