from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnbenv.machine.visible import cuda_visible, hip_visible, named_count

FOUR = ["NVIDIA A100-SXM4-80GB"] * 4
UUIDS = [["GPU-aa00"], ["GPU-ab00"], ["GPU-b000", "MIG-1111", "MIG-2222"], ["GPU-c000"]]


@pytest.mark.parametrize(
    ("value", "visible"),
    [
        (None, "0123"),
        ("", ""),
        ("-1", ""),
        ("NoDevFiles", ""),
        ("none", ""),
        ("2", "2"),
        ("3,0", "03"),
        (" 1 , 2 ", "12"),
        ("0,-1,1", "0"),
        ("0,foo,1", "0"),
        ("0,9,1", "0"),
        ("1gpu,2", "12"),
        ("0,0", ""),
        ("GPU-b000", "2"),
        ("gpu-C0", "3"),
        ("GPU-b", "2"),
        ("GPU-a", ""),
        ("GPU-b000,GPU-a", "2"),
        ("GPU-zz,GPU-b000", ""),
        ("MIG-1111", "2"),
        ("MIG-1111,MIG-2222", "2"),
        ("MIG-GPU-b000/1/0", "2"),
        ("MIG-9999", ""),
        ("GPU-b000,GPU-b000", ""),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_cuda_visible_devices(value: str | None, visible: str) -> None:
    environ = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    found = cuda_visible(FOUR, UUIDS, environ)
    assert "".join(str(index) for index, seen in enumerate(found) if seen) == visible
    assert None not in found


def test_an_instance_that_nobody_listed_leaves_all_unknown() -> None:
    """nvidia-smi's table names no MIG instances, so that their GPU cannot be told."""
    environ = {"CUDA_VISIBLE_DEVICES": "MIG-1111"}
    assert cuda_visible(["a", "b"], [["GPU-1"], ["GPU-2"]], environ) == (None, None)


@pytest.mark.parametrize("text", ["GPU-1", "0,GPU-1"])
def test_a_uuid_among_gpus_without_any_leaves_all_unknown(text: str) -> None:
    """A target file need not tell them."""
    assert cuda_visible(["a", "b"], [["GPU-1"], []], {"CUDA_VISIBLE_DEVICES": text}) == (None, None)
    for variable in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        assert hip_visible([["GPU-1"], []], {variable: text}) == (None, None)


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), ("0", 1), ("1,0", 2), ("3,0", 0), ("GPU-1,x,GPU-2", 1), ("GPU-1,GPU-2,MIG-3,MIG-4", 3)],
)
def test_how_many_a_list_names(text: str, count: int) -> None:
    assert named_count(text, 3) == count


MIXED = ["NVIDIA GeForce GTX 1080", "NVIDIA GeForce RTX 4090"]


@pytest.mark.parametrize(
    ("environ", "visible"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0"}, (None, None)),
        ({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, (None, None)),
        ({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, (True, False)),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, (True, True)),
        ({"CUDA_VISIBLE_DEVICES": ""}, (False, False)),
        ({"CUDA_VISIBLE_DEVICES": "7"}, (False, False)),
        ({"CUDA_VISIBLE_DEVICES": "GPU-2"}, (False, True)),
        ({}, (True, True)),
    ],
    ids=str,
)
def test_an_index_on_a_host_of_different_cards(
    environ: dict[str, str], visible: tuple[bool | None, ...]
) -> None:
    assert cuda_visible(MIXED, [["GPU-1"], ["GPU-2"]], environ) == visible


@pytest.mark.parametrize(
    ("environ", "visible"),
    [
        ({}, "012"),
        ({"ROCR_VISIBLE_DEVICES": ""}, ""),
        ({"ROCR_VISIBLE_DEVICES": "1,2"}, "12"),
        ({"ROCR_VISIBLE_DEVICES": "GPU-000000000000000b"}, "1"),
        ({"HIP_VISIBLE_DEVICES": "0"}, "0"),
        ({"ROCR_VISIBLE_DEVICES": "2,1", "HIP_VISIBLE_DEVICES": "0"}, "2"),
        ({"ROCR_VISIBLE_DEVICES": "2", "HIP_VISIBLE_DEVICES": "2"}, ""),
        ({"CUDA_VISIBLE_DEVICES": "1"}, "1"),
        ({"HIP_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "1"}, "0"),
        ({"HIP_VISIBLE_DEVICES": "-1"}, ""),
    ],
    ids=str,
)
def test_rocr_first_then_hip(environ: dict[str, str], visible: str) -> None:
    uuids = [["GPU-000000000000000a"], ["GPU-000000000000000b"], ["GPU-000000000000000c"]]
    found = hip_visible(uuids, environ)
    assert "".join(str(index) for index, seen in enumerate(found) if seen) == visible


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(), st.integers(0, 8))
def test_no_value_raises(value: str, count: int) -> None:
    uuids = [[f"GPU-{index}"] for index in range(count)]
    for variable in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        assert len(cuda_visible(["x"] * count, uuids, {variable: value})) == count
        assert len(hip_visible(uuids, {variable: value})) == count
