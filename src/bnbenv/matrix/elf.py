"""Reads what a Linux library needs and holds: sections, DT_NEEDED, run paths and symbol versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bnbenv.dataclass import dataclass, field
from bnbenv.units import DottedVersion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.matrix.binary import Binary

MAGIC = b"\x7fELF"
MACHINES = {62: "x86_64", 183: "aarch64"}

_SHT_DYNAMIC = 6
_SHT_NOBITS = 8
_SHT_GNU_VERNEED = 0x6FFFFFFE
_DT_NULL, _DT_NEEDED, _DT_RPATH, _DT_RUNPATH = 0, 1, 15, 29
_MOST_SECTIONS = 4096
_MOST_ENTRIES = 65536


class Section(NamedTuple):
    """A named stretch of a binary."""

    name: str
    offset: int
    size: int

    def holds(self, offset: int) -> bool:
        """Whether an offset of the file lies in it."""
        return self.offset <= offset < self.offset + self.size


class _Header(NamedTuple):
    kind: int
    link: int
    section: Section
    info: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeFacts:
    """What the linker's tables of a library say, whatever its format.

    Attributes:
        arch: ``x86_64``, ``aarch64``, or the format's own number.
        symbol_versions: the highest version needed per family, such as ``GLIBC``.
    """

    arch: str
    sections: tuple[Section, ...]
    needed: tuple[str, ...] = ()
    run_paths: tuple[str, ...] = ()
    symbol_versions: Mapping[str, DottedVersion] = field(default_factory=dict)


def read_elf(binary: Binary) -> NativeFacts:
    """Read a whole 64-bit little-endian ELF library.

    Raises:
        DamagedFileError: the headers contradict the file.
    """
    arch = _read_arch(binary)
    headers = _read_headers(binary, binary, end=binary.end)
    needed, run_paths = _read_dynamic(binary, headers)
    return NativeFacts(
        arch=arch,
        sections=tuple(header.section for header in headers),
        needed=needed,
        run_paths=run_paths,
        symbol_versions=_read_versions(binary, headers),
    )


def section_table(head: Binary) -> tuple[int, int]:
    """Offset and end of the section header table, from the file's first 64 bytes.

    Raises:
        DamagedFileError: it is no 64-bit little-endian ELF file, or has no such table.
    """
    _read_arch(head)
    offset, size, count = head.u64(40), head.u16(58), head.u16(60)
    if size != 64 or not 0 < count <= _MOST_SECTIONS:
        head.fail(58, f"a section table of {count} entries of {size} bytes")
    return offset, offset + size * count


def read_sections(head: Binary, tables: Binary, *, end: int) -> tuple[Section, ...]:
    """The sections of a library too large to hold.

    Args:
        tables: the stretch that holds the section table and the sections' names.
        end: the length of the whole file.

    Raises:
        DamagedFileError: something is missing there, or lies.
    """
    return tuple(header.section for header in _read_headers(head, tables, end=end))


def _read_arch(binary: Binary) -> str:
    ident = bytes(binary.take(0, 16, "the ELF header"))
    if ident[:4] != MAGIC:
        binary.fail(0, "not an ELF file")
    if ident[4] != 2 or ident[5] != 1:
        binary.fail(4, "not a 64-bit little-endian ELF file")
    machine = binary.u16(18)
    return MACHINES.get(machine, f"machine {machine}")


def _read_headers(head: Binary, binary: Binary, *, end: int) -> tuple[_Header, ...]:
    raw = []
    for at in range(*section_table(head), 64):
        size = 0 if binary.u32(at + 4) == _SHT_NOBITS else binary.u64(at + 32)
        raw.append((binary.u32(at), binary.u32(at + 4), binary.u64(at + 24), size, at))
    names = head.u16(62)
    if names >= len(raw):
        head.fail(62, f"the section names stand in section {names} of {len(raw)}")
    names_offset, names_size = raw[names][2], raw[names][3]
    headers = []
    for name_at, kind, offset, size, at in raw:
        if name_at >= max(names_size, 1):
            binary.fail(at, f"a section's name at {name_at} of {names_size} bytes of names")
        if offset + size > end:
            binary.fail(at + 24, f"a section of {size} bytes at {offset} lies outside the file")
        name = binary.text(names_offset + name_at) if names_size else ""
        headers.append(_Header(kind, binary.u32(at + 40), Section(name, offset, size), binary.u32(at + 44)))
    return tuple(headers)


def _linked(binary: Binary, headers: tuple[_Header, ...], header: _Header) -> Section:
    if header.link >= len(headers):
        binary.fail(header.section.offset, f"its texts stand in section {header.link} of {len(headers)}")
    return headers[header.link].section


def _read_dynamic(binary: Binary, headers: tuple[_Header, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    needed: list[str] = []
    run_paths: list[str] = []
    for header in headers:
        if header.kind != _SHT_DYNAMIC:
            continue
        texts = _linked(binary, headers, header)
        count = min(header.section.size // 16, _MOST_ENTRIES)
        for at in range(header.section.offset, header.section.offset + 16 * count, 16):
            tag, value = binary.u64(at), binary.u64(at + 8)
            if tag == _DT_NULL:
                break
            if tag in (_DT_NEEDED, _DT_RPATH, _DT_RUNPATH):
                if value >= texts.size:
                    binary.fail(at, f"a name at {value} of {texts.size} bytes of names")
                text = binary.text(texts.offset + value)
                if tag == _DT_NEEDED:
                    needed.append(text)
                else:
                    run_paths += [path for path in text.split(":") if path]
    return tuple(needed), tuple(run_paths)


def _read_versions(binary: Binary, headers: tuple[_Header, ...]) -> dict[str, DottedVersion]:
    highest: dict[str, DottedVersion] = {}
    for header in headers:
        if header.kind != _SHT_GNU_VERNEED:
            continue
        texts = _linked(binary, headers, header)
        at = header.section.offset
        for _ in range(min(header.info, _MOST_ENTRIES)):
            count, aux, step = binary.u16(at + 2), binary.u32(at + 8), binary.u32(at + 12)
            entry = at + aux
            for _ in range(count):
                name_at, entry_step = binary.u32(entry + 8), binary.u32(entry + 12)
                if name_at >= texts.size:
                    binary.fail(entry + 8, f"a name at {name_at} of {texts.size} bytes of names")
                keep_highest(highest, binary.text(texts.offset + name_at))
                if not entry_step:
                    break
                entry += entry_step
            if not step:
                break
            at += step
    return dict(sorted(highest.items()))


def keep_highest(highest: dict[str, DottedVersion], name: str) -> None:
    """Take a version such as ``GLIBC_2.17`` into the highest of each family; other names are passed over."""
    family, _, text = name.partition("_")
    if family not in ("GLIBC", "GLIBCXX", "CXXABI"):
        return
    try:
        version = DottedVersion.parse(text)
    except ValueError:  # GLIBC_PRIVATE, CXXABI_FLOAT128: no version
        return
    highest[family] = max(version, highest.get(family, version))
