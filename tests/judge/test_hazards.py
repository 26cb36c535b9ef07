from __future__ import annotations

from bnbenv.judge.hazards import Barred, barred
from bnbenv.judge.stack import Stack
from bnbenv.matrix.rows import Hazard
from support.judge_facts import CU126, PUBLISHED, WHEELS, matrix, torch

STACK = Stack(
    python="3.12",
    torch=torch("2.14.1", "cu126", CU126),
    bitsandbytes=WHEELS[0],
    profile="qlora",
    packages={"peft": ">=0.21,<0.22", "transformers": ">=5.21,<5.24"},
)


def hazard(package: str, versions: str = "", instead: str | None = None, **when: str) -> Hazard:
    return Hazard(
        package=package,
        versions=versions,
        when=when,
        mechanism=f"{package} breaks",
        instead=instead,
        provenance=PUBLISHED,
    )


def names(*rows: Hazard) -> set[str]:
    return {entry.package for entry in barred(STACK, matrix(hazards=rows))}


def test_what_the_profile_excludes_is_barred_with_its_mechanism() -> None:
    rows = (hazard("autoawq", instead="awq", peft="<0.19"),)
    found = {entry.package: entry for entry in barred(STACK, matrix(hazards=rows))}
    assert found["autoawq"] == Barred(
        package="autoawq", mechanism="autoawq breaks", instead="awq", source="a test"
    )


def test_what_breaks_every_release_beside_the_stack_is_barred() -> None:
    assert "shadow" in names(hazard("shadow", bitsandbytes=""))
    assert "shadow" not in names(hazard("shadow", peft="<0.19"))  # the stack's peft is newer
    assert "shadow" not in names(hazard("shadow", "<2", bitsandbytes=""))  # newer releases of it are harmless
