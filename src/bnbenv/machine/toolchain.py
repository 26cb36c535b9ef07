"""What compiles native extensions on this machine: a C++ compiler and a CUDA toolkit, as torch finds them.

Torch's builder (`torch.utils.cpp_extension`, read in 2.15) takes the first place that is named and looks no
further: a ``CUDA_HOME`` without a compiler hides the toolkit that PATH would have shown. Ninja is not looked
for: GPTQModel 7.7 depends on the package of that name.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.machine.tool import ask
from bnbenv.units import CudaVersion

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIMIT = 10.0  # seconds
_RELEASE = re.compile(r"release (\d+\.\d+)")
_HEADERS = ("cuda_runtime.h",)
# Torch's own headers include these; a toolkit of the compiler alone comes without them.
_LIBRARY_HEADERS = ("cublas_v2.h", "cublasLt.h", "cusolverDn.h", "cusparse.h")
_USUAL = Path("/usr/local/cuda")
# How setuptools asks Visual Studio's installer for its newest compiler, which is seldom on PATH.
_ASK_VISUAL_STUDIO = (
    *("-latest", "-prerelease", "-products", "*", "-property", "installationPath"),
    *("-requires", "Microsoft.VisualStudio.Component.VC.Tools.x86.x64"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """What was found.

    Attributes:
        compiler: the path of a C++ compiler, or of the Visual Studio that has one.
        home: the directory that torch takes for the CUDA toolkit; ``None`` where it finds none.
        named: what named it, such as ``CUDA_HOME``.
        nvcc: the path of CUDA's compiler in `home`.
        headers: whether the compiler's headers are in `home`.
        runtime: whether ``libcudart.so`` is, which extensions are linked against. Pip's wheels, which bring
            an nvcc too, have it under its versioned name alone.
        library_headers: whether those of cuBLAS, cuSOLVER and cuSPARSE are, which are packages of their own.
        cuda: the toolkit's version, as nvcc tells it.
        hidden: a toolkit in the usual place that `home` hides by being named first, and not being one.
    """

    compiler: str | None
    home: Path | None
    named: str
    nvcc: str | None
    headers: bool
    runtime: bool
    library_headers: bool
    cuda: CudaVersion | None
    hidden: Path | None = None

    @property
    def lacks_toolkit(self) -> str | None:
        """What keeps torch from compiling for CUDA, in words."""
        if self.home is None:
            return "the CUDA toolkit (nvcc)"
        if self.nvcc is None:
            return f"a CUDA toolkit in `{self.home}` ({self.named})"
        if not self.headers:
            return f"the headers of the CUDA toolkit in `{self.home}` ({self.named})"
        if not self.runtime:
            return f"libcudart.so of the CUDA toolkit in `{self.home}` ({self.named})"
        return None


def find_toolchain(environ: Mapping[str, str], *, usual: Path | None = None) -> Toolchain:
    """Look where torch looks: ``CXX``; ``CUDA_HOME``, ``CUDA_PATH``, the nvcc on PATH, the usual place.

    Args:
        environ: the variables of the process that will compile.
        usual: where the toolkit's installer puts it; by default ``/usr/local/cuda``.
    """
    usual = usual or _USUAL
    path = environ.get("PATH", os.defpath)
    home, named = _home(environ, path, usual)
    nvcc = _nvcc(home) if home else None
    return Toolchain(
        compiler=_compiler(environ, path),
        home=home,
        named=named,
        nvcc=nvcc,
        headers=home is not None and _has(home, _HEADERS),
        runtime=home is not None and _has_runtime(home),
        library_headers=home is not None and _has(home, _LIBRARY_HEADERS),
        cuda=_version(nvcc, environ) if nvcc else None,
        hidden=usual if _is_toolkit(usual) and not (home and _is_toolkit(home)) else None,
    )


def _compiler(environ: Mapping[str, str], path: str) -> str | None:
    if sys.platform == "win32":
        return shutil.which("cl", path=path) or _visual_studio(environ)
    return shutil.which(environ.get("CXX", "").split(" ")[0] or "c++", path=path)


def _visual_studio(environ: Mapping[str, str]) -> str | None:
    programs = environ.get("ProgramFiles(x86)") or environ.get("ProgramFiles") or ""
    installer = Path(programs, "Microsoft Visual Studio", "Installer", "vswhere.exe")
    answer = ask([str(installer), *_ASK_VISUAL_STUDIO], environ=environ, timeout=_LIMIT)
    return answer.output.strip() or None if answer.status == 0 else None


def _home(environ: Mapping[str, str], path: str, usual: Path) -> tuple[Path | None, str]:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if environ.get(name):
            return Path(environ[name]), name
    if nvcc := shutil.which("nvcc", path=path):
        return Path(nvcc).parent.parent, "the nvcc on PATH"
    return (usual, "the usual place") if usual.is_dir() else (None, "")


def _nvcc(home: Path) -> str | None:
    return shutil.which("nvcc", path=str(home / "bin"))


def _is_toolkit(home: Path) -> bool:
    return _nvcc(home) is not None and _has(home, _HEADERS) and _has_runtime(home)


def _has(home: Path, headers: tuple[str, ...]) -> bool:
    """Conda keeps them by target; a toolkit's own ``include`` is a link into the same tree."""
    places = (home / "include", *home.glob("targets/*/include"))
    return any(all((place / name).is_file() for name in headers) for place in places)


def _has_runtime(home: Path) -> bool:
    """Where a toolkit, conda and Debian keep it."""
    places = ("lib64", "lib", "targets/*/lib", "lib/*-linux-gnu")
    return any(any(home.glob(f"{place}/libcudart.so")) for place in places)


def _version(nvcc: str, environ: Mapping[str, str]) -> CudaVersion | None:
    match = _RELEASE.search(ask([nvcc, "--version"], environ=environ, timeout=_LIMIT).output)
    return CudaVersion.parse(match[1]) if match else None
