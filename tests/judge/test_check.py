from __future__ import annotations

from typing import Any

import pytest

from bnbenv.errors import UsageError
from bnbenv.judge.check import Checked, Combination, check
from bnbenv.judge.document import (
    check_document,
    resolution_document,
    unsolvable_document,
    why_not_document,
)
from bnbenv.judge.explain import why_not
from bnbenv.judge.lookup import FIRST_TAGGED
from bnbenv.judge.ranges import within
from bnbenv.judge.solve import solve
from bnbenv.judge.stack import Offers, Request, Solution, Unsolvable
from bnbenv.matrix.load import load
from support.judge_facts import WHEELS, library, matrix, target, wheel

QLORA = Request(profile="qlora")


def checked(torch: str, bnb: str, machine: Any = None, **more: Any) -> Checked:
    return check(Combination(torch=torch, bitsandbytes=bnb, **more), machine or target("8.9"), matrix())


def codes(answer: Checked) -> set[str]:
    return {finding.code for finding in answer.judgement.findings}


def test_a_known_combination_works() -> None:
    answer = checked("2.14.1+cu126", "0.50.2")
    assert answer.judgement.works is True
    assert answer.library == "libbitsandbytes_cuda126.so"


def test_a_bare_version_is_pypis_build() -> None:
    assert checked("2.15.0", "0.50.2").stack.torch.build == "cu132"


def test_the_library_of_a_build_that_the_matrix_does_not_know() -> None:
    answer = checked("2.13.9+cu129", "0.49.2")
    assert answer.library == "libbitsandbytes_cuda129.so"
    assert answer.judgement.works is None
    assert "unknown-torch-build" in codes(answer)


def test_an_unknown_build_with_a_certain_fault_does_not_work() -> None:
    answer = checked("2.13.9+cu132", "0.49.2")
    assert answer.library is None
    assert answer.judgement.works is False
    assert "missing-cuda-binary" in codes(answer)


def test_an_unknown_bitsandbytes_is_undecided() -> None:
    answer = checked("2.14.1+cu126", "0.60.0")
    assert answer.judgement.works is None
    assert "unknown-bnb-release" in codes(answer)
    assert answer.library is None


@pytest.mark.parametrize("torch", ["2.10.0a0+b4e4ee81d3.nv25.12", "2.14.1+gitabcdef"])
def test_of_somebodys_own_build_nothing_is_known(torch: str) -> None:
    answer = checked(torch, "0.50.2")
    assert answer.judgement.works is None
    assert codes(answer) == {"unknown-torch-build"}
    assert answer.judgement.findings[0].summary.startswith(f"torch {torch} is somebody's own build")
    assert (answer.library, answer.library_known) == (None, False)


@pytest.mark.parametrize(("gpu", "works"), [("8.9", None), ("6.1", False)], ids=["kept", "dropped-before"])
def test_a_toolkit_after_all_that_are_known_may_serve_what_the_newest_serves(
    gpu: str, works: bool | None
) -> None:
    combination = Combination(torch="2.99.0+cu990", bitsandbytes=None)
    answer = check(combination, target(gpu), matrix())
    assert answer.judgement.works is works


@pytest.mark.parametrize(
    ("torch", "bnb", "told"),
    [("2.99.0+cu126", "0.50.2", True), ("2.14.1+cu129", "0.50.2", False), ("2.14.1+cu126", "8.8.8", True)],
    ids=["torch", "build", "bitsandbytes"],
)
def test_a_release_that_the_matrix_lacks_points_to_its_update(torch: str, bnb: str, told: bool) -> None:
    found = next(one for one in checked(torch, bnb).judgement.findings if one.undecided)
    commands = found.remedy.commands if found.remedy else ()
    assert ("bnbenv matrix update" in commands) is told


@pytest.mark.parametrize(
    ("bnb", "preview"),
    [
        ("1.33.7.preview", True),
        ("1.33.7.dev1", True),
        ("1.33.7", False),
        ("1.34.0rc1", False),
        ("8.8.8", False),
    ],
)
def test_only_previews_of_the_multi_backend_branch_are_told_as_such(bnb: str, preview: bool) -> None:
    assert ("rocm-broken-preview" in codes(checked("2.14.1+cu126", bnb))) is preview


@pytest.mark.parametrize(
    ("torch", "bnb", "expected"),
    [
        ("2.13.9+cu129", "0.49.2", ("unknown", "cubin 8.9")),
        ("2.14.1+gitabcdef", "0.49.2", ("unknown", "unknown")),
        ("2.14.1+cu126", "0.60.0", ("cubin 8.6", "unknown")),
        ("2.13.9+cu132", "0.49.2", ("unknown", None)),
        ("2.14.1+cpu", "0.49.2", (None, None)),
        ("2.14.1+cu126", None, ("cubin 8.6", None)),
    ],
    ids=["torch", "own-build", "bitsandbytes", "no-library", "cpu", "none"],
)
def test_what_serves_a_gpu_is_unknown_or_nothing(
    torch: str, bnb: str | None, expected: tuple[str | None, ...]
) -> None:
    answer = check(Combination(torch=torch, bitsandbytes=bnb), target("8.9"), matrix())
    (cover,) = answer.judgement.coverage
    assert (cover.torch, cover.bitsandbytes) == expected


def test_a_release_of_another_platform_does_not_work() -> None:
    answer = checked("2.14.1+cu126", "0.50.2", target("8.9", arch="aarch64"))
    assert answer.judgement.works is False
    assert (answer.library, answer.library_known) == (None, True)


def test_the_library_is_told_for_the_cuda_version_named_without_a_gpu() -> None:
    answer = checked("2.14.1+cu126", "0.50.2", target())
    assert answer.library == "libbitsandbytes_cuda126.so"
    assert answer.judgement.works is True


def test_the_wheel_for_any_platform_stands_for_a_release_without_others() -> None:
    old = wheel("0.41.3", (library("cuda118", "8.0"),), platform="any")
    facts = matrix(bitsandbytes=(*WHEELS, old))
    answer = check(Combination(torch="2.14.1", bitsandbytes="0.41.3"), target(os="windows"), facts)
    assert "windows-no-binary" in codes(answer)


@pytest.mark.parametrize(
    ("pythons", "asked", "expected"),
    [
        (("3.11", "3.12"), None, "3.12"),
        (("3.9", "3.11"), None, "3.11"),
        ((), None, "3.13"),
        (("3.9",), None, "3.13"),
        (("3.11",), "3.12.4", "3.12"),
    ],
    ids=["newest", "newest-that-fits", "unknown", "none-fits", "asked"],
)
def test_python(pythons: tuple[str, ...], asked: str | None, expected: str) -> None:
    answer = checked("2.14.1+cu126", "0.50.2", target("8.9", pythons=pythons), python=asked)
    assert answer.stack.python == expected


@pytest.mark.parametrize(
    ("torch", "bnb", "python"),
    [("two", "0.50.2", None), ("2.9.1", "newest", None), ("2.9.1+cu1", "0.50.2", "3.x")],
    ids=["torch", "bitsandbytes", "python"],
)
def test_bad_versions(torch: str, bnb: str, python: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        checked(torch, bnb, python=python)
    assert caught.value.code == "bad-request"


def test_check_document() -> None:
    machine = target("8.9")
    document = check_document(
        checked("2.14.1+cu126", "0.50.2", machine, packages={"Some_Package": "==1.0"}), machine, matrix()
    )
    assert document["works"] is True
    assert document["packages"] == {"some-package": "1.0"}
    assert document["gpus"] == [
        {"compute_capability": "8.9", "torch": "cubin 8.6", "bitsandbytes": "cubin 8.9"}
    ]


def test_resolution_document() -> None:
    machine, facts = target("6.1"), matrix()
    answer = solve(QLORA, machine, facts)
    assert isinstance(answer, Solution)
    document = resolution_document(answer, machine, facts, QLORA, explain=True)
    assert document["torch"] == {
        "version": "2.14.1", "build": "cu126", "cuda": "12.6", "index": "pytorch-cu126",
    }  # fmt: skip
    assert document["bitsandbytes"]["library"] == "libbitsandbytes_cuda126.so"
    assert document["python"] == "3.12"
    assert document["evidence"] == "none"
    assert [row["finding"]["code"] for row in document["passed_over"]] == ["torch-arch-unsupported"] * 3


def test_unsolvable_document() -> None:
    machine, facts = target("6.1", "12.0"), matrix()
    answer = solve(QLORA, machine, facts)
    assert isinstance(answer, Unsolvable)
    document = unsolvable_document(answer, machine, facts, QLORA)
    assert set(document["blocking"]) == {"GPU 0 (6.1)", "GPU 1 (12.0)"}
    assert document["nearest"][0]["needs"][0].startswith("drop GPU")


@pytest.mark.parametrize(
    ("pin", "possible", "code"),
    [
        ("torch==2.15.0", False, "torch-arch-unsupported"),
        ("torch==2.14.1+cu130", False, "torch-arch-unsupported"),
        ("torch==2.14.1", True, None),
        ("torch==9.9", False, "unknown-torch-build"),
        ("bitsandbytes==0.47.0", True, None),
        ("bitsandbytes==0.46.0", False, "hf-stack-version-mismatch"),
        ("bitsandbytes==99.9", False, "unknown-bnb-release"),
        ("bitsandbytes==0.42.0", False, "legacy-cuda-setup"),
        ("bitsandbytes<0.43", False, "legacy-cuda-setup"),
        ("bitsandbytes==0.43.0", False, "unknown-bnb-release"),
    ],
)
def test_why_not(pin: str, possible: bool, code: str | None) -> None:
    machine, facts = target("6.1"), matrix()
    answer = why_not(pin, QLORA, machine, facts, Offers())
    assert answer.possible is possible
    document = why_not_document(answer, machine, facts)
    assert code is None or code in {finding["code"] for finding in document["findings"]}


@pytest.mark.parametrize(
    ("offers", "how"),
    [
        (Offers(unavailable=frozenset({"pytorch-cu126"})), "cannot be used"),
        (Offers(listed={"pytorch-cu126": frozenset()}), "was found not to list it"),
    ],
    ids=["unavailable", "not-listed"],
)
def test_a_pin_that_only_one_index_has_is_told_with_that_index(offers: Offers, how: str) -> None:
    answer = why_not("torch==2.14.1+cu126", QLORA, target("8.9", driver="570.86"), matrix(), offers)
    (reason,) = answer.reasons
    assert reason.code == "index-unavailable"
    assert reason.summary.endswith(f"torch 2.14.1 (cu126) of `pytorch-cu126`, but that index {how}")
    assert answer.needs == ("the index `pytorch-cu126`",)
    assert answer.stack is not None
    assert not answer.possible


def test_the_index_is_named_beside_what_the_nearest_stack_lacks() -> None:
    shut = Offers(unavailable=frozenset({"pytorch-cu126"}))
    answer = why_not("torch==2.14.1", QLORA, target("8.9", driver="570.86"), matrix(), shut)
    assert [reason.code for reason in answer.reasons][:1] == ["index-unavailable"]
    assert len(answer.reasons) > 1
    assert [needs[0].partition(" >= ")[0] for _, needs in answer.ways] == [
        "the index `pytorch-cu126`",
        "driver",
    ]


def test_what_no_index_would_change_is_told_of_a_pin_that_only_a_missing_one_has() -> None:
    shut = Offers(unavailable=frozenset({"pytorch-cu126"}))
    answer = why_not("torch==2.14.1+cu126", QLORA, target("12.0"), matrix(), shut)
    assert [reason.code for reason in answer.reasons] == ["torch-arch-unsupported"]


def test_an_old_bitsandbytes_is_not_chosen_for_its_tag_lies() -> None:
    old = Request(profile="qlora", bitsandbytes="==0.42.0")
    answer = solve(old, target("6.1"), matrix())
    assert isinstance(answer, Unsolvable)
    (reason,) = answer.findings
    assert "`any`, lies" in reason.summary
    assert why_not("bitsandbytes==0.42.0", QLORA, target("6.1"), matrix()).needs == (
        "bitsandbytes >= 0.43.0",
    )


def test_the_tags_of_wheels_tell_the_platform_since_the_release_that_is_named() -> None:
    for row in load("bitsandbytes").bitsandbytes:
        assert (row.platform == "any") is not within(row.version, f">={FIRST_TAGGED}"), row.wheel


@pytest.mark.parametrize(
    "pin",
    ["torch", "numpy==2", "torch==", "torch==abc"],
    ids=["no-version", "other", "malformed", "no-release"],
)
def test_why_not_wants_a_pin(pin: str) -> None:
    with pytest.raises(UsageError) as caught:
        why_not(pin, QLORA, target("6.1"), matrix())
    assert "\n" not in caught.value.message
