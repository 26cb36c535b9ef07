"""What follows from stated facts, and from the matrix: the conditions that implications may name."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from bnbenv.dataclass import replace
from bnbenv.doctor.facts import cuda_version, target_of, torch_cuda
from bnbenv.errors import UsageError
from bnbenv.judge import lookup
from bnbenv.judge.check import find_wheel
from bnbenv.judge.ranges import version
from bnbenv.units import ComputeCapability, DriverVersion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnbenv.doctor.facts import Facts
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.units import CudaVersion

    Derived = Iterator[tuple[str, tuple[int, ...]]]

NAMES = frozenset({
    "os:windows", "os:macos", "os:linux", "arch:aarch64", "wsl", "tegra",
    "torch:cuda", "torch:rocm", "torch:xpu", "torch:cpu", "torch:no-cuda", "torch:two-builds",
    "torch:replaced", "cuda:available", "cuda:unavailable", "rocm:named",
    "gpu:nvidia", "gpu:amd", "gpu:other", "gpus:differ", "gpu:below-7.5", "gpu:below-5.0", "gpu:hopper",
    "gpu:seen", "gpu:absent", "gpu:outside-torch-cuda", "gpu:outside-torch-release",
    "gpu:outside-torch-range", "python:without-torch", "gfx:served", "gfx:outside-torch-build",
    "driver:below-torch-cuda", "driver:serves-torch-cuda",
    "name:misspelt", "paths:differ", "bitsandbytes:dev", "wanted:published", "wanted-torch:older-than-any",
    "missing:cuda", "missing:rocm", "missing:cpu", "missing:xpu", "missing:hip", "missing:mps",
    "missing:checkout", "missing:installed", "missing:nowhere", "missing:so-on-windows", "missing:odd",
    "missing:native", "missing:both", "missing:ancient", "missing:as-overridden", "missing:in-wheel",
    "chosen:ancient", "chosen:not-in-wheel",
})  # fmt: skip
"""Every condition that is made here; compat/symptoms.toml is checked against it."""

_NAME = "bitsandbytes"
_LIBRARY = re.compile(
    r"libbitsandbytes(?:_(?P<kind>cuda|rocm|xpu|cpu|mps|hip))?(?P<digits>\d{0,6})(?P<rest>\w{0,40})\.(?P<ending>so|dll|dylib)"
)
_INSTALLED = re.compile(r"[/\\](?:site|dist)-packages[/\\]bitsandbytes[/\\]", re.IGNORECASE)
_PREFIX = re.compile(
    r"(?P<prefix>.{0,300}?)[/\\]lib(?:64)?[/\\](?:python\d\.\d{1,2}[/\\])?(?:site|dist)-packages",
    re.IGNORECASE,
)
_AMD = re.compile(r"\b(?:Radeon|Instinct|RX ?\d{3,4})\b", re.IGNORECASE)  # products that the matrix may lack
_NVIDIA = re.compile(r"\b(?:RTX|GTX|Quadro|Tesla|TITAN)\b", re.IGNORECASE)  # of several kinds: `RTX 6000`
_OLDEST_SHIPPED = (11, 1)
_ALIKE = 0.82  # of the letters of a misspelt name


def derive(facts: Facts, matrix: Matrix) -> Facts:
    """The facts with what follows from them."""
    derived: dict[str, tuple[int, ...]] = {}
    for step in (_platform, _torch, _replaced, _gpus, _installation):
        for name, lines in step(facts):
            derived.setdefault(name, lines)
    facts = replace(facts, derived=derived)
    for judged in (_wanted, _drivers, _served, _chosen, _missing):
        for name, lines in judged(facts, matrix):
            derived.setdefault(name, lines)
    return facts


def _platform(facts: Facts) -> Derived:
    marks = {"windows": "os_windows", "macos": "os_macos", "linux": "os_linux"}
    found = [
        (-statements[0].trust, statements[0].line, os)
        for os, mark in marks.items()
        if (statements := facts.stated.get(mark))
    ]
    if "wsl" in facts.stated:  # a Windows path in it is a mounted drive
        yield "wsl", facts.lines("wsl")
        yield "os:linux", facts.lines("wsl")
    elif found:
        _, line, os = min(found)
        yield f"os:{os}", (line,)
    lines = facts.lines("tegra")
    if any(gpu.compute_capability and gpu.compute_capability.tegra for gpu in facts.gpus):
        lines = lines or facts.lines("capability", "gpu")
    if lines:
        yield "tegra", lines
    if lines or "arm" in facts.stated:
        yield "arch:aarch64", lines or facts.lines("arm")


def _torch(facts: Facts) -> Derived:
    local = (facts.best("torch") or "").lower().partition("+")[2]
    kind = re.match(r"rocm|xpu|cpu|cu(?=\d)", local)
    stated = (facts.best("torch_cuda") or "").lower()
    if "torch_for_cpu" in facts.stated:
        yield "torch:cpu", facts.lines("torch_for_cpu")
    elif kind:
        yield f"torch:{'cuda' if kind[0] == 'cu' else kind[0]}", facts.lines("torch")
    elif "torch_hip" in facts.stated:
        yield "torch:rocm", facts.lines("torch_hip")
    elif stated in ("none", "n/a"):
        yield "torch:no-cuda", facts.lines("torch_cuda")
    elif stated:
        yield "torch:cuda", facts.lines("torch_cuda")
    if local.startswith("rocm") or facts.stated.keys() & {"torch_hip", "rocm", "gfx", "rocm_trace"}:
        told = facts.lines("torch_hip", "rocm", "gfx", "rocm_trace")
        yield "rocm:named", told or facts.lines("torch")
    if (seen := facts.best("cuda_available")) is not None:
        state = "available" if seen.lower() in ("true", "yes") else "unavailable"
        yield f"cuda:{state}", facts.lines("cuda_available")
        if state == "available":
            yield "gpu:seen", facts.lines("cuda_available")


def _replaced(facts: Facts) -> Derived:
    builds = {
        re.sub(r"[\d.]+$", "", value.partition("+")[2]): fact.line
        for fact in facts.stated.get("torch", ())
        if "+" in (value := fact.value)
    }
    if len(builds) > 1:
        yield "torch:two-builds", tuple(sorted(builds.values()))
    for gone, come in (("torch_removed", "torch_installed"), ("torch_gone", "torch_come")):
        before, after = facts.best(gone), facts.best(come)
        if before and after and before != after:
            yield "torch:replaced", facts.lines(gone, come)


def _gpus(facts: Facts) -> Derived:
    lines = facts.lines("gpu", "capability")
    capabilities = {gpu.compute_capability for gpu in facts.gpus if gpu.compute_capability}
    if capabilities or "nvidia_smi" in facts.stated:
        yield "gpu:nvidia", lines or facts.lines("nvidia_smi")
        yield "gpu:seen", lines or facts.lines("nvidia_smi")
    if any(gpu.gfx for gpu in facts.gpus):
        yield "gpu:amd", facts.lines("gpu", "gfx")
        yield "rocm:named", facts.lines("gpu", "gfx")
    elif _AMD.search(" ".join(facts.values("gpu"))):
        yield "rocm:named", facts.lines("gpu")
    elif not capabilities and _NVIDIA.search(" ".join(facts.values("gpu"))):
        yield "gpu:nvidia", facts.lines("gpu")
    if "other_gpu" in facts.stated and not facts.gpus:
        yield "gpu:other", facts.lines("other_gpu")
    if "gpu_absent" in facts.stated and not (facts.gpus or "nvidia_smi" in facts.stated):
        yield "gpu:absent", facts.lines("gpu_absent")
    yield from _capable(capabilities, facts, lines)


def _capable(capabilities: set[ComputeCapability], facts: Facts, lines: tuple[int, ...]) -> Derived:
    if len(capabilities) > 1:
        yield "gpus:differ", lines
    if "below_turing" in facts.stated:
        yield "gpu:below-7.5", facts.lines("below_turing")
    least, most = facts.best("torch_least"), facts.best("torch_most")
    if least and most:
        # A cubin runs on later minor versions of its major: torch 2.9 says 12.0 beside a GPU of 12.1.
        first, last = ComputeCapability.parse(least), ComputeCapability.parse(most)
        if any(capability < first or capability.major > last.major for capability in capabilities):
            yield "gpu:outside-torch-range", (*facts.lines("torch_least"), *lines)
    if capabilities:
        best = max(capabilities)
        if best < (7, 5):
            yield "gpu:below-7.5", lines
        if best < (5, 0):
            yield "gpu:below-5.0", lines
        if any(capability.major == 9 for capability in capabilities):
            yield "gpu:hopper", lines


def _installation(facts: Facts) -> Derived:
    wanted = (facts.best("wanted_package") or "").lower()
    if wanted and wanted != _NAME:
        bare = re.sub(r"[-_.]", "", wanted)
        if bare == _NAME or SequenceMatcher(None, bare, _NAME).ratio() > _ALIKE:
            yield "name:misspelt", facts.lines("wanted_package")
    if "dev" in (facts.best(_NAME) or ""):
        yield "bitsandbytes:dev", facts.lines(_NAME)
    running, holding = (
        {found["prefix"].lower() for path in facts.values(name) if (found := _PREFIX.match(path))}
        for name in ("running_path", "installed_path")
    )
    if running and holding and not running & holding:
        yield "paths:differ", facts.lines("running_path", "installed_path")


def _chosen(facts: Facts, matrix: Matrix) -> Derived:
    """What the library tells that an old release chose."""
    for fact in facts.stated.get("chosen_library", ()):
        chosen = _LIBRARY.search(fact.value)
        if chosen and (cuda := _cuda_of(chosen)) and cuda < _OLDEST_SHIPPED:
            yield "chosen:ancient", (fact.line,)
        elif chosen and _held(facts, matrix, chosen[0]) is False:
            yield "chosen:not-in-wheel", (fact.line, *facts.lines(_NAME))


def _wanted(facts: Facts, matrix: Matrix) -> Derived:
    published = {wheel.version for wheel in matrix.bitsandbytes if wheel.platform != "any"}
    if set(facts.values("wanted_version")) & published:
        yield "wanted:published", facts.lines("wanted_version")
    wanted, first = facts.best("wanted_torch"), facts.best("first_torch")
    known = {build.version for build in matrix.torch}
    python = facts.best("python")
    if python and not any(python in build.pythons for build in matrix.torch):
        yield "python:without-torch", facts.lines("python")
    # What an installer lists begins with the oldest release that this Python can take.
    if wanted and first and wanted in known and version(wanted) < version(first):
        yield "wanted-torch:older-than-any", facts.lines("wanted_torch")


def _drivers(facts: Facts, matrix: Matrix) -> Derived:
    cuda, driver = torch_cuda(facts), facts.best("driver")
    floor = lookup.driver_floor(matrix, cuda.major) if cuda and driver else None
    if floor and driver:
        meets = DriverVersion.parse(driver).at_least(lookup.oldest_driver(floor, target_of(facts)))
        yield (
            f"driver:{'serves' if meets else 'below'}-torch-cuda",
            facts.lines("driver", "torch", "torch_cuda"),
        )


def _served(facts: Facts, matrix: Matrix) -> Derived:
    cuda = torch_cuda(facts)
    capabilities = {gpu.compute_capability for gpu in facts.gpus}
    for row in matrix.capabilities if cuda else ():
        if cuda and row.capability in capabilities and (cuda < row.first or (row.last and cuda > row.last)):
            yield "gpu:outside-torch-cuda", facts.lines("gpu", "capability", "torch", "torch_cuda")
    builds = _cuda_builds(facts, matrix)
    for capability in capabilities if builds else ():
        if capability and not any(lookup.toolkit_serves(matrix, cuda, capability) for cuda in builds):
            yield "gpu:outside-torch-release", facts.lines("gpu", "capability", "torch")
    targets = {gpu.gfx for gpu in facts.gpus if gpu.gfx}
    if targets and targets <= _rocm_targets(facts, matrix):
        yield "gfx:served", facts.lines("gpu", "gfx")
    release, _, local = (facts.best("torch") or "").partition("+")
    held = {
        gfx for build in matrix.torch if (build.version, build.build) == (release, local) for gfx in build.gfx
    }
    if held and targets - held:
        yield "gfx:outside-torch-build", facts.lines("gpu", "gfx", "torch")


def _cuda_builds(facts: Facts, matrix: Matrix) -> frozenset[CudaVersion]:
    """The CUDA versions for which the release of torch that the text names was published at all."""
    release = (facts.best("torch") or "").partition("+")[0]
    return frozenset(build.cuda for build in matrix.torch if build.version == release and build.cuda)


def _rocm_targets(facts: Facts, matrix: Matrix) -> frozenset[str]:
    """The targets in the ROCm libraries of the release that the text names, else of any release."""
    release = facts.best(_NAME)
    return frozenset(
        target
        for wheel in matrix.bitsandbytes
        if release is None or wheel.version == release
        for library in wheel.libraries
        for target in library.gfx
    )


def _missing(facts: Facts, matrix: Matrix) -> Derived:
    """What the library files tell that failures name."""
    kinds: dict[str, int] = {}
    for fact in (*facts.stated.get("missing_library", ()), *facts.stated.get("absent_library", ())):
        path, line = _whole(fact.value, facts), (fact.line,)
        if found := _LIBRARY.search(path):
            kind = found["kind"] or "cpu"  # the first releases had one library for both
            yield f"missing:{kind}", line
            yield f"missing:{_place(path)}", line
            if found["ending"] == "so" and re.match(r"[A-Za-z]:[\\/]", path):
                yield "missing:so-on-windows", line
            kinds.setdefault(kind, fact.line)
            if kind in ("cuda", "cpu", "hip"):
                yield "missing:native", line
            if found["digits"] and found["digits"] in facts.values("override_value"):
                yield "missing:as-overridden", (*line, *facts.lines("override_value"))
            if kind == "cuda":
                yield from _missing_cuda(found, line)
            if _held(facts, matrix, found[0]):
                yield "missing:in-wheel", (*line, *facts.lines(_NAME))
    if "cpu" in kinds and kinds.keys() & {"cuda", "hip"}:
        yield "missing:both", tuple(sorted(kinds.values()))


def _whole(name: str, facts: Facts) -> str:
    """A file name with the directory that an old release printed before it failed."""
    paths = () if "/" in name or "\\" in name else facts.values("chosen_library")
    return next((path for path in paths if path.endswith(name)), name)


def _place(path: str) -> str:
    """Whether a path leads into installed packages, or into a checkout or an egg."""
    if ".egg" in path:
        return "checkout"
    if _INSTALLED.search(path):
        return "installed"
    return "checkout" if "/" in path or "\\" in path else "nowhere"


def _missing_cuda(found: re.Match[str], line: tuple[int, ...]) -> Derived:
    cuda = _cuda_of(found)
    if cuda is None:
        yield "missing:odd", line
    elif cuda < _OLDEST_SHIPPED:
        yield "missing:ancient", line


def _cuda_of(found: re.Match[str]) -> CudaVersion | None:
    return cuda_version(found["digits"]) if found["rest"] in ("", "_nocublaslt") else None


def _held(facts: Facts, matrix: Matrix, name: str) -> bool | None:
    """Whether the wheel of the release that is installed holds a library; ``None`` where that is unknown."""
    statements = facts.stated.get(_NAME, ())
    if not statements or statements[0].trust < 2:
        return None
    try:
        wheel = find_wheel(statements[0].value, target_of(facts), matrix)
    except UsageError:
        return None
    return any(row.name == name for row in wheel.libraries)
