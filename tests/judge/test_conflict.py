"""What blocks, on the real matrix: the facts together leave no stack, and without any one some serves."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.judge.conflict import blocking, facts, told
from bnbenv.judge.solve import solvable
from bnbenv.judge.stack import Offers, Request
from bnbenv.machine.target import Gpu
from bnbenv.matrix.load import load
from bnbenv.workflows.choose import JUDGED
from support.judge_facts import amd, gpu, target

if TYPE_CHECKING:
    from bnbenv.machine.target import Target

PLATFORMS = (
    ("linux", "x86_64"),
    ("linux", "aarch64"),
    ("windows", "x86_64"),
    ("windows", "aarch64"),
    ("macos", "aarch64"),
)
GPUS = {
    "cpu": ((),),
    "cuda": ((gpu("3.7"),), (gpu("8.9"),), (gpu("6.1"), gpu("12.0"))),
    "rocm": ((amd("gfx803"),), (amd("gfx1201"),)),
    "xpu": ((Gpu(name="Arc"),),),
    "mps": ((Gpu(name="M3"),),),
}
REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cpu": {"cpu": True},
    "old": {"python": "3.99", "bitsandbytes": "<0.44"},
    "cuda": {"cuda": "11.8", "torch": ">=2.8"},
}


@cache
def matrix() -> Any:
    return load(*JUDGED)


def machine(platform: tuple[str, str], accelerator: str, gpus: tuple[Gpu, ...], driver: str) -> Target:
    return target(
        *gpus,
        os=platform[0],
        arch=platform[1],
        accelerator=accelerator,
        driver=driver if accelerator == "cuda" else None,
    )


@pytest.mark.parametrize("asked", REQUESTS)
@pytest.mark.parametrize("accelerator", GPUS)
@pytest.mark.parametrize("platform", PLATFORMS, ids="-".join)
def test_without_any_one_of_what_blocks_some_stack_serves(
    platform: tuple[str, str], accelerator: str, asked: str
) -> None:
    for profile in ("qlora", "int8", "gptq"):
        if profile == "gptq" and "bitsandbytes" in REQUESTS[asked]:
            continue
        request = Request(profile=profile, **REQUESTS[asked])
        for gpus in GPUS[accelerator]:
            for driver in ("470.82.01", "581.15"):
                here = machine(platform, accelerator, gpus, driver)
                if solvable(request, here, matrix(), Offers()):
                    continue
                found = blocking(request, here, matrix(), Offers())
                assert found
                last = len(facts(request, here, matrix(), Offers())) - 1
                granted = () if {last - 1, last} & set(found) else (last - 1, last)
                assert not served((*found, *granted), request, here)
                for one in found:
                    assert served((*(other for other in found if other != one), *granted), request, here)


def served(held: tuple[int, ...], request: Request, here: Target) -> bool:
    """Whether a stack serves where these facts hold and no other does."""
    problems = [(request, here, Offers())]
    for number, (_, let_go) in enumerate(facts(request, here, matrix(), Offers())):
        if number not in held:
            problems = [left for problem in problems for left in let_go(problem)]
    return any(solvable(asked, other, matrix(), offers) for asked, other, offers in problems)


@pytest.mark.parametrize(
    ("here", "request_", "expected"),
    [
        pytest.param(machine(("windows", "x86_64"), "rocm", (amd("gfx1201"),), ""), Request(profile="qlora"),
                     ("ROCM on windows x86_64",), id="rocm-on-windows"),
        pytest.param(machine(("macos", "aarch64"), "cuda", (gpu("8.9"),), "580"), Request(profile="qlora"),
                     ("CUDA on macos aarch64",), id="cuda-on-macos"),
        pytest.param(machine(("linux", "x86_64"), "cpu", (), ""), Request(profile="gptq"),
                     ("CPU alone", "profile gptq"), id="a-profile-for-gpus"),
        pytest.param(machine(("linux", "x86_64"), "cuda", (gpu("8.9"),), "580"),
                     Request(profile="gptq", cpu=True), ("CPU alone", "profile gptq"), id="cpu-asked-for"),
        pytest.param(machine(("macos", "x86_64"), "cpu", (), ""), Request(profile="qlora"),
                     ("macos x86_64",), id="a-platform-without-wheels"),
    ],
)  # fmt: skip
def test_what_the_machine_lacks_is_named(here: Target, request_: Request, expected: tuple[str, ...]) -> None:
    found = blocking(request_, here, matrix(), Offers())
    assert told(found, request_, here, matrix(), Offers()) == expected
