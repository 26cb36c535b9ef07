from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnbenv.matrix.load import load
from bnbenv.units import (
    ComputeCapability,
    CudaVersion,
    DottedVersion,
    DriverVersion,
    RocmVersion,
    minor_release,
)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("12.8", (12, 8)),
        ("12.8.1", (12, 8)),
        ("cu128", (12, 8)),
        ("128", (12, 8)),
        ("12080", (12, 8)),
        ("13000", (13, 0)),
        ("9020", (9, 2)),
        ("cu92", (9, 2)),
        ("cu12.8", (12, 8)),
        ("CUDA 12.8", (12, 8)),
        ("cuda12.8", (12, 8)),
        (" 13.0 ", (13, 0)),
    ],
)
def test_every_spelling_of_a_cuda_version(text: str, version: tuple[int, int]) -> None:
    assert CudaVersion.parse(text) == version


@pytest.mark.parametrize("text", ["", "cu", "12", "1", "twelve", "12.8x", "cpu", "123456", "-12.8", "12..8"])
def test_what_is_no_cuda_version(text: str) -> None:
    with pytest.raises(ValueError, match="not a CUDA version"):
        CudaVersion.parse(text)


@given(st.integers(9, 19), st.integers(0, 9))
def test_cuda_spellings_read_back(major: int, minor: int) -> None:
    version = CudaVersion(major, minor)
    assert {
        CudaVersion.parse(str(version)),
        CudaVersion.parse(version.tag),
        CudaVersion.parse(version.digits),
    } == {version}
    assert CudaVersion.parse(str(major * 1000 + minor * 10)) == version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("6.4", (6, 4)),
        ("rocm6.4", (6, 4)),
        ("6.4.43482-0f2d60242", (6, 4)),
        ("7.14.0", (7, 14)),
        ("10.0", (10, 0)),
    ],
)
def test_every_spelling_of_a_rocm_version(text: str, version: tuple[int, int]) -> None:
    assert RocmVersion.parse(text) == version


@pytest.mark.parametrize(
    ("text", "capability"),
    [("8.9", (8, 9)), ("sm_89", (8, 9)), ("sm120", (12, 0)), ("compute_103", (10, 3)), ("75", (7, 5))],
)
def test_every_spelling_of_a_compute_capability(text: str, capability: tuple[int, int]) -> None:
    assert ComputeCapability.parse(text) == capability


@pytest.mark.parametrize("text", ["sm_90a", "8", "8.10", "RTX 4090", "gfx1100", ""])
def test_what_is_no_compute_capability(text: str) -> None:
    with pytest.raises(ValueError, match="not a compute capability"):
        ComputeCapability.parse(text)


@given(st.integers(1, 99), st.integers(0, 9))
def test_capability_spellings_read_back(major: int, minor: int) -> None:
    capability = ComputeCapability(major, minor)
    assert ComputeCapability.parse(str(capability)) == capability
    assert ComputeCapability.parse(f"sm_{major}{minor}") == capability


def test_the_data_and_the_units_agree_which_capabilities_are_of_jetson_boards() -> None:
    of_data = {row.capability for row in load("capabilities").capabilities if row.tegra}
    serves_as_a_server = ComputeCapability(11, 0)  # Thor takes the wheels of other ARM machines
    assert {one for one in of_data if one.tegra} == of_data - {serves_as_a_server}
    assert not serves_as_a_server.tegra


@pytest.mark.parametrize(
    ("driver", "floor", "enough"),
    [
        ("550.54.15", "525.60.13", True),
        ("525.60.13", "525.60.13", True),
        ("525.60.11", "525.60.13", False),
        ("580", "580.65.06", True),
        ("579", "580.65.06", False),
        ("528.33", "528.33", True),
        ("9.0", "525.60.13", False),
    ],
)
def test_driver_floors(driver: str, floor: str, enough: bool) -> None:
    assert DriverVersion.parse(driver).at_least(DriverVersion.parse(floor)) is enough


def test_a_driver_keeps_its_vendors_spelling() -> None:
    driver = DriverVersion.parse("580.65.06")
    assert str(driver) == "580.65.06"
    assert driver == DriverVersion.parse("580.65.6")
    assert hash(driver) == hash(DriverVersion.parse("580.65.6"))


def test_dotted_versions_compare_number_by_number() -> None:
    assert DottedVersion.parse("2.9") < DottedVersion.parse("2.35")
    with pytest.raises(ValueError, match="numbers and dots"):
        DottedVersion.parse("2.35-ubuntu")


@pytest.mark.parametrize(("version", "minor"), [("3.12.4", "3.12"), ("3.12", "3.12"), ("3", "3"), ("", "")])
def test_a_minor_release_is_what_stands_before_the_second_dot(version: str, minor: str) -> None:
    assert minor_release(version) == minor
