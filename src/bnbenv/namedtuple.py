"""`typing.NamedTuple`, made in a fraction of the time: every command makes dozens of such classes.

There each annotation is compiled, and for each class a constructor is written as text and compiled, at every
start. Here all classes share their methods, as in `dataclass`; in turn, to make a tuple by keyword takes a
microsecond more. What no class of ours needs is left out: `_make`, `_asdict`, further bases.
"""

from __future__ import annotations

__all__ = ["NamedTuple"]

TYPE_CHECKING = False
if TYPE_CHECKING:  # whoever checks types sees the standard library's
    from collections.abc import Mapping
    from typing import Any, NamedTuple
else:
    from operator import itemgetter

    try:
        from _collections import _tuplegetter as _getter  # as the standard library's do
    except ImportError:

        def _getter(place: int, _text: str) -> property:
            return property(itemgetter(place))

    class _Maker(type):
        """Makes the class of named tuples that a class statement describes."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: Mapping[str, Any]) -> type:
            if len(bases) > 1:
                raise TypeError(f"{name} has another base beside NamedTuple")
            fields = tuple(body.get("__annotations__", ()))
            defaults = {one: body[one] for one in fields if one in body}
            if tuple(defaults) != fields[len(fields) - len(defaults) :]:
                raise TypeError(f"in {name}, a field without a default follows one with a default")
            made = {
                **_SHARED,
                **body,
                **{one: _getter(place, one) for place, one in enumerate(fields)},
                "__slots__": (),
                "__match_args__": fields,
                "_fields": fields,
                "_field_defaults": defaults,
            }
            return type(name, (tuple,), made)

    def _new(cls: Any, /, *values: Any, **given: Any) -> Any:
        if given or len(values) != len(cls._fields):
            values = _completed(cls, values, given)
        return tuple.__new__(cls, values)

    def _completed(cls: Any, values: tuple[Any, ...], given: Mapping[str, Any]) -> list[Any]:
        """The values of all fields, in their order."""
        fields = cls._fields
        if len(values) > len(fields):
            raise TypeError(f"{cls.__name__} has {len(fields)} fields, and {len(values)} values were given")
        if twice := given.keys() & set(fields[: len(values)]):
            raise TypeError(f"{cls.__name__} was given `{min(twice)}` twice")
        if unknown := given.keys() - set(fields):
            raise TypeError(f"{cls.__name__} has no field `{min(unknown)}`")
        named = {**cls._field_defaults, **given}
        try:
            return [*values, *(named[one] for one in fields[len(values) :])]
        except KeyError as missing:
            raise TypeError(f"{cls.__name__} needs `{missing.args[0]}`") from None

    def _replace(self: Any, /, **changes: Any) -> Any:
        return type(self)(**dict(zip(self._fields, self, strict=True)) | changes)

    def _repr(self: Any) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
        return f"{type(self).__name__}({told})"

    def _getnewargs(self: Any) -> tuple[Any, ...]:
        return tuple(self)

    _SHARED = {
        "__new__": _new,
        "__repr__": _repr,
        "__getnewargs__": _getnewargs,  # for `copy` and `pickle`
        "_replace": _replace,
    }
    NamedTuple = type.__new__(_Maker, "NamedTuple", (), {})
