"""Turn a directory of tests/hosts into a machine: a file tree, a stub NVML, a stand-in nvidia-smi."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.machine.probe import probe
from bnbenv.machine.running import Adapter, Running

if TYPE_CHECKING:
    from collections.abc import Callable

    from bnbenv.machine.host import Host

STUB = Path(__file__).resolve().parents[1] / "stubs" / "nvml.c"

# Answers like the real tool: the columns asked for, or a complaint about one that the captured text lacks.
NVIDIA_SMI = """#!{python} -S
import sys, time
text = open({text!r}).read()
first, _, text = text.partition("\\n")
if first == "hang":
    time.sleep(600)
status = int(first.split()[1])
lines = text.splitlines()
if not lines or not lines[0].startswith("index, "):
    sys.stdout.write(text)
    sys.exit(status)
columns = [column.split(" ")[0] for column in lines[0].split(", ")]
asked = next(word for word in sys.argv if word.startswith("--query-gpu=")).partition("=")[2].split(",")
for field in asked:
    if field not in columns:
        sys.stdout.write('Field "%s" is not a valid field to query.\\n\\n' % field)
        sys.exit(2)
for line in lines:
    values = line.split(", ")
    if len(values) != len(columns):
        print(line)
        continue
    print(", ".join(values[columns.index(field)] for field in asked))
sys.exit(status)
"""


@dataclass(frozen=True)
class Machine:
    """What `probe` is given for one captured or constructed host."""

    root: Path
    environ: dict[str, str]
    running: Running

    def probe(self, timeout: float = 60.0) -> Host:
        return probe(environ=self.environ, root=self.root, timeout=timeout, running=self.running)


@pytest.fixture(scope="session")
def nvml_stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stub library, compiled here."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler: the NVML stub cannot be built")
    if sys.platform != "linux":
        pytest.skip("the NVML stub is an ELF library")
    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    soname = "-Wl,-soname,libnvidia-ml.so.1"
    command = [compiler, "-shared", "-fPIC", "-Wall", "-Werror", soname, "-o", str(library), str(STUB)]
    subprocess.run(command, check=True)
    return library


def write_tree(text: str, root: Path) -> None:
    """Write the sections of a `tree.txt`: ``### /file``, ``### /directory/``, ``### /link -> target``."""
    for section in text.split("\n### ")[0:]:
        head, _, body = section.removeprefix("### ").partition("\n")
        name, _, target = head.strip().partition(" -> ")
        if not name.startswith("/"):
            continue
        place = root / name.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            place.mkdir(exist_ok=True)
        elif target:
            place.symlink_to(target)
        else:
            place.write_bytes(body.replace("\\0", "\0").encode())


@pytest.fixture
def machine(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[Path], Machine]:
    """Build the machine that a directory of tests/hosts describes."""

    def build(directory: Path) -> Machine:
        root, programs = tmp_path / "root", tmp_path / "bin"
        root.mkdir()
        programs.mkdir()
        tree = directory / "tree.txt"
        if tree.exists():
            if os.name == "nt":
                pytest.skip("PCI addresses are no file names on Windows")
            write_tree(tree.read_text(encoding="utf-8"), root)
        values: dict[str, Any] = json.loads((directory / "running.json").read_text(encoding="utf-8"))
        environ = {"PATH": str(programs), "HOME": str(tmp_path / "home"), **values.pop("environ", {})}
        for tool in values.pop("programs", []):
            write_program(programs / tool, "#!/bin/sh\nexit 1\n")
        adapters = tuple(Adapter(**adapter) for adapter in values.pop("adapters", []))
        running = Running(adapters=adapters, **values)
        smi = directory / "nvidia-smi.txt"
        if smi.exists():
            script = NVIDIA_SMI.format(python=sys.executable, text=str(smi))
            write_program(programs / "nvidia-smi", script)
        nvml = directory / "nvml.txt"
        if nvml.exists():
            stub: Path = request.getfixturevalue("nvml_stub")
            place = root / f"usr/lib/{running.arch}-linux-gnu"
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(stub, place / stub.name)
            environ["BNBENV_STUB_NVML"] = str(nvml)
        return Machine(root=root, environ=environ, running=running)

    return build


def write_program(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
