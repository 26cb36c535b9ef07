"""Finds the targets of ROCm code objects in a library, in plain and in compressed bundles.

A bundle is a magic text, a count, and entries (offset, size, length of a target's name, the name); a
compressed one begins with `CCOB`, a version, a method (0 zlib, 1 zstd), and from version 2 its sizes.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

from bnbenv.matrix.binary import Binary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnbenv.matrix.elf import Section

PLAIN = b"__CLANG_OFFLOAD_BUNDLE__"
COMPRESSED = b"CCOB"
SECTIONS = (".hip_fatbin", ".hip_fat")

_MOST_TARGETS = 512
_HEAD_ENOUGH = 64 * 1024  # a bundle's table stands at its start; code need not be unpacked
_TARGET = re.compile(r"-(gfx[0-9a-f]+)((?::[a-z0-9]+[+-])*)$")


def find_targets(binary: Binary, sections: Sequence[Section]) -> tuple[str, ...]:
    """The gfx targets of all bundles, sorted, such as ``gfx90a`` or ``gfx942:xnack-``.

    Raises:
        DamagedFileError: a bundle's table contradicts the file.
    """
    targets: set[str] = set()
    for section in sections:
        if section.name not in SECTIONS or not section.size:
            continue
        data = bytes(binary.take(section.offset, section.size, "the section of code objects"))
        for match in re.finditer(re.escape(PLAIN) + b"|" + COMPRESSED, data):
            at = match.start()
            if match[0] == PLAIN:
                targets |= _read_bundle(Binary(binary.name, data[at:], base=section.offset + at))
            elif at % 4096 == 0 or not data[:at].strip(
                b"\0"
            ):  # chance hits inside packed code are not aligned
                targets |= _read_compressed(binary, data[at:], section.offset + at)
    return tuple(sorted(targets))


def _read_bundle(bundle: Binary) -> set[str]:
    start = bundle.base
    count = bundle.u64(start + 24)
    if count > _MOST_TARGETS:
        bundle.fail(start + 24, f"a bundle of {count} code objects")
    targets = set()
    at = start + 32
    for _ in range(count):
        length = bundle.u64(at + 16)
        if length > 256:
            bundle.fail(at + 16, f"a target's name of {length} bytes")
        name = bytes(bundle.take(at + 24, length, "a target's name")).decode("latin-1")
        if match := _TARGET.search(name):
            targets.add(match[1] + match[2])
        at += 24 + length
    return targets


def _read_compressed(binary: Binary, data: bytes, offset: int) -> set[str]:
    bundle = Binary(binary.name, data, base=offset)
    version, method = bundle.u16(offset + 4), bundle.u16(offset + 6)
    head = {1: 20, 2: 24, 3: 32}.get(version)
    if head is None:
        bundle.fail(offset + 4, f"a compressed bundle of version {version}")
    size = len(data)
    if version > 1:
        size = bundle.u32(offset + 8) if version == 2 else bundle.u64(offset + 8)
    packed = bytes(bundle.take(offset + head, size - head if version > 1 else size - head, "a bundle"))
    plain = _unpack(binary, packed, method, offset)
    if not plain.startswith(PLAIN):
        binary.fail(offset, "a compressed bundle that holds no bundle")
    return _read_bundle(Binary(f"{binary.name} (unpacked bundle)", plain, base=0))


def _unpack(binary: Binary, packed: bytes, method: int, offset: int) -> bytes:
    if method == 0:
        try:
            return zlib.decompressobj().decompress(packed, _HEAD_ENOUGH)
        except zlib.error as error:
            binary.fail(offset, f"a bundle that cannot be unpacked: {error}")
    if method != 1:
        binary.fail(offset + 6, f"a bundle packed by method {method}")
    import zstandard

    try:
        reader = zstandard.ZstdDecompressor().stream_reader(packed)
        return reader.read(_HEAD_ENOUGH)
    except zstandard.ZstdError as error:
        binary.fail(offset, f"a bundle that cannot be unpacked: {error}")
