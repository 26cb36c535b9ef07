"""Reads the headers of safetensors files: names, types and shapes of tensors, never their contents."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass
from bnbenv.errors import UsageError
from bnbenv.memory.strict import json_object, shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Bits of an element, by the names of the format's description.
BITS: Mapping[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
# What the format itself allows a header to have; a model of a thousand billion parameters needs a tenth.
_LONGEST_HEADER = 100_000_000
_LENGTH = 8  # bytes before the header that tell how long it is
_MOST_DIMENSIONS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor of a file.

    Attributes:
        dtype: by the format's name, such as ``BF16``.
        bytes: what it takes in the file.
        file: the file's name.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    file: str


def read_header(path: Path) -> tuple[StoredTensor, ...]:
    """The tensors of a safetensors file, in the order of their places.

    Raises:
        UsageError: code ``bad-model``; the file is no safetensors file, is cut short, or its header lies.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_LENGTH)
            if len(head) < _LENGTH:
                raise _bad(path, f"it has {size} bytes, too few for a safetensors file")
            length = int.from_bytes(head, "little")
            if length > min(_LONGEST_HEADER, size - _LENGTH):
                raise _bad(path, f"its header claims {length} bytes, and the file has {size}")
            text = file.read(length)
    except OSError as error:
        raise _bad(path, error.strerror or str(error)) from error
    return _tensors(_object(text, path), data=size - _LENGTH - length, path=path)


def _object(text: bytes, path: Path) -> dict[str, Any]:
    try:
        return json_object(text)
    except ValueError as error:
        raise _bad(path, f"its header is not JSON of tensors ({error})") from error


def _tensors(document: Mapping[str, Any], *, data: int, path: Path) -> tuple[StoredTensor, ...]:
    notes = document.get("__metadata__")
    texts = isinstance(notes, dict) and all(isinstance(note, str) for note in notes.values())
    if notes is not None and not texts:
        raise _bad(path, "its metadata are not texts")
    found = sorted(
        (
            _tensor(name, entry, data=data, path=path)
            for name, entry in document.items()
            if name != "__metadata__"
        ),
        key=lambda placed: (placed[0], placed[1].bytes),  # an empty one stands before its neighbour
    )
    reached = 0
    for begin, tensor in found:
        if begin < reached:
            raise _bad(path, f"`{shown(tensor.name)}` overlaps the tensor before it")
        if begin > reached:
            raise _bad(path, f"there is a hole before `{shown(tensor.name)}`: bytes that no tensor owns")
        reached = begin + tensor.bytes
    if reached != data:
        raise _bad(path, f"its tensors end at {reached}, and the data at {data}: it is cut short or padded")
    return tuple(tensor for _, tensor in found)


def _tensor(name: str, entry: Any, *, data: int, path: Path) -> tuple[int, StoredTensor]:
    """Where a tensor begins, and what it is."""
    called = shown(name)
    if not isinstance(entry, dict):
        raise _bad(path, f"`{called}` is no tensor")
    dtype, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _bad(path, f"`{called}` has the unknown type {shown(dtype)!r}")
    if not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS or not all(map(_is_count, shape)):
        raise _bad(path, f"`{called}` has the impossible shape {shown(shape)}")
    begin, end = _place(entry.get("data_offsets"), called, path)
    wanted = -(-math.prod(shape) * BITS[dtype] // 8)
    if not begin <= end <= data:
        raise _bad(path, f"`{called}` stands at {begin}-{end}, outside the file's {data} bytes of data")
    if end - begin != wanted:
        raise _bad(path, f"`{called}` takes {end - begin} bytes, and its shape and type need {wanted}")
    return begin, StoredTensor(name=name, dtype=dtype, shape=tuple(shape), bytes=wanted, file=path.name)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _place(value: Any, name: str, path: Path) -> tuple[int, int]:
    if not (isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))):
        raise _bad(path, f"`{name}` has no place in the file")
    return value[0], value[1]


def _bad(path: Path, why: str) -> UsageError:
    return UsageError(f"`{path}` cannot be read: {why}", hint="fetch the file again", code="bad-model")
