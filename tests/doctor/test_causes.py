"""Every cause of the one list: an environment and a machine on which doctor tells it, or why it cannot."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.machine.host import Host
from bnbenv.machine.target import Gpu, Libc, Target
from bnbenv.matrix.load import load
from bnbenv.units import DottedVersion
from bnbenv.workflows.doctor import examine
from support.judge_facts import amd, target
from support.sites import PACKAGES, PYTHON, add, located, make_site, site_of
from support.voice import Listener

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parents[1]
CAUSES = tuple(row.id for row in load("causes").causes)

CPU = target(pythons=(PYTHON,))
CARD = target("8.9", driver="580.95.05", pythons=(PYTHON,))
RADEON = target(amd("gfx942"), accelerator="rocm", driver=None, pythons=(PYTHON,))
INTEL = replace(CPU, accelerator="xpu", gpus=(Gpu(name="an Intel GPU"),))
CU118: dict[str, Any] = {"torch": "2.7.1+cu118", "cuda": "11.8"}
CU126: dict[str, Any] = {"torch": "2.9.1+cu126", "cuda": "12.6"}
CU128: dict[str, Any] = {"torch": "2.9.1+cu128", "cuda": "12.8"}
CU130: dict[str, Any] = {"torch": "2.13.0+cu130", "cuda": "13.0"}

# Told where the environment leaves no trace on disk or in the machine.
NO_TRACE = {
    "base-torch-unsuitable": "a verdict on a base before anything is built upon it",
    "externally-managed": "an installer that refused has installed nothing",
    "index-unavailable": "about an index that cannot be reached, never about what is installed",
    "kernel-crash": "a process that has died; `doctor --verify` runs it, and tells `wrong-result`",
    "lock-disagrees": "about files of a team's lock, which `lock --check` reads",
    "oom-4bit-load": "a moment of a run; its log tells",
    "oom-training": "a moment of a run; its log tells",
    "package-name-typo": "an installer that found nothing has installed nothing",
    "release-yanked": "an index tells; the installed files are the same",
    "torch-cuda-unavailable": "the parent of three causes that are told by themselves",
    "unknown": "the answer to a text that determines nothing",
    "user-check-invalid": "a program of the user's that asks for what never was",
    "windows-memory-spill": "how full a GPU is at a moment of a run",
}

# Told in tests of their own, beside what surrounds an environment or what it remembers.
TESTED = {
    "base-changed": "workflows/test_doctor.py::test_the_base_changed",
    "cuda-conflict-ldpath": "workflows/test_doctor.py::test_directories_that_hide_torchs_libraries",
    "cwd-shadowing": "workflows/test_doctor.py::test_a_directory_that_hides_a_package",
    "driver-broken": "workflows/test_doctor.py::test_the_gpu_is_gone",
    "driver-changed": "workflows/test_doctor.py::test_the_driver_changed",
    "emulated-interpreter": "workflows/test_doctor.py::test_an_interpreter_that_is_not_native",
    "environment-changed": "workflows/test_doctor.py::test_packages_left_the_lock",
    "environment-leak": "workflows/test_doctor.py::test_another_environment_on_the_import_path",
    "gpu-changed": "workflows/test_doctor.py::test_the_gpu_changed",
    "installer-replaced-torch": "workflows/test_doctor.py::test_torch_was_replaced",
    "lock-stale": "workflows/test_sync.py::test_doctor_tells_what_differs_from_the_lock",
    "no-gpu-visible": "workflows/test_doctor.py::test_the_gpu_is_gone",
    "stale-runtime": "doctor/test_running.py::test_a_process_that_holds_what_was_replaced",
    "state-broken": "workflows/test_doctor.py::test_a_state_that_cannot_be_read",
    "windows-environment": "workflows/test_doctor.py::test_an_environment_of_windows",
    "wrong-env-install": "workflows/test_doctor.py::test_pip_that_installs_elsewhere",
    "wrong-result": "workflows/test_doctor.py::test_the_self_test_had_failed",
}
# Told of files that are planted one by one there.
FAULTS = frozenset(
    {
        "bnb-not-installed",
        "duplicate-package",
        "environment-moved",
        "file-damaged",
        "interpreter-broken",
        "record-missing",
        "source-build-no-native-lib",
        "stale-library",
        "torch-not-installed",
    }
)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An environment on a machine.

    Attributes:
        site: what `make_site` is given.
        machine: where it is looked at.
        plant: what is done to it before.
        environ: variables of the process.
    """

    site: dict[str, Any] = field(default_factory=dict)
    machine: Target = CPU
    plant: Callable[[Path], object] = lambda _: None
    environ: dict[str, str] = field(default_factory=dict)


def _on(system: str, *gpus: str, **more: Any) -> Target:
    return target(*gpus, os=system, pythons=(PYTHON,), **more)


def _glibc(text: str) -> Libc:
    return Libc(family="glibc", version=DottedVersion.parse(text))


def _hip(version: str, hip: str, bitsandbytes: str = "0.50.2") -> dict[str, Any]:
    return {"torch": f"{version}+rocm{hip}", "hip": f"{hip}.0", "bitsandbytes": bitsandbytes}


def _needs(name: str, version: str, *requires: str) -> Callable[[Path], object]:
    """Install a package with these requirements."""
    module = name.replace("-", "_")
    return lambda e: add(site_of(e), name, version, {f"{module}/__init__.py": b""}, requires=requires)


def _without(*names: str) -> dict[str, Any]:
    return {"packages": {key: value for key, value in PACKAGES.items() if key not in names}}


SCENES: dict[str, Scene] = {
    "bnb-cuda-override-wrong": Scene(site=CU130, machine=CARD, environ={"BNB_CUDA_VERSION": "125"}),
    "bnb-too-old": Scene(site={"bitsandbytes": "0.45.5"}),
    "bnb-torch-requirement": Scene(site={"torch": "2.0.1+cpu"}),
    "broken-release": Scene(site={"bitsandbytes": "0.45.4"}),
    "cuda-fallback-warning": Scene(site={"torch": "2.9.1+cu129", "cuda": "12.9"}, machine=CARD),
    "cuda-runtime-not-found": Scene(
        site={**CU128, "torch_requires": ("nvidia-cublas-cu12==12.8.4.1",)}, machine=CARD
    ),
    "cuda-too-old-for-bnb": Scene(
        site={"torch": "2.0.1+cu117", "cuda": "11.7", "bitsandbytes": "0.49.2"}, machine=CARD
    ),
    "driver-drops-gpu": Scene(site=CU126, machine=target("6.1", driver="590.44.01", pythons=(PYTHON,))),
    "driver-too-old": Scene(site=CU130, machine=target("8.9", driver="535.104.05", pythons=(PYTHON,))),
    "glibc-too-old": Scene(machine=replace(CPU, libc=_glibc("2.17"))),
    "gpu-below-minimum": Scene(site=CU128, machine=target("3.0", driver="470.57.02", pythons=(PYTHON,))),
    "gpu-cc-too-low-int8": Scene(site=CU126, machine=target("7.0", pythons=(PYTHON,))),
    "hf-stack-version-mismatch": Scene(
        site=_without("transformers"), plant=_needs("transformers", "5.23.0", "tokenizers<0.20")
    ),
    "hub-at-import": Scene(
        site={"packages": {**PACKAGES, "kernels": "0.12.0"}},
        machine=replace(CPU, cpu_flags=frozenset({"avx512_bf16", "avx512f"})),
    ),
    "jetson-l4t-mismatch": Scene(
        site=CU126, machine=target("8.7", arch="aarch64", tegra=True, l4t="36.4.3", pythons=(PYTHON,))
    ),
    "known-fault": Scene(machine=replace(CPU, cpu_flags=frozenset({"avx512f", "avx512_bf16", "avx512bw"}))),
    "legacy-cuda-setup": Scene(site={"bitsandbytes": "0.42.0"}),
    "low-confidence": Scene(site={"torch": "2.15.0+cu130", "cuda": "13.0"}, machine=CARD),
    "macos-unsupported": Scene(
        site={"torch": "2.13.0", "bitsandbytes": "0.42.0"},
        machine=_on("macos", arch="aarch64", accelerator="mps"),
    ),
    "missing-cuda-binary": Scene(site={**CU130, "bitsandbytes": "0.46.1"}, machine=CARD),
    "missing-python-dep": Scene(site=_without("numpy", "trl"), plant=_needs("trl", "1.14.2", "numpy>=1")),
    "mixed-gpu-arch": Scene(site=CU130, machine=target("8.9", "6.1", pythons=(PYTHON,))),
    "no-kernel-image": Scene(
        site={"torch": "2.9.1+cu129", "cuda": "12.9"}, machine=target("5.0", pythons=(PYTHON,))
    ),
    "no-wheel-for-platform": Scene(
        machine=replace(CPU, libc=Libc(family="musl", version=DottedVersion.parse("1.2.4")))
    ),
    "numpy-abi": Scene(site={"torch": "2.2.2+cpu", "bitsandbytes": "0.48.2"}),
    "python-unsupported": Scene(site={"python": "3.8"}),
    "quant-ext-torch-abi": Scene(
        site={"packages": {**PACKAGES, "flash-attn": "2.5.8+cu122torch2.3cxx11abiFALSE"}}
    ),
    "quant-lib-conflict": Scene(plant=_needs("gptqmodel", "7.0.0", "transformers<5")),
    "quant-lib-presence": Scene(site={"packages": {**PACKAGES, "torchao": "0.14.0"}}),
    "relocatable-ptx-only": Scene(site=CU126, machine=target("12.0", pythons=(PYTHON,))),
    "requirement-unmet": Scene(site=_without("trl"), plant=_needs("trl", "1.14.2", "numpy<2")),
    "rocm-arch-unsupported": Scene(site=_hip("2.9.1", "6.4"), machine=replace(RADEON, gpus=(amd("gfx803"),))),
    "rocm-broken-preview": Scene(site={"bitsandbytes": "1.33.7rc0"}),
    "rocm-fallback-abi": Scene(site=_hip("2.9.1", "6.3"), machine=RADEON),
    "rocm-fallback-warning": Scene(site=_hip("2.16.0", "7.16"), machine=RADEON),
    "rocm-hip-version-skew": Scene(site=_hip("2.16.0", "8.0"), machine=RADEON),
    "rocm-unsupported-bnb": Scene(site=_hip("2.9.1", "6.4", "0.48.2"), machine=RADEON),
    "slow-emulation": Scene(site=CU130, machine=target("7.5", pythons=(PYTHON,))),
    "torch-arch-unsupported": Scene(site=CU126, machine=target("12.0", pythons=(PYTHON,))),
    "torch-cpu-build": Scene(machine=CARD),
    "torch-triton-mismatch": Scene(site={**CU128, "torch_requires": ("triton==3.5.1",)}, machine=CARD),
    "triton-ops-removed": Scene(
        site={**CU128, "bitsandbytes": "0.44.1", "packages": {**PACKAGES, "triton": "3.5.1"}}, machine=CARD
    ),
    "unknown-bnb-release": Scene(site={"bitsandbytes": "99.0"}),
    "unknown-gpu": Scene(site=CU130, machine=replace(CARD, gpus=(Gpu(name="a card of tomorrow"),))),
    "unknown-torch-build": Scene(site={"torch": "99.0+cu130", "cuda": "13.0"}, machine=CARD),
    "windows-cpu-torch": Scene(site={"torch": "2.13.0"}, machine=_on("windows", "8.9")),
    "windows-dll-load": Scene(site=CU130, machine=_on("windows", "8.9")),
    "windows-no-binary": Scene(site={"bitsandbytes": "0.42.0"}, machine=_on("windows")),
    "wsl-libcuda": Scene(site={**CU118, "bitsandbytes": "0.42.0"}, machine=replace(CARD, wsl=True)),
    "xpu-library-missing": Scene(
        site={"torch": "2.9.1+xpu", "xpu": "20250201", "bitsandbytes": "0.45.5"}, machine=INTEL
    ),
}


def codes(scene: Scene, root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The codes that doctor tells of it, with their severities."""
    environment = make_site(root / "env", **scene.site)
    scene.plant(environment)
    state: Any = "ok" if scene.machine.gpus else "absent"
    host = Host(target=scene.machine, driver_state=state, facts=())
    monkeypatch.setattr("bnbenv.machine.probe.probe", lambda **_: host)
    (root / "home").mkdir()
    environ = {"HOME": str(root / "home"), "PATH": "", **scene.environ}
    examined = examine(located(environment), Listener(), environ)
    return {found.code: found.severity for found in examined.findings}


@pytest.mark.parametrize("cause", SCENES)
def test_the_cause_is_told(cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cause in codes(SCENES[cause], tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "scene",
    [
        Scene(),
        Scene(site=CU130, machine=CARD),
        Scene(site={"torch": "2.13.0", "cuda": "13.0"}, machine=CARD),
        Scene(site=_hip("2.11.0", "7.2"), machine=RADEON),
    ],
    ids=["cpu", "cuda", "pypi", "rocm"],
)
def test_nothing_is_told_of_what_fits(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = codes(scene, tmp_path, monkeypatch)
    assert set(told) - {"known-fault"} == set(), "every release has a listed fault, which is a notice"
    assert told.get("known-fault", "info") == "info"


@pytest.mark.parametrize(
    ("packages", "told"),
    [
        pytest.param({"triton": "3.2.0"}, True, id="old"),
        pytest.param({"triton": "3.2.0", "setuptools": "80.9.0"}, False, id="old-with-it"),
        pytest.param({"triton": "3.3.0"}, False, id="declares-it"),
        pytest.param({}, False, id="no-triton"),
    ],
)
def test_what_old_tritons_import_without_declaring_it(
    packages: dict[str, str], told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(site={**CU126, "packages": {**PACKAGES, **packages}}, machine=CARD)
    assert ("missing-python-dep" in codes(scene, tmp_path, monkeypatch)) is told


def test_no_cause_is_forgotten() -> None:
    tables = [set(NO_TRACE), set(TESTED), set(FAULTS), set(SCENES)]
    assert set().union(*tables) == set(CAUSES)
    assert sum(map(len, tables)) == len(CAUSES), "a cause stands in two tables"


@pytest.mark.parametrize("cause", TESTED)
def test_the_named_test_is_there(cause: str) -> None:
    file, _, name = TESTED[cause].partition("::")
    tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
    [function] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    texts = {
        node.value
        for part in (function, *function.decorator_list)
        for node in ast.walk(part)
        if isinstance(node, ast.Constant)
    }
    assert cause in texts, f"{TESTED[cause]} does not name {cause}"


def test_every_planted_fault_is_of_that_test() -> None:
    text = (HERE / "workflows" / "test_doctor.py").read_text(encoding="utf-8")
    [table] = [
        node.value
        for node in ast.parse(text).body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "FAULTS"
    ]
    planted = {node.value for node in ast.walk(table) if isinstance(node, ast.Constant)} if table else set()
    assert planted >= FAULTS
