from __future__ import annotations

from typing import Any

import pytest

from bnbenv.dataclass import replace
from bnbenv.errors import UsageError
from bnbenv.machine.described import describe
from bnbenv.machine.target import Gpu, Target
from bnbenv.units import ComputeCapability, DriverVersion

PRODUCTS = {
    "RTX 4090": Gpu(name="NVIDIA GeForce RTX 4090", compute_capability=ComputeCapability(8, 9)),
    "RX 7900 XTX": Gpu(name="AMD Radeon RX 7900 XTX", gfx="gfx1100"),
    "Arc A770": Gpu(name="Intel Arc A770", pci_id="8086:56a0"),
}


def find_gpu(text: str) -> Gpu:
    if text not in PRODUCTS:
        raise UsageError(f"no GPU is called `{text}`", code="bad-target")
    return PRODUCTS[text]


def build(**given: Any) -> Target:
    options: dict[str, Any] = {
        "name": "lab-a",
        "gpus": (),
        "driver": None,
        "os": "linux",
        "arch": "x86_64",
        "glibc": None,
        "pythons": (),
        "wsl": False,
    }
    return describe(**(options | given), find_gpu=find_gpu)


@pytest.mark.parametrize(
    ("text", "accelerator", "kind"),
    [
        ("RTX 4090", "cuda", "8.9"),
        ("6.1", "cuda", "6.1"),
        ("sm_120", "cuda", "12.0"),
        ("SM89", "cuda", "8.9"),
        ("gfx1100", "rocm", "gfx1100"),
        ("GFX90a", "rocm", "gfx90a"),
        ("gfx90a:sramecc+:xnack-", "rocm", "gfx90a"),
        ("RX 7900 XTX", "rocm", "gfx1100"),
        ("Arc A770", "xpu", "None"),
        ("xpu", "xpu", "None"),
        ("Intel Arc B580", "xpu", "None"),
        ("A770", "xpu", "None"),
        ("B580", "xpu", "None"),
        ("Intel Data Center GPU Max 1100", "xpu", "None"),
        ("Max 1550", "xpu", "None"),
    ],
)
def test_a_gpu_by_name_or_number(text: str, accelerator: str, kind: str) -> None:
    target = build(gpus=[text])
    (gpu,) = target.gpus
    assert target.accelerator == accelerator
    assert str(gpu.compute_capability or gpu.gfx) == kind
    assert gpu.name
    assert gpu.index == 0


@pytest.mark.parametrize(
    ("text", "number"),
    [("2x RTX 4090", 2), ("2 x RTX 4090", 2), ("8xRTX 4090", 8), ("RTX 4090 x2", 2), ("RTX 4090 \u00d74", 4)],
)
def test_a_number_of_gpus(text: str, number: int) -> None:
    gpus = build(gpus=[text]).gpus
    assert [gpu.index for gpu in gpus] == list(range(number))
    assert {gpu.name for gpu in gpus} == {"NVIDIA GeForce RTX 4090"}


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        ("550", "550"),
        ("572.16", "572.16"),
        ("R550", "550"),
        ("v560.94", "560.94"),
        ("570.xx", "570"),
        ("nvidia-driver-550-server", "550"),
        ("31.0.15.3623", "536.23"),
        ("32.0.15.6094", "560.94"),
    ],
)
def test_a_driver_as_people_and_windows_write_it(text: str, driver: str) -> None:
    assert build(gpus=["8.9"], driver=text).driver == DriverVersion.parse(driver)


def test_a_driver_of_intel_keeps_its_number() -> None:
    assert build(gpus=["xpu"], driver="32.0.101.6127").driver == DriverVersion.parse("32.0.101.6127")


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ({"gpus": ["8.9"], "driver": "12.4"}, "`Driver Version`"),
        ({"gpus": ["none"]}, "leave `--gpu` out"),
        ({"gpus": ["M2 Max"]}, "--os macos --arch aarch64"),
    ],
    ids=str,
)
def test_what_was_meant_is_named(given: dict[str, Any], hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(**given)
    assert hint in (caught.value.hint or "")


def test_a_machine_in_a_line() -> None:
    machine = build(gpus=["RTX 4090", "6.1"], driver="550")
    assert str(machine) == (
        "lab-a: linux x86_64, NVIDIA GeForce RTX 4090 (8.9) + GPU of compute capability 6.1, driver 550"
    )
    hidden = replace(machine, gpus=tuple(replace(gpu, visible=False) for gpu in machine.gpus), driver=None)
    assert str(hidden) == "lab-a: linux x86_64, 2 GPUs, hidden from this process"
    assert str(build()) == "lab-a: linux x86_64, no GPU"
    assert str(build(os="macos", arch="aarch64")) == "lab-a: macos aarch64, an Apple chip"


def test_several_gpus_of_one_vendor_keep_their_order() -> None:
    target = build(gpus=["RTX 4090", "6.1"], driver="550", glibc="2.35", pythons=["3.12", "3.9.1"])
    assert [(gpu.index, str(gpu.compute_capability)) for gpu in target.gpus] == [(0, "8.9"), (1, "6.1")]
    assert target.driver == DriverVersion.parse("550")
    assert target.pythons == ("3.9", "3.12")
    assert target.libc is not None
    assert (target.libc.family, str(target.libc.version)) == ("glibc", "2.35")


def test_without_a_gpu_it_is_a_cpu_machine_or_a_mac() -> None:
    assert build().accelerator == "cpu"
    assert build(os="macos", arch="aarch64").accelerator == "mps"
    assert build(os="macos").accelerator == "cpu"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gpus": ["RTX 4090", "gfx1100"]}, "different vendors"),
        ({"gpus": ["GTX 9999"]}, "GTX 9999"),
        ({"driver": "550"}, "without a GPU"),
        ({"gpus": ["8.9"], "driver": "new"}, "--driver"),
        ({"gpus": ["8.9"], "glibc": "old"}, "--glibc"),
        ({"os": "windows", "glibc": "2.35"}, "--glibc"),
        ({"os": "windows", "wsl": True}, "WSL2"),
        ({"os": "macos", "gpus": ["8.9"]}, "macOS"),
        ({"pythons": ["three"]}, "--python"),
    ],
    ids=str,
)
def test_options_that_contradict_or_cannot_be_read(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        build(**given)
    assert caught.value.code == "bad-target"
