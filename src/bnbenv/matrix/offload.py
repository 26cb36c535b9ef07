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

_MAGIC = re.compile(re.escape(PLAIN) + b"|" + COMPRESSED)
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
        at = 0
        while (match := _MAGIC.search(data, at)) is not None:
            start = match.start()
            if match[0] == PLAIN:
                targets |= _read_bundle(Binary(binary.name, data[start:], base=section.offset + start))
                at = match.end()
            else:
                found, length = _read_compressed(binary, data[start:], section.offset + start)
                targets |= found
                at = start + length  # packed bytes may look like a magic
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


def _read_compressed(binary: Binary, data: bytes, offset: int) -> tuple[set[str], int]:
    """The targets of a compressed bundle, and its length in the file."""
    bundle = Binary(binary.name, data, base=offset)
    version, method = bundle.u16(offset + 4), bundle.u16(offset + 6)
    head = {1: 20, 2: 24, 3: 32}.get(version)
    if head is None:
        bundle.fail(offset + 4, f"a compressed bundle of version {version}")
    # version 1 does not tell its length: one bundle fills the section
    size = {1: len(data), 2: bundle.u32(offset + 8)}.get(version) or bundle.u64(offset + 8)
    if size <= head:
        bundle.fail(offset + 8, f"a compressed bundle of {size} bytes")
    packed = bytes(bundle.take(offset + head, size - head, "a compressed bundle"))
    plain = _unpack(binary, packed, method, offset)
    if not plain.startswith(PLAIN):
        binary.fail(offset, "a compressed bundle that holds no bundle")
    return _read_bundle(Binary(f"{binary.name} (unpacked bundle)", plain, base=0)), size


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
