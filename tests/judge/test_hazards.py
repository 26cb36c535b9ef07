from __future__ import annotations

from dataclasses import replace

from bnbenv.judge.hazards import Barred, barred, hazards_of
from bnbenv.judge.stack import Stack
from bnbenv.matrix.load import load
from bnbenv.matrix.rows import Hazard
from support.judge_facts import CU126, PUBLISHED, WHEELS, matrix, torch

STACK = Stack(
    python="3.12",
    torch=torch("2.14.1", "cu126", CU126),
    bitsandbytes=WHEELS[0],
    profile="qlora",
    packages={"peft": ">=0.21,<0.22", "transformers": ">=5.21,<5.24"},
)


def hazard(
    package: str, versions: str = "", instead: str | None = None, absent: tuple[str, ...] = (), **when: str
) -> Hazard:
    return Hazard(
        package=package,
        versions=versions,
        when=when,
        mechanism=f"{package} breaks",
        instead=instead,
        absent=absent,
        provenance=PUBLISHED,
    )


def names(*rows: Hazard) -> set[str]:
    return {entry.package for entry in barred(STACK, matrix(hazards=rows))}


def test_what_the_profile_excludes_is_barred_with_its_mechanism() -> None:
    rows = (hazard("autoawq", instead="awq", peft="<0.19"),)
    found = {entry.package: entry for entry in barred(STACK, matrix(hazards=rows))}
    told = "the profile qlora keeps it apart: beside peft <0.19, autoawq breaks"
    assert found["autoawq"] == Barred(package="autoawq", mechanism=told, instead="awq", source="a test")


def test_no_profile_lets_another_familys_packages_in() -> None:
    real = load("profiles", "hazards")
    about = {"bitsandbytes": ("qlora", "int8", "inference"), "gptqmodel": ("gptq", "awq")}
    for package, profiles in about.items():
        for row in real.profiles:
            stack = replace(STACK, profile=row.name, bitsandbytes=None, packages={})
            kept_out = package in {entry.package for entry in barred(stack, real)}
            assert kept_out is (row.name not in profiles), (package, row.name)


def test_what_happens_in_this_very_stack_is_told_as_it_is() -> None:
    rows = (hazard("autoawq", peft=">=0.20"),)
    (found,) = [entry for entry in barred(STACK, matrix(hazards=rows)) if entry.package == "autoawq"]
    assert found.mechanism == "autoawq breaks"


def test_what_stands_there_is_judged_with_its_versions() -> None:
    rows = (hazard("torchao", "<0.16", peft=">=0.19"), hazard("hqq", "<1", peft="<0.1"))
    versions = {"peft": "0.21.2", "torchao": "0.15.0", "hqq": "0.2", "autoawq": "0.2.9"}
    found = hazards_of(STACK, versions, matrix(hazards=rows))
    assert set(found) == {"torchao", "autoawq"}  # the second, as the profile excludes it
    assert found["torchao"] == "torchao breaks"
    assert "torchao" not in hazards_of(STACK, {**versions, "torchao": "0.18.0"}, matrix(hazards=rows))


def test_what_breaks_every_release_beside_the_stack_is_barred() -> None:
    assert "shadow" in names(hazard("shadow", bitsandbytes=""))
    assert "shadow" not in names(hazard("shadow", peft="<0.19"))  # the stack's peft is newer
    assert "shadow" not in names(hazard("shadow", "<2", bitsandbytes=""))  # newer releases of it are harmless


def test_some_break_only_where_another_package_is_missing() -> None:
    rows = (hazard("gptqmodel", absent=("optimum",), peft=">=0.15"),)
    versions = {"peft": "0.21.2", "gptqmodel": "6.0.0"}
    assert set(hazards_of(STACK, versions, matrix(hazards=rows))) == {"gptqmodel"}
    assert hazards_of(STACK, {**versions, "optimum": "2.3.0"}, matrix(hazards=rows)) == {}
