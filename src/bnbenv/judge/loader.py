"""Which native library a release of bitsandbytes takes: its loader, as a pure function."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeVar

from bnbenv.dataclass import dataclass
from bnbenv.units import CudaVersion, RocmVersion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnbenv.matrix.rows import Backend, BitsandbytesWheel, LoaderRule, NativeLibrary, TorchBuild
    from bnbenv.units import ComputeCapability

How = Literal["exact", "nearest", "override", "only", "missing", "malformed", "unreadable-version"]
Consequence = Literal["fine", "raise", "cpu", "mock"]

_SUFFIX = {"linux": ".so", "windows": ".dll", "macos": ".dylib"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderChoice:
    """What the loader does.

    Attributes:
        name: the file it takes; ``None`` where it finds none that serves the accelerator.
        how: ``only`` where there is nothing to choose (CPU, MPS, XPU); ``malformed`` for a variable that
            the loader cannot read; ``unreadable-version`` for a ROCm major that it cannot read.
        consequence: what follows; ``cpu`` stands for the CPU library taken silently.
        wanted: the file it looks for first.
        library: the row of `name`.
        variable: the variable that took part, such as ``BNB_CUDA_VERSION``.
    """

    name: str | None
    how: How
    consequence: Consequence
    wanted: str
    library: NativeLibrary | None = None
    variable: str | None = None


def backend_of(build: TorchBuild) -> Backend:
    """The accelerator that a torch build is made for."""
    if build.cuda is not None:
        return "cuda"
    if build.rocm is not None:
        return "rocm"
    if build.build in ("xpu", "mps"):
        return "xpu" if build.build == "xpu" else "mps"
    return "cpu"


def choose_library(
    wheel: BitsandbytesWheel,
    rule: LoaderRule,
    torch_build: TorchBuild,
    capabilities: Sequence[ComputeCapability],
    environ: Mapping[str, str],
) -> LoaderChoice:
    """The library that the wheel's loader takes beside a torch build.

    Args:
        wheel: what is installed; its rows of libraries decide.
        rule: the loader of that release, see `compat/loaders.toml`.
        torch_build: decides the accelerator and its version.
        capabilities: of all visible GPUs; the highest decides between the library and its variant
            without cublasLt in releases that had one.
        environ: the process' variables.
    """
    match backend_of(torch_build):
        case "cuda":
            return _cuda(wheel, rule, torch_build, capabilities, environ)
        case "rocm":
            return _rocm(wheel, rule, torch_build, environ)
        case "xpu":
            return _xpu(wheel, rule, torch_build)
        case "mps" if any(library.backend == "mps" for library in wheel.libraries):
            return _plain(wheel, rule, "mps")
        case _:
            return choose_cpu_library(wheel, rule)


def choose_cpu_library(wheel: BitsandbytesWheel, rule: LoaderRule) -> LoaderChoice:
    """The library taken where torch sees no accelerator."""
    return _plain(wheel, rule, "cpu")


def _cuda(
    wheel: BitsandbytesWheel,
    rule: LoaderRule,
    build: TorchBuild,
    capabilities: Sequence[ComputeCapability],
    environ: Mapping[str, str],
) -> LoaderChoice:
    if build.cuda is None:
        raise AssertionError("a CUDA build has a CUDA version")
    ending = _SUFFIX[wheel.os]
    variant = ""
    if rule.nocublaslt_below is not None and capabilities:
        highest = max(capabilities)
        if highest < rule.nocublaslt_below or (rule.plain_for and highest not in rule.plain_for):
            variant = "_nocublaslt"
    stem = f"libbitsandbytes_cuda{build.cuda.digits}{variant}"
    if rule.fails_below is not None and capabilities and max(capabilities) < rule.fails_below:
        return LoaderChoice(name=None, how="missing", consequence="raise", wanted=stem + ending)
    variable = next((name for name in rule.override if name != "BNB_ROCM_VERSION"), "BNB_CUDA_VERSION")
    value = environ.get(variable) if variable in rule.override else None
    if rule.override_rule == "empty-unset":
        value = value or None
    if value is not None:
        name = f"libbitsandbytes_cuda{value}{variant}{ending}"
        if rule.override_place == "end":
            # These loaders strip the digits at the name's end before they append the value, so that a
            # variant keeps its own version in the middle: `cuda121_nocublaslt123`.
            name = f"{stem.rstrip('0123456789')}{value}{ending}"
        return _overridden(wheel, rule, name, value, variable)
    if found := _named(wheel, stem + ending):
        return _found(found, "exact", stem + ending)
    if rule.match == "nearest" and (found := _nearest_cuda(wheel, build.cuda)):
        return _found(found, "nearest", stem + ending)
    return _missing(wheel, rule, stem + ending)


def _rocm(
    wheel: BitsandbytesWheel, rule: LoaderRule, build: TorchBuild, environ: Mapping[str, str]
) -> LoaderChoice:
    wanted = RocmVersion.parse(build.rocm or "")
    ending = _SUFFIX[wheel.os]
    name = f"libbitsandbytes_rocm{wanted.digits}{ending}"
    if "BNB_ROCM_VERSION" in rule.override:
        value = environ.get("BNB_ROCM_VERSION")
        if value is not None:
            forced = f"libbitsandbytes_rocm{value}{ending}"
            return _overridden(wheel, rule, forced, value, "BNB_ROCM_VERSION")
    elif environ.get("BNB_CUDA_VERSION") and any(row.backend == "rocm" for row in wheel.libraries):
        # Before BNB_ROCM_VERSION existed, the other variable beside a ROCm torch was an error.
        return LoaderChoice(
            name=None, how="malformed", consequence=rule.missing, wanted=name, variable="BNB_CUDA_VERSION"
        )
    if wanted.major > 9:  # the loader reads the major version as one digit
        return LoaderChoice(name=None, how="unreadable-version", consequence=rule.missing, wanted=name)
    if found := _named(wheel, name):
        return _found(found, "exact", name)
    if rule.match == "nearest" and (found := _nearest_rocm(wheel, wanted)):
        return _found(found, "nearest", name)
    return _missing(wheel, rule, name)


def _xpu(wheel: BitsandbytesWheel, rule: LoaderRule, build: TorchBuild) -> LoaderChoice:
    """The library of torch's oneAPI year where the wheel holds several, else the one without a year."""
    if build.oneapi is None:
        return _plain(wheel, rule, "xpu")
    ending = _SUFFIX[wheel.os]
    wanted = f"libbitsandbytes_xpu{build.oneapi}{ending}"
    for name in (wanted, f"libbitsandbytes_xpu{ending}"):
        if found := _named(wheel, name):
            return _found(found, "exact" if name == wanted else "only", wanted)
    return _missing(wheel, rule, wanted)


def _plain(wheel: BitsandbytesWheel, rule: LoaderRule, backend: Backend) -> LoaderChoice:
    held = sorted((row for row in wheel.libraries if row.backend == backend), key=lambda row: row.name)
    wanted = f"libbitsandbytes_{backend}{_SUFFIX[wheel.os]}"
    if held:
        return _found(held[-1], "only", wanted)
    return _missing(wheel, rule, wanted)


def _overridden(
    wheel: BitsandbytesWheel, rule: LoaderRule, name: str, value: str, variable: str
) -> LoaderChoice:
    if rule.override_rule == "digits" and not (value.isascii() and value.isdigit()):
        return LoaderChoice(
            name=None, how="malformed", consequence=rule.missing, wanted=name, variable=variable
        )
    if found := _named(wheel, name):
        return LoaderChoice(
            name=found.name, how="override", consequence="fine", wanted=name, library=found, variable=variable
        )
    return _missing(wheel, rule, name, variable=variable)


def _nearest_cuda(wheel: BitsandbytesWheel, wanted: CudaVersion) -> NativeLibrary | None:
    held = {
        toolkit: row
        for row in wheel.libraries
        if row.backend == "cuda"
        and row.toolkit
        and "_nocublaslt" not in row.name
        and (toolkit := _cuda_version(row.toolkit)).major == wanted.major
    }
    return _nearest(held, wanted)


def _nearest_rocm(wheel: BitsandbytesWheel, wanted: RocmVersion) -> NativeLibrary | None:
    held = {
        toolkit: row
        for row in wheel.libraries
        if row.backend == "rocm"
        and row.toolkit
        and (toolkit := RocmVersion.parse(row.toolkit)).major == wanted.major
    }
    return _nearest(held, wanted)


_Toolkit = TypeVar("_Toolkit", CudaVersion, RocmVersion)


def _nearest(held: Mapping[_Toolkit, NativeLibrary], wanted: _Toolkit) -> NativeLibrary | None:
    """The newest not above, else the oldest above."""
    below = [toolkit for toolkit in held if toolkit <= wanted]
    if below:
        return held[max(below)]
    return held[min(held)] if held else None


@lru_cache(maxsize=256)
def _cuda_version(text: str) -> CudaVersion:
    return CudaVersion.parse(text)


def _named(wheel: BitsandbytesWheel, name: str) -> NativeLibrary | None:
    return next((row for row in wheel.libraries if row.name == name), None)


def _found(row: NativeLibrary, how: How, wanted: str) -> LoaderChoice:
    return LoaderChoice(name=row.name, how=how, consequence="fine", wanted=wanted, library=row)


def _missing(
    wheel: BitsandbytesWheel, rule: LoaderRule, wanted: str, *, variable: str | None = None
) -> LoaderChoice:
    consequence: Consequence = rule.missing
    if consequence == "cpu" and not any(row.backend == "cpu" for row in wheel.libraries):
        consequence = "raise"  # there is nothing left to fall back to
    return LoaderChoice(name=None, how="missing", consequence=consequence, wanted=wanted, variable=variable)
