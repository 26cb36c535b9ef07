"""Rules on the native library: the one the loader takes, the GPUs it serves and the libraries it needs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bnbenv.judge import coverage, lookup
from bnbenv.judge.loader import backend_of
from bnbenv.judge.rules.rule import finding, rule
from bnbenv.units import CudaVersion, RocmVersion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnbenv.judge.loader import LoaderChoice
    from bnbenv.judge.stack import Finding, Stack
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import BitsandbytesWheel

_EFFECT = {
    "raise": "the import of bitsandbytes raises",
    "cpu": "the CPU library is taken silently, and 4-bit and 8-bit operations on the GPU fail",
    "mock": "the import passes, and the first native call raises",
    "fine": "",
}


@rule("torch", "bitsandbytes", source="bitsandbytes source, cextension.py at the tags")
def loader_finds_library(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """The loader of the release finds a library for torch's accelerator."""
    wheel = stack.bitsandbytes
    if wheel is None or lookup.NOT_IN_MATRIX in (wheel.provenance.source, _unnamed(stack)):
        return
    if (wheel.os, wheel.arch) != (target.os, target.arch):
        return  # the rule on platforms says so
    choice = coverage.chosen_library(stack, target, matrix)
    if choice is None:
        yield finding(
            "unknown-bnb-release",
            "warning",
            "bitsandbytes",
            f"how bitsandbytes {wheel.version} chooses its library is not known",
            undecided=True,
        )
    elif choice.name is None:
        yield _missing(stack, wheel, choice)
    elif choice.how == "nearest":
        yield from _neighbour(stack, choice)
    elif choice.how == "override":
        yield finding(
            "bnb-cuda-override-wrong",
            "info",
            choice.variable or "",
            f"`{choice.variable}` makes bitsandbytes take `{choice.name}`",
        )


def _unnamed(stack: Stack) -> str:
    """The source of a torch row of which not even the kind of build is known."""
    return stack.torch.provenance.source if stack.torch.build == "unknown" else ""


def _missing(stack: Stack, wheel: BitsandbytesWheel, choice: LoaderChoice) -> Finding:
    build, backend = stack.torch, backend_of(stack.torch)
    held = sorted(row.name for row in wheel.libraries if row.backend == backend)
    evidence = (
        f"the loader looks for `{choice.wanted}`",
        f"the wheel holds {', '.join(held) or f'no {backend.upper()} library'}",
        _EFFECT[choice.consequence],
    )
    if choice.variable:
        return finding(
            "bnb-cuda-override-wrong",
            "error",
            choice.variable,
            f"`{choice.variable}={stack.env.get(choice.variable, '')}` "
            + (
                "cannot be read by the loader"
                if choice.how == "malformed"
                else f"names a library that bitsandbytes {wheel.version} does not hold"
            ),
            *evidence,
            need=f"unset {choice.variable}",
            remedy="Unset the variable, also in shell profiles and container files.",
            commands=(f"unset {choice.variable}",),
        )
    code, need = _missing_code(stack, wheel, choice)
    if not wheel.wheel:  # measured where it lies: nobody published it
        code, need = "source-build-no-native-lib", "a published wheel"
    return finding(
        code,
        "error",
        "bitsandbytes",
        f"bitsandbytes {wheel.version} has no library for torch {build.version} ({build.build})",
        *evidence,
        need=need,
    )


def _missing_code(stack: Stack, wheel: BitsandbytesWheel, choice: LoaderChoice) -> tuple[str, str]:
    build = stack.torch
    match backend_of(build):
        case "cuda":
            toolkits = [
                CudaVersion.parse(row.toolkit)
                for row in wheel.libraries
                if row.backend == "cuda" and row.toolkit
            ]
            if build.cuda is not None and toolkits and build.cuda < min(toolkits):
                return "cuda-too-old-for-bnb", f"torch with CUDA >= {min(toolkits)}"
            return "missing-cuda-binary", "a newer bitsandbytes"
        case "rocm":
            if not any(row.backend == "rocm" for row in wheel.libraries):
                return "rocm-unsupported-bnb", "bitsandbytes >= 0.49.0"
            if choice.how == "unreadable-version":
                return "rocm-hip-version-skew", "a torch build of ROCm 9 or older"
            return "rocm-hip-version-skew", "a torch build of a ROCm version that the wheel holds"
        case "xpu":
            return "xpu-library-missing", "a newer bitsandbytes"
        case _:
            return "broken-release", "another bitsandbytes"


def _neighbour(stack: Stack, choice: LoaderChoice) -> Iterator[Finding]:
    build = stack.torch
    held = choice.library.toolkit if choice.library else None
    if build.rocm is None or held is None:
        yield finding(
            "cuda-fallback-warning",
            "info",
            "bitsandbytes",
            f"`{choice.name}` serves in place of `{choice.wanted}`",
            "the loader takes the nearest library of the same CUDA major version, and says so",
        )
        return
    wanted, found = RocmVersion.parse(build.rocm), RocmVersion.parse(held)
    evidence = f"torch is built for ROCm {wanted}, `{choice.name}` for {found}"
    if found > wanted:
        yield finding(
            "rocm-fallback-abi",
            "error",
            "bitsandbytes",
            f"`{choice.name}` is built for a newer ROCm than torch's",
            evidence,
            "such a pair was seen to crash (torch of ROCm 6.1, library of 6.4)",
            need=f"a torch build of ROCm {found}",
            source="unslothai/unsloth#10273",
        )
    elif wanted.minor - found.minor > 1:
        yield finding(
            "rocm-fallback-abi",
            "warning",
            "bitsandbytes",
            f"whether `{choice.name}` works beside torch of ROCm {wanted} is not known",
            evidence,
            undecided=True,
            need=f"a torch build of ROCm {found}",
        )
    else:
        yield finding(
            "rocm-fallback-warning",
            "info",
            "bitsandbytes",
            f"`{choice.name}` serves in place of `{choice.wanted}`",
            evidence,
        )


@rule("torch", "bitsandbytes", source="images measured in the wheels' libraries; CUDA C++ Programming Guide")
def library_serves_gpus(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """The library that is taken holds a kernel for each visible GPU."""
    choice = coverage.chosen_library(stack, target, matrix)
    if choice is None or choice.library is None or choice.library.backend not in ("cuda", "rocm"):
        return
    library = choice.library
    release = f"bitsandbytes {stack.bitsandbytes.version}" if stack.bitsandbytes else "bitsandbytes"
    gpus = coverage.seen_gpus(stack, target)
    for position, gpu in enumerate(gpus):
        label = coverage.gpu_label(gpu, position)
        cover = coverage.by_library(gpu, library, target, stack.env)
        if cover.state == "none":
            beside_another = len(gpus) > 1
            yield finding(
                _no_kernel(target, matrix, position, stack),
                "warning" if coverage.beside_discrete(gpu, gpus) else "error",
                label,
                f"`{choice.name}` of {release} holds no kernel for {label}",
                f"it holds {_images(library.cubins, library.gfx)}",
                need=f"drop {label}" if beside_another else "a bitsandbytes that serves the GPU",
            )
        elif cover.state == "relocatable-ptx":
            yield finding(
                "relocatable-ptx-only",
                "warning",
                label,
                f"only PTX inside objects for a linker serves {label} in `{choice.name}`",
                f"cubins: {_images(library.cubins, ())}; {cover.text}",
                "nobody has shown that the driver uses it",
                undecided=True,
                need="a library with a cubin for the GPU",
            )
        elif cover.state == "unknown" and (gpu.compute_capability or gpu.gfx):
            yield finding(
                "jetson-l4t-mismatch" if coverage.on_tegra(target) else "unknown-bnb-release",
                "info",
                label,
                f"whether `{choice.name}` serves {label} is not known",
                f"it holds {_images(library.cubins, library.gfx)}",
                undecided=True,
            )


def _no_kernel(target: Target, matrix: Matrix, position: int, stack: Stack) -> str:
    gpu = coverage.seen_gpus(stack, target)[position]
    if target.accelerator == "rocm":
        return "rocm-arch-unsupported"
    capability = gpu.compute_capability
    if capability is not None and not lookup.ever_served(matrix, target.os, target.arch, capability):
        return "gpu-below-minimum"
    return "no-kernel-image"


def _images(cubins: tuple[object, ...], gfx: tuple[str, ...]) -> str:
    if cubins:
        return "cubins for " + ", ".join(map(str, cubins))
    return ", ".join(gfx) or "no images"


# Sonames that carry the CUDA major version; those of cuSPARSE and nvJitLink count by themselves.
_CUDA_NEED = re.compile(
    r"lib(?:cudart|cublas|cublasLt)\.so\.(\d+)|(?:cudart|cublas|cublasLt)64_(\d+)\.dll", re.IGNORECASE
)


@rule("torch", "bitsandbytes", source="DT_NEEDED and DLL imports measured in the wheels")
def library_dependencies_are_there(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """Torch brings the CUDA libraries of the major version that the library is linked to."""
    choice = coverage.chosen_library(stack, target, matrix)
    cuda = stack.torch.cuda
    if choice is None or choice.library is None or choice.library.backend != "cuda" or cuda is None:
        return
    if target.os == "linux" and cuda.major == 11 and "libcusparse.so.11" in choice.library.needed:
        yield finding(
            "cuda-runtime-not-found",
            "warning",
            "bitsandbytes",
            f"`{choice.name}` needs libcusparse.so.11, which torch's builds for CUDA 11 do not load",
            "the import of bitsandbytes finds it only in a CUDA 11 toolkit or on LD_LIBRARY_PATH",
            need="bitsandbytes >= 0.50.0",
            remedy="Take bitsandbytes 0.50 or newer, which does without it, or a torch build for CUDA 12; "
            "or put nvidia/cusparse/lib of site-packages on LD_LIBRARY_PATH.",
            source="bitsandbytes#1452, #1483, #1199",
        )
    if target.os == "linux" and "libnvJitLink.so.13" in choice.library.needed:
        yield finding(
            "cuda-runtime-not-found",
            "warning",
            "bitsandbytes",
            f"`{choice.name}` needs libnvJitLink.so.13, which stands in nvidia/cu13/lib of site-packages",
            "it was reported that the import does not find it there, as torch does not load it first",
            need="bitsandbytes >= 0.50.0",
            remedy="Take bitsandbytes 0.50 or newer, which does without it, or put nvidia/cu13/lib of "
            "site-packages on LD_LIBRARY_PATH.",
            source="p-e-w/heretic#429; bitsandbytes#1905",
        )
    foreign = []
    for name in choice.library.needed:
        found = _CUDA_NEED.match(name)
        # The DLLs of CUDA 11 carry 110 or 11, depending on the library.
        if found and int((found[1] or found[2])[:2]) != cuda.major:
            foreign.append(name)
    if foreign:
        yield finding(
            "cuda-runtime-not-found",
            "error",
            "bitsandbytes",
            f"`{choice.name}` needs {', '.join(foreign)}, which torch's CUDA {cuda} does not bring",
            *((f"`{choice.variable}` chose it",) if choice.variable else ()),
            need=f"unset {choice.variable}" if choice.variable else "a library of torch's CUDA major version",
        )


# The soname of each ROCm library by the major version of ROCm that brings it.
_ROCM_NEED = {
    "libhipblas.so.2": 6,
    "libhipblas.so.3": 7,
    "libhipblaslt.so.0": 6,
    "libhipblaslt.so.1": 7,
    "libhipsparse.so.1": 6,
    "libhipsparse.so.4": 7,
}


@rule("torch", "bitsandbytes", source="DT_NEEDED measured in the wheels; sonames of ROCm 6 and 7")
def rocm_libraries_are_there(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """Torch brings the ROCm libraries of the major version that the library is linked to."""
    choice = coverage.chosen_library(stack, target, matrix)
    if choice is None or choice.library is None or stack.torch.rocm is None:
        return
    own = RocmVersion.parse(stack.torch.rocm).major
    foreign = [name for name in choice.library.needed if _ROCM_NEED.get(name, own) != own]
    if not foreign:
        return
    major = _ROCM_NEED[foreign[0]]
    installed = target.rocm is not None and target.rocm.split(".")[0] == str(major)
    need = f"unset {choice.variable}" if choice.variable else "a library of torch's ROCm major version"
    evidence = f"torch is built for ROCm {stack.torch.rocm}, `{choice.name}` for ROCm {major}"
    if installed:
        yield finding(
            "rocm-hip-version-skew",
            "warning",
            "bitsandbytes",
            f"`{choice.name}` would load the system's ROCm {target.rocm} beside the one that torch brings",
            evidence,
            "two HIP runtimes in one process do not share their memory",
            undecided=True,
            need=need,
        )
    else:
        yield finding(
            "rocm-hip-version-skew",
            "error",
            "bitsandbytes",
            f"`{choice.name}` needs {', '.join(foreign)}, which torch's ROCm does not bring",
            evidence,
            need=need,
        )


@rule("torch", "bitsandbytes", source="DT_NEEDED and DLL imports measured in the wheels")
def xpu_runtime_is_there(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """Torch brings the SYCL runtime of the oneAPI that the library is linked to."""
    choice = coverage.chosen_library(stack, target, matrix)
    own = stack.torch.oneapi
    if choice is None or choice.library is None or choice.library.backend != "xpu" or own is None:
        return
    years = lookup.sycl_runtimes(matrix)
    foreign = [name for name in choice.library.needed if name in years and own not in years[name]]
    if foreign:
        made_for = ", ".join(sorted(years[foreign[0]]))
        yield finding(
            "xpu-library-missing",
            "error",
            "bitsandbytes",
            f"`{choice.name}` needs {', '.join(foreign)}, which torch's oneAPI {own} does not bring",
            f"libraries made for oneAPI {made_for} need it",
            need=f"a bitsandbytes with a library for oneAPI {own}",
        )


_ROCM_DIRECTORY = re.compile(r"/rocm(?:-[\d.]+)?(?:/|$)")
_CUDA_DIRECTORY = re.compile(r"cuda(?:-(\d+)(?:\.\d+)?)?(?:/|$)")


@rule("torch", source="ld.so: LD_LIBRARY_PATH comes before DT_RUNPATH")
def search_path_is_clean(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """No CUDA or ROCm directory on ``LD_LIBRARY_PATH`` wins over the libraries that the wheels bring."""
    del matrix
    if target.os != "linux":
        return
    for entry in stack.env.get("LD_LIBRARY_PATH", "").split(":"):
        if target.accelerator == "rocm" and _ROCM_DIRECTORY.search(entry):
            yield finding(
                "rocm-hip-version-skew",
                "warning",
                "LD_LIBRARY_PATH",
                f"`{entry}` on LD_LIBRARY_PATH wins over the ROCm libraries that torch brings",
                f"torch is built for ROCm {stack.torch.rocm}, the machine has {target.rocm or 'unknown'}",
                need="unset LD_LIBRARY_PATH",
                commands=("unset LD_LIBRARY_PATH",),
            )
        if target.accelerator != "cuda":
            continue
        if found := _CUDA_DIRECTORY.search(entry):
            own = stack.torch.cuda
            yield finding(
                "cuda-conflict-ldpath",
                "warning",
                "LD_LIBRARY_PATH",
                f"`{entry}` on LD_LIBRARY_PATH wins over the CUDA libraries that torch brings",
                f"it is of CUDA {found[1] or 'unknown'}, torch's is {own}",
                need="unset LD_LIBRARY_PATH",
                commands=("unset LD_LIBRARY_PATH",),
            )


@rule(source="ROCm runtime documentation")
def gfx_is_not_overridden(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """``HSA_OVERRIDE_GFX_VERSION`` makes the runtime take a GPU for another: what follows is unknown."""
    del matrix
    value = stack.env.get("HSA_OVERRIDE_GFX_VERSION")
    if target.accelerator == "rocm" and value:
        yield finding(
            "rocm-arch-unsupported",
            "warning",
            "HSA_OVERRIDE_GFX_VERSION",
            f"`HSA_OVERRIDE_GFX_VERSION={value}` makes the runtime take every GPU for that target",
            "kernels of another target may compute, crash or err",
            undecided=True,
            need="unset HSA_OVERRIDE_GFX_VERSION",
        )
