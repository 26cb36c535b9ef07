from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src"
HEAVY = {
    "asyncio", "bnbenv.install", "bnbenv.judge", "bnbenv.machine", "bnbenv.matrix", "dataclasses", "http",
    "inspect", "json", "packaging", "pathlib", "pip_api", "platformdirs", "psutil", "pypi_simple", "pynvml",
    "requests", "rich", "shtab", "subprocess", "tomli", "tomli_w", "tomllib", "urllib",
}  # fmt: skip


def child(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(SRC)!r})\n{program}", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


LOADED = """
before = set(sys.modules)
from bnbenv.cli.main import main
try:
    code = main(sys.argv[1:])
finally:
    loaded = sorted(set(sys.modules) - before)
    print("\\n" + repr(loaded), file=sys.stderr)
sys.exit(code)
"""


def loaded_by(*arguments: str) -> set[str]:
    """The modules that a command has loaded when it has answered."""
    ran = child(LOADED, *arguments)
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stderr.strip().splitlines()[-1].replace("'", '"')))


@pytest.mark.parametrize("arguments", ["--version", "--help", "create --help"])
def test_light_commands_load_little(arguments: str) -> None:
    loaded = loaded_by(*arguments.split())
    assert "bnbenv.cli.parser" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize(
    "arguments",
    [
        "detect --json",
        "list --json",
        "check --torch 2.13.0+cpu --bitsandbytes 0.50.2 --os linux --glibc 2.35 --json",
    ],
)
def test_everyday_commands_do_without_the_slow_dataclasses(arguments: str) -> None:
    """`bnbenv.dataclass` says why; what is loaded while uv or a self-test works may take the others."""
    loaded = loaded_by(*arguments.split())
    assert "bnbenv.dataclass" in loaded
    assert loaded & {"dataclasses", "inspect"} == set()


def test_the_check_sees_a_heavy_import() -> None:
    ran = child("before = set(sys.modules)\nimport dataclasses\nprint(sorted(set(sys.modules) - before))")
    assert "'dataclasses'" in ran.stdout


NO_PROCESS = """
import pkgutil, importlib
def watch(event, arguments):
    if event in {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect"}:
        print("STARTED", event, arguments[:1])
sys.addaudithook(watch)
import bnbenv
for found in pkgutil.walk_packages(bnbenv.__path__, "bnbenv."):
    if found.name not in {"bnbenv.__main__", "bnbenv.selftest.script"}:
        importlib.import_module(found.name)
print("imported", len([name for name in sys.modules if name.startswith("bnbenv")]))
"""


def test_importing_starts_no_process() -> None:
    ran = child(NO_PROCESS)
    assert ran.returncode == 0, ran.stderr
    assert "STARTED" not in ran.stdout
    assert int(ran.stdout.split("imported")[1]) > 20


def test_the_audit_sees_a_process() -> None:
    program = NO_PROCESS.replace(
        "import bnbenv\n", "import bnbenv, subprocess\nsubprocess.run([sys.executable, '-c', ''])\n"
    )
    assert "STARTED" in child(program).stdout


WITHOUT_POSIX = """
import importlib, os, pkgutil, signal

import bnbenv
from bnbenv.cli.commands import COMMANDS

names = [
    found.name for found in pkgutil.walk_packages(bnbenv.__path__, "bnbenv.")
    if not found.name.endswith(("script", "__main__"))  # run by an environment's Python, or at once
]
for name in names:  # once as it is here, for all that is not bnbenv's
    importlib.import_module(name)
for name in [name for name in sys.modules if name.partition(".")[0] == "bnbenv"]:
    del sys.modules[name]

GONE = {"fcntl", "grp", "pwd", "resource", "termios"}

class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in GONE:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing)
for name in GONE:
    sys.modules.pop(name, None)
for module, attributes in (
    (os, "O_CLOEXEC O_DIRECTORY chown confstr fork geteuid getuid kill killpg pwrite statvfs sync uname"),
    (signal, "SIGHUP SIGKILL SIGQUIT SIGUSR1 SIGUSR2"),
):
    for attribute in attributes.split():
        vars(module).pop(attribute, None)
sys.platform = "win32"
for name in names:
    importlib.import_module(name)
from bnbenv.cli.main import main
assert not any(main([*words, "--help"]) for words in ([], *([name] for name in COMMANDS)))
"""


def test_every_module_and_every_help_loads_where_posix_is_missing() -> None:
    ran = child(WITHOUT_POSIX)
    assert ran.returncode == 0, ran.stderr
