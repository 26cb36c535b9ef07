"""Finds the GPU code in a library: cubins and PTX of CUDA fatbins, in the section that decides their use.

A fatbin is a 16-byte header (magic, version 1, header size 16, payload size) and entries, each with
kind (1 PTX, 2 cubin), its own header size, payload size, and the compute capability at offset 28.
Images in `.nv_fatbin` are executable. Those in `__nv_relfatbin` are objects for a device linker: the
driver is not asked to run them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from bnbenv.matrix.binary import DamagedFileError
from bnbenv.units import ComputeCapability

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bnbenv.matrix.elf import Section

MAGIC = b"\x50\xed\x55\xba\x01\x00\x10\x00"
RELOCATABLE_SECTIONS = ("__nv_relfatbin", "__nv_rel")

_PTX, _CUBIN = 1, 2
_ENTRY = struct.Struct("<HHIQ")
_ENTRY_HEAD = 32  # up to and with the capability
_SMALLEST_HEADER, _LARGEST_HEADER = 32, 4096


class Image(NamedTuple):
    """One image: where it stands, what it is, and for which capability."""

    offset: int
    ptx: bool
    capability: ComputeCapability


class Images(NamedTuple):
    """The images of a library by use, each with how many there are.

    Attributes:
        cubins, ptx: executable.
        relocatable_cubins, relocatable_ptx: for a linker only.
    """

    cubins: dict[ComputeCapability, int]
    ptx: dict[ComputeCapability, int]
    relocatable_cubins: dict[ComputeCapability, int]
    relocatable_ptx: dict[ComputeCapability, int]


class Stream:
    """Chunks of a file with a little look-ahead, forward only, for files too large to hold."""

    def __init__(self, name: str, chunks: Iterable[bytes]) -> None:
        self.name = name
        self._chunks = iter(chunks)
        self._buffer = b""
        self._at = 0  # the offset in the file of the buffer's first byte
        self.done = False

    @property
    def position(self) -> int:
        """The offset of the next byte."""
        return self._at

    def _fill(self, wanted: int) -> None:
        parts, held = [self._buffer], len(self._buffer)
        while held < wanted:
            chunk = next(self._chunks, None)
            if chunk is None:
                self.done = True
                break
            parts.append(chunk)
            held += len(chunk)
        self._buffer = b"".join(parts)

    def peek(self, length: int) -> bytes:
        """The next bytes, fewer at the end of the file."""
        if len(self._buffer) < length:
            self._fill(length)
        return self._buffer[:length]

    def skip(self, length: int) -> None:
        """Pass over bytes.

        Raises:
            DamagedFileError: the file ends before.
        """
        wanted = self._at + length
        while length > len(self._buffer):
            length -= len(self._buffer)
            self._at += len(self._buffer)
            self._buffer = next(self._chunks, b"")
            if not self._buffer:
                self.done = True
                raise DamagedFileError(self.name, self._at, f"the file ends before {wanted}, cut short")
        self._buffer = self._buffer[length:]
        self._at += length

    def seek_to(self, magic: bytes) -> bool:
        """Go on to the next occurrence of `magic`, or to the end of the file."""
        while True:
            if len(self._buffer) < len(magic):
                self._fill(len(magic))
                if len(self._buffer) < len(magic):
                    self._at += len(self._buffer)
                    self._buffer = b""
                    return False
            found = self._buffer.find(magic)
            if found >= 0:
                self._buffer = self._buffer[found:]
                self._at += found
                return True
            keep = len(magic) - 1
            self._at += len(self._buffer) - keep
            self._buffer = self._buffer[-keep:]


def find_images(name: str, chunks: Iterable[bytes]) -> list[Image]:
    """All images of all fatbins of a file, in order.

    Bytes that only look like a fatbin (the magic stands in code that registers them) are passed over.

    Raises:
        DamagedFileError: an entry reaches beyond its fatbin, or the file ends inside one.
    """
    stream = Stream(name, chunks)
    images: list[Image] = []
    while stream.seek_to(MAGIC):
        start = stream.position
        header = stream.peek(16 + _ENTRY_HEAD)
        if len(header) < 16:
            raise DamagedFileError(name, start, "a fatbin header is cut short")
        size = int.from_bytes(header[8:16], "little")
        if size < _ENTRY_HEAD or not _is_entry(header[16:]):
            stream.skip(len(MAGIC))
            continue
        stream.skip(16)
        images += _read_entries(stream, start + 16 + size)
    return images


def _is_entry(head: bytes) -> bool:
    if len(head) < _ENTRY_HEAD:
        return False
    kind, _, header_size, _ = _ENTRY.unpack_from(head)
    return kind in (_PTX, _CUBIN) and _SMALLEST_HEADER <= header_size <= _LARGEST_HEADER


def _read_entries(stream: Stream, end: int) -> list[Image]:
    images = []
    while stream.position < end:
        at = stream.position
        head = stream.peek(_ENTRY_HEAD)
        if len(head) < _ENTRY_HEAD:
            raise DamagedFileError(stream.name, at, "a fatbin entry is cut short")
        kind, _, header_size, payload = _ENTRY.unpack_from(head)
        if not _SMALLEST_HEADER <= header_size <= _LARGEST_HEADER:
            raise DamagedFileError(stream.name, at, f"a fatbin entry with a header of {header_size} bytes")
        if at + header_size + payload > end:
            raise DamagedFileError(
                stream.name, at, f"a fatbin entry of {payload} bytes reaches beyond its fatbin"
            )
        if kind in (_PTX, _CUBIN):
            number = int.from_bytes(head[28:32], "little")
            if not 10 <= number <= 999:
                raise DamagedFileError(stream.name, at + 28, f"a compute capability of {number}")
            images.append(Image(at, kind == _PTX, ComputeCapability(number // 10, number % 10)))
        stream.skip(header_size + payload)
    return images


def sort_images(images: Iterable[Image], sections: Sequence[Section]) -> Images:
    """Sort the images of a library by what the section they stand in lets them be used for."""
    relocatable = [section for section in sections if section.name in RELOCATABLE_SECTIONS]
    sorted_images = Images({}, {}, {}, {})
    for image in images:
        linked = any(section.holds(image.offset) for section in relocatable)
        if image.ptx:
            group = sorted_images.relocatable_ptx if linked else sorted_images.ptx
        else:
            group = sorted_images.relocatable_cubins if linked else sorted_images.cubins
        group[image.capability] = group.get(image.capability, 0) + 1
    return Images(*(dict(sorted(group.items())) for group in sorted_images))
