from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from bnbenv.errors import UsageError
from bnbenv.matrix.gpus import find_gpu
from bnbenv.matrix.load import load

ROWS = load("gpus", directory=Path(__file__).resolve().parents[2] / "compat").gpus


@pytest.mark.parametrize(
    ("text", "capability"),
    [
        ("RTX 4090", "8.9"),
        ("rtx4090", "8.9"),
        ("GTX1080Ti", "6.1"),
        ("GTX960M", "5.0"),
        ("NVIDIA GeForce RTX 5090", "12.0"),
        ("rtx 3090", "8.6"),
        ("P40", "6.1"),
        ("Tesla P40", "6.1"),
        ("T4", "7.5"),
        ("V100", "7.0"),
        ("A100", "8.0"),
        ("H100", "9.0"),
        ("B200", "10.0"),
        ("B300", "10.3"),
        ("GB10", "12.1"),
        ("DGX Spark", "12.1"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "9.0"),
        ("Orin", "8.7"),
        ("Jetson AGX Thor", "11.0"),
        ("K80", "3.7"),
        ("8.9", "8.9"),
        ("sm_120", "12.0"),
        ("10de:2684", "8.9"),
        ("4090", "8.9"),
        ("1080ti", "6.1"),
        ("5070ti", "12.0"),
        ("3050", "8.6"),
        ("970", "5.2"),
        ("4080 super", "8.9"),
        ("rtx4090 laptop", "8.9"),
        ("5090 mobile", "12.0"),
        ("A100-40g", "8.0"),
        ("V100 32g", "7.0"),
        ("a6000 48GB", "8.6"),
        ("RTX 3090 24 GB VRAM", "8.6"),
        ("GeForce 840M", "5.0"),
        ("86", "8.6"),
        ("120", "12.0"),
    ],
)
def test_nvidia_gpus_are_found(text: str, capability: str) -> None:
    gpu = find_gpu(ROWS, text)
    assert str(gpu.compute_capability) == capability
    assert gpu.gfx is None


@pytest.mark.parametrize(
    ("text", "gfx"),
    [
        ("RX 7900 XTX", "gfx1100"),
        ("rx7900xtx", "gfx1100"),
        ("MI300X", "gfx942"),
        ("gfx1201", "gfx1201"),
        ("Radeon 7900xtx", "gfx1100"),
        ("rx6800xt", "gfx1030"),
        ("MI300", "gfx942"),
        ("Strix Halo", "gfx1151"),
        ("Radeon 780M", "gfx1103"),
        ("gfx90a:sramecc+:xnack-", "gfx90a"),
    ],
)
def test_amd_gpus_are_found(text: str, gfx: str) -> None:
    assert find_gpu(ROWS, text).gfx == gfx


def test_each_product_of_amd_is_found_by_its_name() -> None:
    products = [row for row in ROWS if len(row.gfx) == 1]
    assert products
    assert {row.name: find_gpu(ROWS, row.name).gfx for row in products} == {
        row.name: row.gfx[0] for row in products
    }


def test_a_name_of_different_chips_is_refused_and_both_are_told() -> None:
    with pytest.raises(UsageError, match=r"GTX 860M.*3\.0, 5\.0") as caught:
        find_gpu(ROWS, "GTX 860M")
    assert caught.value.code == "bad-target"


@pytest.mark.parametrize("text", ["titan x", "780M", "GTX 960 laptop", "Radeon 6800 mobile"])
def test_letters_that_would_decide_are_not_guessed(text: str) -> None:
    with pytest.raises(UsageError, match="different kinds") as caught:
        find_gpu(ROWS, text)
    assert "name more of it" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("RTX 6000", {"7.5", "8.9", "12.0"}),
        ("6000", {"7.5", "8.9", "12.0"}),
        ("RTX 5000", {"7.5", "8.9", "12.0"}),
        ("4000", {"7.5", "8.9", "12.0"}),
        ("RTX 3000", {"7.5", "8.9", "12.0"}),
        ("RTX 4500", {"8.9", "12.0"}),
        ("Titan X", {"5.2", "6.1"}),
        ("780M", {"3.0", "gfx1103"}),
        ("GTX 750 Ti", {"3.0", "5.0"}),
    ],
)
def test_what_is_asked_back_can_be_typed(text: str, kinds: set[str]) -> None:
    with pytest.raises(UsageError, match="different kinds") as caught:
        find_gpu(ROWS, text)
    typed = re.findall(r"`(--gpu [^`]+)`", caught.value.hint or "")
    named = [find_gpu(ROWS, shlex.split(line)[1]) for line in typed]
    assert {str(gpu.compute_capability or gpu.gfx) for gpu in named} == kinds
    assert len(named) == len(kinds)


@pytest.mark.parametrize(
    ("text", "capability"),
    [
        ("Quadro RTX 6000", "7.5"),
        ("RTX 6000 Ada", "8.9"),
        ("RTX A6000", "8.6"),
        ("RTX PRO 6000", "12.0"),
        ("RTX PRO 6000 Blackwell", "12.0"),
        ("Quadro RTX 4000", "7.5"),
        ("RTX 4000 SFF Ada", "8.9"),
        ("A4000", "8.6"),
        ("RTX 8000", "7.5"),
        ("P4", "6.1"),
        ("P400", "6.1"),
        ("T400", "7.5"),
        ("A10", "8.6"),
        ("4090D", "8.9"),
    ],
)
def test_names_that_are_nearly_another_s(text: str, capability: str) -> None:
    assert str(find_gpu(ROWS, text).compute_capability) == capability


@pytest.mark.parametrize("text", ["Blackwell", "ampere", "Ada Lovelace", "Grace Hopper"])
def test_a_generation_is_no_gpu(text: str) -> None:
    with pytest.raises(UsageError, match="generation"):
        find_gpu(ROWS, text)


@pytest.mark.parametrize("text", ["1002:74a1", "0x1002:74A1"])
def test_an_id_of_amd_is_found(text: str) -> None:
    found = find_gpu(ROWS, text)
    assert (found.name, found.gfx, found.pci_id) == ("AMD Instinct MI300X", "gfx942", "1002:74a1")


def test_vendors_give_the_same_numbers() -> None:
    number, name = "13C0", "AMD Radeon of a test"
    rows = (*ROWS, ROWS[0]._replace(name=name, pci_ids=(number,), capabilities=(), gfx=("gfx1036",)))
    assert find_gpu(rows, f"10de:{number}").name == "GeForce GTX 980"
    assert find_gpu(rows, f"1002:{number}").name == name
    with pytest.raises(UsageError, match="different kinds"):
        find_gpu(rows, f"0x{number}")


@pytest.mark.parametrize("text", ["", "  ", "RTX 9999", "10de:ffff", "🦆"])
def test_what_nobody_makes_is_refused_with_a_way_out(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_gpu(ROWS, text)
    assert "--gpu xpu" in (caught.value.hint or "")
