# ruff: noqa: E501 - rows of tables stand in one line
from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations, product
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bnbenv.errors import UsageError
from bnbenv.judge import conflict
from bnbenv.judge.candidates import candidates
from bnbenv.judge.cover import Kind, cover
from bnbenv.judge.judge import judge
from bnbenv.judge.order import ERROR, rank, weight
from bnbenv.judge.solve import solve
from bnbenv.judge.stack import Offers, Request, Solution, Unsolvable
from bnbenv.machine.target import Gpu
from bnbenv.units import DriverVersion
from support.judge_facts import (
    MEASURED,
    PROFILES,
    PUBLISHED,
    TORCH,
    WHEELS,
    amd,
    library,
    matrix,
    target,
    torch,
    wheel,
)

QLORA = Request(profile="qlora")
PYPI_ONLY = Offers(unavailable=frozenset(row.index for row in TORCH if row.index != "pypi"))


def best(machine: Any, request: Request = QLORA, offers: Offers | None = None, facts: Any = None) -> Solution:
    answer = solve(request, machine, facts or matrix(), offers or Offers())
    assert isinstance(answer, Solution), answer
    return answer


def none(machine: Any, request: Request = QLORA, offers: Offers | None = None) -> Unsolvable:
    answer = solve(request, machine, matrix(), offers or Offers())
    assert isinstance(answer, Unsolvable), answer
    return answer


def told(answer: Solution) -> tuple[str, str, str, str]:
    stack = answer.stack
    assert stack.bitsandbytes is not None
    return stack.torch.version, stack.torch.build, stack.bitsandbytes.version, stack.torch.index


@pytest.mark.parametrize(
    ("machine", "offers", "expected"),
    [
        pytest.param(target("6.1"), None, ("2.14.1", "cu126", "0.50.2", "pytorch-cu126"), id="gtx-1080"),
        pytest.param(target("8.9"), None, ("2.15.0", "cu132", "0.50.2", "pypi"), id="rtx-4090"),
        pytest.param(target("12.0", driver="570.26"), None, ("2.11.0", "cu128", "0.50.2", "pytorch-cu128"),
                     id="rtx-5090-driver-570"),
        pytest.param(target("8.6", driver="535.1"), None, ("2.14.1", "cu126", "0.50.2", "pytorch-cu126"),
                     id="driver-535"),
        pytest.param(target("8.6", driver="470.82.01"), None, ("2.7.1", "cu118", "0.50.2", "pytorch-cu118"),
                     id="driver-470"),
        pytest.param(target("5.2"), None, ("2.14.1", "cu126", "0.47.0", "pytorch-cu126"), id="maxwell"),
        pytest.param(target("7.0", "12.0"), None, ("2.10.0", "cu128", "0.50.2", "pypi"), id="volta-and-blackwell"),
        pytest.param(target("8.6", driver="550.54.15"), PYPI_ONLY, ("2.10.0", "cu128", "0.50.2", "pypi"),
                     id="pypi-only-550"),
        pytest.param(target("6.1"), PYPI_ONLY, ("2.7.1", "cu126", "0.50.2", "pypi"), id="pypi-only-pascal"),
        pytest.param(target("5.2"), PYPI_ONLY, ("2.7.1", "cu126", "0.47.0", "pypi"), id="pypi-only-maxwell"),
        pytest.param(target(), None, ("2.14.1", "cpu", "0.50.2", "pytorch-cpu"), id="cpu-build-before-newer-cuda"),
        pytest.param(target(), PYPI_ONLY, ("2.15.0", "cu132", "0.50.2", "pypi"), id="cuda-build-where-nothing-else"),
        pytest.param(target("8.6", pythons=("3.10",)), None, None, id="no-set-for-the-torch-of-python-3.10"),
    ],
)  # fmt: skip
def test_best(machine: Any, offers: Offers | None, expected: tuple[str, ...] | None) -> None:
    if expected is None:
        assert isinstance(solve(QLORA, machine, matrix(), offers or Offers()), Unsolvable)
    else:
        assert told(best(machine, offers=offers)) == expected


def test_cpu_wheelhouse_comes_before_a_newer_cuda_build() -> None:
    own = torch("2.13.0", "cpu", index="wheelhouse", pythons=("3.11",))
    offers = replace(PYPI_ONLY, builds=(own,))
    answer = best(target(pythons=("3.10", "3.11", "3.12", "3.13")), offers=offers)
    assert told(answer) == ("2.13.0", "cpu", "0.50.2", "wheelhouse")
    assert answer.stack.python == "3.11"


def test_cpu_request_on_a_gpu_machine() -> None:
    answer = best(target("8.9"), replace(QLORA, cpu=True))
    assert answer.stack.torch.build == "cpu"
    assert answer.judgement.coverage == ()


@pytest.mark.parametrize("machine", [target("8.9"), target()], ids=["gpu", "no-gpu"])
def test_a_cpu_request_never_gets_a_build_for_gpus(machine: Any) -> None:
    answer = solve(replace(QLORA, cpu=True), machine, matrix(), PYPI_ONLY)
    assert isinstance(answer, Unsolvable)
    unavailable, asked = answer.blocking
    assert unavailable.startswith("unavailable: pytorch-cpu, ")
    assert asked == "a CPU build of torch"


def test_a_cpu_request_takes_the_torch_of_a_base_whatever_it_is_built_for() -> None:
    base = matrix(torch=(torch("2.14.1", "cu130", index="base", pythons=("3.12",)),))
    assert best(target("8.9"), replace(QLORA, cpu=True), facts=base).stack.torch.build == "cu130"


UNCONFIRMED = PUBLISHED._replace(confidence="low")


@pytest.mark.parametrize(
    ("builds", "expected"),
    [
        pytest.param([("2.15.0", "cpu", UNCONFIRMED), ("2.14.1", "cu130", MEASURED)], "2.15.0", id="before-cuda"),
        pytest.param([("2.15.0", "cpu", UNCONFIRMED), ("2.14.1", "cpu", MEASURED)], "2.14.1", id="not-before-cpu"),
    ],
)  # fmt: skip
def test_an_unconfirmed_cpu_build_without_a_gpu(builds: list[Any], expected: str) -> None:
    rows = tuple(torch(release, build, provenance=how) for release, build, how in builds)
    answer = best(target(), facts=matrix(torch=rows))
    assert told(answer)[:2] == (expected, "cpu")
    served = cover(QLORA, [Kind(key="", target=target())], matrix(torch=rows))
    assert served.stacks[""] == answer.stack


def test_a_gpu_machine_never_gets_a_cpu_build() -> None:
    only_cpu = matrix(torch=tuple(row for row in TORCH if row.build == "cpu"))
    assert isinstance(solve(QLORA, target("8.9"), only_cpu), Unsolvable)


def test_listed_builds_restrict_an_index() -> None:
    listed = {
        "pypi": frozenset({("2.14.1", "cu130", "3.11")}),
        "pytorch-cu130": frozenset[Any](),
        "pytorch-cu126": frozenset[Any](),
    }
    answer = best(target("8.9"), offers=Offers(listed=listed))
    assert told(answer)[:2] == ("2.14.1", "cu130")
    assert answer.stack.python == "3.11"


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param(replace(QLORA, torch="<2.12"), ("2.11.0", "cu128"), id="torch"),
        pytest.param(replace(QLORA, cuda="12.6"), ("2.14.1", "cu126"), id="cuda"),
        pytest.param(replace(QLORA, bitsandbytes="==0.49.2"), ("2.15.0", "cu130"), id="bitsandbytes"),
        pytest.param(replace(QLORA, python="3.14"), ("2.15.0", "cu132"), id="python"),
        pytest.param(replace(QLORA, env={"BNB_CUDA_VERSION": "126"}), ("2.14.1", "cu126"), id="override"),
    ],
)
def test_requests(request_: Request, expected: tuple[str, str]) -> None:
    assert told(best(target("8.9"), request_))[:2] == expected


@pytest.mark.parametrize(
    "request_",
    [
        Request(profile="no-such"),
        replace(QLORA, torch="newest"),
        replace(QLORA, bitsandbytes=">="),
        replace(QLORA, cuda="twelve"),
        replace(QLORA, python="three"),
        Request(profile="gptq", bitsandbytes="==0.50.2"),
    ],
    ids=["profile", "torch", "bitsandbytes", "cuda", "python", "another-family"],
)
def test_bad_requests(request_: Request) -> None:
    with pytest.raises(UsageError) as caught:
        solve(request_, target("8.9"), matrix())
    assert caught.value.code == "bad-request"
    assert caught.value.hint


def test_of_two_builds_for_rocm_the_newer_toolkit_is_taken() -> None:
    gfx: dict[str, Any] = {"gfx": ("gfx1100",)}
    builds = (torch("2.13.0", "rocm6.3", **gfx), torch("2.13.0", "rocm6.4", **gfx))
    held = wheel("0.50.2", tuple(library(kind, gfx=("gfx1100",)) for kind in ("rocm63", "rocm64")))
    machine = target(amd("gfx1100"), accelerator="rocm", driver=None)
    for rows in (builds, builds[::-1]):
        answer = best(machine, facts=matrix(torch=rows, bitsandbytes=(held,)))
        assert told(answer)[:2] == ("2.13.0", "rocm6.4")


def test_relocatable_ptx_is_never_chosen_beside_a_cubin() -> None:
    ptx_only = wheel("0.50.3", (library("cuda132", "8.0", ptx="8.0"), library("cuda126", "9.0")))
    answer = best(target("9.0"), facts=matrix(bitsandbytes=(ptx_only, *WHEELS)))
    assert told(answer)[:3] == ("2.15.0", "cu132", "0.50.2")
    alone = best(
        target("9.0"), replace(QLORA, torch="==2.15.0", cuda="13.2"), facts=matrix(bitsandbytes=(ptx_only,))
    )
    assert alone.judgement.works is None


def test_passed_over_tells_the_rule_and_the_fact() -> None:
    answer = best(target("6.1"))
    reasons = [(r.stack.torch.version, r.stack.torch.build, r.finding.code) for r in answer.passed_over]
    assert reasons == [
        ("2.15.0", "cu132", "torch-arch-unsupported"),
        ("2.15.0", "cu130", "torch-arch-unsupported"),
        ("2.14.1", "cu130", "torch-arch-unsupported"),
    ]
    assert "GPU 0 (6.1)" in answer.passed_over[0].finding.summary


@pytest.mark.parametrize(
    ("machine", "request_", "blocking", "need"),
    [
        pytest.param(target("8.9", driver="440.33"), QLORA, {"driver 440.33"}, "driver >= 580", id="driver"),
        pytest.param(target("6.1", driver="590.44.01"), QLORA, {"driver 590.44.01", "GPU 0 (6.1)"}, "driver 580",
                     id="driver-drops-gpu"),
        pytest.param(target("6.1", "12.0"), QLORA, {"GPU 0 (6.1)", "GPU 1 (12.0)"}, "drop GPU 0 (6.1)", id="mixed"),
        pytest.param(target("6.1"), replace(QLORA, torch="==2.15.0"), {"torch ==2.15.0", "GPU 0 (6.1)"},
                     "a torch build that serves the GPU", id="pin"),
        pytest.param(target("8.9", pythons=("3.9",)), QLORA, {"Python 3.9"}, "Python >=3.11", id="python"),
        pytest.param(target("3.7", driver="470.1"), QLORA, {"GPU 0 (3.7)"}, "a torch build that serves the GPU",
                     id="kepler"),
        pytest.param(target("8.9", os="windows"), QLORA, {"windows x86_64"}, None, id="no-wheels"),
    ],
)  # fmt: skip
def test_blocking_and_nearest(machine: Any, request_: Request, blocking: set[str], need: str | None) -> None:
    answer = none(machine, request_)
    assert set(answer.blocking) == blocking
    if need is not None:
        assert any(need in needs for _, needs in answer.nearest), answer.nearest


def test_unlike_gpus_name_the_best_subset_and_how_to_select_it() -> None:
    answer = none(target("6.1", "12.0", "12.0"))
    stack, needs = answer.nearest[0]
    assert needs == ("drop GPU 0 (6.1)", "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=1,2")
    assert stack.torch.version == "2.15.0"


def test_the_nearest_stack_is_one_that_the_profile_takes() -> None:
    near = none(target("8.6", driver="470.1"), Request(profile="compiled", cuda="12.6")).nearest
    assert [needs for _, needs in near] == [("driver >= 525",)]
    assert near[0][0].torch.version == "2.7.1"


def test_a_set_of_compiled_packages_takes_their_toolkit_and_platform_alone() -> None:
    """The newest torch in range is built with 12.8; the second set takes any build."""
    answer = best(target("8.6"), Request(profile="compiled"))
    assert (answer.stack.torch.version, answer.stack.torch.build) == ("2.10.0", "cu128")
    assert answer.stack.packages["transformers"] == ">=4.57,<4.58"
    older = best(target("8.6"), Request(profile="compiled", cuda="11.8"))
    assert (older.stack.torch.version, older.stack.torch.build) == ("2.7.1", "cu118")
    assert older.stack.packages["transformers"] == ">=4.53,<4.54"


def test_a_driver_too_old_for_all_is_told_the_smallest_step_too() -> None:
    needed = {one for _, needs in none(target("8.6", driver="400.1")).nearest for one in needs}
    assert {"driver >= 580", "driver >= 525", "driver >= 450"} <= needed


def test_unavailable_index_is_a_blocking_fact() -> None:
    answer = none(target("8.6", driver="470.1"), offers=PYPI_ONLY)
    assert any(fact.startswith("unavailable: ") for fact in answer.blocking)


# ---- proofs ----------------------------------------------------------------------------------------

BUILDS = st.builds(
    lambda release, build, cubins, pythons, index, gfx, how: torch(
        release,
        build,
        cubins if build.startswith("cu") else "",
        pythons=pythons,
        index=index,
        gfx=gfx if build.startswith("rocm") else (),
        oneapi="2026" if build == "xpu" else None,
        provenance=how,
    ),
    release=st.sampled_from(["2.5.1", "2.7.1", "2.10.0", "2.14.1", "2.15.0"]),
    build=st.sampled_from(["cu118", "cu126", "cu129", "cu130", "cpu", "rocm6.4", "rocm7.2", "xpu"]),
    gfx=st.sampled_from([(), ("gfx1100",), ("gfx1030", "gfx1100", "gfx1103")]),
    cubins=st.sampled_from(["", "8.0", "6.0 8.0", "7.5 8.6 12.0", "6.0 9.0 12.0"]),
    pythons=st.sampled_from([("3.10", "3.11"), ("3.11", "3.12"), ("3.12",)]),
    index=st.sampled_from(["pypi", "elsewhere", "another"]),
    how=st.sampled_from([MEASURED, MEASURED, UNCONFIRMED]),
)
LIBRARIES = st.builds(
    lambda kind, cubins, ptx, gfx: (
        library(kind, cubins, **ptx)
        if kind.startswith("cuda")
        else library(kind, gfx=gfx if kind.startswith("rocm") else ())
    ),
    kind=st.sampled_from(
        ["cpu", "cuda118", "cuda126", "cuda128", "cuda130", "rocm63", "rocm64", "rocm71", "xpu"]
    ),
    gfx=st.sampled_from([("gfx1100",), ("gfx1030", "gfx1103"), ("gfx1030", "gfx1100")]),
    cubins=st.sampled_from(["8.0", "6.0 8.0", "7.5 8.6 12.0"]),
    ptx=st.sampled_from([{}, {"ptx": "8.0"}]),
)
BNB_WHEELS = st.builds(
    lambda release, libraries, broken: wheel(release, libraries, broken=broken),
    release=st.sampled_from(["0.45.5", "0.46.1", "0.49.2", "0.50.2"]),
    libraries=st.lists(LIBRARIES, min_size=1, max_size=4, unique_by=lambda row: row.name),
    broken=st.sampled_from([None, None, None, "broken"]),
)
MATRICES = st.builds(
    lambda builds, wheels: matrix(torch=tuple(builds), bitsandbytes=tuple(wheels)),
    builds=st.lists(
        BUILDS, min_size=1, max_size=6, unique_by=lambda row: (row.version, row.build, row.index)
    ),
    wheels=st.lists(BNB_WHEELS, min_size=1, max_size=3, unique_by=lambda row: row.version),
)
DRIVERS = ("470.82", "535.1", "570.26", "580.95.05", "590.44")
TARGETS = st.one_of(
    st.builds(
        lambda cards, driver, pythons: target(*cards, driver=driver, pythons=pythons),
        cards=st.lists(st.sampled_from(["6.1", "7.0", "8.6", "8.9", "12.0"]), min_size=1, max_size=3),
        driver=st.sampled_from([*DRIVERS, None]),
        pythons=st.sampled_from([(), ("3.10",), ("3.11", "3.12")]),
    ),
    st.builds(lambda pythons: target(pythons=pythons), pythons=st.sampled_from([(), ("3.11", "3.12")])),
    st.builds(
        lambda cards: target(*map(amd, cards), accelerator="rocm", driver=None),
        st.lists(st.sampled_from(["gfx1100", "gfx1030", "gfx906", "gfx1103"]), min_size=1, max_size=2),
    ),
    st.just(target(Gpu(name="Arc"), accelerator="xpu", driver=None)),
    st.just(target(Gpu(name="a new card"))),
)
REQUESTS = st.builds(
    lambda profile, cpu, env: Request(profile=profile, cpu=cpu, env=env),
    profile=st.sampled_from(["qlora", "int8", "compiled"]),
    cpu=st.booleans(),
    env=st.sampled_from([{}, {}, {"BNB_CUDA_VERSION": "126"}, {"HSA_OVERRIDE_GFX_VERSION": "11.0.0"}]),
)


def exhaustive(request: Request, machine: Any, facts: Any) -> tuple[Any, Any] | None:
    """The least by the order among all combinations, each judged whole."""
    choices = candidates(request, machine, facts, Offers())
    found = []
    builds = chain.from_iterable(choices.torch)
    every = product(enumerate(choices.sets), builds, choices.wheels, choices.pythons)
    for (place, group), build, row, python in every:
        if not choices.admits(group, build, row, python):
            continue
        stack = choices.stack(group, build, row, python)
        findings = judge(stack, choices.target, facts).findings
        if weight(findings) < ERROR:
            found.append((rank(stack, findings, place, choices.target, facts), stack))
    return min(found, key=lambda pair: pair[0]) if found else None


@settings(max_examples=120, deadline=None)
@given(facts=MATRICES, machine=TARGETS, request=REQUESTS)
def test_solve_is_exhaustive_search(facts: Any, machine: Any, request: Request) -> None:
    expected = exhaustive(request, machine, facts)
    answer = solve(request, machine, facts)
    if expected is None:
        assert isinstance(answer, Unsolvable)
    else:
        assert isinstance(answer, Solution)
        assert answer.stack == expected[1]


@settings(max_examples=40, deadline=None)
@given(
    facts=MATRICES,
    machine=TARGETS,
    request=REQUESTS,
    pins=st.sampled_from(
        [{}, {"torch": "==2.7.1"}, {"bitsandbytes": "==0.49.2"}, {"cuda": "12.6", "python": "3.12"}]
    ),
)
def test_what_blocks_is_a_smallest_set(
    facts: Any, machine: Any, request: Request, pins: dict[str, str]
) -> None:
    assume(request.profile != "compiled" or "bitsandbytes" not in pins)
    request = replace(request, **pins)  # type: ignore[arg-type]
    if isinstance(solve(request, machine, facts), Solution):
        return
    every = conflict.facts(request, machine, facts, Offers())

    def blocks(kept: tuple[int, ...]) -> bool:
        left = [(request, machine, Offers())]
        for number, (_, let_go) in enumerate(every):
            if number not in kept:
                left = [other for problem in left for other in let_go(problem)]
        return all(exhaustive(asked, here, facts) is None for asked, here, _ in left)

    found = conflict.blocking(request, machine, facts, Offers())
    places = tuple(range(len(every)))
    granted = places[-2:]  # the accelerator and the profile, which are named only where they block alone
    named, held = (granted, ()) if blocks(granted) else (places[:-2], granted)
    assert set(found) <= set(named)
    assert blocks(found + held)
    smaller = (some for size in range(len(found)) for some in combinations(named, size))
    assert not any(blocks(some + held) for some in smaller)


def key(answer: Solution | Unsolvable, request: Request, machine: Any, facts: Any) -> Any:
    """The rank of an answer; ``None`` where there is none."""
    if isinstance(answer, Unsolvable):
        return None
    profile = next(row for row in PROFILES if row.name == request.profile)
    versions = {group.packages["transformers"]: place for place, group in enumerate(profile.sets)}
    place = versions[answer.stack.packages["transformers"]]
    seen = candidates(request, machine, facts, Offers()).target
    return rank(answer.stack, answer.judgement.findings, place, seen, facts)


@settings(max_examples=30, deadline=None)
@given(facts=MATRICES, added=BNB_WHEELS, machine=TARGETS, request=REQUESTS)
def test_an_added_wheel_never_worsens_the_answer(
    facts: Any, added: Any, machine: Any, request: Request
) -> None:
    before = key(solve(request, machine, facts), request, machine, facts)
    if any(row.version == added.version for row in facts.bitsandbytes):
        return
    more = matrix(torch=facts.torch, bitsandbytes=(*facts.bitsandbytes, added))
    after = key(solve(request, machine, more), request, machine, more)
    assert before is None or (after is not None and not before < after)


@settings(max_examples=30, deadline=None)
@given(facts=MATRICES, machine=TARGETS, request=REQUESTS, data=st.data())
def test_the_order_of_rows_and_gpus_does_not_matter(
    facts: Any, machine: Any, request: Request, data: Any
) -> None:
    other = matrix(
        torch=tuple(data.draw(st.permutations(facts.torch))),
        bitsandbytes=tuple(data.draw(st.permutations(facts.bitsandbytes))),
    )
    turned = replace(machine, gpus=tuple(data.draw(st.permutations(machine.gpus))))
    one, two = solve(request, machine, facts), solve(request, turned, other)
    assert type(one) is type(two)
    if isinstance(one, Solution) and isinstance(two, Solution):
        assert one.stack == two.stack


@settings(max_examples=30, deadline=None)
@given(facts=MATRICES, machine=TARGETS, request=REQUESTS)
def test_the_same_question_has_the_same_answer(facts: Any, machine: Any, request: Request) -> None:
    assert solve(request, machine, facts) == solve(request, machine, facts)


@settings(max_examples=40, deadline=None)
@given(
    facts=MATRICES,
    cards=st.lists(st.sampled_from(["7.5", "8.6", "8.9", "9.0"]), min_size=1, max_size=2),
    drivers=st.lists(st.sampled_from(DRIVERS), min_size=2, max_size=2),
)
def test_a_newer_driver_never_removes_a_stack(facts: Any, cards: list[str], drivers: list[str]) -> None:
    older, newer = sorted(drivers, key=lambda text: DriverVersion.parse(text).numbers)
    before = solve(QLORA, target(*cards, driver=older), facts)
    if isinstance(before, Solution):
        after = judge(before.stack, target(*cards, driver=newer), facts)
        assert after.works is not False
        assert isinstance(solve(QLORA, target(*cards, driver=newer), facts), Solution)


def test_a_build_seen_on_the_users_default_index_is_offered() -> None:
    """A private default index is called `pypi` too: what was seen there counts, not what PyPI would have."""
    own = torch("2.13.0", "cpu", index="pypi", local="cpu", pythons=("3.11",))
    offers = replace(PYPI_ONLY, builds=(own,), listed={"pypi": frozenset()})
    assert told(best(target(pythons=("3.11",)), offers=offers)) == ("2.13.0", "cpu", "0.50.2", "pypi")
