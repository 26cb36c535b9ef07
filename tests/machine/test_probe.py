from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bnbenv.errors import UsageError
from bnbenv.machine.document import target_from_dict, target_to_dict
from bnbenv.machine.probe import probe
from bnbenv.machine.running import Adapter, Running

if TYPE_CHECKING:
    from bnbenv.machine.host import Host

LINUX = Running(os="linux", machine="x86_64", node="lab-a.example", release="6.1.0-18-amd64")

WATCHED = """
import sys
started = []
sys.addaudithook(lambda name, args: started.append(name) if name in WATCHED else None)
from bnbenv.machine.probe import probe
from bnbenv.machine.running import Running
running = Running(os="linux", machine="x86_64", node="a", release="6.1.0-18-amd64")
host = probe(environ={"PATH": ""}, root=ROOT, running=running)
assert host.target.accelerator == "cpu", host
heavy = {"subprocess", "ctypes", "pynvml", "json", "pathlib", "importlib.util", "urllib", "socket"}
print(started, sorted(heavy & set(sys.modules)))
"""


def test_without_a_trace_of_a_gpu_nothing_is_started_and_nothing_heavy_imported(tmp_path: Path) -> None:
    events = '{"subprocess.Popen", "os.fork", "os.exec", "os.posix_spawn", "socket.connect", "ctypes.dlopen"}'
    code = WATCHED.replace("WATCHED else", f"{events} else").replace("ROOT", repr(str(tmp_path)))
    source = str(Path(__file__).resolve().parents[2] / "src")
    environ = {**os.environ, "PYTHONPATH": source}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[] []\n"


def test_the_machine_that_runs_the_tests_is_described() -> None:
    host = probe(timeout=60)
    assert target_from_dict(target_to_dict(host.target)) == host.target
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert running in host.target.pythons
    assert {"os", "arch"} <= {fact.name for fact in host.facts}


def test_an_empty_tree_is_a_machine_of_which_little_is_known(tmp_path: Path) -> None:
    host = bare(tmp_path)
    assert host.target.name == "lab-a"
    assert host.target.accelerator == "cpu"
    assert (host.target.libc, host.target.libstdcxx, host.target.cpu_flags) == (None, None, None)
    assert host.driver_state == "absent"
    assert host.gpu_traces == ()
    assert host.pythons == ()


def bare(tmp_path: Path, running: Running = LINUX, **environ: str) -> Host:
    return probe(environ={"PATH": "", **environ}, root=tmp_path, running=running)


@pytest.mark.parametrize("machine", ["ppc64le", "riscv64", "s390x"])
def test_a_processor_without_wheels_is_named(tmp_path: Path, machine: str) -> None:
    with pytest.raises(UsageError, match=machine) as caught:
        bare(tmp_path, Running(os="linux", machine=machine, node="a", release="6.1"))
    assert caught.value.code == "bad-target"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("output", "state"),
    [
        ("", "failed"),
        ("Segmentation fault", "failed"),
        ("index, uuid, name\nnonsense\n", "failed"),
        ("<html>login</html>", "failed"),
    ],
    ids=["silence", "crash", "half-a-table", "something-else"],
)
def test_an_nvidia_smi_that_talks_nonsense_is_a_fact(tmp_path: Path, output: str, state: str) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "answer").write_text(output)
    tool = programs / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n/bin/cat '{tmp_path}/answer'\nexit 1\n")
    tool.chmod(0o755)
    host = probe(environ={"PATH": str(programs)}, root=tmp_path / "root", timeout=60, running=LINUX)
    assert host.driver_state == state
    assert host.target.gpus == ()
    assert host.gpu_traces == ("nvidia-smi is installed",)
    assert any(fact.name == "driver-error" for fact in host.facts)


def test_an_nvidia_smi_that_cannot_be_started_is_a_fact(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_bytes(b"\x7fELF of another processor")
    tool.chmod(0o755)
    host = probe(environ={"PATH": str(tmp_path)}, root=tmp_path / "root", timeout=60, running=LINUX)
    assert host.driver_state == "failed"


def test_wsl_keeps_its_tool_off_the_path(tmp_path: Path) -> None:
    tool = tmp_path / "usr/lib/wsl/lib/nvidia-smi"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\necho No devices were found\nexit 6\n")
    tool.chmod(0o755)
    kernel = "5.15.153.1-microsoft-standard-WSL2"
    running = Running(os="linux", machine="x86_64", node="a", release=kernel)
    host = probe(environ={"PATH": ""}, root=tmp_path, timeout=60, running=running)
    assert (host.driver_state, host.target.wsl) == ("no-devices", True)


def test_a_card_that_windows_knows_without_its_tools_is_a_trace(tmp_path: Path) -> None:
    """Constructed after the registry's documented values; not run on Windows."""
    adapter = Adapter(name="NVIDIA GeForce RTX 4090", device=r"PCI\VEN_10DE&DEV_2684", driver="32.0.15.6094")
    running = Running(os="windows", machine="AMD64", node="PC", release="10.0.22631", adapters=(adapter,))
    host = bare(tmp_path, running)
    assert host.target.accelerator == "cpu"
    assert host.gpu_traces == ("NVIDIA GeForce RTX 4090 (10de:2684), driver 32.0.15.6094",)


def test_each_variable_that_bears_on_gpus_is_a_fact(tmp_path: Path) -> None:
    host = bare(tmp_path, ROCR_VISIBLE_DEVICES="0", CUDA_VISIBLE_DEVICES="", BNB_CUDA_VERSION="124")
    found = {fact.name: fact.value for fact in host.facts if fact.source == "environment"}
    assert found == {"ROCR_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "", "BNB_CUDA_VERSION": "124"}
