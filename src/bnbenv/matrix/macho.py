"""Reads what a macOS library needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.matrix.elf import NativeFacts

if TYPE_CHECKING:
    from bnbenv.matrix.binary import Binary

MAGIC = b"\xcf\xfa\xed\xfe"
MACHINES = {0x01000007: "x86_64", 0x0100000C: "aarch64"}

_DYLIB_COMMANDS = (0x0C, 0x80000018, 0x8000001F)  # LOAD, LOAD_WEAK, REEXPORT
_RPATH = 0x8000001C
_MOST_COMMANDS = 4096


def read_macho(binary: Binary) -> NativeFacts:
    """Read a thin 64-bit Mach-O library.

    Raises:
        DamagedFileError: the headers contradict the file.
    """
    if bytes(binary.take(0, 4, "the Mach-O header")) != MAGIC:
        binary.fail(0, "not a 64-bit Mach-O file")
    machine, count = binary.u32(4), binary.u32(16)
    if count > _MOST_COMMANDS:
        binary.fail(16, f"{count} load commands")
    needed, run_paths, at = [], [], 32
    for _ in range(count):
        command, size = binary.u32(at), binary.u32(at + 4)
        if size < 8:
            binary.fail(at + 4, f"a load command of {size} bytes")
        if command in _DYLIB_COMMANDS:
            needed.append(binary.text(at + binary.u32(at + 8)))
        elif command == _RPATH:
            run_paths.append(binary.text(at + binary.u32(at + 8)))
        at += size
    return NativeFacts(
        arch=MACHINES.get(machine, f"machine {machine:#x}"),
        sections=(),
        needed=tuple(needed),
        run_paths=tuple(run_paths),
    )
