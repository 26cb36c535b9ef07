"""Which line of a compilation tells the error, and how a toolkit is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import measure_kernels
from bnbenv.machine.toolchain import find_toolchain
from support.toolkit import COMPILER_HEADERS, put_toolkit

if TYPE_CHECKING:
    from pathlib import Path

HEADERS = """\
ptxas info    : 0 bytes gmem
FAILED: q_gemm.cuda.o
/opt/cuda/bin/nvcc -MD -o q_gemm.cuda.o # no error: yet
/opt/cuda/include/cccl/cuda_toolkit.h:39:6: error: #error "they are incompatible"
   39 | #    error "they are incompatible"
"""


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (HEADERS, 'cuda_toolkit.h:39:6: error: #error "they are incompatible"'),
        (
            "/opt/a.h:82:10: fatal error: crt/b.h: No such file",
            "a.h:82:10: fatal error: crt/b.h: No such file",
        ),
        ("x\n/usr/bin/ld: cannot find -lcudart: No such file", "ld: cannot find -lcudart: No such file"),
        ("it went well", "no error was told"),
    ],
)
def test_the_first_error_is_told_without_paths(text: str, error: str) -> None:
    assert measure_kernels._error(text) == error


def test_a_toolkit_is_called_by_what_it_lacks(tmp_path: Path) -> None:
    put_toolkit(tmp_path / "whole")
    put_toolkit(tmp_path / "alone", headers=COMPILER_HEADERS)
    put_toolkit(tmp_path / "wheels", headers=COMPILER_HEADERS)
    (tmp_path / "wheels" / "lib64" / "libcudart.so").unlink()
    put_toolkit(tmp_path / "program", headers=())
    seen = [
        measure_kernels._described(find_toolchain({"PATH": "", "CUDA_HOME": str(tmp_path / name)}))
        for name in ("whole", "alone", "wheels", "program")
    ]
    assert seen == [
        "whole",
        "without the libraries' headers",
        "of pip's wheels, without libcudart.so",
        "a program that starts nvcc, on PATH",
    ]
