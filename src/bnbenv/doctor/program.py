"""Whether an environment's interpreter is a program for this machine, and one that wheels exist for."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.judge.rules.rule import finding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bnbenv.judge.stack import Finding
    from bnbenv.machine.target import Target

_HEAD = 8192  # bytes; the name of the loader stands in the first page
_SOURCE = "the head of the interpreter's file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What the head of an executable file tells.

    Attributes:
        os: the system whose format it has.
        bits: 32 or 64.
        arch: ``x86_64``, ``aarch64``, or the format's own number.
        musl: whether musl's loader starts it.
    """

    os: str
    bits: int
    arch: str
    musl: bool = False


def program_of(python: Path) -> Program | None:
    """What an interpreter is; ``None`` where it cannot be read, or serves several machines."""
    try:
        with python.open("rb") as stream:
            return read_program(stream.read(_HEAD))
    except OSError:
        return None


def check_program(found: Program | None, python: Path, target: Target) -> Iterator[Finding]:
    """Compare an interpreter with the machine it would run on.

    Args:
        found: what it is.
        python: where it stands.
    """
    if found is None or found.os != target.os:
        return
    if found.bits == 32:
        yield finding(
            "emulated-interpreter",
            "error",
            "python",
            "the environment's Python is a 32-bit one, for which no torch and no bitsandbytes are published",
            str(python),
            remedy="Make the environment with a 64-bit Python.",
            source=_SOURCE,
        )
    elif found.arch != target.arch:
        yield finding(
            "emulated-interpreter",
            "error" if target.os == "macos" else "warning",
            "python",
            f"the environment's Python is one for {found.arch}, and the machine is {target.arch}",
            str(python),
            "torch publishes nothing for x86-64 Macs any more, and Rosetta has no GPU for it"
            if target.os == "macos"
            else "it runs emulated, without the GPU",
            remedy=f"Make the environment with a Python for {target.arch}.",
            source=_SOURCE,
        )
    elif found.musl and (target.libc is None or target.libc.family != "musl"):
        yield finding(
            "no-wheel-for-platform",
            "error",
            "python",
            "the environment's Python is built with musl, and torch and bitsandbytes are not",
            str(python),
            remedy="Make the environment with a Python for glibc.",
            source=_SOURCE,
        )


def read_program(head: bytes) -> Program | None:
    """Read the first bytes of an executable; ``None`` for scripts, universal binaries and what is cut off."""
    try:
        if head[:4] == b"\x7fELF" and head[5] == 1:
            return _elf(head)
        if head[:2] == b"MZ":
            return _pe(head)
        if head[:4] in {b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe"}:
            return _macho(head)
    except (struct.error, IndexError):
        pass
    return None


def _elf(head: bytes) -> Program:
    from bnbenv.matrix.elf import MACHINES

    machine: int = struct.unpack_from("<H", head, 18)[0]
    return Program(
        os="linux",
        bits=64 if head[4] == 2 else 32,
        arch=MACHINES.get(machine, f"machine {machine}"),
        musl=b"/ld-musl-" in head,
    )


def _pe(head: bytes) -> Program | None:
    from bnbenv.matrix.pe import MACHINES

    at: int = struct.unpack_from("<I", head, 0x3C)[0]
    if head[at : at + 4] != b"PE\0\0":
        return None
    machine: int = struct.unpack_from("<H", head, at + 4)[0]
    wide = struct.unpack_from("<H", head, at + 24)[0] == 0x20B
    return Program(os="windows", bits=64 if wide else 32, arch=MACHINES.get(machine, f"machine {machine:#x}"))


def _macho(head: bytes) -> Program:
    from bnbenv.matrix.macho import MACHINES

    machine: int = struct.unpack_from("<I", head, 4)[0]
    bits = 64 if head[:1] == b"\xcf" else 32
    return Program(os="macos", bits=bits, arch=MACHINES.get(machine, f"machine {machine:#x}"))
