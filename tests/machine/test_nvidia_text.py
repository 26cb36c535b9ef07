from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnbenv.machine.nvidia_text import (
    bus_address,
    parse_nvml,
    parse_proc_information,
    parse_proc_version,
    parse_smi,
    pci_id,
    unknown_field,
)

HEADER = "index, uuid, name, driver_version, memory.total [MiB], pci.bus_id, pci.device_id, compute_cap"
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 560.35"
MODULE = "NVRM version: NVIDIA UNIX"
UNKNOWN = ["[N/A]", "[Not Supported]", "[Insufficient Permissions]", "[Unknown Error]", "N/A"]


@pytest.mark.parametrize(
    ("words", "state"),
    [
        (
            "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 560.35",
            "mismatch",
        ),
        ("No devices were found", "no-devices"),
        (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that",
            "not-communicating",
        ),
        ("Failed to initialize NVML: Driver Not Loaded", "not-communicating"),
        ("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.", "library-missing"),
        ("Failed to initialize NVML: Insufficient Permissions", "no-permission"),
        ("Failed to initialize NVML: Unknown Error", "failed"),
        ("Failed to initialize NVML: GPU access blocked by the operating system", "failed"),
        (
            "Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost. Reboot the system",
            "failed",
        ),
    ],
    ids=lambda value: value.split("\n")[0][:40],
)
@pytest.mark.parametrize("stream", ["output", "errors"])
def test_the_words_of_a_broken_driver(words: str, state: str, stream: str) -> None:
    report = parse_smi(9, *((words, "") if stream == "output" else ("", words)), "tool")
    assert report.state == state
    assert report.cards == ()
    assert words.split("\n", maxsplit=1)[0] in report.errors


def test_a_table_with_a_warning_above_and_a_lost_card_below() -> None:
    text = (
        "WARNING: infoROM is corrupted at gpu 0000:01:00.0\n"
        f"{HEADER}\n"
        "0, GPU-1, NVIDIA RTX A6000, 535.183.01, 49140 MiB, 00000000:01:00.0, 0x223010DE, 8.6\n"
        "Unable to determine the device handle for GPU 0000:02:00.0: Unknown Error\n"
    )
    report = parse_smi(0, text, "", "tool")
    assert report.state == "ok"
    assert str(report.driver) == "535.183.01"
    assert [(card.name, card.memory_mib, card.pci_id, card.bus_id) for card in report.cards] == [
        ("NVIDIA RTX A6000", 49140, "10de:2230", "0000:01:00.0")
    ]
    assert len(report.errors) == 2


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_a_value_that_the_tool_will_not_give_is_unknown(unknown: str) -> None:
    row = f"0, {unknown}, Orin (nvgpu), 540.4.0, {unknown}, {unknown}, {unknown}, {unknown}"
    (card,) = parse_smi(0, f"{HEADER}\n{row}\n", "", "tool").cards
    assert (card.uuid, card.memory_mib, card.bus_id) == (None, None, None)
    assert (card.pci_id, card.compute_capability, card.mig) == (None, None, None)


def test_the_banner_is_never_read() -> None:
    banner = "| NVIDIA-SMI 615.71.09   KMD Version: 615.71.09   CUDA UMD Version: 13.4 |"
    report = parse_smi(0, banner, "", "tool")
    assert (report.driver, report.cards, report.state) == (None, (), "failed")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('Field "compute_cap" is not a valid field to query.\n\n', "compute_cap"),
        ('Field "mig.mode.current" is not a valid field to query.', "mig.mode.current"),
        ("No devices were found", None),
    ],
)
def test_a_field_that_an_older_tool_lacks(text: str, field: str | None) -> None:
    assert unknown_field(text) == field


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            f"{MODULE} x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024",
            "550.54.15",
        ),
        (
            f"{MODULE} Open Kernel Module for aarch64  580.95.05  Release Build  (x)",
            "580.95.05",
        ),
        (f"{MODULE} x86_64 Kernel Module  455.32.00  Wed Oct 14", "455.32.00"),
        ("GCC version:  gcc version 11.4.0", None),
        (None, None),
    ],
    ids=["closed", "open", "zeros", "other", "absent"],
)
def test_the_kernel_module(text: str | None, version: str | None) -> None:
    found = parse_proc_version(text)
    assert (None if found is None else str(found)) == version


def test_the_information_of_a_card_that_nobody_has_opened() -> None:
    card = parse_proc_information(
        "Model: \t\t NVIDIA GeForce RTX 4090\nGPU UUID: \t GPU-????????-????-????-????-????????????\n"
        "Bus Location: \t 0000:01:00.0\n",
        0,
    )
    assert (card.name, card.uuid, card.bus_id) == ("NVIDIA GeForce RTX 4090", None, "0000:01:00.0")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("00000000:3B:00.0", "0000:3b:00.0"),
        ("0000000F:01:00.0", "000f:01:00.0"),
        ("0000:01:00.0", "0000:01:00.0"),
        ("00010000:01:00.0", "10000:01:00.0"),
        ("N/A", None),
        (None, None),
    ],
)
def test_bus_addresses_in_the_spelling_of_sysfs(text: str | None, address: str | None) -> None:
    assert bus_address(text) == address


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 0xFFFF))
def test_pci_ids(device: int) -> None:
    assert pci_id(device << 16 | 0x10DE) == f"10de:{device:04x}"


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.none(), st.integers(0, 255)), st.text(), st.text())
def test_no_answer_of_the_tool_raises(status: int | None, output: str, errors: str) -> None:
    for text in (output, f"{HEADER}\n{output}", f"{HEADER}\n0, {output}"):
        report = parse_smi(status, text, errors, "tool")
        assert (report.state == "ok") == bool(report.cards)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "error": st.one_of(st.none(), st.integers(0, 999)),
            "message": st.text(),
            "driver": st.one_of(st.none(), st.text()),
            "cuda": st.one_of(st.none(), st.integers(0, 20000)),
            "devices": st.lists(
                st.fixed_dictionaries(
                    {"index": st.integers(0, 15)},
                    optional={
                        "error": st.integers(0, 999),
                        "name": st.text(),
                        "uuid": st.text(),
                        "memory": st.integers(0, 2**40),
                        "bus_id": st.text(),
                        "pci_device_id": st.integers(0, 2**32 - 1),
                        "compute_capability": st.tuples(st.integers(0, 20), st.integers(0, 9)),
                        "mig_mode": st.tuples(st.integers(0, 1), st.integers(0, 1)),
                    },
                )
            ),
        },
    )
)
def test_no_answer_of_nvml_raises(answer: dict[str, object]) -> None:
    report = parse_nvml(answer, "NVML")
    assert report.state != "ok" or report.cards
