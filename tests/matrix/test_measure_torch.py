from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from binaries import elf, wheel

from bnbenv.matrix.binary import DamagedFileError
from bnbenv.matrix.measure_torch import measure_symbol_versions, tag_promises_too_much
from bnbenv.units import DottedVersion

if TYPE_CHECKING:
    from collections.abc import Iterator


class Pieces:
    """A wheel in memory, handed out in chunks of an odd size, so that names lie across their borders."""

    name = "torch-2.0.0-cp311-cp311-manylinux1_x86_64.whl"

    def __init__(self, data: bytes, chunk: int) -> None:
        self._data = data
        self._chunk = chunk
        self.size = len(data)

    def stream(self, offset: int, length: int) -> Iterator[bytes]:
        end = min(offset + length, self.size)
        for at in range(offset, end, self._chunk):
            yield self._data[at : min(at + self._chunk, end)]


def torch(**libraries: bytes) -> bytes:
    files = {f"torch/lib/{name}.so": data for name, data in libraries.items()}
    return bytes(wheel(files, name="torch-2.0.0"))


@pytest.mark.parametrize("chunk", [7, 64, 1 << 20])
def test_the_highest_version_of_all_core_libraries_counts(chunk: int) -> None:
    data = torch(
        libc10=elf(versions=("GLIBC_2.14", "CXXABI_1.3")),
        libtorch_cpu=elf(versions=("GLIBC_2.4", "GLIBC_2.17", "GLIBCXX_3.4.19", "GLIBC_PRIVATE")),
        libtorch_cuda=elf(versions=("GLIBC_2.99",)),
    )
    assert measure_symbol_versions(Pieces(data, chunk)) == {
        "CXXABI": DottedVersion.parse("1.3"),
        "GLIBC": DottedVersion.parse("2.17"),
        "GLIBCXX": DottedVersion.parse("3.4.19"),
    }


def test_a_version_that_stands_in_other_data_is_not_asked_for() -> None:
    data = torch(libc10=elf(versions=("GLIBC_2.14",), sections={".rodata": b"\0GLIBC_2.38\0"}))
    assert measure_symbol_versions(Pieces(data, 64)) == {"GLIBC": DottedVersion.parse("2.14")}


def test_a_wheel_without_core_libraries_is_refused() -> None:
    with pytest.raises(DamagedFileError, match=r"libc10\.so"):
        measure_symbol_versions(Pieces(torch(other=elf()), 64))


def test_only_the_tag_that_nobody_audited_is_doubted() -> None:
    assert tag_promises_too_much("manylinux1_x86_64")
    assert not tag_promises_too_much("manylinux2014_aarch64")
    assert not tag_promises_too_much("manylinux_2_28_x86_64")
