"""The standard library's `dataclass`, made in a fraction of the time: every command makes dozens of them.

There the methods of each class are written as text and compiled, at every start, and the module that does it
is among the slowest to load. Here all classes share their methods, which go by the fields; what the standard
library's own functions ask of a class is made when they ask. What no class of ours needs is left out: other
options, fields that are not given, methods of a class's own in place of the shared ones but for `__repr__`.
"""
# ruff: noqa: A002 - parameters are called as the standard library calls them

from __future__ import annotations

__all__ = ["asdict", "dataclass", "field", "fields", "replace"]

TYPE_CHECKING = False
if TYPE_CHECKING:  # whoever checks types sees the standard library's
    from collections.abc import Callable, Mapping, Sequence
    from dataclasses import asdict, dataclass, field, fields, replace
    from typing import Any
else:
    from operator import attrgetter

    _MISSING = object()

    class _Field:
        """One field of a class."""

        __slots__ = ("compare", "default", "default_factory", "name", "put", "repr")

        def __init__(self, default: Any, default_factory: Any, *, repr: bool, compare: bool) -> None:
            self.default, self.default_factory = default, default_factory
            self.repr, self.compare = repr, compare

    def field(
        *, default: Any = _MISSING, default_factory: Any = _MISSING, repr: bool = True, compare: bool = True
    ) -> Any:
        """A field with more to it than a default."""
        return _Field(default, default_factory, repr=repr, compare=compare)

    def dataclass(
        *, slots: bool, frozen: bool = False, kw_only: bool = False, eq: bool = True, repr: bool = True
    ) -> Callable[[type], type]:
        """Decorate a class as the standard decorator does with these options; `slots` must be true."""
        if not slots:
            raise TypeError("a dataclass with a dictionary is made by the standard library")
        shared: dict[str, Any] = {"__init__": _init, "__dataclass_fields__": _StandardFields(kw_only=kw_only)}
        if repr:
            shared["__repr__"] = _repr
        if eq:
            shared |= {"__eq__": _eq, "__hash__": _hash if frozen else None}
        if frozen:
            shared |= {"__setattr__": _refuse_set, "__delattr__": _refuse_delete}
            shared |= {"__getstate__": _getstate, "__setstate__": _setstate}  # for `copy` and `pickle`
        return lambda plain: _made(plain, shared, kw_only=kw_only)

    def _made(plain: type, shared: Mapping[str, Any], *, kw_only: bool) -> type:
        body = {key: value for key, value in vars(plain).items() if key not in ("__dict__", "__weakref__")}
        own: dict[str, _Field] = {}
        for name in plain.__annotations__:
            given = body.pop(name, _MISSING)
            own[name] = (
                given if isinstance(given, _Field) else _Field(given, _MISSING, repr=True, compare=True)
            )
            own[name].name = name
            if type(own[name].default).__hash__ is None:
                raise ValueError(f"`{name}` of {plain.__qualname__}: every instance would share this default")
        inherited = {one.name: one for one in getattr(plain, "__fields__", ())}
        every = {**inherited, **own}
        body |= {key: value for key, value in shared.items() if key not in body}
        body |= {
            "__slots__": tuple(name for name in own if name not in inherited),
            "__match_args__": () if kw_only else tuple(every),
            "__fields__": tuple(every.values()),
            "__by_place__": not kw_only,  # whether fields may be given by their place
            # What equality and hash go by.
            "__compared__": attrgetter(*[one.name for one in every.values() if one.compare] or ["__class__"]),
        }
        made = type(plain)(plain.__name__, plain.__bases__, body)
        made.__qualname__ = plain.__qualname__
        for name, one in own.items():
            one.put = getattr(made, name).__set__  # works where `__setattr__` refuses
        made.__finish__ = getattr(made, "__post_init__", None)  # looked up once
        return made

    def fields(of: Any) -> tuple[Any, ...]:
        """The fields of a class or an instance, each with its `name`; also of the standard library's."""
        if hasattr(of, "__fields__"):
            return of.__fields__
        from dataclasses import fields as standard

        return standard(of)

    def replace(one: Any, /, **changes: Any) -> Any:
        """Another instance with some fields changed."""
        return type(one)(**{each.name: getattr(one, each.name) for each in fields(one)} | changes)

    def asdict(one: Any) -> dict[str, Any]:
        """An instance as a dictionary, and those in its fields too."""
        return {each.name: _as_plain(getattr(one, each.name)) for each in fields(one)}

    def _as_plain(value: Any) -> Any:
        if hasattr(type(value), "__fields__") or hasattr(type(value), "__dataclass_fields__"):
            return asdict(value)
        if type(value) in (list, tuple):
            return type(value)(_as_plain(inner) for inner in value)
        if type(value) is dict:
            return {key: _as_plain(inner) for key, inner in value.items()}
        return value

    class _StandardFields:
        """The fields as the standard library's functions want them: those of a class of theirs."""

        def __init__(self, *, kw_only: bool) -> None:
            self.kw_only = kw_only

        def __get__(self, one: Any, owner: type) -> dict[str, Any]:
            import dataclasses

            def standard(ours: _Field) -> Any:
                given = {"default": ours.default, "default_factory": ours.default_factory}
                return dataclasses.field(
                    repr=ours.repr,
                    compare=ours.compare,
                    **{key: value for key, value in given.items() if value is not _MISSING},
                )

            parts = [(ours.name, "object", standard(ours)) for ours in owner.__fields__]
            twin = dataclasses.make_dataclass(owner.__name__, parts, kw_only=self.kw_only)
            owner.__dataclass_fields__ = twin.__dataclass_fields__  # in this one's place
            return owner.__dataclass_fields__

    def _init(self: Any, /, *values: Any, **given: Any) -> None:
        if values:
            given = _named(self, values, given)
        taken = 0
        for one in self.__fields__:
            if one.name in given:
                one.put(self, given[one.name])
                taken += 1
            elif one.default is not _MISSING:
                one.put(self, one.default)
            elif one.default_factory is not _MISSING:
                one.put(self, one.default_factory())
            else:
                raise TypeError(f"{type(self).__qualname__} needs `{one.name}`")
        if taken != len(given):
            unknown = ", ".join(sorted(given.keys() - {one.name for one in self.__fields__}))
            raise TypeError(f"{type(self).__qualname__} has no field `{unknown}`")
        if self.__finish__ is not None:
            self.__finish__()

    def _named(self: Any, values: Sequence[Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """What was given by place, by its name, beside what was given by name."""
        names = [one.name for one in self.__fields__] if self.__by_place__ else []
        if len(values) > len(names):
            raise TypeError(
                f"{type(self).__qualname__} takes {len(names)} fields by place, not {len(values)}"
            )
        placed = dict(zip(names, values, strict=False))
        if twice := placed.keys() & given.keys():
            raise TypeError(f"{type(self).__qualname__} was given `{min(twice)}` twice")
        return {**placed, **given}

    def _repr(self: Any) -> str:
        told = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in self.__fields__ if one.repr)
        return f"{type(self).__qualname__}({told})"

    def _eq(self: Any, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self.__compared__(self) == self.__compared__(other)

    def _hash(self: Any) -> int:
        return hash(self.__compared__(self))

    def _refuse_set(self: Any, name: str, _value: object) -> None:
        _refuse(self, "assign to", name)

    def _refuse_delete(self: Any, name: str) -> None:
        _refuse(self, "delete", name)

    def _refuse(self: Any, doing: str, name: str) -> None:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot {doing} `{name}` of {type(self).__qualname__}")

    def _getstate(self: Any) -> list[Any]:
        return [getattr(self, one.name) for one in self.__fields__]

    def _setstate(self: Any, state: Sequence[Any]) -> None:
        for one, value in zip(self.__fields__, state, strict=True):
            one.put(self, value)
