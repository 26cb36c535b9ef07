from __future__ import annotations

import pytest

from bnbenv.doctor import plan as plans
from bnbenv.doctor.plan import Facts, codes, make_plan, same_version
from bnbenv.judge.stack import Finding, Remedy, Severity
from bnbenv.matrix.load import load

CAUSES = {row.id: row for row in load("causes").causes}
LOCKED = {"torch": "2.13.0+cpu", "bitsandbytes": "0.50.2", "peft": "0.21.2"}


def found(code: str, severity: Severity = "error", subject: str = "bitsandbytes", *evidence: str) -> Finding:
    return Finding(
        evidence=evidence,
        code=code,
        severity=severity,
        subject=subject,
        summary=f"{code} of {subject}",
        remedy=Remedy(summary=f"do something about {code}", commands=(f"mend {code}",)),
    )


def ours(*findings: Finding, **installed: str) -> Facts:
    return Facts(
        environment="my lab",
        findings=findings,
        installed={**LOCKED, **installed},
        causes=CAUSES,
        locked=LOCKED,
        rebuilds=True,
    )


def theirs(*findings: Finding, **installed: str) -> Facts:
    return Facts(environment="my lab", findings=findings, installed={**LOCKED, **installed}, causes=CAUSES)


def actions(plan: plans.Plan) -> list[tuple[str, str]]:
    return [(step.action, step.subject) for step in plan.steps]


@pytest.mark.parametrize("facts", [ours(), theirs(), ours(found("driver-changed", "info"))])
def test_nothing_is_done_where_nothing_is_wrong(facts: Facts) -> None:
    assert make_plan(facts) == plans.Plan()


def test_damage_of_one_of_ours_is_mended_from_the_lock() -> None:
    plan = make_plan(ours(found("file-damaged")))
    assert actions(plan) == [("rebuild", "environment")]
    assert codes(plan.steps) == {"file-damaged"}


def test_a_torch_that_the_user_changed_stays_by_default() -> None:
    facts = ours(found("installer-replaced-torch", "warning", "torch"), torch="2.15.0")
    assert actions(make_plan(facts)) == [("solve", "torch")]
    assert actions(make_plan(facts, "keep-torch")) == [("solve", "torch")]
    assert actions(make_plan(facts, "restore")) == [("rebuild", "environment")]


def test_a_locked_stack_that_no_longer_fits_the_machine_is_chosen_again() -> None:
    plan = make_plan(ours(found("driver-too-old", subject="torch")))
    assert actions(plan) == [("solve", "stack")]


def test_a_changed_base_is_solved_upon() -> None:
    assert actions(make_plan(ours(found("base-changed", subject="torch")))) == [("solve", "stack")]


def test_what_differs_from_the_lock_is_told_and_restored() -> None:
    facts = ours(peft="0.20.0")
    assert make_plan(facts) == plans.Plan()
    plan = make_plan(facts, "restore")
    assert actions(plan) == [("rebuild", "environment")]
    assert plan.steps[0].why == ("peft is 0.20.0, the lock says 0.21.2",)


def test_an_upgrade_is_done_also_where_nothing_is_wrong() -> None:
    assert actions(make_plan(ours(), "upgrade")) == [("solve", "stack")]
    assert [action for action, _ in actions(make_plan(theirs(), "upgrade"))] == ["choose"] * 3


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        (found("file-damaged"), ("reinstall", "bitsandbytes")),
        (found("record-missing"), ("reinstall", "bitsandbytes")),
        (found("stale-library"), ("reinstall", "bitsandbytes")),
        (found("file-damaged", subject="torch"), ("reinstall", "torch")),
        (found("missing-python-dep", "error", "bitsandbytes", "scipy>=1"), ("install", "scipy")),
        (found("missing-python-dep", "error", "peft", "accelerate"), ("install", "accelerate")),
        (found("torch-triton-mismatch", "warning", "torch", "triton==3.8.0"), ("install", "triton")),
        (found("torch-triton-mismatch", "warning", "torch"), ("install", "triton")),
        (
            found("cuda-runtime-not-found", "error", "torch", "nvidia-cublas==13"),
            ("install", "nvidia-cublas"),
        ),
        (found("cuda-runtime-not-found"), ("choose", "bitsandbytes")),
        (found("bnb-too-old"), ("choose", "bitsandbytes")),
        (found("bnb-not-installed"), ("choose", "bitsandbytes")),
        (found("driver-too-old", subject="torch"), ("choose", "torch")),
        (found("hf-stack-version-mismatch", subject="peft"), ("choose", "hugging-face")),
        (found("interpreter-broken", subject="pyvenv.cfg"), ("mend-venv", "interpreter")),
        (found("environment-moved", "warning", "scripts"), ("mend-venv", "interpreter")),
    ],
)
def test_in_place_there_is_one_step_for_one_cause(finding: Finding, expected: tuple[str, str]) -> None:
    plan = make_plan(theirs(finding))
    assert actions(plan) == [expected]
    assert codes(plan.steps) == {finding.code}


def test_what_is_chosen_anew_is_not_installed_again_as_well() -> None:
    plan = make_plan(theirs(found("bnb-too-old"), found("file-damaged")))
    assert actions(plan) == [("choose", "bitsandbytes")]


_LOST = (found("no-gpu-visible", subject="torch"), found("file-damaged"))


def test_a_torch_that_is_chosen_is_not_installed_by_itself() -> None:
    facts = Facts(
        environment="my lab",
        findings=(
            found("torch-not-installed", subject="torch"),
            found("missing-python-dep", "error", "peft", "torch>=1.13"),
        ),
        installed={"peft": "0.21.2"},
        causes=CAUSES,
    )
    assert actions(make_plan(facts)) == [("choose", "torch")]


@pytest.mark.parametrize("facts", [ours(*_LOST), theirs(*_LOST)])
def test_the_machine_forbids_touching_anything(facts: Facts) -> None:
    plan = make_plan(facts)
    assert plan.steps == ()
    assert [step.summary for step in plan.stops] == ["do something about no-gpu-visible"]
    assert plan.stops[0].commands == (
        "mend no-gpu-visible",
        "bnbenv repair 'my lab' --target FILE",
        "bnbenv repair 'my lab' --cpu",
    )


def test_an_environment_that_does_not_know_what_it_was_asked_for_is_left_alone() -> None:
    plan = make_plan(ours(found("state-broken", subject="state.json"), found("torch-not-installed")))
    assert plan.steps == ()
    assert codes(plan.stops) == {"state-broken"}


def test_what_is_outside_is_shown_and_never_done() -> None:
    plan = make_plan(theirs(found("bnb-cuda-override-wrong", subject="BNB_CUDA_VERSION")))
    assert plan.steps == plan.stops == ()
    assert plan.shown[0].commands == ("mend bnb-cuda-override-wrong",)


def test_what_a_variable_alone_makes_wrong_is_the_variables_fault() -> None:
    notice = found("bnb-cuda-override-wrong", "info", "BNB_CUDA_VERSION")
    before = (found("cuda-runtime-not-found"), found("file-damaged"), notice)
    steps = plans.variables_of(before, (found("file-damaged"),), ["BNB_CUDA_VERSION"], CAUSES)
    assert [(step.action, step.commands) for step in steps] == [("show", ("unset BNB_CUDA_VERSION",))]
    assert codes(steps) == {"cuda-runtime-not-found"}
    assert plans.variables_of(before, before, ["BNB_CUDA_VERSION"], CAUSES) == ()
    told = (*before, found("bnb-cuda-override-wrong", subject="BNB_CUDA_VERSION"))
    assert plans.variables_of(told, (), ["BNB_CUDA_VERSION"], CAUSES) == ()


def test_what_a_chosen_part_lacks_comes_with_it() -> None:
    plan = make_plan(
        theirs(
            found("hf-stack-version-mismatch", subject="transformers"),
            found("missing-python-dep", "error", "transformers", "requests"),
            found("missing-python-dep", "error", "bitsandbytes", "scipy"),
        )
    )
    assert actions(plan) == [("choose", "hugging-face"), ("install", "scipy")]


def test_an_error_that_nothing_mends_stops_with_its_next_step() -> None:
    plan = make_plan(theirs(found("kernel-crash", subject="GPU 0")))
    assert [step.action for step in plan.stops] == ["stop"]


def test_a_plain_environment_of_ours_gets_back_what_the_lock_says() -> None:
    facts = Facts(
        environment="my lab",
        findings=(found("environment-changed", "warning", "peft"),),
        installed={**LOCKED, "peft": "0.20.0"},
        causes=CAUSES,
        locked=LOCKED,
    )
    plan = make_plan(facts)
    assert actions(plan) == [("install", "peft")]
    assert plan.steps[0].summary == "install peft 0.21.2"


def test_a_plain_environment_of_ours_gets_its_guard_back() -> None:
    facts = Facts(
        environment="my lab",
        findings=(found("environment-changed", "warning", "guard"),),
        installed=LOCKED,
        causes=CAUSES,
        locked=LOCKED,
    )
    assert actions(make_plan(facts)) == [("mend-guard", "guard")]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2.13.0", "2.13.0+cpu", True),
        ("2.13.0+cu126", "2.13.0+cpu", False),
        ("2.13.0", "2.13.1", False),
        ("0.50.2", "0.50.2", True),
        ("2024.08.30", "2024.8.30", True),
        ("2024.08.30+a", "2024.8.30+b", False),
        ("built-by-me", "2024.8.30", False),
    ],
)
def test_a_local_part_counts_only_where_both_have_one(one: str, other: str, same: bool) -> None:
    assert same_version(one, other) is same
