from __future__ import annotations

import copy
import pickle
import typing
from typing import Any

import pytest

from bnbenv import namedtuple
from bnbenv.units import CudaVersion


def written_by(named_tuple: Any) -> Any:
    """The same class, by the standard library or by ours."""

    class Row(named_tuple):  # type: ignore[misc]
        """Every kind of field."""

        name: str
        parts: tuple[int, ...] = ()
        _unused = 3

        @property
        def length(self) -> int:
            return len(self.parts)

        @classmethod
        def parse(cls, text: str) -> Row:
            return cls(text)

        def __str__(self) -> str:
            return f"<{self.name}>"

    return Row


OURS, STANDARD = written_by(namedtuple.NamedTuple), written_by(typing.NamedTuple)

WAYS = [
    lambda row: row("a"),
    lambda row: row("a", (1, 2)),
    lambda row: row(name="a"),
    lambda row: row("a", parts=(1,)),
    lambda row: row(parts=(1,), name="a"),
    lambda row: row.parse("a"),
    lambda row: row("a")._replace(parts=(3,)),
    lambda row: tuple.__new__(row, ("a", ())),
]


@pytest.mark.parametrize("make", WAYS)
def test_a_row_is_what_the_standard_librarys_is(make: Any) -> None:
    ours, standard = make(OURS), make(STANDARD)
    assert tuple(ours) == tuple(standard)
    assert (repr(ours), str(ours), hash(ours)) == (repr(standard), str(standard), hash(standard))
    assert (ours.name, ours.parts, ours.length, len(ours)) == (
        standard.name,
        standard.parts,
        standard.length,
        len(standard),
    )
    assert ours == tuple(standard)
    assert copy.deepcopy(ours) == ours
    assert type(copy.copy(ours)) is OURS


@pytest.mark.parametrize(
    "make",
    [
        lambda row: row(),
        lambda row: row("a", (), 3),
        lambda row: row("a", name="b"),
        lambda row: row("a", none=1),
        lambda row: row(parts=()),
        lambda row: row("a")._replace(none=1),
        lambda row: setattr(row("a"), "name", "b"),
        lambda row: setattr(row("a"), "none", "b"),
    ],
)
def test_what_the_standard_library_refuses_is_refused(make: Any) -> None:
    refusals = (TypeError, ValueError, AttributeError)
    with pytest.raises(refusals):
        make(STANDARD)
    with pytest.raises(refusals):
        make(OURS)


@pytest.mark.parametrize(
    "name",
    ["_fields", "_field_defaults", "__match_args__", "__doc__", "__module__", "__qualname__"],
)
def test_a_class_tells_of_itself_what_the_standard_librarys_tells(name: str) -> None:
    assert getattr(OURS, name) == getattr(STANDARD, name)


@pytest.mark.parametrize("base", [typing.NamedTuple, namedtuple.NamedTuple])
def test_a_field_without_a_default_stands_before_those_with_one(base: Any) -> None:
    with pytest.raises(TypeError, match="default"):

        class _Wrong(base):  # type: ignore[misc]
            a: int = 1
            b: int


@pytest.mark.parametrize("base", [typing.NamedTuple, namedtuple.NamedTuple])
def test_there_is_no_other_base_and_there_may_be_no_field(base: Any) -> None:
    with pytest.raises(TypeError):

        class _Two(base, dict[str, str]):  # type: ignore[misc]
            a: int

    class Empty(base):  # type: ignore[misc]
        pass

    assert Empty() == ()


def test_a_row_is_matched_by_place_and_pickled() -> None:
    match CudaVersion(12, 8):
        case CudaVersion(major, minor):
            assert (major, minor) == (12, 8)
    assert pickle.loads(pickle.dumps(CudaVersion(12, 8))) == CudaVersion(12, 8)
