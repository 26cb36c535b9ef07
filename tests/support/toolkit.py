"""Stand-ins for a C++ compiler and a CUDA toolkit: an nvcc that tells its version, and empty headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

COMPILER_HEADERS = ("cuda_runtime.h",)
ALL_HEADERS = (*COMPILER_HEADERS, "cublas_v2.h", "cublasLt.h", "cusolverDn.h", "cusparse.h")


def put_compiler(directory: Path, name: str = "c++") -> None:
    """A program of this name that does nothing."""
    _program(directory / name, "true")


def put_toolkit(home: Path, *, cuda: str = "13.0", headers: tuple[str, ...] = ALL_HEADERS) -> None:
    """A toolkit's directory, with an nvcc of this version and the runtime to link against."""
    _program(home / "bin" / "nvcc", f"echo 'Cuda compilation tools, release {cuda}, V{cuda}.48'")
    (home / "include").mkdir()
    (home / "lib64").mkdir()
    (home / "lib64" / "libcudart.so").touch()
    for name in headers:
        (home / "include" / name).touch()


def _program(path: Path, does: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{does}\n", encoding="utf-8")
    path.chmod(0o755)
