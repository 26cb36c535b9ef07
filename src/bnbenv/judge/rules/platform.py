"""Rules on wheels and systems: does a build exist for the machine, its C library and its Python?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.judge import coverage, lookup
from bnbenv.judge.ranges import version, within
from bnbenv.judge.rules.rule import finding, rule
from bnbenv.units import DottedVersion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnbenv.judge.stack import Finding, Stack
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import TorchBuild

# What distributions ship together: RHEL 7 to 9, Ubuntu 16.04 to 24.04, Debian 10 to 12; newest first.
_USUAL_LIBSTDCXX = tuple(
    (DottedVersion.parse(glibc), DottedVersion.parse(libstdcxx))
    for glibc, libstdcxx in (
        ("2.39", "3.4.33"),
        ("2.38", "3.4.32"),
        ("2.35", "3.4.30"),
        ("2.34", "3.4.29"),
        ("2.31", "3.4.28"),
        ("2.28", "3.4.25"),
        ("2.23", "3.4.21"),
        ("2.17", "3.4.19"),
    )
)
_UPDATE = "If it is newer than the matrix, measure it."
_LIBC_FAMILIES = {"GLIBC": "glibc", "GLIBCXX": "libstdc++"}


@rule("torch", source="wheel tags")
def torch_exists_for_platform(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """The torch build is made for the target's system, processor and C library."""
    build = stack.torch
    if build.provenance.source == lookup.NOT_IN_MATRIX:
        yield _no_row(build, target, matrix)
        return
    if (build.os, build.arch) != (target.os, target.arch):
        yield finding(
            "no-wheel-for-platform",
            "error",
            "torch",
            f"torch {build.version} ({build.build}) is a build for {build.os} {build.arch}",
            f"the machine is {target.os} {target.arch}",
            need=f"{build.os} {build.arch}",
        )
        return
    if build.provenance.confidence == "low":
        yield finding(
            "low-confidence",
            "info",
            "torch",
            f"torch {build.version} ({build.build}) is not confirmed: {build.provenance.source}",
            undecided=True,
            need="a probe of the index",
        )
    libc = target.libc
    if target.os != "linux" or libc is None:
        return
    if libc.family == "musl":
        yield finding(
            "no-wheel-for-platform",
            "error",
            "torch",
            "torch publishes no wheel for musl",
            f"the machine's C library is musl {libc.version}",
            need="glibc",
            remedy="Use a container or system with glibc.",
        )
    elif (floor := build.oldest_glibc) is not None and libc.version < floor:
        yield finding(
            "glibc-too-old",
            "error",
            "torch",
            f"torch {build.version} ({build.build}) needs glibc {floor}",
            f"the machine has glibc {libc.version}",
            *(
                (f"its tag promises {build.glibc}, its symbols ask for more",)
                if build.glibc not in (None, floor)
                else ()
            ),
            need=f"glibc >= {floor}",
            remedy="Use a newer system or container, or an older torch.",
        )


def _no_row(build: TorchBuild, target: Target, matrix: Matrix) -> Finding:
    """What is said of a torch that only its name tells of."""
    if build.build == "unknown" and build.local:
        return finding(
            "unknown-torch-build",
            "warning",
            "torch",
            f"torch {build.version}+{build.local} is somebody's own build, and what it holds is not known",
            "its name tells neither its accelerator nor the GPUs that it serves",
            undecided=True,
            need="a measured torch build",
            remedy="Where it is installed, let its own libraries be measured.",
            commands=("bnbenv check --environment ENV",),
        )
    newer = all(version(row.version) != version(build.version) for row in matrix.torch)
    return finding(
        "unknown-torch-build",
        "warning",
        "torch",
        f"the matrix has no row for torch {build.version} ({build.build}) on {target.os} {target.arch}",
        "which GPUs it serves, and whether it exists, is not known",
        undecided=True,
        need="a row in the matrix",
        remedy=_UPDATE if newer else "",
        commands=("bnbenv matrix update",) if newer else (),
    )


@rule("torch", "python", source="wheel tags")
def torch_exists_for_python(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """The torch build has a wheel for the stack's Python."""
    del target, matrix
    pythons = stack.torch.pythons
    if pythons and stack.python not in pythons:
        yield finding(
            "python-unsupported",
            "error",
            "python",
            f"torch {stack.torch.version} ({stack.torch.build}) has no wheel for Python {stack.python}",
            f"it has wheels for {', '.join(pythons)}",
            need=f"Python {pythons[-1]}",  # no command: what stands beside torch may exclude its newest
        )


@rule("bitsandbytes", source="wheel tags and contents; bitsandbytes#1685, #1378, #1632")
def bitsandbytes_exists_for_platform(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """The bitsandbytes wheel is made for the target; up to 0.42.0 the tag ``any`` lies."""
    del matrix
    wheel = stack.bitsandbytes
    if wheel is None:
        return
    if wheel.provenance.source == lookup.NOT_IN_MATRIX:
        yield finding(
            "unknown-bnb-release",
            "warning",
            "bitsandbytes",
            f"the matrix has no row for bitsandbytes {wheel.version} on {target.os} {target.arch}",
            "which libraries its wheel holds is not known",
            undecided=True,
            need="a row in the matrix",
            remedy=_UPDATE,
            commands=("bnbenv matrix update",),
        )
        return
    if (wheel.os, wheel.arch) != (target.os, target.arch):
        code = {"windows": "windows-no-binary", "macos": "macos-unsupported"}.get(target.os, "")
        lying = wheel.platform == "any"
        yield finding(
            code if lying and code else "no-wheel-for-platform",
            "error",
            "bitsandbytes",
            f"bitsandbytes {wheel.version} holds no library for {target.os} {target.arch}",
            f"its wheel {'is tagged for any platform but ' if lying else ''}holds {wheel.os} {wheel.arch} "
            "libraries",
            need="a newer bitsandbytes",
            remedy="Take the newest bitsandbytes that has a wheel for the machine.",
        )
        return
    if wheel.provenance.how == "published" and wheel.provenance.confidence == "low":
        yield finding(
            "low-confidence",
            "info",
            "bitsandbytes",
            f"bitsandbytes {wheel.version} of another index is not confirmed: {wheel.provenance.source}",
            undecided=True,
            need="a measured wheel",
        )
    libc = target.libc
    if target.os == "linux" and libc is not None:
        floor = tag_glibc(wheel.platform)
        if libc.family == "musl":
            yield finding(
                "no-wheel-for-platform",
                "error",
                "bitsandbytes",
                "bitsandbytes publishes no wheel for musl",
                f"the machine's C library is musl {libc.version}",
                need="glibc",
                remedy="Use a container or system with glibc.",
            )
        elif floor is not None and libc.version < floor:
            yield finding(
                "glibc-too-old",
                "error",
                "bitsandbytes",
                f"the wheel of bitsandbytes {wheel.version} needs glibc {floor}",
                f"the machine has glibc {libc.version}; an installer ends at 0.42.0 there",
                need=f"glibc >= {floor}",
            )
    if wheel.platform == "any":
        yield finding(
            "legacy-cuda-setup",
            "warning",
            "bitsandbytes",
            f"bitsandbytes {wheel.version} is older than 0.43.0 and looks for CUDA by itself",
            "its detection fails on machines where torch works",
            need="bitsandbytes >= 0.43.0",
            remedy="Upgrade bitsandbytes.",
        )


def tag_glibc(platform: str) -> DottedVersion | None:
    """The glibc floor of a manylinux tag such as ``manylinux_2_24_x86_64``."""
    parts = platform.split("_")
    if parts[0] == "manylinux" and len(parts) > 2 and parts[1].isdigit() and parts[2].isdigit():
        return DottedVersion((int(parts[1]), int(parts[2])))
    return None


@rule("bitsandbytes", "python", source="metadata of bitsandbytes")
def bitsandbytes_allows_python(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """The stack's Python lies in what bitsandbytes declares."""
    del target, matrix
    wheel = stack.bitsandbytes
    if wheel is not None and wheel.requires_python and not within(stack.python, wheel.requires_python):
        yield finding(
            "python-unsupported",
            "error",
            "python",
            f"bitsandbytes {wheel.version} needs Python {wheel.requires_python}",
            f"the Python is {stack.python}",
            need=f"Python {wheel.requires_python}",
        )


@rule("bitsandbytes", source="bitsandbytes' changelog and issues, as named by the row")
def bitsandbytes_is_sound(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """The release was not published broken."""
    del target, matrix
    wheel = stack.bitsandbytes
    if wheel is not None and _is_preview(wheel.version):
        yield finding(
            "rocm-broken-preview",
            "warning",
            "bitsandbytes",
            f"bitsandbytes {wheel.version} is a preview of the multi-backend branch of early 2025",
            "its libraries lack symbols; what it offered is in the releases since 0.49.0",
            need="a published bitsandbytes",
            remedy="Install the published wheel.",
            source="bitsandbytes-foundation/bitsandbytes, branch multi-backend-refactor",
        )
    if wheel is not None and wheel.broken:
        yield finding(
            "broken-release",
            "error",
            "bitsandbytes",
            f"bitsandbytes {wheel.version} was published broken: {wheel.broken}",
            need="another bitsandbytes",
            remedy="Take the next release.",
        )


def _is_preview(release: str) -> bool:
    """Whether it is of the multi-backend branch, whose wheels call themselves 1.33.7.preview."""
    read = version(release)
    return read.base_version == "1.33.7" and read.is_prerelease


@rule("torch", "bitsandbytes", source="metadata of bitsandbytes")
def bitsandbytes_allows_torch(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """The torch release lies in what bitsandbytes declares."""
    del target, matrix
    wheel = stack.bitsandbytes
    if wheel is not None and wheel.requires_torch and not within(stack.torch.version, wheel.requires_torch):
        yield finding(
            "bnb-torch-requirement",
            "error",
            "bitsandbytes",
            f"bitsandbytes {wheel.version} needs torch {wheel.requires_torch}",
            f"the torch is {stack.torch.version}",
            need=f"torch {wheel.requires_torch}",
        )


@rule("torch", "bitsandbytes", source="symbol versions measured in the wheels")
def library_symbols_exist(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """The C and C++ libraries of the machine are as new as the symbols that the library asks for."""
    choice = coverage.chosen_library(stack, target, matrix)
    if choice is None or choice.library is None or target.os != "linux":
        return
    libc = target.libc.version if target.libc and target.libc.family == "glibc" else None
    cxx = choice.library.symbol_versions.get("GLIBCXX")
    if cxx is not None and libc is not None and target.libstdcxx is None:
        usual = next((held for floor, held in _USUAL_LIBSTDCXX if libc >= floor), None)
        if usual is not None and usual < cxx:
            yield finding(
                "glibc-too-old",
                "warning",
                "bitsandbytes",
                f"`{choice.name}` needs GLIBCXX {cxx}",
                f"the machine's libstdc++ is not known; systems with glibc {libc} have GLIBCXX {usual}",
                need=f"libstdc++ with GLIBCXX_{cxx}",
                remedy="Take another bitsandbytes, or a newer libstdc++ (conda-forge's `libstdcxx-ng`).",
            )
    for family, own in (("GLIBC", libc), ("GLIBCXX", target.libstdcxx)):
        asked = choice.library.symbol_versions.get(family)
        if asked is not None and own is not None and own < asked:
            yield finding(
                "glibc-too-old",
                "error",
                "bitsandbytes",
                f"`{choice.name}` needs {family} {asked}",
                f"the machine's {_LIBC_FAMILIES[family]} has {own}",
                need=f"{_LIBC_FAMILIES[family]} with {family}_{asked}",
            )


@rule("torch", "bitsandbytes", source="imports measured in the DLLs")
def windows_runtime_is_named(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """On Windows the library needs Microsoft's C++ runtime, which no wheel brings."""
    if target.os != "windows":
        return
    choice = coverage.chosen_library(stack, target, matrix)
    if choice is None or choice.library is None:
        return
    foreign = [
        name for name in choice.library.needed if name.upper().startswith(("MSVCP", "VCRUNTIME", "VCOMP"))
    ]
    if foreign:
        yield finding(
            "windows-dll-load",
            "info",
            "bitsandbytes",
            f"`{choice.name}` needs {', '.join(foreign)} of the Visual C++ redistributable",
            remedy="Where they are missing, install Microsoft's Visual C++ redistributable.",
        )


@rule("bitsandbytes", "packages", source="bitsandbytes' metadata and source at the tags")
def undeclared_needs(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """Some old releases import what they do not declare, or look for libcuda by themselves."""
    del matrix
    wheel = stack.bitsandbytes
    if wheel is None or version(wheel.version) >= version("0.43.0"):
        return
    if within(wheel.version, ">=0.39,<0.42") and "scipy" not in stack.packages:
        yield finding(
            "missing-python-dep",
            "warning",
            "bitsandbytes",
            f"bitsandbytes {wheel.version} imports scipy without declaring it",
            commands=("pip install scipy",),
        )
    if target.wsl:
        yield finding(
            "wsl-libcuda",
            "warning",
            "bitsandbytes",
            f"bitsandbytes {wheel.version} opens libcuda by itself, which WSL2 keeps off the loader's path",
            "libcuda stands in /usr/lib/wsl/lib",
            need="bitsandbytes >= 0.43.0",
        )
