"""Builds the smallest libraries and wheels that the readers understand, for tests and the readers' proof."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ENTRY_HEADER = 64


def fatbin(*images: tuple[str, int]) -> bytes:
    """A fatbin of images such as ``("cubin", 86)`` or ``("ptx", 90)``, with four bytes of code each."""
    body = b""
    for kind, capability in images:
        head = struct.pack("<HHIQ", {"ptx": 1, "cubin": 2}[kind], 0x101, ENTRY_HEADER, 8)
        head += b"\0" * (28 - len(head)) + struct.pack("<I", capability)
        body += head.ljust(ENTRY_HEADER, b"\0") + b"code\0\0\0\0"
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def bundle(*targets: str) -> bytes:
    """A plain bundle of code objects for targets such as ``gfx1100``."""
    entries = b""
    for target in ("host-x86_64-unknown-linux--", *(f"hipv4-amdgcn-amd-amdhsa--{name}" for name in targets)):
        entries += struct.pack("<QQQ", 4096, 0, len(target)) + target.encode()
    return b"__CLANG_OFFLOAD_BUNDLE__" + struct.pack("<Q", len(targets) + 1) + entries


def elf(
    *,
    needed: Sequence[str] = (),
    run_path: str | None = None,
    versions: Sequence[str] = (),
    sections: Mapping[str, bytes] | None = None,
    machine: int = 62,
) -> bytes:
    """A 64-bit library with a dynamic section, version needs, and named sections."""
    texts, offsets = b"\0", {}
    for text in (*needed, *versions, *([run_path] if run_path else [])):
        offsets[text] = len(texts)
        texts += text.encode() + b"\0"
    dynamic = b"".join(struct.pack("<QQ", 1, offsets[name]) for name in needed)
    if run_path:
        dynamic += struct.pack("<QQ", 29, offsets[run_path])
    dynamic += struct.pack("<QQ", 0, 0)
    verneed = b""
    if versions:
        verneed = struct.pack("<HHIII", 1, len(versions), 0, 16, 0)
        for number, name in enumerate(versions, start=1):
            step = 16 if number < len(versions) else 0
            verneed += struct.pack("<IHHII", 0, 0, 0, offsets[name], step)
    parts: list[tuple[str, int, bytes, int, int]] = [
        ("", 0, b"", 0, 0),
        (".dynstr", 3, texts, 0, 0),
        (".dynamic", 6, dynamic, 1, 0),
        (".gnu.version_r", 0x6FFFFFFE, verneed, 1, 1 if versions else 0),
        *((name, 1, data, 0, 0) for name, data in (sections or {}).items()),
    ]
    names, name_at = b"", []
    for name in [*(part[0] for part in parts), ".shstrtab"]:
        name_at.append(len(names))
        names += name.encode() + b"\0"
    parts.append((".shstrtab", 3, names, 0, 0))
    body, headers, at = b"", b"", 64
    for (_, kind, data, link, info), name_offset in zip(parts, name_at, strict=True):
        headers += struct.pack("<IIQQQQIIQQ", name_offset, kind, 0, 0, at, len(data), link, info, 8, 0)
        body += data
        at += len(data)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    table = struct.pack(
        "<HHIQQQIHHHHHH", 3, machine, 1, 0, 0, at, 0, 64, 0, 0, 64, len(parts), len(parts) - 1
    )
    return ident + table + body + headers


def pe(*, imports: Sequence[str] = (), sections: Mapping[str, bytes] | None = None) -> bytes:
    """A 64-bit DLL with an import table and named sections."""
    base = 0x1000
    descriptors, texts = b"", b""
    start = base + 20 * (len(imports) + 1)
    for name in imports:
        descriptors += struct.pack("<IIIII", 0, 0, 0, start + len(texts), 0)
        texts += name.encode() + b"\0"
    held = {".rdata": descriptors + b"\0" * 20 + texts, **(sections or {})}
    headers_size = 0x40 + 24 + 240 + 40 * len(held)
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    head += b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, len(held), 0, 0, 0, 240, 0x2000)
    optional = struct.pack("<H", 0x20B).ljust(108, b"\0") + struct.pack("<I", 16)
    optional += struct.pack("<QII", 0, base if imports else 0, 20) + b"\0" * 112
    head += optional.ljust(240, b"\0")
    table, body, address = b"", b"", base
    for name, data in held.items():
        offset = headers_size + len(body)
        table += name.encode().ljust(8, b"\0")
        table += struct.pack("<IIIIIIHHI", len(data), address, len(data), offset, 0, 0, 0, 0, 0)
        body += data
        address += (len(data) + 0xFFF) // 0x1000 * 0x1000
    return head + table + body


def macho(*needed: str) -> bytes:
    """A thin arm64 library."""
    commands = b""
    for name in needed:
        text = name.encode() + b"\0"
        size = (24 + len(text) + 7) // 8 * 8
        commands += (struct.pack("<IIIIII", 0x0C, size, 24, 0, 0, 0) + text).ljust(size, b"\0")
    return struct.pack("<IIIIIIII", 0xFEEDFACF, 0x0100000C, 0, 6, len(needed), len(commands), 0, 0) + commands


def wheel(files: Mapping[str, bytes], *, metadata: str = "", name: str = "bitsandbytes-9.9.9") -> bytes:
    """A wheel's bytes."""
    buffer = io.BytesIO()
    project, version = name.split("-")
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
        text = f"Metadata-Version: 2.1\r\nName: {project}\r\nVersion: {version}\r\n"
        archive.writestr(f"{name}.dist-info/METADATA", text + metadata + "\r\n")
    return buffer.getvalue()
