from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from bnbenv.errors import UsageError
from bnbenv.machine.target import Gpu, Target
from bnbenv.units import ComputeCapability
from bnbenv.workflows.example import TEMPLATES, example, settings_for

if TYPE_CHECKING:
    from bnbenv.machine.target import Accelerator, OsName


def target(
    *gpus: Gpu, accelerator: Accelerator = "cuda", os: OsName = "linux", tegra: bool = False
) -> Target:
    return Target(name="lab", os=os, arch="x86_64", accelerator=accelerator, gpus=gpus, tegra=tegra)


def nvidia(capability: str, *, visible: bool | None = None) -> Gpu:
    return Gpu(
        name=f"GPU {capability}", compute_capability=ComputeCapability.parse(capability), visible=visible
    )


@pytest.mark.parametrize(
    ("machine", "dtype", "optimiser"),
    [
        (target(nvidia("7.5")), "float16", "paged_adamw_8bit"),
        (target(nvidia("8.0")), "bfloat16", "paged_adamw_8bit"),
        (target(nvidia("9.0"), nvidia("6.1")), "float16", "paged_adamw_8bit"),
        (target(nvidia("9.0"), nvidia("6.1", visible=False)), "bfloat16", "paged_adamw_8bit"),
        (target(nvidia("8.9"), os="windows"), "bfloat16", "adamw_8bit"),
        (target(nvidia("8.7"), tegra=True), "bfloat16", "adamw_8bit"),
        (target(Gpu(name="unknown")), "float16", "paged_adamw_8bit"),
        (target(Gpu(name="MI300", gfx="gfx942"), accelerator="rocm"), "bfloat16", "adamw_8bit"),
        (target(Gpu(name="Radeon VII", gfx="gfx906"), accelerator="rocm"), "float16", "adamw_8bit"),
        (target(Gpu(name="Arc"), accelerator="xpu"), "bfloat16", "adamw_8bit"),
        (target(accelerator="mps", os="macos"), "float16", "adamw_torch"),
        (target(accelerator="cpu"), "float32", "adamw_8bit"),
    ],
    ids=["t4", "a100", "mixed", "hidden", "windows", "orin", "unknown", "cdna", "gcn", "xpu", "mps", "cpu"],
)
def test_the_machine_decides(machine: Target, dtype: str, optimiser: str) -> None:
    chosen = settings_for(machine)
    assert (chosen.dtype, chosen.optimiser) == (dtype, optimiser)


@pytest.mark.parametrize("profile", TEMPLATES)
@pytest.mark.parametrize(
    "machine", [target(nvidia("7.5")), target(nvidia("9.0")), target(accelerator="cpu")], ids=str
)
def test_every_script_is_python_without_gaps(profile: str, machine: Target) -> None:
    script = example(profile, machine)
    ast.parse(script)
    assert "$" not in script
    assert max(len(line) for line in script.splitlines()) <= 130


def keywords(script: str, function: str) -> dict[str, object]:
    for node in ast.walk(ast.parse(script)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
            return {
                keyword.arg: keyword.value.value
                for keyword in node.keywords
                if keyword.arg and isinstance(keyword.value, ast.Constant)
            }
    raise AssertionError(f"{function} is not called")


@pytest.mark.parametrize(
    ("machine", "bf16", "fp16"),
    [
        (target(nvidia("7.5")), False, True),
        (target(nvidia("8.9")), True, False),
        (target(accelerator="cpu"), False, False),
    ],
    ids=["t4", "ada", "cpu"],
)
def test_bf16_is_never_left_to_trl(machine: Target, bf16: bool, fp16: bool) -> None:
    given = keywords(example("qlora", machine), "SFTConfig")
    assert (given["bf16"], given["fp16"]) == (bf16, fp16)


def test_the_processor_can_be_asked_for() -> None:
    assert keywords(example("qlora", target(nvidia("8.9")), cpu=True), "SFTConfig")["use_cpu"] is True


def test_what_cannot_run_is_said() -> None:
    with pytest.raises(UsageError, match="no example for `gptq`"):
        example("gptq", target())
    with pytest.raises(UsageError, match=r"needs compute capability 7\.5"):
        example("int8", target(nvidia("6.1")))
