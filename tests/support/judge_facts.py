"""Small matrices for the judge's tests, made of the types of the real one; figures are of the real wheels
where a test says so, and invented where it does not matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bnbenv.machine.target import Gpu, Libc, Target
from bnbenv.matrix.matrix import Matrix
from bnbenv.matrix.rows import (
    ArchitectureDrivers,
    BitsandbytesWheel,
    DriverBranch,
    DriverFloor,
    Floor,
    Hazard,
    KnownFault,
    LoaderRule,
    NativeLibrary,
    PackageSet,
    Profile,
    Provenance,
    TorchBuild,
)
from bnbenv.units import ComputeCapability, CudaVersion, DottedVersion, DriverVersion

if TYPE_CHECKING:
    from collections.abc import Iterable

MEASURED = Provenance(how="measured", source="a test", checked="2026-11-23")
PUBLISHED = Provenance(how="published", source="a test", checked="2026-11-23", confidence="high")


def capabilities(text: str) -> tuple[ComputeCapability, ...]:
    return tuple(ComputeCapability.parse(part) for part in text.split())


def gpu(capability: str, **more: Any) -> Gpu:
    return Gpu(name=f"a GPU of {capability}", compute_capability=ComputeCapability.parse(capability), **more)


def amd(gfx: str | None, **more: Any) -> Gpu:
    return Gpu(name="an AMD GPU", gfx=gfx, **more)


def target(*gpus: Gpu | str, driver: str | None = "580.95.05", **more: Any) -> Target:
    """A Linux x86-64 host with NVIDIA GPUs, or none."""
    cards = tuple(gpu(card) if isinstance(card, str) else card for card in gpus)
    given: dict[str, Any] = {
        "name": "host",
        "os": "linux",
        "arch": "x86_64",
        "accelerator": "cuda" if cards else "cpu",
        "libc": Libc(family="glibc", version=DottedVersion.parse("2.35")),
        "driver": DriverVersion.parse(driver) if driver and cards else None,
        "gpus": cards,
        "pythons": ("3.11", "3.12"),
    }
    if more.get("os") in ("windows", "macos"):
        given["libc"] = None
    return Target(**{**given, **more})


def torch(version: str, build: str, cubins: str = "", **more: Any) -> TorchBuild:
    given: dict[str, Any] = {
        "version": version,
        "build": build,
        "index": f"pytorch-{build}",
        "local": build,
        "os": "linux",
        "arch": "x86_64",
        "pythons": ("3.11", "3.12", "3.13"),
        "provenance": MEASURED,
        "cubins": capabilities(cubins),
        "glibc": DottedVersion.parse("2.28"),
    }
    if build.startswith("cu"):
        given["cuda"] = CudaVersion.parse(build)
    if build.startswith("rocm"):
        given["rocm"] = build.removeprefix("rocm")
    if more.get("index") == "pypi":
        given["local"] = None
    if more.get("os") in ("windows", "macos"):
        given["glibc"] = None
    if "ptx" in more:
        more["ptx"] = capabilities(more["ptx"])
    return TorchBuild(**{**given, **more})


def library(kind: str, cubins: str = "", *, suffix: str = ".so", **more: Any) -> NativeLibrary:
    """``cpu``, ``xpu``, ``cuda126``, ``cuda118_nocublaslt`` or ``rocm64``."""
    backend = next(name for name in ("cpu", "cuda", "rocm", "xpu", "mps") if kind.startswith(name))
    digits = kind.removeprefix(backend).split("_")[0]
    toolkit = None
    if backend == "cuda":
        toolkit = str(CudaVersion.parse(digits))
        major = CudaVersion.parse(digits).major
        more.setdefault("needed", ("libcudart.so.11.0" if major == 11 else f"libcudart.so.{major}",))
    elif backend == "rocm":
        toolkit = f"{digits[0]}.{digits[1:]}"
    if "ptx" in more:
        more["ptx"] = capabilities(more["ptx"])
        more.setdefault("ptx_linkage", "relocatable")
    return NativeLibrary(
        name=f"libbitsandbytes_{kind}{suffix}",
        backend=backend,  # type: ignore[arg-type]
        toolkit=toolkit,
        cubins=capabilities(cubins),
        **more,
    )


def wheel(version: str, libraries: Iterable[NativeLibrary], **more: Any) -> BitsandbytesWheel:
    given: dict[str, Any] = {
        "version": version,
        "wheel": f"bitsandbytes-{version}-py3-none-manylinux_2_24_x86_64.whl",
        "sha256": "0" * 64,
        "size": 1,
        "platform": "manylinux_2_24_x86_64",
        "os": "linux",
        "arch": "x86_64",
        "uploaded": "2026-01-01",
        "requires_python": ">=3.10",
        "requires_torch": ">=2.3,<3",
        "requires": (),
        "libraries": tuple(libraries),
        "provenance": MEASURED,
    }
    return BitsandbytesWheel(**{**given, **more})


FLOORS = tuple(
    DriverFloor(
        major=major,
        linux=DriverVersion.parse(linux),
        windows=DriverVersion.parse(windows),
        provenance=PUBLISHED,
    )
    for major, linux, windows in (
        (11, "450.80.02", "452.39"),
        (12, "525.60.13", "528.33"),
        (13, "580.65.06", "580"),
    )
)
BRANCHES = tuple(
    DriverBranch(branch=branch, cuda=CudaVersion.parse(cuda), provenance=PUBLISHED)
    for branch, cuda in (
        (450, "11.0"), (470, "11.4"), (495, "11.5"), (525, "12.0"), (550, "12.4"), (565, "12.7"),
        (570, "12.8"), (575, "12.9"), (580, "13.0"), (590, "13.1"), (610, "13.3"),
    )
)  # fmt: skip
ARCHITECTURES = tuple(
    ArchitectureDrivers(
        name=name, capabilities=capabilities(held), first=first, last=last, provenance=PUBLISHED
    )
    for name, held, first, last in (
        ("Kepler", "3.5 3.7", None, 470),
        ("Maxwell", "5.0 5.2", None, 580),
        ("Pascal", "6.0 6.1", None, 580),
        ("Volta", "7.0", None, 580),
        ("Turing", "7.5", None, None),
        ("Ampere", "8.0 8.6", 450, None),
        ("Ada", "8.9", 520, None),
        ("Hopper", "9.0", 520, None),
        ("Blackwell", "10.0 12.0", 570, None),
    )
)
LOADERS = (
    LoaderRule(
        versions="<0.43.1", match="exact", missing="raise", override=("BNB_CUDA_VERSION",),
        override_rule="empty-unset", override_place="end", provenance=PUBLISHED,
        nocublaslt_below=ComputeCapability(7, 5),
    ),
    LoaderRule(
        versions=">=0.43.1,<0.44", match="exact", missing="cpu", override=("BNB_CUDA_VERSION",),
        override_rule="empty-unset", override_place="end", provenance=PUBLISHED,
        nocublaslt_below=ComputeCapability(7, 5),
    ),
    LoaderRule(
        versions=">=0.44,<0.45", match="exact", missing="cpu", override=("BNB_CUDA_VERSION",),
        override_rule="empty-unset", provenance=PUBLISHED, nocublaslt_below=ComputeCapability(7, 5),
    ),
    LoaderRule(
        versions=">=0.45,<0.46", match="exact", missing="cpu", override=("BNB_CUDA_VERSION",),
        override_rule="empty-unset", provenance=PUBLISHED,
    ),
    LoaderRule(
        versions=">=0.46,<0.50", match="exact", missing="mock", override=("BNB_CUDA_VERSION",),
        override_rule="empty-unset", provenance=PUBLISHED,
    ),
    LoaderRule(
        versions=">=0.50", match="nearest", missing="mock",
        override=("BNB_CUDA_VERSION", "BNB_ROCM_VERSION"), override_rule="digits", provenance=PUBLISHED,
    ),
)  # fmt: skip
FLOOR_ROWS = (
    Floor(
        package="transformers", versions=">=5.21,<5.24", needs={"torch": ">=2.6", "python": ">=3.11"},
        effect="switches PyTorch off", provenance=PUBLISHED,
    ),
    Floor(
        package="transformers", versions=">=5.20,<5.21", needs={"torch": ">=2.6", "python": ">=3.10"},
        effect="switches PyTorch off", provenance=PUBLISHED,
    ),
    Floor(
        package="bitsandbytes", versions="<0.45.1", needs={"triton": "<3.2", "torch": "<2.6"},
        effect="No module named triton.ops", provenance=PUBLISHED,
    ),
    Floor(
        package="torch", versions="<2.3", needs={"numpy": "<2"}, effect="numpy 1", provenance=PUBLISHED
    ),
)  # fmt: skip
PROFILES = (
    Profile(
        name="qlora",
        summary="",
        sets=(
            PackageSet(
                name="5.23", python=">=3.11", torch=">=2.6,<2.16",
                packages={"bitsandbytes": ">=0.46.1,<0.51", "transformers": ">=5.21,<5.24", "peft": ">=0.21"},
            ),
            PackageSet(
                name="5.20", python=">=3.10", torch=">=2.6,<2.16",
                packages={"bitsandbytes": ">=0.46.1,<0.51", "transformers": ">=5.20,<5.21", "peft": ">=0.21"},
            ),
        ),
        provenance=PUBLISHED,
        excludes=("autoawq",),
    ),
    Profile(
        name="int8",
        summary="",
        sets=(
            PackageSet(
                name="5.23", python=">=3.11", torch=">=2.6,<2.16",
                packages={"bitsandbytes": ">=0.48.2,<0.51", "transformers": ">=5.21,<5.24"},
            ),
        ),
        provenance=PUBLISHED,
        min_capability=ComputeCapability(7, 5),
    ),
    Profile(
        name="gptq",
        summary="",
        sets=(
            PackageSet(name="5.23", python=">=3.11", torch=">=2.14", packages={"gptqmodel": ">=7.7,<8"}),
        ),
        provenance=PUBLISHED,
        excludes=("bitsandbytes",),
    ),
    Profile(
        name="compiled",
        summary="",
        sets=(
            PackageSet(
                name="4.57", python=">=3.10", torch=">=2.5,<2.11",
                packages={"auto-gptq": ">=0.7.1", "transformers": ">=4.57,<4.58"},
                cuda=">=12,<12.9", platforms=("linux-x86_64", "windows-x86_64"),
            ),
            PackageSet(
                name="4.53", python=">=3.10", torch=">=2.5,<2.11",
                packages={"auto-gptq": ">=0.7.1", "transformers": ">=4.53,<4.54"},
            ),
        ),
        provenance=PUBLISHED,
        excludes=("bitsandbytes",),
    ),
)  # fmt: skip
HAZARDS = (
    Hazard(
        package="autoawq", versions="", when={"peft": "<0.19"}, mechanism="the dispatcher imports awq",
        provenance=PUBLISHED,
    ),
)  # fmt: skip

# The cubins of the real wheels (Linux x86-64).
CU118 = "5.0 6.0 7.0 7.5 8.0 8.6 9.0"
CU126 = CU118
CU128 = "7.0 7.5 8.0 8.6 9.0 10.0 12.0"
CU13 = "7.5 8.0 8.6 9.0 10.0 12.0"
TORCH = (
    torch("2.15.0", "cu132", CU13, index="pypi", pythons=("3.11", "3.12", "3.13", "3.14")),
    torch("2.15.0", "cu130", CU13),
    torch("2.14.1", "cu130", CU13, index="pypi"),
    torch("2.14.1", "cu126", CU126),
    torch("2.14.1", "cpu"),
    torch("2.11.0", "cu128", "7.5 8.0 8.6 9.0 10.0 12.0"),
    torch("2.10.0", "cu128", CU128, index="pypi"),
    torch("2.7.1", "cu118", CU118),
    torch("2.7.1", "cu126", CU126, index="pypi"),
    torch("2.5.1", "cu124", CU118, index="pypi", pythons=("3.10", "3.11", "3.12")),
)
_B60 = "6.0 7.0 7.5 8.0 8.6 8.9 9.0"
_B50 = f"5.0 {_B60}"
_B128 = "7.0 7.5 8.0 8.6 8.9 9.0 10.0 12.0"
_B130 = "7.5 8.0 8.6 8.9 9.0 10.0 12.0"
WHEELS = (
    wheel(
        "0.50.2",
        (
            library("cpu"),
            library("cuda118", _B60, ptx="9.0"),
            library("cuda126", _B60, ptx="9.0"),
            library("cuda128", _B128, ptx="12.0"),
            library("cuda130", _B130, ptx="12.0"),
            library("cuda132", _B130, ptx="12.0"),
            library("rocm64", gfx=("gfx1100", "gfx90a")),
            library("rocm72", gfx=("gfx1100", "gfx90a", "gfx1201")),
        ),
        requires_torch=">=2.4,<3",
    ),
    wheel(
        "0.49.2",
        (
            library("cpu"),
            library("cuda118", _B60),
            library("cuda126", _B60),
            library("cuda128", _B128),
            library("cuda129", _B128),
            library("cuda130", _B130),
            library("rocm64", gfx=("gfx1100", "gfx90a")),
        ),
    ),
    wheel(
        "0.47.0",
        (library("cpu"), library("cuda118", _B50), library("cuda126", _B50), library("cuda128", _B128)),
        requires_python=">=3.9",
        requires_torch=">=2.2,<3",
    ),
    wheel(
        "0.46.0",
        (library("cpu"), library("cuda126", _B50), library("cuda128", "7.5 8.0 8.6 8.9 9.0 10.0 12.0")),
        requires_python=">=3.9",
        requires_torch=">=2.2,<3",
    ),
)


def matrix(**parts: Any) -> Matrix:
    given: dict[str, Any] = {
        "bitsandbytes": WHEELS,
        "torch": TORCH,
        "driver_floors": FLOORS,
        "driver_branches": BRANCHES,
        "architectures": ARCHITECTURES,
        "indexes": (),
        "floors": FLOOR_ROWS,
        "profiles": PROFILES,
        "hazards": HAZARDS,
        "known_faults": (),
        "causes": (),
        "loaders": LOADERS,
        "caveats": (),
        "verified": (),
    }
    return Matrix(revision="2026.11.23", **{**given, **parts})


def fault(**more: Any) -> KnownFault:
    given: dict[str, Any] = {
        "id": "a-fault", "package": "bitsandbytes", "versions": ">=0.49,<0.51", "device": "cpu",
        "cpu_flags": ("avx512f",), "checks": (), "dtypes": (), "shapes": {}, "summary": "wrong",
        "workaround": "pad", "reproduction": "", "provenance": PUBLISHED,
    }  # fmt: skip
    return KnownFault(**{**given, **more})
