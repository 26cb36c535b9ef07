"""The surprises in the matrix, worked out of its rows, each with the wheels that show it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

from bnbenv.matrix.load import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import BitsandbytesWheel, NativeLibrary, TorchBuild

COMPAT = Path(__file__).resolve().parents[1] / "compat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surprise:
    """One line: what was found, and the files that show it.

    Attributes:
        evidence: ``FILE sha256:…`` of the wheels.
    """

    what: str
    evidence: tuple[str, ...]


def surprises(matrix: Matrix | None = None) -> list[Surprise]:
    """All of them, in the order of the README.

    Raises:
        LookupError: the rows no longer show one of them, and its words must be written anew.
    """
    held = matrix or load("bitsandbytes", "torch", directory=COMPAT)
    measured = (row for row in held.bitsandbytes if row.provenance.how == "measured")
    wheels = sorted(measured, key=lambda row: (Version(row.version), row.os, row.arch))
    builds = [row for row in held.torch if row.index == "pypi"]
    return [
        _blackwell(wheels),
        _volta(wheels),
        _maxwell(wheels),
        _kepler(wheels),
        _without_cpu(wheels),
        _any(wheels),
        _linked_ptx(wheels),
        _torch_ptx(builds),
        _torch_windows(builds),
        _torch_arm(builds),
        _torch_glibc(builds),
    ]


def _first(rows: Iterable[BitsandbytesWheel], what: str) -> BitsandbytesWheel:
    found = next(iter(rows), None)
    if found is None:
        raise LookupError(f"no wheel shows it any more: {what}")
    return found


def _source(*rows: BitsandbytesWheel | TorchBuild) -> tuple[str, ...]:
    return tuple(row.provenance.source for row in rows)


def _holds(library: NativeLibrary, capability: str) -> bool:
    return capability in map(str, library.cubins)


def _linux(wheels: Iterable[BitsandbytesWheel]) -> list[BitsandbytesWheel]:
    return [row for row in wheels if (row.os, row.arch) == ("linux", "x86_64")]


def _blackwell(wheels: Sequence[BitsandbytesWheel]) -> Surprise:
    serving = [row for row in wheels if any(_holds(one, "12.0") for one in row.libraries)]
    first = _first(serving, "kernels for Blackwell")
    library = next(one for one in first.libraries if _holds(one, "12.0"))
    return Surprise(
        what=f"The first release with kernels for Blackwell (10.0, 12.0) is {first.version}, in "
        f"`{library.name}` alone; guides name 0.44.0",
        evidence=_source(*(row for row in serving if row.version == first.version)),
    )


def _volta(wheels: Sequence[BitsandbytesWheel]) -> Surprise:
    name = "libbitsandbytes_cuda128.so"
    runs: list[tuple[bool, list[BitsandbytesWheel]]] = []
    for row in _linux(wheels):
        library = next((one for one in row.libraries if one.name == name), None)
        if library is None:
            continue
        if not runs or runs[-1][0] != _holds(library, "7.0"):
            runs.append((_holds(library, "7.0"), []))
        runs[-1][1].append(row)
    if [held for held, _ in runs] != [True, False, True]:
        raise LookupError(f"Volta in {name} is no longer held, lost and held again")
    lost, back = runs[1][1], runs[2][1]
    return Surprise(
        what=f"Volta (7.0) is missing from `{name}` of {lost[0].version} to {lost[-1].version}; it was there "
        f"before, and is back since {back[0].version}. Beside torch of CUDA 12.8 these releases have no "
        "kernel for a V100",
        evidence=_source(runs[0][1][-1], *lost, back[0]),
    )


def _lowest(row: BitsandbytesWheel) -> str:
    return str(min(cubin for library in row.libraries for cubin in library.cubins))


def _maxwell(wheels: Sequence[BitsandbytesWheel]) -> Surprise:
    windows = [row for row in wheels if row.os == "windows" and row.arch == "x86_64"]
    last = [row for row in windows if _lowest(row) == "5.0"][-1]
    since = [row for row in windows if Version(row.version) > Version(last.version)]
    lowest = {_lowest(row) for row in since}
    if lowest != {"6.0"}:
        raise LookupError("the lowest capability of Windows wheels is no longer 6.0")
    return Surprise(
        what="bitsandbytes' installation guide lists compute capability 5.0 for Windows; the last Windows "
        f"wheel that holds it is {last.version}, and all {len(since)} for x86-64 since {since[0].version} "
        "begin at 6.0",
        evidence=_source(last, since[0], since[-1]),
    )


def _kepler(wheels: Sequence[BitsandbytesWheel]) -> Surprise:
    held = [
        row
        for row in _linux(wheels)
        if any(_holds(one, "3.5") or _holds(one, "3.7") for one in row.libraries)
    ]
    last = held[-1]
    return Surprise(
        what=f"{last.version} is the last release with kernels for Kepler (3.5, 3.7), and the first with "
        "4-bit quantisation",
        evidence=_source(last),
    )


def _without_cpu(wheels: Sequence[BitsandbytesWheel]) -> Surprise:
    bare = [
        row for row in wheels if row.os != "macos" and not any(one.backend == "cpu" for one in row.libraries)
    ]
    first = _first(bare, "a wheel without a CPU library")
    names = ", ".join(f"{row.version} ({row.os} {row.arch})" for row in bare)
    return Surprise(
        what=f"One release lacks the CPU library, and its import fails where there is no GPU: {names}",
        evidence=_source(first, *bare[1:]),
    )


def _any(wheels: Sequence[BitsandbytesWheel]) -> Surprise:
    lying = [row for row in wheels if row.platform == "any"]
    return Surprise(
        what=f"All {len(lying)} wheels up to {lying[-1].version} are tagged for any platform and hold Linux "
        "x86-64 libraries: on Windows, macOS and Arm they install, and never work",
        evidence=_source(lying[0], lying[-1]),
    )


def _linked_ptx(wheels: Sequence[BitsandbytesWheel]) -> Surprise:
    libraries = [one for row in wheels for one in row.libraries if one.ptx]
    linked = [one for one in libraries if one.ptx_linkage == "relocatable"]
    with_ptx = [row for row in wheels if any(one.ptx for one in row.libraries)]
    if len(linked) != len(libraries):
        raise LookupError("some library of bitsandbytes holds executable PTX now")
    return Surprise(
        what=f"{len(libraries)} libraries, since {with_ptx[0].version}, hold PTX, and in all it stands "
        "in objects for a linker (`__nv_relfatbin`): nothing that a driver compiles for a newer GPU",
        evidence=_source(with_ptx[0], with_ptx[-1]),
    )


def _torch_ptx(builds: Sequence[TorchBuild]) -> Surprise:
    cuda = [row for row in builds if row.cuda]
    carrying = [row for row in cuda if row.ptx]
    if carrying:
        raise LookupError(f"torch {carrying[0].version} on PyPI carries PTX now")
    return Surprise(
        what=f"None of the {len(cuda)} CUDA builds of torch on PyPI since {cuda[0].version} carries PTX, "
        "though PyTorch's release notes list it for CUDA 13.0: a GPU newer than the build is not served",
        evidence=_source(cuda[0], cuda[-1]),
    )


def _torch_windows(builds: Sequence[TorchBuild]) -> Surprise:
    windows = [row for row in builds if row.os == "windows"]
    if {row.build for row in windows} != {"cpu"}:
        raise LookupError("PyPI has a torch for Windows with CUDA now")
    return Surprise(
        what=f"All {len(windows)} Windows builds of torch on PyPI are for the processor: `pip install "
        "--force-reinstall` replaces a CUDA torch by one of them",
        evidence=_source(windows[0], windows[-1]),
    )


def _torch_arm(builds: Sequence[TorchBuild]) -> Surprise:
    arm = [row for row in builds if (row.os, row.arch) == ("linux", "aarch64")]
    first = next(row for row in arm if row.cuda)
    before = arm[arm.index(first) - 1]
    return Surprise(
        what=f"PyPI's torch for Linux on Arm is a CUDA build since {first.version} ({first.build}); "
        f"{before.version} is the last for the processor",
        evidence=_source(before, first),
    )


def _torch_glibc(builds: Sequence[TorchBuild]) -> Surprise:
    tagged = [row for row in builds if row.symbol_versions]
    lowest = min(row.symbol_versions["GLIBC"] for row in tagged)
    highest = max(row.symbol_versions["GLIBC"] for row in tagged)
    return Surprise(
        what=f"{len(tagged)} Linux builds of torch on PyPI, {tagged[0].version} to {tagged[-1].version}, are "
        f"tagged `manylinux1`, which promises glibc 2.5; their core libraries ask for {lowest} to {highest}",
        evidence=_source(tagged[0], tagged[-1]),
    )
