"""The small readers: libraries, processors, boards, surroundings, and the systems that are not here."""

from __future__ import annotations

from pathlib import Path

import pytest
from binaries import elf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnbenv.machine import amd, apple, intel, tegra, windows
from bnbenv.machine.running import Adapter, Running
from bnbenv.machine.surroundings import find_container, find_slurm, wsl_version
from bnbenv.machine.system import (
    find_libstdcxx,
    glibc_version,
    highest_glibcxx,
    musl_version,
    parse_cpu_flags,
)
from bnbenv.machine.tree import Tree


@pytest.mark.parametrize(
    ("data", "version"),
    [
        (b"\0GNU C Library (Ubuntu GLIBC 2.35-0ubuntu3.8) stable release version 2.35.\nCopy", "2.35"),
        (b"GNU C Library (GNU libc) stable release version 2.17, by Roland McGrath et al.", "2.17"),
        (b"GNU C Library (GNU libc) development release version 2.40.9000.\n", "2.40"),
        (b"GLIBC_2.35\0no banner", None),
        (b"", None),
    ],
)
def test_glibc_by_its_banner(data: bytes, version: str | None) -> None:
    found = glibc_version(data)
    assert (None if found is None else str(found)) == version


def test_musl_by_its_version_text() -> None:
    assert str(musl_version(b"\x7fELF\0musl libc (x86_64)\nVersion %s\n\0\0001.2.5\0")) == "1.2.5"
    assert musl_version(b"\x7fELF\0 1.2.5 ") is None


def test_glibcxx_is_compared_by_numbers() -> None:
    data = b"\0GLIBCXX_3.4.9\0GLIBCXX_3.4.30\0GLIBCXX_3.4.4\0GLIBCXX_3.4\0GLIBCXX_DEBUG_MESSAGE_LENGTH\0"
    assert str(highest_glibcxx(data)) == "3.4.30"
    assert highest_glibcxx(b"GLIBCXX_") is None


LIBRARY = "/lib/x86_64-linux-gnu/libstdc++.so.6"


def glibcxx_of(tree: Path, data: bytes) -> str | None:
    """What a machine with these bytes as its libstdc++ is said to have."""
    path = tree / LIBRARY.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    found = find_libstdcxx(Tree(root=str(tree)), LINUX)
    return None if found is None else str(found[0])


def library(*versions: str) -> bytes:
    """A library with such names, and with something like them in its code."""
    data: bytes = elf(versions=versions, sections={".text": b"\0GLIBCXX_3.4.99\0"})
    return data


def test_glibcxx_stands_among_the_names_for_the_linker_not_in_the_code(tmp_path: Path) -> None:
    assert glibcxx_of(tmp_path, library("GLIBCXX_3.4.9", "GLIBCXX_3.4.30")) == "3.4.30"
    assert glibcxx_of(tmp_path, library("GLIBC_2.17")) is None
    # What is no library that can be read so is searched as a whole.
    assert glibcxx_of(tmp_path, b"\x7fELF\x01\x01 of 32 bits\0GLIBCXX_3.4.21\0") == "3.4.21"
    assert glibcxx_of(tmp_path, b"") is None


@pytest.mark.skipif(not Path(LIBRARY).exists(), reason="this machine's libstdc++ stands elsewhere")
def test_glibcxx_of_this_machine_is_what_its_whole_library_says() -> None:
    found = find_libstdcxx(Tree(root="/"), LINUX)
    assert found is not None
    assert found[0] == highest_glibcxx(Path(LIBRARY).read_bytes())


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 63), value=st.integers(0, 255), length=st.integers(0, 400))
def test_a_damaged_library_is_a_fact_not_an_error(
    tmp_path: Path, place: int, value: int, length: int
) -> None:
    data = bytearray(library("GLIBCXX_3.4.30"))
    data[place] = value
    assert glibcxx_of(tmp_path, bytes(data)) in (None, "3.4.30", "3.4.99")
    assert glibcxx_of(tmp_path, bytes(data[:length])) in (None, "3.4.30", "3.4.99")


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("processor : 0\nflags\t\t: fpu avx2\nbugs : x\n\nprocessor : 1\nflags : fpu\n", {"fpu", "avx2"}),
        ("processor : 0\nFeatures\t: fp asimd sve\n", {"fp", "asimd", "sve"}),
        ("vmx flags\t: vnmi\n", None),
        ("", None),
    ],
    ids=["x86", "arm", "other-flags", "empty"],
)
def test_cpu_flags(text: str, flags: set[str] | None) -> None:
    assert parse_cpu_flags(text) == flags


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64", "36.4.3"),
        ("# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64", "32.7.1"),
        ("# R38 (release), REVISION: 2.0, GCID: 1", "38.2.0"),
        ("something else", None),
        (None, None),
    ],
)
def test_l4t_releases(text: str | None, release: str | None) -> None:
    assert tegra.parse_release(text) == release


@pytest.mark.parametrize(
    ("compatible", "capability"),
    [
        ("nvidia,p2771-0000\0nvidia,tegra186", "6.2"),
        ("nvidia,p3450-0000\0nvidia,jetson-nano\0nvidia,tegra210", "5.3"),
        ("nvidia,tegra194", "7.2"),
        ("nvidia,tegra999", None),
        ("raspberrypi,5-model-b\0brcm,bcm2712", None),
    ],
)
def test_tegra_chips(compatible: str, capability: str | None) -> None:
    chip = tegra.parse_chip(compatible)
    assert (None if chip is None else str(chip[1])) == capability


@pytest.mark.parametrize(
    ("number", "gfx"),
    [
        (90402, "gfx942"),
        (90500, "gfx950"),
        (90010, "gfx90a"),
        (90012, "gfx90c"),
        (90008, "gfx908"),
        (100306, "gfx1036"),
        (110000, "gfx1100"),
        (110501, "gfx1151"),
        (120001, "gfx1201"),
    ],
)
def test_kfd_numbers_its_targets(number: int, gfx: str) -> None:
    assert amd.parse_gfx(number) == gfx


def test_a_node_that_older_kernels_show_with_both_kinds_of_cores() -> None:
    properties = (
        "cpu_cores_count 8\nsimd_count 44\nsimd_per_cu 4\ngfx_target_version 90002\nlocation_id 2560\n"
    )
    node = amd.parse_node(1, properties, [])
    assert node is not None
    assert (node.gfx, node.units, node.integrated, node.address) == ("gfx902", 11, True, "0000:0a:00.0")
    assert (node.uuid, node.memory_mib) == (None, None)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(), st.lists(st.text()))
def test_no_node_raises(properties: str, banks: list[str]) -> None:
    for text in (properties, f"simd_count 4\ngfx_target_version 110000\n{properties}"):
        amd.parse_node(0, text, banks)


def test_product_names_go_by_device_and_revision() -> None:
    table = "744C,\tC8,\tRX 7900 XTX\n744C,\tCC,\tRX 7900 XT\n7480,\tC0,\tOne, with a comma\n"
    assert amd.product_name(table, "744c", "c8") == "RX 7900 XTX"
    assert amd.product_name(table, "744c", None) is None
    assert amd.product_name(table, "744c", "00") is None
    assert amd.product_name(table, "7480", None) == "One, with a comma"


def test_a_kfd_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = tmp_path / "sys/class/kfd/kfd/topology/nodes/1"
    node.mkdir(parents=True)
    (node / "properties").write_text("simd_count 192\ngfx_target_version 110000\ndevice_id 29772\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kfd").write_text("")
    # Root may open anything; what the kernel would answer to somebody else is put in its place.
    monkeypatch.setattr(Tree, "usable", lambda _self, _name: False)
    found = amd.look(Tree(root=str(tmp_path)), LINUX, {}, ())
    assert (found.state, found.gpus) == ("no-permission", ())
    assert "render" in found.traces[0]


LINUX = Running(os="linux", machine="x86_64", node="a", release="6.1")


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("56a0", "Intel Arc A-series"),
        ("56c1", "Intel Data Center GPU Flex"),
        ("0bd5", "Intel Data Center GPU Max"),
        ("e20b", "Intel Arc B-series"),
        ("7d55", "Intel Arc Graphics (Meteor Lake, Arrow Lake)"),
        ("64a0", "Intel Arc Graphics (Lunar Lake)"),
        ("3e92", None),
        ("9a49", None),
        ("4680", None),
    ],
)
def test_intel_families(device: str, name: str | None) -> None:
    found = intel.family(device)
    assert (None if found is None else found[0]) == name


@pytest.mark.parametrize(
    ("kernel", "version"),
    [
        ("5.15.153.1-microsoft-standard-WSL2", 2),
        ("6.6.36.3-microsoft-standard-WSL2+", 2),
        ("5.10.16.3-microsoft-standard", 2),
        ("4.4.0-19041-Microsoft", 1),
        ("6.8.0-1018-azure", None),
    ],
)
def test_wsl_by_the_kernel_s_release(kernel: str, version: int | None) -> None:
    assert wsl_version(kernel) == version


@pytest.mark.parametrize(
    ("files", "environ", "kind"),
    [
        ({"/.dockerenv": ""}, {}, "docker"),
        ({"/run/.containerenv": ""}, {"container": "oci"}, "podman"),
        ({"/.dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({}, {"APPTAINER_CONTAINER": "/x.sif"}, "apptainer"),
        ({}, {"container": "systemd-nspawn"}, "systemd-nspawn"),
        ({"/proc/1/cgroup": "0::/kubepods.slice/kubepods-pod1.slice"}, {}, "kubepods"),
        ({"/proc/1/cgroup": "0::/init.scope"}, {}, None),
    ],
    ids=str,
)
def test_containers(tmp_path: Path, files: dict[str, str], environ: dict[str, str], kind: str | None) -> None:
    for name, text in files.items():
        path = tmp_path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = find_container(Tree(root=str(tmp_path)), environ)
    assert (None if found is None else found.value) == kind


def test_slurm_outside_and_inside_a_job(tmp_path: Path) -> None:
    tool = tmp_path / "sbatch"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    tree = Tree(root=str(tmp_path))
    assert find_slurm(tree, {"PATH": ""}) is None
    outside = find_slurm(tree, {"PATH": str(tmp_path)})
    inside = find_slurm(tree, {"PATH": str(tmp_path), "SLURM_JOB_ID": "7"})
    assert outside is not None
    assert inside is not None
    assert (outside[0], inside[0]) == ("login", "job")


def test_the_bytes_of_sysctl() -> None:
    """Constructed after Apple's documentation; not run on a Mac."""
    assert apple.sysctl_text("hw.memsize", (2**36).to_bytes(8, "little")) == str(2**36)
    assert apple.sysctl_text("machdep.cpu.brand_string", b"Apple M3\0") == "Apple M3"
    assert set(apple.read_sysctl()) <= set(apple.SYSCTLS)


def test_windows_places_and_adapters(tmp_path: Path) -> None:
    """Constructed after NVIDIA's and Microsoft's documentation; not run on Windows."""
    environ = {"SystemRoot": r"D:\Windows", "ProgramFiles": r"D:\Programs"}
    assert windows.nvidia_smi_places(environ) == (
        r"D:\Windows\System32\nvidia-smi.exe",
        r"D:\Programs\NVIDIA Corporation\NVSMI\nvidia-smi.exe",
    )
    assert windows.nvidia_smi_places({})[0] == r"C:\Windows\System32\nvidia-smi.exe"
    tree = Tree(root=str(tmp_path))
    assert windows.driver_library(tree, environ, "libnvidia-ml.so.1") is None
    (tmp_path / r"D:\Windows\System32\nvml.dll").write_bytes(b"MZ")
    assert windows.driver_library(tree, environ, "libnvidia-ml.so.1") == r"D:\Windows\System32\nvml.dll"
    card = Adapter(name="NVIDIA GeForce RTX 4090", device=r"pci\ven_10de&dev_2684&subsys_1")
    basic = Adapter(name="Microsoft Basic Display Adapter", device=r"ROOT\BasicDisplay")
    assert windows.adapters_of([basic, card], "10de") == ((card, "10de:2684"),)
    assert windows.read_adapters() == () or windows.read_adapters()[0].name
