"""Interpreters of other machines: the heads are built from the formats, but for this Python's own."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from bnbenv.doctor.program import Program, check_program, program_of, read_program
from support.judge_facts import target

X86, ARM = 62, 183


def elf(machine: int, *, bits: int = 64, loader: str = "/lib64/ld-linux-x86-64.so.2") -> bytes:
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
    return ident + struct.pack("<HHI", 3, machine, 1) + bytes(100) + loader.encode() + b"\0"


def pe(machine: int, magic: int) -> bytes:
    return (
        b"MZ"
        + bytes(58)
        + struct.pack("<I", 64)
        + b"PE\0\0"
        + struct.pack("<H", machine)
        + bytes(18)
        + (struct.pack("<H", magic))
    )


def macho(machine: int, magic: bytes = b"\xcf\xfa\xed\xfe") -> bytes:
    return magic + struct.pack("<I", machine) + bytes(24)


LINUX, WINDOWS, MAC = (
    target(os="linux"),
    target(os="windows"),
    target(os="macos", arch="aarch64", accelerator="mps"),
)
CASES = {
    "native": (elf(X86), LINUX, None),
    "32-bit": (elf(3, bits=32), LINUX, "emulated-interpreter"),
    "of another processor": (elf(ARM), LINUX, "emulated-interpreter"),
    "musl": (elf(X86, loader="/lib/ld-musl-x86_64.so.1"), LINUX, "no-wheel-for-platform"),
    "windows": (pe(0x8664, 0x20B), WINDOWS, None),
    "32-bit of Windows": (pe(0x14C, 0x10B), WINDOWS, "emulated-interpreter"),
    "mac": (macho(0x0100000C), MAC, None),
    "Rosetta": (macho(0x01000007), MAC, "emulated-interpreter"),
    "universal": (b"\xca\xfe\xba\xbe" + bytes(40), MAC, None),
    "of another system": (macho(0x01000007), LINUX, None),
    "script": (b"#!/bin/sh\nexec python3\n", LINUX, None),
    "cut off": (elf(X86)[:17], LINUX, None),
    "empty": (b"", LINUX, None),
    "no PE": (b"MZ" + bytes(58) + b"\xff\xff\xff\xff", WINDOWS, None),
}


@pytest.mark.parametrize("name", CASES)
def test_the_head_is_compared_with_the_machine(name: str, tmp_path: Path) -> None:
    head, machine, code = CASES[name]
    python = tmp_path / "python"
    python.write_bytes(head)
    assert [found.code for found in check_program(program_of(python), python, machine)] == (
        [code] if code else []
    )


def test_where_musl_is_the_machines_own_the_judge_says_so(tmp_path: Path) -> None:
    from bnbenv.machine.target import Libc
    from bnbenv.units import DottedVersion

    python = tmp_path / "python"
    python.write_bytes(elf(X86, loader="/lib/ld-musl-x86_64.so.1"))
    alpine = target(libc=Libc(family="musl", version=DottedVersion.parse("1.2.5")))
    assert list(check_program(program_of(python), python, alpine)) == []


@pytest.mark.skipif(sys.platform != "linux", reason="another format")
def test_this_python() -> None:
    found = read_program(Path(sys.executable).read_bytes()[:8192])
    assert isinstance(found, Program)
    assert (found.os, found.bits) == ("linux", 64)


def test_what_is_not_there_passes(tmp_path: Path) -> None:
    assert list(check_program(program_of(tmp_path / "python"), tmp_path / "python", LINUX)) == []
