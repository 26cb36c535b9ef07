from __future__ import annotations

from dataclasses import replace

from bnbenv.judge.hazards import Barred, barred, hazards_of
from bnbenv.judge.rules.packages import no_package_breaks_others
from bnbenv.judge.stack import Stack
from bnbenv.matrix.load import load
from bnbenv.matrix.rows import Hazard
from support.judge_facts import CU126, PUBLISHED, WHEELS, matrix, target, torch

STACK = Stack(
    python="3.12",
    torch=torch("2.14.1", "cu126", CU126),
    bitsandbytes=WHEELS[0],
    profile="qlora",
    packages={"peft": ">=0.21,<0.22", "transformers": ">=5.21,<5.24"},
)


def hazard(
    package: str,
    versions: str = "",
    instead: str | None = None,
    absent: tuple[str, ...] = (),
    *,
    itself: bool = False,
    **when: str,
) -> Hazard:
    return Hazard(
        package=package,
        versions=versions,
        when=when,
        mechanism=f"{package} breaks",
        instead=instead,
        absent=absent,
        itself=itself,
        provenance=PUBLISHED,
    )


def names(*rows: Hazard) -> set[str]:
    return {entry.package for entry in barred(STACK, matrix(hazards=rows))}


def of_autoawq(*rows: Hazard) -> Barred:
    (found,) = [entry for entry in barred(STACK, matrix(hazards=rows)) if entry.package == "autoawq"]
    return found


def test_what_the_profile_excludes_is_barred_and_only_what_happens_there_is_told() -> None:
    assert of_autoawq(hazard("autoawq", instead="awq", peft="<0.19")) == Barred(
        package="autoawq",
        mechanism="the profile qlora keeps it apart, though nothing that stands here is known to break",
        instead="awq",
        successor=None,
        source="compat/profiles.toml",
    )
    assert of_autoawq().mechanism == "the profile qlora keeps it apart"


def test_of_several_rows_the_one_that_fits_is_told() -> None:
    old, new = hazard("autoawq", peft="<0.19"), hazard("autoawq", "<=0.2.9", peft=">=0.20")
    assert of_autoawq(old, new._replace(mechanism="awq fails")).mechanism == "awq fails"
    every = hazard("autoawq", peft=">=0.20")._replace(mechanism="every awq fails")
    assert of_autoawq(old, new, every).mechanism == "every awq fails"


def test_a_package_that_alone_fails_is_no_hazard_to_the_others() -> None:
    row = hazard("auto-gptq", itself=True, transformers=">=5")
    versions = {"peft": "0.21.2", "transformers": "5.23.0", "auto-gptq": "0.7.1"}
    assert "auto-gptq" not in names(row)
    assert hazards_of(STACK, versions, matrix(hazards=(row,))) == {}
    stack = replace(STACK, packages=versions)
    assert not [*no_package_breaks_others(stack, target("8.9"), matrix(hazards=(row,)))]
    assert hazards_of(STACK, versions, matrix(hazards=(row._replace(itself=False),)))


def test_what_is_told_of_the_packages_kept_apart_happens_beside_the_newest_set() -> None:
    """Of auto-gptq was measured that it fails to import beside transformers 5, of autoawq no fault."""
    real = load("profiles", "hazards")
    qlora = next(row for row in real.profiles if row.name == "qlora")
    stack = replace(STACK, packages=qlora.sets[0].packages)
    told = {entry.package: entry for entry in barred(stack, real)}
    assert "does not import" in told["auto-gptq"].mechanism
    assert "nothing that stands here is known to break" in told["autoawq"].mechanism
    assert (told["auto-gptq"].instead, told["auto-gptq"].successor) == ("gptq-legacy", "gptq")
    assert (told["autoawq"].instead, told["autoawq"].successor) == ("awq-legacy", "awq")
    older = next(it for it in qlora.sets if it.name == "4.57")
    told = {entry.package: entry for entry in barred(replace(STACK, packages=older.packages), real)}
    assert "older than 0.5.0" in told["auto-gptq"].mechanism
    assert "every adapter fails" in told["autoawq"].mechanism


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
