"""What builds native extensions on this machine: a C++ compiler and a CUDA toolkit.

Ninja is not looked for: GPTQModel 7.7 asks only for setuptools to be built, and for ninja as a package that
it runs with, so that the installer brings both.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bnbenv.machine.tool import ask
from bnbenv.units import CudaVersion

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIMIT = 10.0  # seconds
_RELEASE = re.compile(r"release (\d+\.\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """The programs that were found.

    Attributes:
        compiler: the path of a C++ compiler.
        nvcc: the path of CUDA's compiler.
        cuda: the toolkit's version, as nvcc tells it.
    """

    compiler: str | None
    nvcc: str | None
    cuda: CudaVersion | None

    @property
    def missing(self) -> tuple[str, ...]:
        """What is not there, in words."""
        words = []
        if self.compiler is None:
            words.append("a C++ compiler")
        if self.nvcc is None:
            words.append("the CUDA toolkit (nvcc)")
        return tuple(words)


def find_toolchain(environ: Mapping[str, str], *, usual: str = "/usr/local/cuda") -> Toolchain:
    """Look where build tools look: ``CXX``, ``CUDA_HOME``, ``CUDA_PATH``, PATH, the toolkit's usual place."""
    path = environ.get("PATH", os.defpath)
    named = environ.get("CXX", "").split(" ")[0]
    candidates = [name for name in (named, "c++", "g++", "clang++", "cl") if name]
    compiler = next((found for name in candidates if (found := shutil.which(name, path=path))), None)
    homes = [environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if environ.get(name)]
    places = [os.path.join(home, "bin") for home in homes]  # noqa: PTH118 - parts of a PATH
    places += [path, os.path.join(usual, "bin")]  # noqa: PTH118
    nvcc = next((found for place in places if (found := shutil.which("nvcc", path=place))), None)
    return Toolchain(compiler=compiler, nvcc=nvcc, cuda=_version(nvcc, environ) if nvcc else None)


def _version(nvcc: str, environ: Mapping[str, str]) -> CudaVersion | None:
    match = _RELEASE.search(ask([nvcc, "--version"], environ=environ, timeout=_LIMIT).output)
    return CudaVersion.parse(match[1]) if match else None
