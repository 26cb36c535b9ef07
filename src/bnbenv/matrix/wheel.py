"""Reads a wheel without unpacking it: its members, its metadata, and streams of its large files."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

from bnbenv.matrix.binary import DamagedFileError
from bnbenv.matrix.remote import SeekableFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message

    from bnbenv.matrix.remote import PiecewiseFile

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_LARGEST_HELD = 512 << 20
_LARGEST_STREAMED = 8 << 30
_LARGEST_TEXT = 8 << 20
_LARGEST_RATIO = 200
_ALWAYS_ALLOWED = 64 << 20
_MOST_MEMBERS = 200_000
_PIECE = 1 << 20


class Wheel:
    """The members of one wheel.

    Args:
        file: where its bytes come from.

    Raises:
        DamagedFileError: it is no zip archive, or its directory lies.
    """

    def __init__(self, file: PiecewiseFile) -> None:
        self.file = file
        self.name = file.name
        try:
            with zipfile.ZipFile(SeekableFile(file)) as archive:
                members = archive.infolist()
        except (
            zipfile.BadZipFile,
            ValueError,
            struct.error,
            UnicodeDecodeError,
            NotImplementedError,
        ) as error:
            raise DamagedFileError(self.name, max(0, file.size - 22), f"no zip archive: {error}") from error
        if len(members) > _MOST_MEMBERS:
            raise DamagedFileError(self.name, file.size, f"{len(members)} members")
        # Deflate packs a thousandfold, and members may be made to share their bytes: real wheels do neither.
        if sum(member.compress_size for member in members) > file.size:
            raise DamagedFileError(self.name, file.size, "its members overlap")
        declared = sum(member.file_size for member in members)
        if declared > _LARGEST_RATIO * file.size + _ALWAYS_ALLOWED:
            raise DamagedFileError(self.name, file.size, f"declares {declared} bytes of members")
        self._members = {member.filename: member for member in members}

    @property
    def names(self) -> tuple[str, ...]:
        """The members' paths, in the archive's order."""
        return tuple(self._members)

    def stream(self, name: str, *, limit: int = _LARGEST_STREAMED) -> Iterator[bytes]:
        """A member's bytes in chunks, never more than it declares, its checksum compared at the end.

        Raises:
            DamagedFileError: the member is damaged, packed by an unknown method, or larger than `limit`.
        """
        member = self._members[name]
        where = f"{self.name}:{name}"
        if member.file_size > limit:
            raise DamagedFileError(where, 0, f"declares {member.file_size} bytes, more than {limit}")
        if member.flag_bits & 1:
            raise DamagedFileError(where, 0, "is encrypted")
        start = self._data_offset(member, where)
        if start + member.compress_size > self.file.size:
            raise DamagedFileError(where, start, "reaches beyond the archive's end")
        packed = self.file.stream(start, member.compress_size)
        if member.compress_type == zipfile.ZIP_STORED:
            plain = packed
        elif member.compress_type == zipfile.ZIP_DEFLATED:
            plain = _inflate(packed, where)
        else:
            raise DamagedFileError(where, start, f"is packed by method {member.compress_type}")
        size, checksum = 0, 0
        for chunk in plain:
            size += len(chunk)
            if size > member.file_size:
                raise DamagedFileError(where, member.file_size, "holds more than it declares")
            checksum = zlib.crc32(chunk, checksum)
            yield chunk
        if size != member.file_size:
            raise DamagedFileError(where, size, f"ends before the {member.file_size} bytes it declares")
        if checksum != member.CRC:
            raise DamagedFileError(where, size, "has another checksum than the archive's directory says")

    def read(self, name: str, *, limit: int = _LARGEST_HELD) -> bytes:
        """A member's bytes at once.

        Raises:
            DamagedFileError: as `stream`.
        """
        whole = io.BytesIO()  # hands out what it holds without a second copy, as a joined list would not
        for chunk in self.stream(name, limit=limit):
            whole.write(chunk)
        return whole.getvalue()

    def metadata(self) -> Message:
        """The core metadata; line ends of any kind.

        Raises:
            DamagedFileError: there is none, or more than one.
        """
        from email.parser import Parser

        found = [name for name in self.names if name.count("/") == 1 and name.endswith(".dist-info/METADATA")]
        if len(found) != 1:
            raise DamagedFileError(self.name, 0, f"{len(found)} files of metadata")
        text = self.read(found[0], limit=_LARGEST_TEXT).decode("utf-8", errors="replace")
        return Parser().parsestr(text.replace("\r\n", "\n"), headersonly=True)

    def _data_offset(self, member: zipfile.ZipInfo, where: str) -> int:
        at = member.header_offset
        head = b"".join(self.file.stream(at, min(_LOCAL_HEADER.size, max(0, self.file.size - at))))
        if len(head) < _LOCAL_HEADER.size or head[:4] != b"PK\x03\x04":
            raise DamagedFileError(where, at, "has no local header where the directory says")
        fields = _LOCAL_HEADER.unpack(head)
        return at + _LOCAL_HEADER.size + int(fields[9]) + int(fields[10])


def _inflate(packed: Iterator[bytes], where: str) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    done = 0
    try:
        for chunk in packed:
            waiting = chunk
            while waiting and not inflater.eof:
                plain = inflater.decompress(waiting, _PIECE)
                waiting = inflater.unconsumed_tail
                done += len(plain)
                yield plain
        if rest := inflater.flush():
            yield rest
    except zlib.error as error:
        raise DamagedFileError(where, done, f"cannot be inflated: {error}") from error
