from __future__ import annotations

from bnbenv.doctor.facts import Facts
from bnbenv.doctor.reason import causes_of
from bnbenv.doctor.scan import Hit, Seen
from bnbenv.matrix.matrix import Matrix
from bnbenv.matrix.rows import Implication, Precedence, Provenance, Symptom

BY = Provenance(how="published", source="test", checked="2026-11-25")


def rules(*implications: Implication, over: dict[str, tuple[str, ...]] | None = None) -> Matrix:
    return Matrix(
        revision="2026.11.25",
        symptoms=tuple(
            Symptom(id=name, kind="failure", literals=("xx",), pattern="x", provenance=BY) for name in "abc"
        ),
        implications=implications,
        precedences=tuple(
            Precedence(cause=cause, over=others, provenance=BY) for cause, others in (over or {}).items()
        ),
    )


def implies(cause: str, weight: int, **conditions: tuple[str, ...]) -> Implication:
    return Implication(id=cause, cause=cause, weight=weight, provenance=BY, **conditions)


def seen(**lines: int) -> Seen:
    return Seen(hits={name: [Hit(line=line, text="", facts={})] for name, line in lines.items()})


def codes(found: Seen, matrix: Matrix, facts: Facts | None = None) -> list[str]:
    return [named.code for named in causes_of(found, facts or Facts(stated={}), matrix)]


def test_all_any_and_none() -> None:
    rule = implies("x", 60, all=("a",), any=("b", "c"), none=("os:windows",))
    assert codes(seen(a=1), rules(rule)) == []
    assert codes(seen(a=1, c=2), rules(rule)) == ["x"]
    windows = Facts(stated={}, derived={"os:windows": (3,)})
    assert codes(seen(a=1, c=2), rules(rule), windows) == []


def test_a_weak_word_names_nothing() -> None:
    assert codes(seen(a=1), rules(implies("x", 49, all=("a",)))) == []


def test_the_first_of_several_decisive_failures_wins() -> None:
    matrix = rules(implies("x", 95, all=("a",)), implies("y", 82, all=("b",)))
    assert codes(seen(a=9, b=2), matrix) == ["y", "x"]
    assert codes(seen(a=1, b=2), matrix) == ["x", "y"]


def test_a_decisive_failure_comes_before_a_likely_one_whatever_the_order() -> None:
    matrix = rules(implies("x", 85, all=("a",)), implies("y", 70, all=("b",)))
    assert codes(seen(a=9, b=2), matrix) == ["x", "y"]


def test_a_cause_that_explains_another_comes_first() -> None:
    matrix = rules(implies("x", 90, all=("a",)), implies("y", 82, all=("b",)), over={"y": ("x",)})
    assert codes(seen(a=1, b=2), matrix) == ["y", "x"]


def test_what_is_unknown_does_not_hold() -> None:
    rule = implies("x", 60, all=("a", "bitsandbytes < 0.43"))
    assert codes(seen(a=1), rules(rule)) == []
