# ruff: noqa: E501 - rows of tables stand in one line
"""Questions about named combinations with answers derived by hand from the wheels and the documents.

Each row: machine, torch, bitsandbytes, works, library (without `libbitsandbytes_` and ending), and the codes that
must be told as an error (or, where it works, as anything). Read against the real matrix.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from bnbenv.judge.check import Combination, check, named_stack
from bnbenv.judge.rules import RULES
from bnbenv.machine.document import target_from_dict
from bnbenv.matrix.load import load
from bnbenv.workflows.choose import JUDGED

UNKNOWN = "unknown"


@cache
def facts() -> Any:
    return load(*JUDGED)


def machine(*gpus: str, driver: str | None = "580.95.05", **more: Any) -> dict[str, Any]:
    """A glibc 2.35 x86-64 Linux machine; GPUs by compute capability or gfx target."""
    described: dict[str, Any] = {
        "schema": 1, "name": "host", "os": "linux", "arch": "x86_64", "libc": {"family": "glibc", "version": "2.35"},
        "accelerator": "rocm" if gpus and gpus[0].startswith("gfx") else "cuda" if gpus else "cpu",
        "gpus": [{"gfx": gpu} if gpu.startswith("gfx") else {"compute_capability": gpu} for gpu in gpus],
        "driver": driver if gpus and not gpus[0].startswith("gfx") else None, "pythons": ["3.11", "3.12"],
    }  # fmt: skip
    if more.get("os") in ("windows", "macos"):
        described["libc"] = None
    return {**described, **more}


def windows(*gpus: str, driver: str | None = "581.15", **more: Any) -> dict[str, Any]:
    return machine(*gpus, driver=driver, os="windows", **more)


def arm(*gpus: str, driver: str | None = "580.95.05", **more: Any) -> dict[str, Any]:
    return machine(*gpus, driver=driver, arch="aarch64", **more)


def glibc(version: str) -> dict[str, Any]:
    return {"libc": {"family": "glibc", "version": version}}


NEWEST_SET = {
    name: ranges
    for name, ranges in load("profiles").profiles[0].sets[0].packages.items()
    if name != "bitsandbytes"
}
MUSL: dict[str, Any] = {"libc": {"family": "musl", "version": "1.2.4"}}
MAC = machine(os="macos", arch="aarch64", accelerator="mps", gpus=[])
MAC_CPU = machine(os="macos", arch="aarch64", accelerator="cpu", gpus=[])
OLD_MAC = machine(os="macos", arch="x86_64", accelerator="cpu", gpus=[])
ORIN_6 = arm("8.7", driver="540.4.0", tegra=True, l4t="36.4.3")
ORIN_7 = arm("8.7", driver="580.0", tegra=True, l4t="38.2")
THOR = arm("11.0", driver="580.00", tegra=True, l4t="38.2")
XAVIER = arm("7.2", driver=None, tegra=True, l4t="35.4.1")
XPU = machine(accelerator="xpu", gpus=[{"name": "Intel Arc B580"}])
BY_BUS = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
HIDDEN = machine("6.1", "8.9")
HIDDEN["gpus"][0]["visible"] = False

# machine, torch, bitsandbytes, works, library, code, further keywords of the combination
Row = tuple[dict[str, Any], str, str, bool | None, str | None, str | None, dict[str, Any]]


def row(
    target: dict[str, Any], torch: str, bnb: str, works: bool | None, library: str | None, code: str | None = None, **more: Any
) -> Row:  # fmt: skip
    return target, torch, bnb, works, library, code, more


QUESTIONS: dict[str, Row] = {
    # -- what everybody has
    "ada-newest": row(machine("8.9"), "2.15.0", "0.50.2", True, "cuda132"),
    "ada-cu130": row(machine("8.9"), "2.14.1+cu130", "0.50.2", True, "cuda130"),
    "ada-cu126-old-driver": row(machine("8.9", driver="525.60.13"), "2.14.1+cu126", "0.50.2", True, "cuda126"),
    "ada-cu128-on-525": row(machine("8.9", driver="525.105.17"), "2.11.0+cu128", "0.50.2", True, "cuda128"),
    "ada-cu118-on-470-is-too-new-for-it": row(machine("8.9", driver="470.82.01"), "2.7.1+cu118", "0.50.2", False, "cuda118", "driver-drops-gpu"),
    "ampere-cu118-on-470": row(machine("8.6", driver="470.82.01"), "2.7.1+cu118", "0.50.2", True, "cuda118"),
    "ampere-cu118-on-450": row(machine("8.0", driver="450.80.02"), "2.7.1+cu118", "0.50.2", True, "cuda118"),
    "cu118-below-its-floor": row(machine("7.5", driver="450.51.06"), "2.7.1+cu118", "0.50.2", False, "cuda118", "driver-too-old"),
    "cu121-on-515": row(machine("8.6", driver="515.65.01"), "2.5.1+cu121", "0.45.5", False, "cuda121", "driver-too-old"),
    "cu121-one-below-the-floor": row(machine("8.6", driver="525.60.12"), "2.5.1+cu121", "0.45.5", False, "cuda121", "driver-too-old"),
    "cu121-at-the-floor": row(machine("8.6", driver="525.60.13"), "2.5.1+cu121", "0.45.5", True, "cuda121"),
    "cu130-on-575": row(machine("8.9", driver="575.57.08"), "2.14.1+cu130", "0.50.2", False, "cuda130", "driver-too-old"),
    "cu130-one-below-the-floor": row(machine("8.9", driver="580.65.05"), "2.14.1+cu130", "0.50.2", False, "cuda130", "driver-too-old"),
    "cu130-at-the-floor": row(machine("8.9", driver="580.65.06"), "2.14.1+cu130", "0.50.2", True, "cuda130"),
    "branch-alone-is-believed": row(machine("8.9", driver="580"), "2.14.1+cu130", "0.50.2", True, "cuda130"),
    "pypi-2.15-on-550": row(machine("8.9", driver="550.54.15"), "2.15.0", "0.50.2", False, "cuda132", "driver-too-old"),
    "pypi-2.10-is-cu128": row(machine("8.9", driver="550.54.15"), "2.10.0", "0.50.2", True, "cuda128"),
    "cu132-on-590": row(machine("9.0", driver="590.44.01"), "2.15.0+cu132", "0.50.2", True, "cuda132"),
    "hopper-cu126": row(machine("9.0", driver="535.183.06"), "2.9.1+cu126", "0.49.2", True, "cuda126"),
    "turing-cu130": row(machine("7.5"), "2.9.1+cu130", "0.48.2", True, "cuda130"),
    "short-version": row(machine("8.6"), "2.4+cu121", "0.46.1", True, "cuda121"),
    "dotted-build": row(machine("8.6"), "2.9.1+cu12.8", "0.46.1", True, "cuda128"),
    # -- Maxwell, Pascal, Volta, Kepler
    "pascal-cu126": row(machine("6.1"), "2.14.1+cu126", "0.50.2", True, "cuda126"),
    "pascal-p100-cu126": row(machine("6.0"), "2.14.1+cu126", "0.50.2", True, "cuda126"),
    "pascal-cu128": row(machine("6.1"), "2.9.1+cu128", "0.50.2", False, "cuda128", "torch-arch-unsupported"),
    "pascal-cu130": row(machine("6.1"), "2.14.1+cu130", "0.50.2", False, "cuda130", "torch-arch-unsupported"),
    "pascal-pypi-newest": row(machine("6.1"), "2.15.0", "0.50.2", False, "cuda132", "torch-arch-unsupported"),
    "pascal-driver-590": row(machine("6.1", driver="590.44.01"), "2.14.1+cu126", "0.50.2", False, "cuda126", "driver-drops-gpu"),
    "pascal-pypi-2.7": row(machine("6.1", driver="535.54.03"), "2.7.1", "0.50.2", True, "cuda126"),
    "pascal-nothing-newer-than-cu126-on-2.15": row(machine("6.1"), "2.15.0+cu126", "0.50.2", None, "cuda126", "unknown-torch-build"),
    "volta-cu128-2.10": row(machine("7.0"), "2.10.0+cu128", "0.50.2", True, "cuda128"),
    "volta-cu128-2.11": row(machine("7.0"), "2.11.0+cu128", "0.50.2", False, "cuda128", "torch-arch-unsupported"),
    "volta-cu128-2.7": row(machine("7.0"), "2.7.1+cu128", "0.50.2", False, "cuda128", "torch-arch-unsupported"),
    "volta-bnb-0.46.1-cu128": row(machine("7.0"), "2.8.0+cu128", "0.46.1", False, "cuda128", "no-kernel-image"),
    "volta-bnb-0.46.0-cu128": row(machine("7.0"), "2.8.0+cu128", "0.46.0", False, "cuda128", "no-kernel-image"),
    "volta-bnb-0.47-cu128": row(machine("7.0"), "2.8.0+cu128", "0.47.0", True, "cuda128"),
    "volta-bnb-0.45.5-cu128": row(machine("7.0"), "2.8.0+cu128", "0.45.5", True, "cuda128"),
    "volta-bnb-0.46.1-cu126": row(machine("7.0"), "2.8.0+cu126", "0.46.1", True, "cuda126"),
    "volta-cu129-0.46.1": row(machine("7.0"), "2.8.0+cu129", "0.46.1", False, "cuda129", "no-kernel-image"),
    "volta-cu130": row(machine("7.0"), "2.9.1+cu130", "0.50.2", False, "cuda130", "torch-arch-unsupported"),
    "volta-driver-595": row(machine("7.0", driver="595.71.05"), "2.14.1+cu126", "0.50.2", False, "cuda126", "driver-drops-gpu"),
    "maxwell-bnb-0.47": row(machine("5.2"), "2.14.1+cu126", "0.47.0", True, "cuda126"),
    "maxwell-bnb-0.48": row(machine("5.2"), "2.14.1+cu126", "0.48.2", False, "cuda126", "no-kernel-image"),
    "maxwell-bnb-0.50": row(machine("5.0"), "2.14.1+cu126", "0.50.2", False, "cuda126", "no-kernel-image"),
    "maxwell-cu128": row(machine("5.2"), "2.8.0+cu128", "0.47.0", False, "cuda128", "torch-arch-unsupported"),
    "kepler-cu118": row(machine("3.7", driver="470.82.01"), "2.5.1+cu118", "0.45.5", False, "cuda118", "gpu-below-minimum"),
    "kepler-driver-535": row(machine("3.7", driver="535.54.03"), "2.5.1+cu118", "0.45.5", False, "cuda118", "driver-drops-gpu"),
    "kepler-3.5-torch-2.7": row(machine("3.5", driver="470.82.01"), "2.7.1+cu118", "0.50.2", False, "cuda118", "torch-arch-unsupported"),
    # -- Blackwell
    "rtx50-cu126": row(machine("12.0"), "2.14.1+cu126", "0.50.2", False, "cuda126", "torch-arch-unsupported"),
    "rtx50-cu124": row(machine("12.0"), "2.6.0+cu124", "0.45.5", False, "cuda124", "torch-arch-unsupported"),
    "rtx50-cu128-570": row(machine("12.0", driver="570.86.16"), "2.11.0+cu128", "0.50.2", True, "cuda128"),
    "rtx50-cu128-565": row(machine("12.0", driver="565.57.01"), "2.11.0+cu128", "0.50.2", False, "cuda128", "driver-drops-gpu"),
    "rtx50-bnb-0.45.2": row(machine("12.0"), "2.7.1+cu128", "0.45.2", False, None, "missing-cuda-binary"),
    "rtx50-bnb-0.45.3": row(machine("12.0"), "2.7.1+cu128", "0.45.3", True, "cuda128"),
    "rtx50-cu129-0.45.5": row(machine("12.0"), "2.8.0+cu129", "0.45.5", False, None, "missing-cuda-binary"),
    "b200-cu128": row(machine("10.0"), "2.9.1+cu128", "0.46.1", True, "cuda128"),
    "b300-cu130": row(machine("10.3"), "2.11.0+cu130", "0.50.2", True, "cuda130"),
    "b300-on-575": row(machine("10.3", driver="575.57.08"), "2.11.0+cu128", "0.50.2", False, "cuda128", "driver-drops-gpu"),
    "spark-pypi": row(arm("12.1"), "2.11.0", "0.50.2", True, "cuda130"),
    "spark-0.48-by-the-cubin-of-12.0": row(arm("12.1"), "2.11.0", "0.48.2", True, "cuda130"),
    "spark-0.49": row(arm("12.1"), "2.11.0", "0.49.0", True, "cuda130"),
    "spark-driver-570": row(arm("12.1", driver="570.124.06"), "2.11.0", "0.50.2", False, "cuda130", "driver-too-old"),
    # -- aarch64 servers
    "gh200": row(arm("9.0"), "2.14.1", "0.50.2", True, "cuda130"),
    "gh200-cu126": row(arm("9.0", driver="550.54.15"), "2.9.1+cu126", "0.46.0", True, "cuda126"),
    "gh200-bnb-0.45": row(arm("9.0"), "2.9.1+cu126", "0.45.5", False, None, "no-wheel-for-platform"),
    "arm-pypi-2.10-is-cpu": row(arm("9.0"), "2.10.0", "0.50.2", False, "cpu", "torch-cpu-build"),
    "t4g-arm": row(arm("7.5", driver="550.54.15"), "2.9.1+cu126", "0.50.2", False, "cuda126", "torch-arch-unsupported"),
    "a100-arm-cu124": row(arm("8.0", driver="550.54.15"), "2.5.1+cu124", "0.46.0", False, "cuda124", "torch-arch-unsupported"),
    "l40s-arm-cu130": row(arm("8.9"), "2.14.1", "0.50.2", True, "cuda130"),
    "arm-cpu": row(arm(), "2.9.1+cpu", "0.50.2", True, "cpu"),
    "gb200-arm": row(arm("10.0"), "2.14.1", "0.50.2", True, "cuda130"),
    # -- Jetson
    "orin-jetpack-6": row(ORIN_6, "2.9.1+cu126", "0.50.2", False, "cuda126", "jetson-l4t-mismatch"),
    "orin-jetpack-7": row(ORIN_7, "2.14.1", "0.50.2", None, "cuda130", "jetson-l4t-mismatch"),
    "xavier": row(XAVIER, "2.9.1+cu126", "0.50.2", False, "cuda126", "jetson-l4t-mismatch"),
    "thor": row(THOR, "2.14.1", "0.50.2", True, "cuda130"),
    "thor-bnb-0.47": row(THOR, "2.14.1", "0.47.0", False, None, "missing-cuda-binary"),
    "orin-without-a-word-on-tegra": row(arm("8.7"), "2.14.1", "0.50.2", None, "cuda130", "jetson-l4t-mismatch"),
    "orin-from-its-own-index": row(ORIN_6, "2.11.0+jp6.cu126", "0.47.0.dev0", None, "cuda126", "low-confidence", python="3.10"),
    "orin-from-its-own-index-2.8": row(ORIN_6, "2.8.0+jp6.cu126", "0.47.0.dev0", None, "cuda126", "low-confidence", python="3.10"),
    "orin-needs-cudss": row(ORIN_6, "2.8.0+jp6.cu126", "0.47.0.dev0", None, "cuda126", "cuda-runtime-not-found", python="3.10"),
    "orin-with-pypis-bnb": row(ORIN_6, "2.8.0+jp6.cu126", "0.50.2", False, "cuda126", "jetson-l4t-mismatch", python="3.10"),
    "orin-with-pypis-torch": row(ORIN_6, "2.11.0+cu126", "0.47.0.dev0", False, "cuda126", "jetson-l4t-mismatch", python="3.10"),
    "orin-jetpack-7-with-jetpack-6": row(ORIN_7, "2.8.0+jp6.cu126", "0.47.0.dev0", False, "cuda126", "jetson-l4t-mismatch", python="3.10"),
    "orin-python-3.12": row(ORIN_6, "2.8.0+jp6.cu126", "0.47.0.dev0", False, "cuda126", "python-unsupported", python="3.12"),
    "orin-without-its-l4t": row({**ORIN_6, "l4t": None}, "2.8.0+jp6.cu126", "0.47.0.dev0", None, "cuda126", "jetson-l4t-mismatch", python="3.10"),
    "xavier-with-jetpack-6": row(XAVIER, "2.8.0+jp6.cu126", "0.47.0.dev0", False, "cuda126", "jetson-l4t-mismatch", python="3.10"),
    "gh200-with-jetpack-6": row(arm("9.0"), "2.8.0+jp6.cu126", "0.47.0.dev0", False, "cuda126", "jetson-l4t-mismatch", python="3.10"),
    "arm-cpu-with-jetpack-6": row(arm(), "2.8.0+jp6.cu126", "0.47.0.dev0", False, "cuda126", "jetson-l4t-mismatch", python="3.10"),
    # -- Windows
    "windows-arm-from-nvidia": row(windows("12.1", driver="616.41", arch="aarch64"), "2.14.0+cu134", "0.50.2", True, "cuda134", python="3.13"),
    "windows-arm-bnb-0.50.0-has-none": row(windows("12.1", driver="616.41", arch="aarch64"), "2.14.0+cu134", "0.50.0", False, None, "missing-cuda-binary", python="3.13"),
    "windows-arm-driver-610": row(windows("12.1", driver="610.62", arch="aarch64"), "2.14.0+cu134", "0.50.2", False, "cuda134", "driver-too-old", python="3.13"),
    "windows-pypi": row(windows("8.9"), "2.15.0", "0.50.2", False, "cpu", "windows-cpu-torch"),
    "windows-cu130": row(windows("8.9"), "2.14.1+cu130", "0.50.2", True, "cuda130"),
    "windows-cu126-528.33": row(windows("8.9", driver="528.33"), "2.14.1+cu126", "0.50.2", True, "cuda126"),
    "windows-cu126-527.41": row(windows("8.9", driver="527.41"), "2.14.1+cu126", "0.50.2", False, "cuda126", "driver-too-old"),
    "windows-linux-floor-is-not-enough": row(windows("8.9", driver="525.60.13"), "2.14.1+cu126", "0.50.2", False, "cuda126", "driver-too-old"),
    "windows-cu130-576": row(windows("8.9", driver="576.57"), "2.14.1+cu130", "0.50.2", False, "cuda130", "driver-too-old"),
    "windows-cu130-580.88": row(windows("8.9", driver="580.88"), "2.14.1+cu130", "0.50.2", True, "cuda130"),
    "windows-cu118-452.39": row(windows("7.5", driver="452.39"), "2.7.1+cu118", "0.50.2", True, "cuda118"),
    "windows-cu118-451.82": row(windows("7.5", driver="451.82"), "2.7.1+cu118", "0.50.2", False, "cuda118", "driver-too-old"),
    "windows-pascal-582": row(windows("6.1", driver="582.28"), "2.14.1+cu126", "0.50.2", True, "cuda126"),
    "windows-pascal-591": row(windows("6.1", driver="591.44"), "2.14.1+cu126", "0.50.2", False, "cuda126", "driver-drops-gpu"),
    "windows-rtx50-572": row(windows("12.0", driver="572.61"), "2.11.0+cu128", "0.50.2", True, "cuda128"),
    "windows-rtx50-566": row(windows("12.0", driver="566.36"), "2.11.0+cu128", "0.50.2", False, "cuda128", "driver-drops-gpu"),
    "windows-rtx50-cu126": row(windows("12.0", driver="595.79"), "2.11.0+cu126", "0.50.2", False, "cuda126", "torch-arch-unsupported"),
    "windows-rtx5070ti-cu130-python-3.14": row(windows("12.0", driver="595.79"), "2.11.0+cu130", "0.50.2", True, "cuda130", python="3.14"),
    "windows-bnb-0.42": row(windows("8.9"), "2.2.2+cu121", "0.42.0", False, None, "windows-no-binary"),
    "windows-bnb-0.43": row(windows("8.9"), "2.2.2+cu121", "0.43.0", True, "cuda121"),
    "windows-bnb-0.43.1-cu124": row(windows("8.9"), "2.4.1+cu124", "0.43.1", False, None, "missing-cuda-binary"),
    "windows-bnb-0.43.2-cu124": row(windows("8.9"), "2.4.1+cu124", "0.43.2", True, "cuda124"),
    "windows-cu129-0.45.5": row(windows("12.0", driver="576.57"), "2.8.0+cu129", "0.45.5", False, None, "missing-cuda-binary"),
    "windows-cu129-0.47": row(windows("12.0", driver="576.57"), "2.8.0+cu129", "0.47.0", True, "cuda129"),
    "windows-2.6-cu126-rtx50": row(windows("12.0"), "2.6.0+cu126", "0.45.5", False, "cuda126", "torch-arch-unsupported"),
    "windows-cpu": row(windows(), "2.15.0", "0.50.2", True, "cpu"),
    "windows-needs-the-runtime": row(windows("8.9"), "2.14.1+cu126", "0.50.2", True, "cuda126", "windows-dll-load"),
    "windows-bnb-0.45.4-has-its-cpu-library": row(windows(), "2.5.1", "0.45.4", False, "cpu", "bnb-too-old"),
    "windows-arm-cpu": row(windows(arch="aarch64"), "2.15.0+cpu", "0.50.2", None, "cpu", "low-confidence"),
    "windows-arm-bnb-0.49": row(windows(arch="aarch64"), "2.14.1+cpu", "0.49.2", False, None, "no-wheel-for-platform"),
    # -- WSL2 takes the Windows driver
    "wsl-528.33": row(machine("8.9", driver="528.33", wsl=True), "2.14.1+cu126", "0.50.2", True, "cuda126"),
    "wsl-525.60.13-is-too-old": row(machine("8.9", driver="525.60.13", wsl=True), "2.14.1+cu126", "0.50.2", False, "cuda126", "driver-too-old"),
    "wsl-527.41-is-too-old": row(machine("8.9", driver="527.41", wsl=True), "2.9.1+cu128", "0.50.2", False, "cuda128", "driver-too-old"),
    "wsl-581": row(machine("8.9", driver="581.15", wsl=True), "2.15.0", "0.50.2", True, "cuda132"),
    "wsl-580.10-cu13": row(machine("8.9", driver="580.10", wsl=True), "2.15.0", "0.50.2", True, "cuda132"),
    "wsl-on-arm-590-is-too-old": row(machine("12.1", driver="590.10", wsl=True, arch="aarch64"), "2.15.0", "0.50.2", False, "cuda132", "driver-too-old"),
    "wsl-on-arm-616.41": row(machine("12.1", driver="616.41", wsl=True, arch="aarch64"), "2.15.0", "0.50.2", True, "cuda132"),
    "wsl-pascal-591": row(machine("6.1", driver="591.44", wsl=True), "2.14.1+cu126", "0.50.2", False, "cuda126", "driver-drops-gpu"),
    # -- the loader and what it finds
    "cu129-0.50-takes-the-neighbour": row(machine("8.9"), "2.8.0+cu129", "0.50.2", True, "cuda128", "cuda-fallback-warning"),
    "cu129-0.49-exact": row(machine("8.9"), "2.8.0+cu129", "0.49.2", True, "cuda129"),
    "cu132-0.49-has-none": row(machine("8.9"), "2.15.0", "0.49.2", False, None, "missing-cuda-binary"),
    "cu130-0.47-has-none": row(machine("8.9"), "2.9.1+cu130", "0.47.0", False, None, "missing-cuda-binary"),
    "cu130-0.48-exact": row(machine("8.9"), "2.9.1+cu130", "0.48.2", True, "cuda130"),
    "cu128-0.45.2-has-none": row(machine("8.9"), "2.7.1+cu128", "0.45.2", False, None, "missing-cuda-binary"),
    "cu126-0.44.1-has-none": row(machine("8.9"), "2.5.1+cu126", "0.44.1", False, None, "missing-cuda-binary"),
    "cu124-0.43.0-has-none": row(machine("8.9"), "2.4.1+cu124", "0.43.0", False, None, "missing-cuda-binary"),
    "cu117-0.46-dropped-it": row(machine("8.6"), "2.0.1+cu117", "0.46.1", False, None, "cuda-too-old-for-bnb"),
    "cu117-0.45.5": row(machine("8.6"), "2.0.1", "0.45.5", True, "cuda117"),
    "cu134-unknown-build": row(machine("8.9", driver="615.71.09"), "2.15.0+cu134", "0.50.2", None, "cuda132", "unknown-torch-build"),
    "cu122-unknown-build-0.50": row(machine("8.9"), "2.4.1+cu122", "0.50.2", None, "cuda121", "unknown-torch-build"),
    "unknown-bnb": row(machine("8.9"), "2.15.0", "0.51.0", None, None, "unknown-bnb-release"),
    "unknown-torch": row(machine("8.9"), "2.16.0+cu132", "0.50.2", None, "cuda132", "unknown-torch-build"),
    "unknown-build-of-a-toolkit-too-old-for-the-gpu": row(machine("12.0"), "2.7.2+cu124", "0.50.2", False, "cuda124", "torch-arch-unsupported"),
    "unknown-build-of-a-toolkit-that-dropped-the-gpu": row(machine("6.1"), "2.11.0+cu131", "0.50.2", False, "cuda130", "torch-arch-unsupported"),
    # -- overrides
    "override-existing": row(machine("8.9"), "2.14.1+cu126", "0.50.2", True, "cuda124", "bnb-cuda-override-wrong", env={"BNB_CUDA_VERSION": "124"}),
    "override-removed-in-0.50": row(machine("8.9"), "2.14.1+cu126", "0.50.2", False, None, "bnb-cuda-override-wrong", env={"BNB_CUDA_VERSION": "125"}),
    "override-129-removed-in-0.50": row(machine("8.9"), "2.9.1+cu128", "0.50.2", False, None, "bnb-cuda-override-wrong", env={"BNB_CUDA_VERSION": "129"}),
    "override-125-until-0.49": row(machine("8.9"), "2.9.1+cu126", "0.49.2", True, "cuda125", "bnb-cuda-override-wrong", env={"BNB_CUDA_VERSION": "125"}),
    "override-empty-0.49": row(machine("8.9"), "2.9.1+cu126", "0.49.2", True, "cuda126", env={"BNB_CUDA_VERSION": ""}),
    "override-empty-0.50": row(machine("8.9"), "2.9.1+cu126", "0.50.2", False, None, "bnb-cuda-override-wrong", env={"BNB_CUDA_VERSION": ""}),
    "override-with-a-dot": row(machine("8.9"), "2.9.1+cu126", "0.50.2", False, None, "bnb-cuda-override-wrong", env={"BNB_CUDA_VERSION": "12.6"}),
    "override-with-a-dot-0.49": row(machine("8.9"), "2.9.1+cu126", "0.49.2", False, None, "bnb-cuda-override-wrong", env={"BNB_CUDA_VERSION": "12.6"}),
    "override-same-as-torch": row(machine("8.9"), "2.9.1+cu128", "0.50.2", True, "cuda128", env={"BNB_CUDA_VERSION": "128"}),
    "override-other-major": row(machine("8.9"), "2.9.1+cu126", "0.50.2", False, "cuda118", "cuda-runtime-not-found", env={"BNB_CUDA_VERSION": "118"}),
    "override-13-on-12": row(machine("8.9"), "2.9.1+cu128", "0.50.2", False, "cuda130", "cuda-runtime-not-found", env={"BNB_CUDA_VERSION": "130"}),
    "override-rescues-cu131": row(machine("8.9", driver="590.44.01"), "2.11.0+cu131", "0.49.2", None, "cuda130", "unknown-torch-build", env={"BNB_CUDA_VERSION": "130"}),
    "cu131-0.49-has-none": row(machine("8.9", driver="590.44.01"), "2.11.0+cu131", "0.49.2", False, None, "missing-cuda-binary"),
    "override-126-on-blackwell": row(machine("12.0"), "2.9.1+cu128", "0.50.2", None, "cuda126", "relocatable-ptx-only", env={"BNB_CUDA_VERSION": "126"}),
    "override-on-a-cpu-torch": row(machine(), "2.14.1+cpu", "0.50.2", True, "cpu", env={"BNB_CUDA_VERSION": "999"}),
    "override-nonexistent-0.46": row(machine("8.9"), "2.7.1+cu126", "0.46.1", False, None, "bnb-cuda-override-wrong", env={"BNB_CUDA_VERSION": "130"}),
    "volta-override-0.43": row(machine("7.0"), "2.4.0+cu124", "0.43.3", False, None, "bnb-cuda-override-wrong", env={"BNB_CUDA_VERSION": "123"}),
    "ampere-override-0.43": row(machine("8.0"), "2.4.0+cu124", "0.43.3", True, "cuda123", env={"BNB_CUDA_VERSION": "123"}),
    "windows-override": row(windows("8.9"), "2.9.1+cu128", "0.50.2", True, "cuda126", env={"BNB_CUDA_VERSION": "126"}),
    # -- C library and C++ library
    "glibc-2.17-new-torch": row(machine("8.9", **glibc("2.17")), "2.9.1+cu126", "0.50.2", False, "cuda126", "glibc-too-old"),
    "glibc-2.17-old-torch": row(machine("8.9", **glibc("2.17")), "2.5.1+cu121", "0.50.2", False, "cuda121", "glibc-too-old"),
    "glibc-2.27-torch-2.5": row(machine("8.9", **glibc("2.27")), "2.5.1+cu121", "0.50.2", True, "cuda121"),
    "glibc-2.27-torch-2.6-cu124": row(machine("8.9", **glibc("2.27")), "2.6.0+cu124", "0.50.2", True, "cuda124"),
    "glibc-2.27-torch-2.6-cu126": row(machine("8.9", **glibc("2.27")), "2.6.0+cu126", "0.50.2", False, "cuda126", "glibc-too-old"),
    "glibc-2.27-torch-2.6-cu118": row(machine("8.6", **glibc("2.27")), "2.6.0+cu118", "0.50.2", True, "cuda118"),
    "glibc-2.27-torch-2.7-cu118": row(machine("8.6", **glibc("2.27")), "2.7.0+cu118", "0.50.2", False, "cuda118", "glibc-too-old"),
    "glibc-2.28": row(machine("8.9", **glibc("2.28")), "2.15.0", "0.50.2", True, "cuda132"),
    "glibc-2.31-cuda126-0.45.5": row(machine("8.9", **glibc("2.31")), "2.7.0+cu126", "0.45.5", False, "cuda126", "glibc-too-old"),
    "glibc-2.31-cuda124-0.45.5": row(machine("8.9", **glibc("2.31")), "2.6.0+cu124", "0.45.5", True, "cuda124"),
    "glibc-2.31-cuda126-0.46": row(machine("8.9", **glibc("2.31")), "2.7.0+cu126", "0.46.0", True, "cuda126"),
    "glibc-2.34-cuda128-0.45.5": row(machine("8.9", **glibc("2.34")), "2.7.0+cu128", "0.45.5", True, "cuda128"),
    "glibc-2.31-cpu-0.45.3": row(machine(libstdcxx="3.4.30"), "2.6.0+cpu", "0.45.3", False, "cpu", "glibc-too-old"),
    "musl": row(machine("8.9", **MUSL), "2.15.0", "0.50.2", False, "cuda132", "no-wheel-for-platform"),
    "musl-cpu": row(machine(**MUSL), "2.15.0+cpu", "0.50.2", False, "cpu", "no-wheel-for-platform"),
    "musl-0.42": row(machine("8.9", **MUSL), "2.2.2", "0.42.0", False, "cuda121", "no-wheel-for-platform"),
    # -- Python
    "python-3.14-torch-2.9": row(machine("8.9"), "2.9.1+cu128", "0.50.2", True, "cuda128", python="3.14"),
    "python-3.14-torch-2.8": row(machine("8.9"), "2.8.0+cu128", "0.50.2", False, "cuda128", "python-unsupported", python="3.14"),
    "python-3.15-torch-2.15": row(machine("8.9"), "2.15.0", "0.50.2", True, "cuda132", python="3.15"),
    "python-3.10-torch-2.15": row(machine("8.9"), "2.15.0", "0.50.2", False, "cuda132", "python-unsupported", python="3.10"),
    "python-3.9-bnb-0.49": row(machine("8.9"), "2.8.0+cu128", "0.49.2", False, "cuda128", "python-unsupported", python="3.9"),
    "python-3.9-bnb-0.48": row(machine("8.9"), "2.8.0+cu128", "0.48.2", True, "cuda128", python="3.9"),
    "python-3.8-bnb-0.46": row(machine("8.9"), "2.4.1+cu121", "0.46.1", False, "cuda121", "python-unsupported", python="3.8"),
    "python-3.12-torch-2.1": row(machine("8.6"), "2.1.2+cu121", "0.45.5", False, "cuda121", "python-unsupported", python="3.12"),
    "python-patch": row(machine("8.9"), "2.15.0", "0.50.2", True, "cuda132", python="3.12.4"),
    # -- what bitsandbytes declares, and what packages need of each other
    "torch-2.3-with-0.50": row(machine("8.6"), "2.3.1+cu121", "0.50.2", False, "cuda121", "bnb-torch-requirement"),
    "torch-2.3-with-0.49": row(machine("8.6"), "2.3.1+cu121", "0.49.2", True, "cuda121"),
    "torch-2.2-with-0.48": row(machine("8.6"), "2.2.2+cu121", "0.48.2", False, "cuda121", "bnb-torch-requirement"),
    "torch-2.1-with-0.46": row(machine("8.6"), "2.1.2+cu121", "0.46.1", False, "cuda121", "bnb-torch-requirement"),
    "triton-ops": row(machine("8.6"), "2.6.0+cu124", "0.44.1", False, "cuda124", "triton-ops-removed"),
    "triton-ops-0.45.0": row(machine("8.6"), "2.6.0+cu124", "0.45.0", False, "cuda124", "triton-ops-removed"),
    "triton-ops-0.45.1": row(machine("8.6"), "2.6.0+cu124", "0.45.1", True, "cuda124"),
    "triton-ops-torch-2.5": row(machine("8.6"), "2.5.1+cu124", "0.44.1", True, "cuda124"),
    "triton-ops-not-on-windows": row(windows("8.6"), "2.6.0+cu124", "0.44.1", True, "cuda124"),
    "triton-package": row(machine("8.6"), "2.5.1+cu124", "0.45.0", False, "cuda124", "triton-ops-removed", packages={"triton": "3.2.0"}),
    "transformers-5-old-torch": row(machine("8.6"), "2.4.1+cu121", "0.50.2", False, "cuda121", "hf-stack-version-mismatch", packages={"transformers": "5.23.0"}),
    "transformers-5-old-bnb": row(machine("8.6"), "2.9.1+cu126", "0.45.5", False, "cuda126", "bnb-too-old", packages={"transformers": "5.23.0"}),
    "trl-1.16-old-transformers": row(machine("8.6"), "2.9.1+cu126", "0.50.2", False, "cuda126", "hf-stack-version-mismatch", packages={"trl": "1.16.0", "transformers": "4.40.0"}),
    "trl-1.16-old-accelerate": row(machine("8.6"), "2.9.1+cu126", "0.50.2", False, "cuda126", "hf-stack-version-mismatch", packages={"trl": "1.16.0", "transformers": "5.23.0", "accelerate": "1.4.0"}),
    "trl-0.15-fits": row(machine("8.6"), "2.9.1+cu126", "0.50.2", True, "cuda126", packages={"trl": "0.15.2", "transformers": "4.49.0", "accelerate": "1.10.1"}),
    "transformers-5-fits": row(machine("8.6"), "2.9.1+cu126", "0.50.2", True, "cuda126", packages={"transformers": "5.23.0"}),
    "transformers-5.23-python-3.10": row(machine("8.6"), "2.9.1+cu126", "0.50.2", False, "cuda126", "python-unsupported", packages={"transformers": "5.23.0"}, python="3.10"),
    "transformers-5.20-python-3.10": row(machine("8.6"), "2.9.1+cu126", "0.50.2", True, "cuda126", packages={"transformers": "5.20.2"}, python="3.10"),
    "numpy-2-old-torch": row(machine("8.6"), "2.1.2+cu121", "0.45.5", False, "cuda121", "numpy-abi", packages={"numpy": "2.4.6"}),
    "autoawq-beside-old-peft": row(machine("8.6"), "2.8.0+cu126", "0.48.2", False, "cuda126", "quant-lib-presence", packages={"autoawq": "0.2.9", "peft": "0.17.1", "transformers": "4.57.6"}),
    # -- releases that were published broken
    "0.45.4-linux": row(machine("8.6"), "2.6.0+cu124", "0.45.4", False, "cuda124", "broken-release"),
    "0.48.0": row(machine("8.6"), "2.8.0+cu126", "0.48.0", False, "cuda126", "broken-release"),
    "0.48.1-offload": row(machine("8.6"), "2.8.0+cu126", "0.48.1", True, "cuda126", "broken-release"),
    "0.42-legacy": row(machine("8.6", driver="535.54.03"), "2.2.2+cu121", "0.42.0", True, "cuda121", "legacy-cuda-setup"),
    "0.43.1-memory": row(machine("8.6"), "2.2.2+cu121", "0.43.1", True, "cuda121", "broken-release"),
    # -- machines without a GPU
    "cpu": row(machine(), "2.15.0+cpu", "0.50.2", True, "cpu"),
    "cpu-cuda-build": row(machine(), "2.15.0", "0.50.2", True, "cuda132", "no-gpu-visible"),
    "cpu-0.45.5": row(machine(), "2.6.0+cpu", "0.45.5", False, "cpu", "bnb-too-old"),
    "cpu-0.46": row(machine(), "2.6.0+cpu", "0.46.1", True, "cpu", "broken-release"),
    "cpu-torch-on-a-gpu-machine": row(machine("8.9"), "2.14.1+cpu", "0.50.2", False, "cpu", "torch-cpu-build"),
    # -- macOS
    "mac-mps": row(MAC, "2.15.0", "0.50.2", True, UNKNOWN),
    "mac-0.48": row(MAC, "2.9.1", "0.48.2", False, None, "no-wheel-for-platform"),
    "mac-0.42": row(MAC, "2.2.2", "0.42.0", False, None, "macos-unsupported"),
    "mac-cpu": row(MAC_CPU, "2.15.0", "0.50.2", True, UNKNOWN),
    "mac-intel": row(OLD_MAC, "2.2.2", "0.50.2", False, None, "no-wheel-for-platform"),
    "mac-python-3.14": row(MAC, "2.9.1", "0.50.2", True, UNKNOWN, python="3.14"),
    # -- ROCm
    "7900xtx": row(machine("gfx1100"), "2.14.1+rocm7.14", "0.50.2", True, "rocm714"),
    "7900xtx-rocm6.4": row(machine("gfx1100"), "2.9.1+rocm6.4", "0.49.0", True, "rocm64"),
    "7900xtx-rocm6.3-0.49": row(machine("gfx1100"), "2.9.1+rocm6.3", "0.49.2", True, "rocm63"),
    "7900xtx-rocm6.3-0.50": row(machine("gfx1100"), "2.9.1+rocm6.3", "0.50.2", False, "rocm64", "rocm-fallback-abi"),
    "mi300x": row(machine("gfx942"), "2.13.0+rocm7.2", "0.50.2", True, "rocm72"),
    "mi210": row(machine("gfx90a"), "2.10.0+rocm7.1", "0.49.2", True, "rocm71"),
    "mi50": row(machine("gfx906"), "2.9.1+rocm6.3", "0.49.2", False, "rocm63", "rocm-arch-unsupported"),
    "rx9070": row(machine("gfx1201"), "2.10.0+rocm7.0", "0.50.2", True, "rocm70"),
    "rx9070-rocm63": row(machine("gfx1201"), "2.9.1+rocm6.3", "0.49.2", False, "rocm63", "rocm-arch-unsupported"),
    "rx6900": row(machine("gfx1030"), "2.14.1+rocm7.14", "0.50.2", True, "rocm714"),
    "rx6900-0.50.0-rocm72": row(machine("gfx1030"), "2.13.0+rocm7.2", "0.50.0", False, "rocm72", "rocm-arch-unsupported"),
    "rx6700-is-not-in-torch": row(machine("gfx1031"), "2.14.1+rocm7.14", "0.50.2", False, "rocm714", "torch-arch-unsupported"),
    "rx6700-taken-for-another": row(machine("gfx1031"), "2.14.1+rocm7.14", "0.50.2", None, "rocm714", "rocm-arch-unsupported", env={"HSA_OVERRIDE_GFX_VERSION": "10.3.0"}),
    "rocm-bnb-0.48": row(machine("gfx1100"), "2.9.1+rocm6.4", "0.48.2", False, None, "rocm-unsupported-bnb"),
    "rocm-bnb-0.45": row(machine("gfx1030"), "2.6.0+rocm6.2.4", "0.45.5", False, None, "rocm-unsupported-bnb"),
    "rocm-cuda-torch": row(machine("gfx1100"), "2.14.1+cu130", "0.50.2", False, UNKNOWN, "torch-cpu-build"),
    "rocm-cpu-torch": row(machine("gfx1100"), "2.14.1+cpu", "0.50.2", False, "cpu", "torch-cpu-build"),
    "rocm-10": row(machine("gfx1100"), "2.16.0+rocm10.0", "0.50.2", False, None, "rocm-hip-version-skew"),
    "rocm-7.13-takes-a-neighbour": row(machine("gfx1100"), "2.14.0+rocm7.13", "0.50.2", None, "rocm72", "rocm-fallback-abi"),
    "rocm-7.16-takes-a-neighbour": row(machine("gfx1100"), "2.16.0+rocm7.16", "0.50.2", None, "rocm715", "rocm-fallback-warning"),
    "rocm-7.13-0.49-has-none": row(machine("gfx1100"), "2.14.0+rocm7.13", "0.49.2", False, None, "rocm-hip-version-skew"),
    "rocm-override": row(machine("gfx1100"), "2.14.1+rocm7.14", "0.50.2", True, "rocm715", env={"BNB_ROCM_VERSION": "715"}),
    "rocm-override-other-major": row(machine("gfx1100"), "2.14.1+rocm7.14", "0.50.2", False, "rocm64", "rocm-hip-version-skew", env={"BNB_ROCM_VERSION": "64"}),
    "rocm-override-nothing": row(machine("gfx1100"), "2.14.1+rocm7.14", "0.50.2", False, None, "bnb-cuda-override-wrong", env={"BNB_ROCM_VERSION": "80"}),
    "rocm-cuda-override-0.49": row(machine("gfx1100"), "2.9.1+rocm6.4", "0.49.2", False, None, "bnb-cuda-override-wrong", env={"BNB_CUDA_VERSION": "126"}),
    "rocm-cuda-override-0.50": row(machine("gfx1100"), "2.9.1+rocm6.4", "0.50.2", True, "rocm64", env={"BNB_CUDA_VERSION": "126"}),
    "card-beside-processor-graphics": row(machine("gfx1100", "gfx1036"), "2.13.0+rocm7.2", "0.50.2", True, "rocm72", "torch-arch-unsupported"),
    "two-cards-one-unserved": row(machine("gfx1100", "gfx1031"), "2.13.0+rocm7.2", "0.50.2", False, "rocm72", "torch-arch-unsupported"),
    "two-cards-one-by-an-unknown-uuid": row(machine("gfx1100", "gfx1031"), "2.13.0+rocm7.2", "0.50.2", None, "rocm72", "torch-arch-unsupported", env={"ROCR_VISIBLE_DEVICES": "GPU-1234"}),
    "two-cards-one-hidden": row(machine("gfx1100", "gfx1031"), "2.13.0+rocm7.2", "0.50.2", True, "rocm72", env={"HIP_VISIBLE_DEVICES": "0"}),
    "strix-halo": row(machine("gfx1151"), "2.14.1+rocm7.14", "0.50.2", True, "rocm714"),
    "windows-rocm-is-not-in-the-matrix": row(machine("gfx1100", os="windows"), "2.14.1+rocm7.2", "0.50.2", None, "rocm72", "unknown-torch-build"),
    # -- XPU
    "xpu": row(XPU, "2.14.1+xpu", "0.50.2", True, "xpu2026"),
    "xpu-2025": row(XPU, "2.9.1+xpu", "0.50.2", True, "xpu2025"),
    "xpu-0.50.0": row(XPU, "2.9.1+xpu", "0.50.0", False, "xpu2025", "broken-release"),
    "xpu-0.49": row(XPU, "2.9.1+xpu", "0.49.2", True, "xpu"),
    "xpu-0.49-runtime": row(XPU, "2.14.1+xpu", "0.49.2", False, "xpu", "xpu-library-missing"),
    "xpu-0.49-windows": row({**XPU, "os": "windows", "libc": None}, "2.14.1+xpu", "0.49.2", False, "xpu", "xpu-library-missing"),
    "xpu-0.47": row(XPU, "2.8.0+xpu", "0.47.0", False, None, "xpu-library-missing"),
    "xpu-glibc": row({**XPU, **glibc("2.31")}, "2.9.1+xpu", "0.50.2", False, "xpu2025", "glibc-too-old"),
    "xpu-cuda-torch": row(XPU, "2.14.1+cu130", "0.50.2", False, UNKNOWN, "torch-cpu-build"),
    # -- several GPUs, and what is visible
    "two-alike": row(machine("8.9", "8.6"), "2.15.0", "0.50.2", True, "cuda132"),
    "pascal-beside-ada-cu130": row(machine("6.1", "8.9"), "2.14.1+cu130", "0.50.2", False, "cuda130", "torch-arch-unsupported"),
    "pascal-beside-ada-cu126": row(machine("6.1", "8.9"), "2.14.1+cu126", "0.50.2", True, "cuda126"),
    "pascal-hidden": row(HIDDEN, "2.14.1+cu130", "0.50.2", True, "cuda130"),
    "pascal-masked": row(machine("6.1", "8.9"), "2.14.1+cu130", "0.50.2", True, "cuda130", env={**BY_BUS, "CUDA_VISIBLE_DEVICES": "1"}),
    "masked-by-a-number-of-unknown-order": row(machine("6.1", "8.9"), "2.14.1+cu130", "0.50.2", None, "cuda130", "torch-arch-unsupported", env={"CUDA_VISIBLE_DEVICES": "1"}),
    "masked-by-an-unknown-uuid": row(machine("6.1", "8.9"), "2.14.1+cu130", "0.50.2", None, "cuda130", "torch-arch-unsupported", env={"CUDA_VISIBLE_DEVICES": "GPU-1234"}),
    "one-of-two-that-nothing-serves": row(machine("6.1", "7.0"), "2.14.1+cu130", "0.50.2", False, "cuda130", "torch-arch-unsupported", env={"CUDA_VISIBLE_DEVICES": "1"}),
    "one-of-two-that-are-served": row(machine("8.6", "8.9"), "2.14.1+cu130", "0.50.2", True, "cuda130", env={"CUDA_VISIBLE_DEVICES": "1"}),
    "the-only-one-by-an-unknown-uuid": row(machine("8.9"), "2.14.1+cu130", "0.50.2", True, "cuda130", env={"CUDA_VISIBLE_DEVICES": "GPU-1234"}),
    "named-twice": row(machine("6.1", "8.9"), "2.14.1+cu130", "0.50.2", False, UNKNOWN, "no-gpu-visible", env={**BY_BUS, "CUDA_VISIBLE_DEVICES": "1,1"}),
    "the-wrong-one-masked": row(machine("6.1", "8.9"), "2.14.1+cu130", "0.50.2", False, "cuda130", "torch-arch-unsupported", env={**BY_BUS, "CUDA_VISIBLE_DEVICES": "0"}),
    "hidden-one-asked-for": row(HIDDEN, "2.14.1+cu130", "0.50.2", False, "cuda130", "torch-arch-unsupported", env={"CUDA_VISIBLE_DEVICES": "0,1"}),
    "all-masked": row(machine("8.9"), "2.14.1+cu130", "0.50.2", False, UNKNOWN, "no-gpu-visible", env={"CUDA_VISIBLE_DEVICES": ""}),
    "minus-one": row(machine("8.9"), "2.14.1+cu130", "0.50.2", False, UNKNOWN, "no-gpu-visible", env={"CUDA_VISIBLE_DEVICES": "-1"}),
    "volta-beside-blackwell": row(machine("7.0", "12.0"), "2.10.0+cu128", "0.50.2", True, "cuda128"),
    "volta-beside-blackwell-2.11": row(machine("7.0", "12.0"), "2.11.0+cu128", "0.50.2", False, "cuda128", "torch-arch-unsupported"),
    "pascal-beside-blackwell": row(machine("6.1", "12.0"), "2.10.0+cu128", "0.50.2", False, "cuda128", "torch-arch-unsupported"),
    "maxwell-beside-ada-says-which-to-show": row(machine("5.2", "8.9"), "2.5.1+cu124", "0.48.2", False, "cuda124", "no-kernel-image"),
    "turing-beside-pascal-0.42": row(machine("7.5", "6.1"), "2.1.2+cu118", "0.42.0", False, "cuda118", "no-kernel-image"),
    "maxwell-beside-ada": row(machine("5.2", "8.9"), "2.5.1+cu124", "0.50.2", False, "cuda124", "no-kernel-image"),
    # -- facts that are missing
    "no-driver-known": row(machine("8.9", driver=None), "2.14.1+cu130", "0.50.2", None, "cuda130", "driver-too-old"),
    "gpu-unknown": row(machine("8.9", gpus=[{"name": "NVIDIA Mystery"}]), "2.14.1+cu130", "0.50.2", None, "cuda130", "unknown-gpu"),
    "no-gpus-told": row(machine("8.9", gpus=[]), "2.14.1+cu130", "0.50.2", None, "cuda130", "unknown-gpu"),
    # -- the purpose
    "int8-on-pascal": row(machine("6.1"), "2.14.1+cu126", "0.50.2", False, "cuda126", "gpu-cc-too-low-int8", profile="int8"),
    "int8-on-volta": row(machine("7.0"), "2.14.1+cu126", "0.50.2", False, "cuda126", "gpu-cc-too-low-int8", profile="int8"),
    "int8-on-turing": row(machine("7.5"), "2.14.1+cu126", "0.50.2", True, "cuda126", profile="int8"),
    "int8-on-hopper-0.44": row(machine("9.0"), "2.5.1+cu124", "0.44.1", False, "cuda124", "bnb-too-old", profile="int8"),
    "int8-on-hopper-0.45.5": row(machine("9.0"), "2.5.1+cu124", "0.45.5", True, "cuda124", profile="int8"),
    "bf16-on-turing": row(machine("7.5"), "2.14.1+cu126", "0.50.2", True, "cuda126", "slow-emulation"),
    "four-bits-before-0.39": row(machine("8.6"), "2.0.1+cu118", "0.38.1", False, "cuda118", "bnb-too-old", profile="qlora"),
    "gptq-without-a-gpu": row(machine(), "2.15.0+cpu", "0.50.2", False, "cpu", "no-gpu-visible", profile="gptq"),
    "another-set-than-was-proven": row(machine("8.9"), "2.4.1+cu121", "0.50.2", False, "cuda121", "hf-stack-version-mismatch", packages=NEWEST_SET),
    "ld-library-path": row(machine("8.9"), "2.14.1+cu126", "0.50.2", True, "cuda126", "cuda-conflict-ldpath", env={"LD_LIBRARY_PATH": "/usr/local/cuda-11.8/lib64"}),
    "nvjitlink-13": row(machine("8.6"), "2.9.1+cu130", "0.49.2", True, "cuda130", "cuda-runtime-not-found"),
    "scipy": row(machine("8.6", driver="535.54.03"), "2.0.1", "0.41.3", True, "cuda117", "missing-python-dep"),
    "cusparse-11": row(machine("8.6"), "2.5.1+cu118", "0.45.5", True, "cuda118", "cuda-runtime-not-found"),
}  # fmt: skip


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_answer(question: Row) -> None:
    described, torch, bnb, works, library, code, more = question
    target = target_from_dict(described)
    asked = Combination(torch=torch, bitsandbytes=bnb, **{"profile": "qlora", **more})
    answer = check(asked, target, facts())
    findings = answer.judgement.findings
    told = [(found.code, found.severity, found.undecided, found.summary) for found in findings]
    assert answer.judgement.works is works, told
    if library != UNKNOWN:
        ending = {"linux": ".so", "windows": ".dll", "macos": ".dylib"}[target.os]
        assert answer.library == (library and f"libbitsandbytes_{library}{ending}"), told
    if code is not None:
        grave = [name for name, severity, _, _ in told if works is not False or severity == "error"]
        assert code in grave, told


# No question asks for a profile without its bitsandbytes; tests of the rules do, and of the package `kernels`.
ELSEWHERE = frozenset({"profile-has-bitsandbytes", "import-asks-no-hub"})


def test_every_rule_answers_some_question() -> None:
    silent = {rule.name for rule in RULES} - ELSEWHERE
    for described, torch, bnb, _, _, _, more in QUESTIONS.values():
        target = target_from_dict(described)
        stack = named_stack(
            Combination(torch=torch, bitsandbytes=bnb, **{"profile": "qlora", **more}), target, facts()
        )
        silent -= {rule.name for rule in RULES if rule.name in silent and rule(stack, target, facts())}
    assert silent == set()
    assert all(rule.source for rule in RULES)


def test_there_are_enough() -> None:
    assert len(QUESTIONS) >= 150
