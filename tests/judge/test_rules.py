# ruff: noqa: E501, ERA001 - rows of tables stand in one line, under the name of their rule
"""One table a rule: a stack and a machine that the rule speaks of, and one beside it where it is silent."""

from __future__ import annotations

from typing import Any

import pytest

from bnbenv.judge.judge import judge
from bnbenv.judge.rules import RULES
from bnbenv.judge.stack import Judgement, Stack
from bnbenv.machine.target import Gpu, Libc
from bnbenv.matrix.rows import Caveat
from bnbenv.units import ComputeCapability, CudaVersion, DottedVersion
from support.judge_facts import (
    CU13,
    CU126,
    CU128,
    MEASURED,
    PROFILES,
    TORCH,
    WHEELS,
    amd,
    fault,
    gpu,
    library,
    matrix,
    target,
    torch,
    wheel,
)

NEW, MID, OLD = WHEELS[0], WHEELS[1], WHEELS[2]
CU126_BUILD = torch("2.14.1", "cu126", CU126)
CU132_BUILD = torch("2.15.0", "cu132", CU13, index="pypi")


COMPILED = {"auto-gptq": ">=0.7.1", "transformers": ">=4.57,<4.58"}


def stack(build: Any = CU126_BUILD, bnb: Any = NEW, **more: Any) -> Stack:
    return Stack(**{"python": "3.12", "torch": build, "bitsandbytes": bnb, "profile": "qlora", **more})


def told(judgement: Judgement) -> dict[str, str]:
    return {finding.code: finding.severity for finding in judgement.findings}


def libc(version: str, family: str = "glibc") -> Libc:
    return Libc(family=family, version=DottedVersion.parse(version))  # type: ignore[arg-type]


WINDOWS_WHEEL = wheel(
    "0.50.2",
    (
        library("cpu", suffix=".dll", needed=("MSVCP140.dll", "VCOMP140.DLL")),
        library("cuda126", "6.0 8.6", suffix=".dll", needed=("cublas64_12.dll", "MSVCP140.dll")),
    ),
    os="windows",
    platform="win_amd64",
)
JP6: dict[str, Any] = {"arch": "aarch64", "index": "jetson-jp6-cu126", "local": None, "glibc": None,
                       "cuda": CudaVersion(12, 6)}  # fmt: skip
JP6_BUILD = torch("2.11.0", "jp6.cu126", "8.7", **JP6, l4t=36)
JP6_WHEEL = wheel("0.47.0", (library("cuda126", "8.7"),), arch="aarch64", platform="linux_aarch64", l4t=36)
ARM_WHEEL = wheel("0.50.2", (library("cuda126", "8.7"),), arch="aarch64", platform="manylinux_2_24_aarch64")
ORIN = target("8.7", arch="aarch64", tegra=True, l4t="36.4.3", driver="540.4.0")
ANY_WHEEL = wheel("0.42.0", (library("cpu"), library("cuda121", "8.0")), platform="any", requires_python=None,
                  requires_torch=None)  # fmt: skip
ROCM = "rocm6.4"
HIP7_WHEEL = wheel("0.50.2", (library("rocm72", gfx=("gfx1100",), needed=("libhipblas.so.3",)),))
XPU_WHEEL = wheel("0.49.2", (library("xpu", needed=("libsycl.so.8",))._replace(toolkit="2025"),))
WRONG_ON_ROCM = Caveat(">=0.49,<0.50", "rocm", "error", "computes wrongly", "0.50.0", MEASURED)
WRONG_IN_8_BITS = Caveat(">=0.49,<0.50", "", "warning", "stays where it is", "0.50.0", MEASURED, "int8")


def rocm_target(*cards: Any, **more: Any) -> Any:
    return target(*cards, accelerator="rocm", driver=None, **more)


@pytest.mark.parametrize(
    ("judged", "machine", "code", "severity"),
    [
        # torch_exists_for_platform
        pytest.param(stack(), target("8.6", arch="aarch64"), "no-wheel-for-platform", "error", id="torch-arch"),
        pytest.param(stack(), target("8.6", libc=libc("1.2", "musl")), "no-wheel-for-platform", "error",
                     id="torch-musl"),
        pytest.param(stack(), target("8.6", libc=libc("2.27")), "glibc-too-old", "error", id="torch-glibc"),
        # torch_exists_for_python
        pytest.param(stack(python="3.9"), target("8.6"), "python-unsupported", "error", id="torch-python"),
        # bitsandbytes_exists_for_platform
        pytest.param(stack(bnb=ANY_WHEEL), target(os="windows"), "windows-no-binary", "error", id="bnb-windows-any"),
        pytest.param(stack(bnb=ANY_WHEEL), target(os="macos", arch="aarch64"), "macos-unsupported", "error",
                     id="bnb-macos-any"),
        pytest.param(stack(bnb=ANY_WHEEL), target("8.6"), "legacy-cuda-setup", "warning", id="bnb-any-on-linux"),
        pytest.param(stack(bnb=NEW), target("8.6", arch="aarch64"), "no-wheel-for-platform", "error", id="bnb-arch"),
        pytest.param(stack(torch("2.14.1", "cu126", CU126, glibc=None)), target("8.6", libc=libc("2.23")),
                     "glibc-too-old", "error", id="bnb-tag-glibc"),
        # bitsandbytes_allows_python, bitsandbytes_allows_torch, bitsandbytes_is_sound
        pytest.param(stack(python="3.9"), target("8.6"), "python-unsupported", "error", id="bnb-python"),
        pytest.param(stack(torch("2.3.1", "cu126", CU126)), target("8.6"), "bnb-torch-requirement", "error",
                     id="bnb-torch"),
        pytest.param(stack(bnb=wheel("0.48.0", NEW.libraries, broken="garbage")), target("8.6"),
                     "broken-release", "error", id="bnb-broken"),
        pytest.param(stack(bnb=wheel("1.33.7rc0", ())), target("8.6"), "rocm-broken-preview", "warning",
                     id="bnb-preview"),
        # library_symbols_exist
        pytest.param(
            stack(bnb=wheel("0.50.2", (library("cuda126", "8.6",
                  symbol_versions={"GLIBCXX": DottedVersion.parse("3.4.22")}),))),
            target("8.6", libstdcxx=DottedVersion.parse("3.4.21")), "glibc-too-old", "error", id="glibcxx"),
        pytest.param(
            stack(bnb=wheel("0.50.2", (library("cuda126", "8.6",
                  symbol_versions={"GLIBC": DottedVersion.parse("2.36")}),))),
            target("8.6"), "glibc-too-old", "error", id="glibc-symbol"),
        pytest.param(
            stack(torch("2.14.1", "cu126", CU126, glibc=None), wheel("0.50.2", (library("cuda126", "8.6",
                  symbol_versions={"GLIBCXX": DottedVersion.parse("3.4.22")}),), platform="manylinux_2_17_x86_64")),
            target("8.6", libc=libc("2.23")), "glibc-too-old", "warning", id="glibcxx-as-systems-have-it"),
        # windows_runtime_is_named
        pytest.param(stack(torch("2.14.1", "cu126", CU126, os="windows"), WINDOWS_WHEEL),
                     target("8.6", os="windows"), "windows-dll-load", "info", id="windows-runtime"),
        # undeclared_needs
        pytest.param(stack(bnb=wheel("0.40.2", (library("cuda118", "8.6"),), platform="any")), target("8.6"),
                     "missing-python-dep", "warning", id="scipy"),
        pytest.param(stack(bnb=ANY_WHEEL), target("8.6", wsl=True), "wsl-libcuda", "warning", id="wsl-libcuda"),
        # process_sees_gpus
        pytest.param(stack(env={"CUDA_VISIBLE_DEVICES": "-1"}), target("8.6"), "no-gpu-visible", "error",
                     id="every-gpu-hidden"),
        pytest.param(stack(), target(accelerator="cuda"), "unknown-gpu", "warning", id="gpus-unknown"),
        # driver_runs_cuda
        pytest.param(stack(CU132_BUILD), target("8.6", driver="575.57"), "driver-too-old", "error", id="driver-13"),
        pytest.param(stack(), target("8.6", driver="525.60.12"), "driver-too-old", "error", id="driver-12"),
        pytest.param(stack(), target("8.6", driver="527.41", wsl=True), "driver-too-old", "error", id="driver-wsl"),
        pytest.param(stack(), target("8.6", driver=None), "driver-too-old", "warning", id="driver-unknown"),
        # driver_knows_gpus
        pytest.param(stack(), target("6.1", driver="590.44.01"), "driver-drops-gpu", "error", id="pascal-590"),
        pytest.param(stack(), target("12.0", driver="565.57"), "driver-drops-gpu", "error", id="blackwell-565"),
        pytest.param(stack(), target("3.7", driver="495.29"), "driver-drops-gpu", "error", id="kepler-495"),
        # build_is_for_accelerator
        pytest.param(stack(torch("2.14.1", "cpu")), target("8.6"), "torch-cpu-build", "error", id="cpu-build"),
        pytest.param(stack(torch("2.14.1", ROCM)), target("8.6"), "torch-cpu-build", "error", id="other-accelerator"),
        pytest.param(stack(torch("2.14.1", "cpu", index="pypi", os="windows"), WINDOWS_WHEEL),
                     target("8.6", os="windows"), "windows-cpu-torch", "error", id="windows-pypi"),
        pytest.param(stack(), target(), "no-gpu-visible", "info", id="cuda-build-without-gpu"),
        # torch_serves_gpus, gpus_agree
        pytest.param(stack(CU132_BUILD), target("6.1"), "torch-arch-unsupported", "error", id="torch-pascal"),
        pytest.param(stack(CU132_BUILD), target("6.1", "8.6"), "mixed-gpu-arch", "info", id="torch-mixed"),
        pytest.param(stack(torch("2.9.0", "cu129", "7.5 8.0", ptx="8.0")), target("9.0"), "low-confidence",
                     "warning", id="torch-ptx"),
        pytest.param(stack(torch("2.14.1", "cu126")), target("8.6"), "unknown-torch-build", "info",
                     id="torch-cubins-unknown"),
        pytest.param(stack(), target(Gpu(name="a new card")), "unknown-gpu", "warning", id="gpu-unknown"),
        # jetson_has_its_own_wheels
        pytest.param(stack(torch("2.14.1", "cu126", CU126, arch="aarch64"), wheel("0.50.2", (), arch="aarch64")),
                     target("8.7", arch="aarch64", tegra=True, l4t="36.4.3", driver="540.4.0"),
                     "jetson-l4t-mismatch", "error", id="orin-jetpack6"),
        pytest.param(stack(torch("2.14.1", "cu126", CU126, arch="aarch64"), wheel("0.50.2", (), arch="aarch64")),
                     target("8.7", arch="aarch64", tegra=True, l4t="38.2", driver=None),
                     "jetson-l4t-mismatch", "warning", id="orin-jetpack7"),
        pytest.param(stack(JP6_BUILD, ARM_WHEEL), ORIN, "jetson-l4t-mismatch", "error", id="orin-bnb-for-servers"),
        pytest.param(stack(torch("2.11.0", "cu126", "8.7", **JP6), ARM_WHEEL), ORIN, "jetson-l4t-mismatch", "error",
                     id="orin-bnb-for-servers-beside-a-measured-torch"),
        pytest.param(stack(JP6_BUILD, JP6_WHEEL), ORIN, "cuda-runtime-not-found", "info", id="orin-cudss"),
        pytest.param(stack(JP6_BUILD, JP6_WHEEL), target("8.7", arch="aarch64", tegra=True, driver="540.4.0"),
                     "jetson-l4t-mismatch", "warning", id="orin-of-an-unknown-l4t"),
        pytest.param(stack(JP6_BUILD, JP6_WHEEL), target(arch="aarch64"), "jetson-l4t-mismatch", "error",
                     id="jetpack-6-on-a-server"),
        # rule: backend_computes
        pytest.param(stack(torch("2.14.1", "cpu"), wheel("0.45.5", (library("cpu"),))), target(), "bnb-too-old",
                     "error", id="cpu-0.45"),
        # loader_finds_library
        pytest.param(stack(CU132_BUILD, MID), target("8.6"), "missing-cuda-binary", "error", id="library-missing"),
        pytest.param(stack(torch("2.9.0", "cu117", CU126), OLD), target("8.6"), "cuda-too-old-for-bnb", "error",
                     id="cuda-too-old"),
        pytest.param(stack(torch("2.9.0", "cu129", CU128)), target("8.6"), "cuda-fallback-warning", "info",
                     id="neighbour"),
        pytest.param(stack(env={"BNB_CUDA_VERSION": "125"}), target("8.6"), "bnb-cuda-override-wrong", "error",
                     id="override-not-held"),
        pytest.param(stack(env={"BNB_CUDA_VERSION": ""}), target("8.6"), "bnb-cuda-override-wrong", "error",
                     id="override-empty"),
        pytest.param(stack(torch("2.9.0", ROCM), OLD), rocm_target(amd("gfx1100")), "rocm-unsupported-bnb",
                     "error", id="rocm-none"),
        pytest.param(stack(torch("2.9.0", "rocm7.1"), MID), rocm_target(amd("gfx1100")), "rocm-hip-version-skew",
                     "error", id="rocm-skew"),
        pytest.param(stack(torch("2.9.0", "rocm10.1")), rocm_target(amd("gfx1100")), "rocm-hip-version-skew",
                     "error", id="rocm-ten"),
        pytest.param(stack(torch("2.9.0", "rocm6.1")), rocm_target(amd("gfx1100")), "rocm-fallback-abi", "error",
                     id="rocm-upwards"),
        pytest.param(stack(torch("2.9.0", "rocm7.3")), rocm_target(amd("gfx1100")), "rocm-fallback-warning",
                     "info", id="rocm-one-down"),
        pytest.param(stack(torch("2.9.0", "rocm7.9")), rocm_target(amd("gfx1100")), "rocm-fallback-abi",
                     "warning", id="rocm-far-down"),
        pytest.param(stack(torch("2.9.0", "xpu")), target(Gpu(name="Arc"), accelerator="xpu", driver=None),
                     "xpu-library-missing", "error", id="xpu"),
        # library_serves_gpus
        pytest.param(stack(bnb=NEW), target("5.2"), "no-kernel-image", "error", id="maxwell-0.50"),
        pytest.param(stack(), target("3.5", driver="470.1"), "gpu-below-minimum", "error", id="kepler"),
        pytest.param(stack(bnb=wheel("0.50.2", (library("cuda126", "8.0", ptx="8.0"),))), target("9.0"),
                     "relocatable-ptx-only", "warning", id="relocatable-ptx"),
        pytest.param(stack(torch("2.9.0", ROCM)), rocm_target(amd("gfx803")), "rocm-arch-unsupported", "error",
                     id="rocm-gfx"),
        pytest.param(stack(torch("2.9.0", ROCM)), rocm_target(amd("gfx1100"), amd("gfx1036", integrated=True)),
                     "rocm-arch-unsupported", "warning", id="rocm-integrated-beside-discrete"),
        pytest.param(stack(torch("2.9.0", ROCM)), rocm_target(amd("gfx1100"), amd("gfx1037")),
                     "rocm-arch-unsupported", "warning", id="rocm-integrated-known-by-its-target"),
        # library_dependencies_are_there
        pytest.param(stack(bnb=wheel("0.50.2", (library("cuda118", "8.6", needed=("libcudart.so.11.0",)),)),
                           env={"BNB_CUDA_VERSION": "118"}), target("8.6"), "cuda-runtime-not-found", "error",
                     id="override-other-major"),
        pytest.param(stack(CU132_BUILD, wheel("0.48.2", (library("cuda132", "8.6", needed=("libnvJitLink.so.13",)),))),
                     target("8.6"), "cuda-runtime-not-found", "warning", id="nvjitlink"),
        pytest.param(stack(torch("2.7.1", "cu118", CU126), wheel("0.49.2", (library("cuda118", "8.6",
                           needed=("libcusparse.so.11",)),))), target("8.6"), "cuda-runtime-not-found", "warning",
                     id="cusparse"),
        # rocm_libraries_are_there
        pytest.param(stack(torch("2.9.0", ROCM), HIP7_WHEEL, env={"BNB_ROCM_VERSION": "72"}),
                     rocm_target(amd("gfx1100")), "rocm-hip-version-skew", "error", id="hipblas-of-no-one"),
        pytest.param(stack(torch("2.9.0", ROCM), HIP7_WHEEL, env={"BNB_ROCM_VERSION": "72"}),
                     rocm_target(amd("gfx1100"), rocm="7.2.0"), "rocm-hip-version-skew", "warning",
                     id="hipblas-of-the-system"),
        # xpu_runtime_is_there
        pytest.param(stack(torch("2.14.1", "xpu", oneapi="2026"), XPU_WHEEL),
                     target(Gpu(name="Arc"), accelerator="xpu", driver=None), "xpu-library-missing", "error",
                     id="sycl-of-another-year"),
        # search_path_is_clean, gfx_is_not_overridden
        pytest.param(stack(torch("2.9.0", ROCM), env={"LD_LIBRARY_PATH": "/opt/rocm-7.2.0/lib"}),
                     rocm_target(amd("gfx1100")), "rocm-hip-version-skew", "warning", id="rocm-ldpath"),
        pytest.param(stack(env={"LD_LIBRARY_PATH": "/usr/lib:/usr/local/cuda-11.8/lib64"}), target("8.6"),
                     "cuda-conflict-ldpath", "warning", id="ldpath"),
        pytest.param(stack(torch("2.9.0", ROCM), env={"HSA_OVERRIDE_GFX_VERSION": "11.0.0"}),
                     rocm_target(amd("gfx1103")), "rocm-arch-unsupported", "warning", id="hsa-override"),
        # run_time_floors_are_met
        pytest.param(stack(torch("2.4.1", "cu126", CU126), packages={"transformers": "5.23.0"}), target("8.6"),
                     "hf-stack-version-mismatch", "error", id="transformers-torch"),
        pytest.param(stack(python="3.10", packages={"transformers": ">=5.21,<5.24"}), target("8.6"),
                     "python-unsupported", "error", id="transformers-python"),
        pytest.param(stack(torch("2.6.0", "cu126", CU126, triton="triton==3.2.0"),
                           wheel("0.44.1", (library("cuda126", "8.6"),), requires_torch="")), target("8.6"),
                     "triton-ops-removed", "error", id="triton-pinned"),
        pytest.param(stack(torch("2.6.0", "cu126", CU126), wheel("0.44.1", (library("cuda126", "8.6"),),
                           requires_torch="")), target("8.6"), "triton-ops-removed", "error", id="triton-by-torch"),
        pytest.param(stack(torch("2.2.2", "cu126", CU126), OLD, packages={"numpy": "2.4.6"}), target("8.6"),
                     "numpy-abi", "error", id="numpy"),
        # four_bits_are_there
        pytest.param(stack(bnb=wheel("0.38.1", ()), profile="qlora"), target("8.6"), "bnb-too-old", "error", id="four-bits"),
        pytest.param(stack(bnb=wheel("0.38.1", ()), profile="int8"), target("8.6"), "bnb-too-old", "info", id="eight-bits"),
        # int8_products_work
        pytest.param(stack(bnb=wheel("0.44.1", (library("cuda126", "9.0"),)), profile="int8"), target("9.0"),
                     "bnb-too-old", "error", id="int8-hopper"),
        pytest.param(stack(bnb=wheel("0.44.1", (library("cuda126", "9.0"),))), target("9.0"), "bnb-too-old", "info",
                     id="int8-hopper-not-meant"),
        pytest.param(stack(bnb=wheel("0.45.5", (library("cuda126", "7.5"),)), profile="int8"),
                     target(Gpu(name="NVIDIA GeForce GTX 1650", compute_capability=ComputeCapability(7, 5))),
                     "bnb-too-old", "warning", id="int8-gtx-16"),
        # release_does_right_here
        pytest.param(stack(torch("2.9.0", ROCM), MID), rocm_target(amd("gfx1100")), "broken-release", "error",
                     id="wrong-on-rocm"),
        pytest.param(stack(bnb=MID, profile="int8"), target("8.6"), "broken-release", "warning",
                     id="wrong-for-one-purpose"),
        # profile_runs_without_gpu
        pytest.param(stack(torch("2.14.1", "cpu"), profile="of-gpus"), target(), "no-gpu-visible", "error",
                     id="profile-of-gpus"),
        # import_asks_no_hub
        pytest.param(stack(torch("2.14.1", "cpu"), packages={"kernels": "0.10.4"}),
                     target(cpu_flags=frozenset({"avx512_bf16"})), "hub-at-import", "warning", id="hub"),
        # no_package_breaks_others, profile_excludes_are_absent
        pytest.param(stack(profile="int8", packages={"autoawq": "0.2.9", "peft": "0.18.0"}), target("8.6"), "quant-lib-presence",
                     "error", id="hazard"),
        pytest.param(stack(packages={"autoawq": "0.2.9"}), target("8.6"), "quant-lib-presence", "warning",
                     id="excluded"),
        pytest.param(stack(profile="gptq", packages={"gptqmodel": "7.7.0"}), target("8.6"), "quant-lib-presence",
                     "warning", id="excluded-bitsandbytes"),
        # profile_set_takes_releases
        pytest.param(stack(bnb=WHEELS[3], packages={"transformers": ">=5.21,<5.24"}, profile="int8"), target("8.6"),
                     "hf-stack-version-mismatch", "error", id="set-and-bitsandbytes"),
        pytest.param(stack(torch("2.7.1", "cu118", CU126), None, packages=COMPILED, profile="compiled"), target("8.6"),
                     "quant-ext-torch-abi", "error", id="set-and-toolkit"),
        pytest.param(stack(torch("2.7.1", "cpu"), None, packages=COMPILED, profile="compiled"), target(),
                     "quant-ext-torch-abi", "error", id="set-and-no-toolkit"),
        pytest.param(stack(torch("2.7.1", "cu126", CU126, arch="aarch64"), None, packages=COMPILED, profile="compiled"),
                     target("8.6", arch="aarch64"), "no-wheel-for-platform", "error", id="set-and-platform"),
        # profile_has_bitsandbytes, gpus_suit_profile, bf16_is_native, known_faults_are_told
        pytest.param(stack(bnb=None), target("8.6"), "bnb-not-installed", "error", id="bnb-none"),
        pytest.param(stack(profile="int8"), target("7.0"), "gpu-cc-too-low-int8", "error", id="int8-volta"),
        pytest.param(stack(profile=""), target("7.0"), "gpu-cc-too-low-int8", "info", id="int8-volta-no-profile"),
        pytest.param(stack(), target("7.5"), "slow-emulation", "info", id="bf16"),
        pytest.param(stack(torch("2.14.1", "cpu")), target(cpu_flags=frozenset({"avx512f", "avx2"})),
                     "known-fault", "info", id="known-fault"),
    ],
)  # fmt: skip
def test_rule_speaks(judged: Stack, machine: Any, code: str, severity: str) -> None:
    facts = matrix(
        known_faults=(fault(),),
        caveats=(WRONG_ON_ROCM, WRONG_IN_8_BITS),
        profiles=(*PROFILES, PROFILES[0]._replace(name="of-gpus", devices="gpu")),
        bitsandbytes=(*WHEELS, XPU_WHEEL),
    )
    judgement = judge(judged, machine, facts)
    assert told(judgement).get(code) == severity, told(judgement)
    assert judgement.works is not True or severity != "error"
    assert all(finding.source and finding.summary for finding in judgement.findings)


@pytest.mark.parametrize(
    ("judged", "machine"),
    [
        pytest.param(stack(CU132_BUILD), target("8.9"), id="rtx-4090-newest"),
        pytest.param(stack(), target("6.1"), id="gtx-1080-cu126"),
        pytest.param(stack(), target("8.6", driver="528.33", wsl=True), id="wsl-at-the-floor"),
        pytest.param(stack(), target("8.6", driver="525.60.13"), id="linux-at-the-floor"),
        pytest.param(stack(), target("8.6", driver="525"), id="a-bare-branch"),
        pytest.param(stack(), target("6.1", driver="580.95.05"), id="pascal-in-its-last-branch"),
        pytest.param(stack(torch("2.14.1", "cu126", CU126, os="windows"), WINDOWS_WHEEL),
                     target("6.1", os="windows", driver="582.28"), id="pascal-in-windows-580"),
        pytest.param(stack(torch("2.11.0", "cu128", CU128)), target("12.0", driver="570.26"), id="blackwell-570"),
        pytest.param(stack(torch("2.14.1", "cpu")), target(), id="cpu"),
        pytest.param(stack(torch("2.14.1", "cpu"), env={"BNB_CUDA_VERSION": "999"}), target(),
                     id="override-on-cpu-torch"),
        pytest.param(stack(torch("2.7.1", "cu126", CU126), OLD), target("5.2"), id="maxwell-0.47"),
        pytest.param(stack(packages={"transformers": ">=5.21,<5.24"}), target("8.6"), id="a-range-that-fits"),
        pytest.param(stack(torch("2.6.0", "cpu", os="windows"), WINDOWS_WHEEL, packages={}), target(os="windows"),
                     id="no-triton-on-windows"),
        pytest.param(stack(CU132_BUILD), target("8.6", gpu("6.1", visible=False)), id="hidden-gpu-counts-not"),
        pytest.param(
            stack(CU132_BUILD, env={"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
            target("6.1", "8.6"), id="variable-hides-a-gpu"),
        pytest.param(stack(JP6_BUILD, JP6_WHEEL), ORIN, id="orin-from-its-own-index"),
        pytest.param(stack(JP6_BUILD, JP6_WHEEL._replace(l4t=None)), ORIN, id="orin-built-on-the-board"),
        pytest.param(stack(torch("2.11.0", "cu126", "8.7", arch="aarch64", local=None), JP6_WHEEL), ORIN,
                     id="orin-torch-of-somebody's-own"),
    ],
)  # fmt: skip
def test_rules_are_silent(judged: Stack, machine: Any) -> None:
    judgement = judge(judged, machine, matrix())
    assert judgement.works is True, told(judgement)
    assert "warning" not in told(judgement).values()


def test_undecided_is_neither_yes_nor_no() -> None:
    wheel_with_ptx = wheel("0.50.2", (library("cuda126", "8.0", ptx="8.0"),))
    judgement = judge(stack(bnb=wheel_with_ptx), target("9.0"), matrix())
    assert judgement.works is None
    assert judgement.coverage[0].bitsandbytes == "relocatable PTX 8.0"


def test_cover_names_the_cubin_that_serves() -> None:
    judgement = judge(stack(CU132_BUILD), target("8.9"), matrix())
    (cover,) = judgement.coverage
    assert (cover.torch, cover.bitsandbytes) == ("cubin 8.6", "cubin 8.9")


def test_every_rule_has_a_name_a_source_and_a_sentence() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.source and rule.check.__doc__ for rule in RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rule_reads_what_it_says(rule: Any) -> None:
    """A part that a rule reads and does not name would make the solver err: what it does not name may vary."""
    variants: dict[str, list[dict[str, Any]]] = {
        "torch": [{"torch": build} for build in (*TORCH, torch("2.9.0", "cpu", pythons=("3.10",)))],
        "bitsandbytes": [{"bitsandbytes": row} for row in (*WHEELS, ANY_WHEEL, None)],
        "python": [{"python": python} for python in ("3.9", "3.10", "3.12", "3.15")],
        "packages": [{"packages": found} for found in ({}, {"autoawq": "0.2.9"}, {"transformers": "5.23.0"})],
    }
    machines = (target("6.1", "8.6"), target(), target("12.0", driver="470.1"), target("8.6", os="windows"))
    facts = matrix(known_faults=(fault(),))
    for machine in machines:
        for part, changes in variants.items():
            if part in rule.reads:
                continue
            answers = {
                repr(rule(stack(**{_field(name): value for name, value in change.items()}), machine, facts))
                for change in changes
            }
            assert len(answers) == 1, f"{rule.name} reads {part} on {machine}"


def _field(name: str) -> str:
    return {"torch": "build", "bitsandbytes": "bnb"}.get(name, name)


def test_gpus_that_the_machine_was_seen_to_hide_need_no_variable_set() -> None:
    found = judge(stack(), target(gpu("8.6", visible=False)), matrix()).findings
    assert [one.need for one in found if one.code == "no-gpu-visible"] == ["unset CUDA_VISIBLE_DEVICES"]
