from __future__ import annotations

import struct

import pytest
from binaries import bundle, elf, fatbin, macho, pe

from bnbenv.matrix.binary import Binary, DamagedFileError
from bnbenv.matrix.elf import read_elf, read_sections, section_table
from bnbenv.matrix.fatbin import find_images, sort_images
from bnbenv.matrix.macho import read_macho
from bnbenv.matrix.measure import measure_library
from bnbenv.matrix.offload import find_targets
from bnbenv.matrix.pe import read_pe
from bnbenv.units import ComputeCapability, DottedVersion


def test_an_elf_file_tells_what_it_needs() -> None:
    data = elf(
        needed=("libcudart.so.12", "libc.so.6"),
        run_path="/usr/local/cuda/lib:/opt",
        versions=("GLIBC_2.4", "GLIBC_2.17", "GLIBC_PRIVATE", "GLIBCXX_3.4.11", "CXXABI_1.3"),
    )
    facts = read_elf(Binary("a.so", data))
    assert facts.arch == "x86_64"
    assert facts.needed == ("libcudart.so.12", "libc.so.6")
    assert facts.run_paths == ("/usr/local/cuda/lib", "/opt")
    assert facts.symbol_versions == {
        "CXXABI": DottedVersion.parse("1.3"),
        "GLIBC": DottedVersion.parse("2.17"),
        "GLIBCXX": DottedVersion.parse("3.4.11"),
    }


def test_sections_can_be_read_from_the_head_and_a_window_at_the_tables() -> None:
    data = elf(sections={".nv_fatbin": b"x" * 5000})
    start, end = section_table(Binary("a.so", data[:64]))
    window_at = start - 100
    sections = read_sections(
        Binary("a.so", data[:64]), Binary("a.so", data[window_at:end], base=window_at), end=len(data)
    )
    assert [section.name for section in sections] == [
        section.name for section in read_elf(Binary("a.so", data)).sections
    ]


def test_a_dll_tells_its_imports_and_sections() -> None:
    facts = read_pe(
        Binary("a.dll", pe(imports=("cudart64_12.dll", "KERNEL32.dll"), sections={".nv_fatb": b"x"}))
    )
    assert facts.needed == ("cudart64_12.dll", "KERNEL32.dll")
    assert [section.name for section in facts.sections] == [".rdata", ".nv_fatb"]
    assert facts.arch == "x86_64"


def test_a_macos_library_tells_what_it_needs() -> None:
    facts = read_macho(Binary("a.dylib", macho("/usr/lib/libc++.1.dylib", "/usr/lib/libSystem.B.dylib")))
    assert facts.needed == ("/usr/lib/libc++.1.dylib", "/usr/lib/libSystem.B.dylib")
    assert facts.arch == "aarch64"


def test_ptx_in_the_relocatable_section_is_not_executable() -> None:
    data = elf(
        sections={
            ".nv_fatbin": fatbin(("cubin", 75), ("cubin", 86)),
            "__nv_relfatbin": fatbin(("cubin", 75), ("ptx", 120)),
        }
    )
    library = measure_library("libbitsandbytes_cuda128.so", data)
    assert library.cubins == (ComputeCapability(7, 5), ComputeCapability(8, 6))
    assert library.ptx == (ComputeCapability(12, 0),)
    assert library.ptx_linkage == "relocatable"
    assert (library.backend, library.toolkit) == ("cuda", "12.8")


def test_ptx_in_the_executable_section_is_executable() -> None:
    library = measure_library(
        "libbitsandbytes_cuda118.so", elf(sections={".nv_fatbin": fatbin(("cubin", 80), ("ptx", 80))})
    )
    assert library.ptx_linkage == "executable"


def test_the_relocatable_section_of_a_dll_is_known_by_its_cut_name() -> None:
    library = measure_library(
        "libbitsandbytes_cuda126.dll",
        pe(sections={".nv_fatb": fatbin(("cubin", 86)), "__nv_rel": fatbin(("ptx", 90))}),
    )
    assert library.cubins == (ComputeCapability(8, 6),)
    assert library.ptx_linkage == "relocatable"


@pytest.mark.parametrize("size", [1, 7, 16, 61, 4096], ids=lambda size: f"chunks of {size}")
def test_images_are_found_however_the_file_is_cut_into_chunks(size: int) -> None:
    data = b"\0" * 13 + fatbin(("cubin", 75), ("ptx", 90)) + b"\x50\xed\x55" + fatbin(("cubin", 120)) + b"end"
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    whole = find_images("a.so", [data])
    assert [(image.ptx, str(image.capability)) for image in whole] == [
        (False, "7.5"),
        (True, "9.0"),
        (False, "12.0"),
    ]
    assert find_images("a.so", chunks) == whole


def test_a_magic_that_begins_no_fatbin_is_passed_over() -> None:
    code = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 2**40) + b"\x90" * 64
    assert find_images("a.so", [code + fatbin(("cubin", 75))])[0].capability == ComputeCapability(7, 5)


def test_a_fatbin_that_is_cut_short_names_file_and_offset() -> None:
    data = b"\0" * 100 + fatbin(("cubin", 75), ("cubin", 86))
    with pytest.raises(DamagedFileError, match=r"a\.so: at offset \d+: .*cut short") as caught:
        find_images("a.so", [data[:-4]])
    assert caught.value.offset >= 100


def test_an_entry_that_reaches_beyond_its_fatbin_is_an_error() -> None:
    data = bytearray(fatbin(("cubin", 75)))
    struct.pack_into("<Q", data, 16 + 8, 10_000)
    with pytest.raises(DamagedFileError, match="reaches beyond its fatbin"):
        find_images("a.so", [bytes(data)])


def test_images_outside_any_section_count_as_executable() -> None:
    images = sort_images(find_images("a", [fatbin(("cubin", 75))]), [])
    assert images.cubins == {ComputeCapability(7, 5): 1}


def test_targets_of_a_plain_bundle() -> None:
    data = elf(sections={".hip_fatbin": bundle("gfx90a", "gfx1100", "gfx942:xnack-")})
    binary = Binary("librocm.so", data)
    assert find_targets(binary, read_elf(binary).sections) == ("gfx1100", "gfx90a", "gfx942:xnack-")


@pytest.mark.parametrize("method", ["zlib", "zstd"])
@pytest.mark.parametrize("version", [2, 3])
def test_targets_of_a_compressed_bundle(method: str, version: int) -> None:
    import zlib

    plain = bundle("gfx1201")
    if method == "zlib":
        packed = zlib.compress(plain)
    else:
        packed = pytest.importorskip("zstandard").ZstdCompressor().compress(plain)
    number = {"zlib": 0, "zstd": 1}[method]
    if version == 2:
        head = struct.pack("<4sHHIIQ", b"CCOB", 2, number, 24 + len(packed), len(plain), 0)
    else:
        head = struct.pack("<4sHHQQQ", b"CCOB", 3, number, 32 + len(packed), len(plain), 0)
    binary = Binary("librocm.so", elf(sections={".hip_fatbin": head + packed}))
    assert find_targets(binary, read_elf(binary).sections) == ("gfx1201",)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("libbitsandbytes_cpu.so", ("cpu", None)),
        ("libbitsandbytes_cuda126.so", ("cuda", "12.6")),
        ("libbitsandbytes_cuda118_nocublaslt.so", ("cuda", "11.8")),
        ("libbitsandbytes_rocm64.so", ("rocm", "6.4")),
        ("libbitsandbytes_rocm714.dll", ("rocm", "7.14")),
        ("libbitsandbytes_xpu.so", ("xpu", None)),
        ("libbitsandbytes_xpu2026.so", ("xpu", "2026")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_name_tells_backend_and_toolkit(name: str, expected: tuple[str, str | None]) -> None:
    library = measure_library(name, pe() if name.endswith("dll") else elf())
    assert (library.backend, library.toolkit) == expected


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "neither ELF nor PE"),
        (b"\x7fELF", "lies outside"),
        (b"#!/bin/sh\n", "neither ELF nor PE"),
        (elf()[:200], "lies outside"),
        (b"\x7fELF\x01\x01".ljust(64, b"\0"), "64-bit"),
        (b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0xFFFFFFF0), "lies outside"),
    ],
    ids=["empty", "magic alone", "script", "cut short", "32-bit", "absurd PE offset"],
)
def test_damaged_libraries_are_errors_that_name_the_file(data: bytes, words: str) -> None:
    with pytest.raises(DamagedFileError, match=rf"^x\.so: at offset \d+: .*{words}"):
        measure_library("x.so", data)
