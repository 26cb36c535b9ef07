"""The real nvidia-ml-py loads a compiled stub library; what it makes of the answers is read back."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from bnbenv.machine.probe import probe
from bnbenv.machine.running import Running

if TYPE_CHECKING:
    from pathlib import Path

    from bnbenv.machine.host import Host

LINUX = Running(os="linux", machine="x86_64", node="a", release="6.1.0-18-amd64")
CARD = "gpu name=NVIDIA L4|uuid=GPU-1|cc=8.9|memory=24152899584|pci=0x27B810DE|bus=00000000:31:00.0|mig=!3"


def ask(
    stub: Path, tmp_path: Path, answers: str, *, by: str = "LD_LIBRARY_PATH", timeout: float = 60
) -> Host:
    file = tmp_path / "answers.txt"
    file.write_text(answers)
    environ = {"PATH": "", "BNBENV_STUB_NVML": str(file)}
    root = tmp_path / "root"
    root.mkdir()
    if by == "LD_LIBRARY_PATH":
        environ[by] = f"/nowhere:{stub.parent}"
    elif by == "cache":
        place = root / "opt/driver"
        place.mkdir(parents=True)
        shutil.copy(stub, place / stub.name)
        (root / "usr/lib32").mkdir(parents=True)
        (root / "usr/lib32" / stub.name).write_bytes(b"a library for another interpreter")
        (root / "etc").mkdir()
        # The strings of a loader's cache, with a 32-bit library before the right one.
        strings = f"\0{stub.name}\0/usr/lib32/{stub.name}\0/gone/{stub.name}\0/opt/driver/{stub.name}\0"
        (root / "etc/ld.so.cache").write_bytes(b"glibc-ld.so.cache1.1" + strings.encode())
    return probe(environ=environ, root=root, timeout=timeout, running=LINUX)


@pytest.mark.parametrize("by", ["LD_LIBRARY_PATH", "cache"])
def test_the_library_is_found_as_the_loader_would(nvml_stub: Path, tmp_path: Path, by: str) -> None:
    host = ask(nvml_stub, tmp_path, f"driver 550.54.15\ncuda 12040\n{CARD}\n", by=by)
    (gpu,) = host.target.gpus
    assert (gpu.name, str(gpu.compute_capability), gpu.memory_mib, gpu.pci_id, gpu.uuid, gpu.mig) == (
        "NVIDIA L4",
        "8.9",
        23034,
        "10de:27b8",
        "GPU-1",
        None,
    )
    sources = {fact.name: fact.source for fact in host.facts}
    assert sources["gpu0.name"].startswith("NVML (")
    assert sources["driver"] == sources["gpu0.name"]


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (4, "no-permission"),
        (9, "not-communicating"),
        (10, "timeout"),
        (12, "library-missing"),
        (15, "failed"),
        (17, "failed"),
        (18, "mismatch"),
        (999, "failed"),
    ],
    ids=str,
)
def test_an_error_at_the_start_is_a_state(nvml_stub: Path, tmp_path: Path, code: int, state: str) -> None:
    host = ask(nvml_stub, tmp_path, f"init {code}\n{CARD}\n")
    assert host.driver_state == state
    assert host.target.gpus == ()
    assert host.target.accelerator == "cpu"
    assert [fact for fact in host.facts if fact.name == "driver-error"]


@pytest.mark.parametrize(
    ("answers", "state", "errors"),
    [
        (f"driver 550.54.15\ncount 18\n{CARD}", "mismatch", 1),
        (f"driver 550.54.15\n{CARD.replace('gpu ', 'gpu handle=4|')}", "no-permission", 1),
        (f"driver 550.54.15\n{CARD.replace('gpu ', 'gpu handle=15|')}\n{CARD}", "ok", 1),
        ("driver 550.54.15", "no-devices", 0),
        (CARD, "ok", 0),
        ("driver 550.54.15\ngpu name=!15|uuid=!15|cc=!15|memory=!15|pci=0|bus=!15|mig=!15", "ok", 0),
    ],
    ids=["count", "denied-device", "one-lost", "none", "nameless-driver", "lost-after-opening"],
)
def test_errors_of_one_call_leave_the_rest(
    nvml_stub: Path, tmp_path: Path, answers: str, state: str, errors: int
) -> None:
    host = ask(nvml_stub, tmp_path, answers + "\n")
    assert host.driver_state == state
    assert len([fact for fact in host.facts if fact.name == "driver-error"]) == errors


def test_a_library_that_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"not a library")
    (tmp_path / "root").mkdir()
    environ = {"PATH": "", "LD_LIBRARY_PATH": str(tmp_path)}
    host = probe(environ=environ, root=tmp_path / "root", timeout=60, running=LINUX)
    assert host.driver_state == "library-missing"


def test_a_hanging_library_is_given_up(nvml_stub: Path, tmp_path: Path) -> None:
    host = ask(nvml_stub, tmp_path, "hang\n", timeout=0.5)
    assert host.driver_state == "timeout"


def test_a_crashing_library_is_said(nvml_stub: Path, tmp_path: Path) -> None:
    host = ask(nvml_stub, tmp_path, "crash\n")
    words = "NVML ended the process that asked it (exit status -6)"
    assert ("driver-error", words) in {(fact.name, fact.value) for fact in host.facts}
    assert host.driver_state == "failed"
    assert host.target.gpus == ()


def test_the_child_is_not_misled_by_the_environment(
    nvml_stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('wrong module')")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "answers.txt"
    file.write_text(f"driver 550.54.15\n{CARD}\n")
    environ = {
        "PATH": "",
        "BNBENV_STUB_NVML": str(file),
        "LD_LIBRARY_PATH": str(nvml_stub.parent),
        "PYTHONPATH": str(tmp_path),
        "PYTHONHOME": os.devnull,
    }
    (tmp_path / "root").mkdir()
    host = probe(environ=environ, root=tmp_path / "root", timeout=60, running=LINUX)
    assert host.driver_state == "ok"
