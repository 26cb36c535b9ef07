"""What a profile needs that builds: GPTQModel is installed from source and compiles its kernels at first use.

Two needs, at two times and perhaps on two machines. The installation runs a C compiler here, for a
dependency (pypcre 0.6, which has no wheels); GPTQModel itself compiles nothing then. Where it runs, its first
use compiles the kernels for the GPU at hand with a C++ compiler and a CUDA toolkit, on Linux: on other
systems it takes kernels of Triton's or torch's (read in GPTQModel 7.7).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from bnbenv.errors import ExternalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnbenv.machine.toolchain import Toolchain
    from bnbenv.matrix.rows import Profile
    from bnbenv.units import CudaVersion
    from bnbenv.workflows.choose import Choice
    from bnbenv.workflows.request import CreateRequest
    from bnbenv.workflows.voice import Voice


def require_toolchain(
    request: CreateRequest,
    choice: Choice,
    voice: Voice,
    environ: Mapping[str, str],
    *,
    torch_given: bool = False,
) -> None:
    """Stop before anything is fetched if what builds the profile's packages is missing; a dry run tells it.

    A toolkit of torch's major version is enough: torch refuses another one, and warns of another minor one.

    Args:
        torch_given: by a lock, or by what is installed: no other can be advised.

    Raises:
        ExternalError: code ``tool-missing``.
    """
    from bnbenv.judge import lookup
    from bnbenv.machine.toolchain import find_toolchain

    cuda = choice.solution.stack.torch.cuda
    names = ", ".join(lookup.profile(choice.matrix, choice.solution.stack.profile).builds)
    if not names or cuda is None:
        return
    compiles = choice.target.os == "linux"
    if compiles:
        voice.progress(f"{names} compiles its kernels at first use, where it runs")
    if compiles and choice.elsewhere:
        voice.progress(
            f"{choice.target.name} needs a C++ compiler and the whole CUDA {cuda.major} toolkit for that"
        )
    found = find_toolchain(environ)
    sentence = _sentence(names, found, cuda, compiles=compiles and not choice.elsewhere)
    if sentence is None:
        return
    if request.dry_run:
        voice.progress(sentence)
        return
    raise ExternalError(
        sentence, hint=_hint(choice, found, cuda, torch_given=torch_given), code="tool-missing"
    )


def foretell(row: Profile, environ: Mapping[str, str], *, elsewhere: bool) -> str | None:
    """What will keep the profile from being built, as far as it is known before torch is chosen."""
    from bnbenv.machine.toolchain import find_toolchain

    if not row.builds:
        return None
    compiles = sys.platform == "linux" and not elsewhere
    return _sentence(", ".join(row.builds), find_toolchain(environ), None, compiles=compiles)


def _sentence(names: str, found: Toolchain, cuda: CudaVersion | None, *, compiles: bool) -> str | None:
    lacks = ", ".join(lacking(found, cuda, compiles=compiles))
    return f"{names} is built from source, and this machine lacks {lacks}" if lacks else None


def lacking(found: Toolchain, cuda: CudaVersion | None, *, compiles: bool) -> Iterator[str]:
    """What keeps a package that builds from this machine, in words.

    Args:
        found: what the machine has.
        cuda: torch's version of CUDA; ``None`` before torch is chosen.
        compiles: the kernels are compiled on this machine, not on another one.
    """
    if found.compiler is None:
        yield "a C++ compiler"
    if compiles and found.lacks_toolkit:
        yield found.lacks_toolkit
    elif compiles and cuda and found.cuda and found.cuda.major != cuda.major:
        yield (
            f"a CUDA {cuda.major} toolkit: torch is built with CUDA {cuda}, and the one here is {found.cuda}"
        )
    elif compiles and cuda and found.cuda and found.cuda != cuda and not found.library_headers:
        yield (
            f"the headers of cuBLAS, cuSOLVER and cuSPARSE in `{found.home}`: those that torch brings are of "
            f"CUDA {cuda}, and nvcc {found.cuda} refuses them"
        )


def _hint(choice: Choice, found: Toolchain, cuda: CudaVersion, *, torch_given: bool) -> str:
    profile = choice.solution.stack.profile
    if sys.platform == "win32":
        return "install the Build Tools for Visual Studio, with C++"
    if found.hidden is not None:
        return f"export CUDA_HOME={found.hidden}"
    advice = f"install g++ and the whole CUDA {cuda.major} toolkit, and let CUDA_HOME name it"
    if not torch_given and found.cuda != cuda and _is_built_with(found.cuda, choice):
        return f"bnbenv create {profile} --cuda {found.cuda}, or {advice}"
    return f"{advice}, or build where they are, such as in an image of NVIDIA's with `devel` in its name"


def _is_built_with(cuda: CudaVersion | None, choice: Choice) -> bool:
    """Whether the profile admits a torch of this CUDA version."""
    from bnbenv.judge import lookup
    from bnbenv.judge.ranges import within

    ranges = [group.torch for group in lookup.profile(choice.matrix, choice.solution.stack.profile).sets]
    return cuda is not None and any(
        row.cuda == cuda and any(within(row.version, text) for text in ranges)
        for row in lookup.torch_builds(choice.matrix, choice.target.os, choice.target.arch)
    )
