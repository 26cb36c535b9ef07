"""The standard library's `dataclass`, made in a fifth of the time: every command makes dozens of them.

There the methods of each class are written as text and compiled, at every start. Here all classes share
their methods, which go by the fields. `fields`, `replace` and `asdict` of the standard library know them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 - for whoever checks types it is that one
    from typing import Any
else:
    import dataclasses
    from operator import attrgetter

    def dataclass(
        *,
        slots: bool,
        frozen: bool = False,
        kw_only: bool = False,
        eq: bool = True,
        repr: bool = True,  # noqa: A002
    ) -> Callable[[type], type]:
        """Decorate a class as the standard decorator does with these options; `slots` must be true."""
        if not slots:
            raise TypeError("a dataclass with a dictionary is made by the standard library")
        shared: dict[str, Any] = {"__init__": _init}
        if repr:
            shared["__repr__"] = _repr
        if eq:
            shared |= {"__eq__": _eq, "__hash__": _hash if frozen else None}
        if frozen:
            shared |= {"__setattr__": _refuse_set, "__delattr__": _refuse_delete}
            shared |= {"__getstate__": _getstate, "__setstate__": _setstate}  # for `copy` and `pickle`

        def decorate(plain: type) -> type:
            for name, method in shared.items():
                if name not in plain.__dict__:
                    setattr(plain, name, method)
            made = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)(plain)
            fields = dataclasses.fields(made)
            # A slot's own setter works where `__setattr__` refuses.
            made.__made_of__ = tuple(
                (field.name, getattr(made, field.name).__set__, field.default, field.default_factory)
                for field in fields
            )
            made.__by_place__ = not kw_only
            made.__told__ = tuple(field.name for field in fields if field.repr)
            made.__compared__ = attrgetter(
                *[field.name for field in fields if field.compare] or ["__class__"]
            )
            made.__finish__ = getattr(made, "__post_init__", None)
            return made

        return decorate

    _MISSING = dataclasses.MISSING

    def _init(self: Any, /, *values: Any, **given: Any) -> None:
        if values:
            given = _named(self, values, given)
        taken = 0
        for name, put, default, make in self.__made_of__:
            if name in given:
                put(self, given[name])
                taken += 1
            elif default is not _MISSING:
                put(self, default)
            elif make is not _MISSING:
                put(self, make())
            else:
                raise TypeError(f"{type(self).__qualname__} needs `{name}`")
        if taken != len(given):
            unknown = ", ".join(sorted(given.keys() - {name for name, *_ in self.__made_of__}))
            raise TypeError(f"{type(self).__qualname__} has no field `{unknown}`")
        if self.__finish__ is not None:
            self.__finish__()

    def _named(self: Any, values: Sequence[Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """What was given by place, by its name, beside what was given by name."""
        names = [name for name, *_ in self.__made_of__] if self.__by_place__ else []
        if len(values) > len(names):
            raise TypeError(
                f"{type(self).__qualname__} takes {len(names)} fields by place, not {len(values)}"
            )
        placed = dict(zip(names, values, strict=False))
        if twice := placed.keys() & given.keys():
            raise TypeError(f"{type(self).__qualname__} was given `{min(twice)}` twice")
        return {**placed, **given}

    def _repr(self: Any) -> str:
        told = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__told__)
        return f"{type(self).__qualname__}({told})"

    def _eq(self: Any, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self.__compared__(self) == self.__compared__(other)

    def _hash(self: Any) -> int:
        return hash(self.__compared__(self))

    def _refuse_set(self: Any, name: str, _value: object) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to `{name}` of {type(self).__qualname__}")

    def _refuse_delete(self: Any, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete `{name}` of {type(self).__qualname__}")

    def _getstate(self: Any) -> list[Any]:
        return [getattr(self, name) for name, *_ in self.__made_of__]

    def _setstate(self: Any, state: Sequence[Any]) -> None:
        for (_, put, *_), value in zip(self.__made_of__, state, strict=True):
            put(self, value)
