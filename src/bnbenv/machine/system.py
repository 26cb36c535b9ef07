"""Read the C and C++ libraries, the processor and the distribution from files."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from bnbenv.machine.host import Fact
from bnbenv.machine.target import Libc
from bnbenv.units import DottedVersion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnbenv.machine.running import Running
    from bnbenv.machine.tree import Tree

_LIBRARY_LIMIT = 2**25  # no libc or libstdc++ is larger than 32 MiB
_CPUINFO = "/proc/cpuinfo"
_ELF64 = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_MOST_SECTIONS = 4096
_DYNAMIC = 6  # SHT_DYNAMIC: what the linker reads of a library, linked with the table of its names


def _places(running: Running) -> tuple[str, ...]:
    arch = running.arch
    return (
        f"/lib/{arch}-linux-gnu",
        f"/usr/lib/{arch}-linux-gnu",
        "/lib64",
        "/usr/lib64",
        "/lib",
        "/usr/lib",
    )


def glibc_version(data: bytes) -> DottedVersion | None:
    """The release in glibc's own banner: ``GNU C Library (…) stable release version 2.36.``."""
    match = re.search(rb"GNU C Library [^\n\0]{0,120}?release version (\d+\.\d+)", data)
    return DottedVersion.parse(match[1].decode()) if match else None


def musl_version(data: bytes) -> DottedVersion | None:
    """The release in musl's loader, which is its C library as well: a text of its own."""
    match = re.search(rb"\0(1\.\d{1,2}\.\d{1,3})(?:-git[^\0]*)?\0", data)
    return DottedVersion.parse(match[1].decode()) if match else None


def find_libc(tree: Tree, running: Running) -> tuple[Libc, Fact] | None:
    """The system's C library: glibc wherever there is one, else musl."""
    if tree.real:
        try:
            name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        except (ValueError, OSError, AttributeError):
            name = version = ""
        if name == "glibc" and re.fullmatch(r"\d+\.\d+", version):
            libc = Libc(family="glibc", version=DottedVersion.parse(version))
            return libc, Fact(name="libc", value=f"glibc {version}", source="confstr")
    for place in _places(running):
        path = f"{place}/libc.so.6"
        if (found := glibc_version(tree.data(path, _LIBRARY_LIMIT) or b"")) is not None:
            return (
                Libc(family="glibc", version=found),
                Fact(name="libc", value=f"glibc {found}", source=path),
            )
    path = f"/lib/ld-musl-{running.arch}.so.1"
    if (found := musl_version(tree.data(path, _LIBRARY_LIMIT) or b"")) is not None:
        return Libc(family="musl", version=found), Fact(name="libc", value=f"musl {found}", source=path)
    return None


def highest_glibcxx(data: bytes) -> DottedVersion | None:
    """The highest ``GLIBCXX_3.4.n`` among the version names in a libstdc++.

    Searched as text: the names stand in the library's string table once each, and nowhere longer.
    """
    found = set(re.findall(rb"GLIBCXX_(3\.4(?:\.\d{1,3})?)\0", data))
    versions = [DottedVersion.parse(text.decode()) for text in found]
    return max(versions, default=None)


def find_libstdcxx(tree: Tree, running: Running) -> tuple[DottedVersion, Fact] | None:
    """The system's libstdc++, which native libraries get unless an environment brings its own."""
    for place in _places(running):
        path = f"{place}/libstdc++.so.6"
        if (found := highest_glibcxx(_dynamic_strings(tree, path))) is not None:
            return found, Fact(name="libstdcxx", value=f"GLIBCXX_{found}", source=path)
    return None


def _dynamic_strings(tree: Tree, path: str) -> bytes:
    """The names that a library gives to the linker (``.dynstr``); of what is no ELF library, all of it.

    They are a seventh of the file: to read the rest, which is code, would be the longest part of a probe.
    """
    head = tree.part(path, 0, 64) or b""
    if head.startswith(_ELF64) and len(head) == 64:
        offset, size, count = _number(head, 40, 8), _number(head, 58, 2), _number(head, 60, 2)
        table = tree.part(path, offset, size * min(count, _MOST_SECTIONS)) or b""
        for place in range(0, len(table) - 63, size) if size >= 64 else ():
            if _number(table, place + 4, 4) == _DYNAMIC:
                names = _number(table, place + 40, 4) * size
                start, length = _number(table, names + 24, 8), _number(table, names + 32, 8)
                return tree.part(path, start, min(length, _LIBRARY_LIMIT)) or b""
    return tree.data(path, _LIBRARY_LIMIT) or b""


def _number(data: bytes, place: int, size: int) -> int:
    return int.from_bytes(data[place : place + size], "little")


def parse_cpu_flags(cpuinfo: str) -> frozenset[str] | None:
    """The flags of the first processor: ``flags`` on x86, ``Features`` on Arm."""
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    return frozenset(match[1].split()) if match else None


def find_processor(tree: Tree) -> tuple[frozenset[str] | None, tuple[Fact, ...]]:
    """The processor's flags, and facts of its name and flags."""
    cpuinfo = tree.text(_CPUINFO, 16384) or ""  # the first processor's part; a large host has hundreds
    flags = parse_cpu_flags(cpuinfo)
    facts = []
    if match := re.search(r"^(?:model name|Model)\s*:\s*(.+)$", cpuinfo, re.MULTILINE):
        facts.append(Fact(name="cpu", value=match[1].strip(), source=_CPUINFO))
    if flags is not None:
        telling: Sequence[str] = [
            flag
            for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
            if flag in flags
        ]
        value = f"{len(flags)}" + (f", among them {' '.join(telling)}" if telling else "")
        facts.append(Fact(name="cpu.flags", value=value, source=_CPUINFO))
    return flags, tuple(facts)


def find_distribution(tree: Tree) -> Fact | None:
    """``PRETTY_NAME`` of os-release."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        if match := re.search(r'^PRETTY_NAME="?([^"\n]+)"?', tree.text(path, 4096) or "", re.MULTILINE):
            return Fact(name="distribution", value=match[1].strip(), source=path)
    return None
