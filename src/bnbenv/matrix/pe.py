"""Reads what a Windows DLL imports and holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.matrix.elf import NativeFacts, Section

if TYPE_CHECKING:
    from bnbenv.matrix.binary import Binary

MAGIC = b"MZ"
MACHINES = {0x8664: "x86_64", 0xAA64: "aarch64"}

_PE32_PLUS = 0x20B
_IMPORTS, _DELAYED_IMPORTS = 1, 13
_MOST_SECTIONS = 96  # the loader's own limit
_MOST_IMPORTS = 4096


def read_pe(binary: Binary) -> NativeFacts:
    """Read a 64-bit DLL; `needed` holds its imports, then its delayed imports, as spelt in the file.

    Raises:
        DamagedFileError: the headers contradict the file.
    """
    machine, optional, table, count = _read_header(binary)
    sections, addresses = _read_sections(binary, table, count, end=binary.end)
    directories = min(binary.u32(optional + 108), 16)
    needed: list[str] = []
    # descriptor size, and where the name's address stands in a descriptor
    for directory, size, name_at in ((_IMPORTS, 20, 12), (_DELAYED_IMPORTS, 32, 4)):
        if directory < directories and (address := binary.u32(optional + 112 + 8 * directory)):
            needed += _read_imports(binary, addresses, address, size=size, name_at=name_at)
    return NativeFacts(
        arch=MACHINES.get(machine, f"machine {machine}"),
        sections=sections,
        needed=tuple(dict.fromkeys(needed)),
    )


def read_pe_sections(head: Binary, *, end: int) -> tuple[Section, ...]:
    """The sections of a DLL too large to hold, from its first pages.

    Args:
        end: the length of the whole file.

    Raises:
        DamagedFileError: the headers contradict the file.
    """
    _, _, table, count = _read_header(head)
    return _read_sections(head, table, count, end=end)[0]


def _read_header(binary: Binary) -> tuple[int, int, int, int]:
    """Machine, offset of the optional header, offset of the section table, number of sections."""
    if bytes(binary.take(0, 2, "the DOS header")) != MAGIC:
        binary.fail(0, "not a PE file")
    at = binary.u32(0x3C)
    if bytes(binary.take(at, 4, "the PE header")) != b"PE\0\0":
        binary.fail(at, "not a PE file")
    machine, count, optional_size = binary.u16(at + 4), binary.u16(at + 6), binary.u16(at + 20)
    optional = at + 24
    if binary.u16(optional) != _PE32_PLUS:
        binary.fail(optional, "not a 64-bit PE file")
    if count > _MOST_SECTIONS:
        binary.fail(at + 6, f"{count} sections")
    return machine, optional, optional + optional_size, count


_Address = tuple[int, int, int]  # virtual address, size, offset in the file


def _read_sections(
    binary: Binary, start: int, count: int, *, end: int
) -> tuple[tuple[Section, ...], list[_Address]]:
    sections, addresses = [], []
    for at in range(start, start + 40 * count, 40):
        name = bytes(binary.take(at, 8, "a section header")).rstrip(b"\0").decode("latin-1")
        size, offset = binary.u32(at + 16), binary.u32(at + 20)
        if size and offset + size > end:
            binary.fail(at + 16, f"a section of {size} bytes at {offset} lies outside the file")
        sections.append(Section(name, offset, size))
        addresses.append((binary.u32(at + 12), size, offset))
    return tuple(sections), addresses


def _offset(binary: Binary, addresses: list[_Address], address: int, seen_at: int) -> int:
    for start, size, offset in addresses:
        if start <= address < start + size:
            return offset + address - start
    return binary.fail(seen_at, f"the address {address:#x} lies in no section")


def _read_imports(
    binary: Binary, addresses: list[_Address], address: int, *, size: int, name_at: int
) -> list[str]:
    at = _offset(binary, addresses, address, 0)
    names: list[str] = []
    for _ in range(_MOST_IMPORTS):
        name = binary.u32(at + name_at)
        if not name:
            return names
        names.append(binary.text(_offset(binary, addresses, name, at + name_at)))
        at += size
    return binary.fail(at, f"more than {_MOST_IMPORTS} imports")
