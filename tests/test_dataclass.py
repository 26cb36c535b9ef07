from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.dataclass import asdict, dataclass, field, fields, replace

if TYPE_CHECKING:
    from collections.abc import Callable


def written_by(decorate: Callable[..., Any], field: Callable[..., Any]) -> dict[str, Any]:
    """The same classes, by the standard decorator or by ours."""

    @decorate(frozen=True, slots=True, kw_only=True)
    class Frozen:
        """Every kind of field."""

        name: str
        parts: tuple[int, ...] = ()
        table: dict[str, int] = field(default_factory=dict)
        secret: str = field(default="s", repr=False)
        origin: str = field(default="here", compare=False)

        @property
        def length(self) -> int:
            return len(self.parts)

    @decorate(frozen=True, slots=True, kw_only=True)
    class Derived(Frozen):
        """With a field more."""

        more: int = 3

    @decorate(slots=True)
    class Plain:
        """By place, and not frozen."""

        first: int
        second: list[int] = field(default_factory=list)

        def __post_init__(self) -> None:
            self.second.append(self.first)

    @decorate(frozen=True, slots=True)
    class Hashed:
        """Nothing in it that cannot be hashed."""

        left: int
        right: int = 0

    @decorate(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
    class Bare:
        """Equal to itself alone."""

        value: int = 1

    @decorate(frozen=True, slots=True)
    class Empty:
        """No field at all."""

    return {kind.__name__: kind for kind in (Frozen, Derived, Plain, Hashed, Bare, Empty)}


STANDARD = written_by(dataclasses.dataclass, dataclasses.field)
OURS = written_by(dataclass, field)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Where `pickle` finds it."""

    left: int
    right: tuple[str, ...] = ()


def both(ask: Callable[[dict[str, Any]], object]) -> object:
    """What ours answers, which must be what the standard library's answers, or fail as it does."""

    def answer(kinds: dict[str, Any]) -> object:
        try:
            return ask(kinds)
        except (TypeError, AttributeError) as error:
            return type(error)

    assert answer(OURS) == answer(STANDARD)
    return answer(OURS)


@pytest.mark.parametrize(
    "given",
    [
        {"name": "a"},
        {"name": "a", "parts": (1, 2), "table": {"x": 1}, "secret": "t", "origin": "there"},
        {},
        {"name": "a", "other": 1},
        {"name": "a", "parts": (1,), "others": 1, "more": 2},
    ],
)
@pytest.mark.parametrize("kind", ["Frozen", "Derived"])
def test_fields_given_by_name(kind: str, given: dict[str, Any]) -> None:
    answer = both(lambda kinds: dataclasses.asdict(kinds[kind](**given)))
    assert (answer is TypeError) == ("name" not in given or "other" in given or "others" in given)


@pytest.mark.parametrize("values", [(1,), (1, [2]), (), (1, [2], 3)])
def test_fields_given_by_place(values: tuple[Any, ...]) -> None:
    both(lambda kinds: dataclasses.asdict(kinds["Plain"](*copy.deepcopy(values))))
    assert both(lambda kinds: kinds["Frozen"]("a")) is TypeError
    assert both(lambda kinds: kinds["Plain"](1, first=2)) is TypeError
    both(lambda kinds: dataclasses.asdict(kinds["Plain"](1, second=[5])))


def test_what_it_tells_of_itself() -> None:
    for ask in (
        lambda kinds: repr(kinds["Frozen"](name="a", parts=(1,))),
        lambda kinds: repr(kinds["Derived"](name="a")),
        lambda kinds: repr(kinds["Empty"]()),
        lambda kinds: [it.name for it in dataclasses.fields(kinds["Derived"])],
        lambda kinds: kinds["Frozen"](name="a", parts=(1, 2)).length,
        lambda kinds: kinds["Frozen"].__doc__,
        lambda kinds: kinds["Frozen"].__slots__,
        lambda kinds: kinds["Frozen"].__match_args__ + kinds["Hashed"].__match_args__,
    ):
        assert both(ask) not in (TypeError, AttributeError)
    assert "Bare object at" in repr(OURS["Bare"]())
    assert not hasattr(OURS["Frozen"](name="a"), "__dict__")


def test_equality_and_hash() -> None:
    one = OURS["Frozen"](name="a", origin="x")
    assert one == OURS["Frozen"](name="a", origin="y")
    assert one != OURS["Frozen"](name="b")
    assert one != OURS["Derived"](name="a")
    assert OURS["Empty"]() == OURS["Empty"]() != OURS["Hashed"](1)
    assert OURS["Bare"]() != OURS["Bare"]()
    assert len({OURS["Hashed"](1), OURS["Hashed"](1, 0), OURS["Hashed"](1, 2)}) == 2
    for ask in (
        lambda kinds: hash(kinds["Frozen"](name="a")),  # holds a dictionary
        lambda kinds: hash(kinds["Plain"](1)),  # can be changed
    ):
        assert both(ask) is TypeError


def test_frozen_is_frozen() -> None:
    one = OURS["Frozen"](name="a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.name = "b"
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.name
    plain = OURS["Plain"](1)
    plain.first = 2
    assert plain.first == 2
    assert both(lambda kinds: setattr(kinds["Plain"](1), "third", 3)) is AttributeError


def test_the_standard_librarys_functions_know_it() -> None:
    one = dataclasses.replace(OURS["Derived"](name="a", table={"x": 1}), parts=(1,), more=4)
    assert dataclasses.asdict(one) == {
        "name": "a", "parts": (1,), "table": {"x": 1}, "secret": "s", "origin": "here", "more": 4,
    }  # fmt: skip
    assert both(lambda kinds: dataclasses.replace(kinds["Frozen"](name="a"), nothing=1)) is TypeError
    assert [it.name for it in fields(one)] == [it.name for it in dataclasses.fields(one)]
    assert asdict(one) == dataclasses.asdict(one)
    assert replace(one, more=5) == dataclasses.replace(one, more=5) != one
    with pytest.raises(TypeError, match="nothing"):
        replace(one, nothing=1)
    kept = Kept(left=1, right=("a",))
    assert pickle.loads(pickle.dumps(kept)) == copy.copy(kept) == copy.deepcopy(kept) == kept


def test_what_stands_in_fields_becomes_plain_too() -> None:
    inner = OURS["Hashed"](1)
    one = OURS["Frozen"](name="a", parts=(inner, [inner]), table={"x": inner})
    assert asdict(one) == dataclasses.asdict(one)
    assert asdict(one)["table"] == {"x": {"left": 1, "right": 0}}


def test_ours_serve_the_standard_librarys_classes_too() -> None:
    one = STANDARD["Derived"](name="a", table={"x": STANDARD["Hashed"](1)})
    assert replace(one, more=9) == dataclasses.replace(one, more=9)
    assert asdict(one) == dataclasses.asdict(one)
    assert [it.name for it in fields(one)] == [it.name for it in dataclasses.fields(one)]


def test_a_default_that_every_instance_would_share_is_refused() -> None:
    with pytest.raises(ValueError, match="every instance would share"):

        @dataclass(slots=True)
        class Shared:
            parts: list[int] = []  # noqa: RUF012 - it is what is refused


def test_one_with_a_dictionary_is_refused() -> None:
    with pytest.raises(TypeError, match="standard library"):
        dataclass(slots=False)
