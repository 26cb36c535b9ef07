"""Bytes of a file with checked access: what lies beyond them is an error that names file and offset."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from bnbenv.errors import DataError

if TYPE_CHECKING:
    from typing import NoReturn

_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")

_LONGEST_TEXT = 4096


class DamagedFileError(DataError):
    """A binary is cut short, or its headers lie.

    Attributes:
        file: its name, with the archive that holds it.
        offset: where in it.
    """

    def __init__(self, file: str, offset: int, reason: str) -> None:
        super().__init__(f"{file}: at offset {offset}: {reason}", hint="get the file anew and compare hashes")
        self.file = file
        self.offset = offset


class Binary:
    """A stretch of a little-endian file.

    Args:
        name: for messages.
        data: the bytes.
        base: the offset of the first of them in the file.
    """

    __slots__ = ("_data", "base", "name")

    def __init__(self, name: str, data: bytes | bytearray | memoryview, *, base: int = 0) -> None:
        self.name = name
        self.base = base
        self._data = memoryview(data)

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self.base + len(self._data)

    def fail(self, offset: int, reason: str) -> NoReturn:
        """Raise the error that names this file."""
        raise DamagedFileError(self.name, offset, reason)

    def take(self, offset: int, length: int, what: str = "data") -> memoryview:
        """Bytes at an offset of the file.

        Raises:
            DamagedFileError: they are not all there.
        """
        start = offset - self.base
        if start < 0 or length < 0 or start + length > len(self._data):
            self.fail(offset, f"{what} of {length} bytes lies outside the file's {self.end} bytes")
        return self._data[start : start + length]

    def u16(self, offset: int) -> int:
        """An unsigned 16-bit number."""
        return int(_U16.unpack(self.take(offset, 2, "a number"))[0])

    def u32(self, offset: int) -> int:
        """An unsigned 32-bit number."""
        return int(_U32.unpack(self.take(offset, 4, "a number"))[0])

    def u64(self, offset: int) -> int:
        """An unsigned 64-bit number."""
        return int(_U64.unpack(self.take(offset, 8, "a number"))[0])

    def text(self, offset: int, *, limit: int = _LONGEST_TEXT) -> str:
        """A text that ends with a zero byte.

        Raises:
            DamagedFileError: there is no such byte within `limit`, or the text is not ASCII.
        """
        room = min(limit, self.end - offset)
        stretch = bytes(self.take(offset, max(room, 1), "a text"))
        length = stretch.find(b"\0")
        if length < 0:
            self.fail(offset, "a text without an end")
        try:
            return stretch[:length].decode("ascii")
        except UnicodeDecodeError:
            self.fail(offset, "a text that is not ASCII")
