from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.machine.host import Fact, Host
from bnbenv.selftest.verdict import Verdict
from bnbenv.workflows.doctor import Examined, examine, prove
from bnbenv.workflows.environment import Located
from bnbenv.workflows.verify import Verified
from support.judge_facts import target
from support.sites import PACKAGES, PYTHON, add, located, make_site, site_of
from support.voice import Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bnbenv.env.generation import Generation
    from bnbenv.machine.target import Target

CPU = target(pythons=(PYTHON,))
CARD = target("8.9", driver="580.95.05", pythons=(PYTHON,))


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Examined]:
    """Examine an environment on a machine that a test describes; the user's home is empty."""
    home = tmp_path / "home"
    home.mkdir()

    def run(
        environment: Path,
        machine: Target | Host = CPU,
        *,
        environ: Mapping[str, str] | None = None,
        deep: bool = False,
        cwd: Path | None = None,
        place: Any = None,
        other: Target | None = None,
        described: tuple[str, ...] = (),
    ) -> Examined:
        host = (
            machine
            if isinstance(machine, Host)
            else Host(target=machine, driver_state=_state(machine), facts=())
        )
        monkeypatch.setattr("bnbenv.machine.probe.probe", lambda **_: host)
        where = place or located(environment)
        variables = {"HOME": str(home), "PATH": "", **(environ or {})}
        return examine(where, Listener(), variables, deep=deep, target=other, described=described, cwd=cwd)

    return run


def _state(machine: Target) -> Any:
    return "ok" if machine.gpus else "absent"


def codes(examined: Examined, *, least: str = "warning") -> set[str]:
    kept = {"error"} if least == "error" else {"error", "warning"} if least == "warning" else None
    return {found.code for found in examined.findings if kept is None or found.severity in kept}


def test_nothing_is_wrong(look: Callable[..., Examined], tmp_path: Path) -> None:
    examined = look(make_site(tmp_path / "env"))
    assert codes(examined) == set()
    assert examined.healthy
    assert (examined.library, examined.bitsandbytes) == ("libbitsandbytes_cpu.so", "0.50.2")
    assert examined.torch is not None
    assert examined.torch.full_version == "2.13.0+cpu"


def test_nothing_is_wrong_beside_a_gpu(look: Callable[..., Examined], tmp_path: Path) -> None:
    examined = look(make_site(tmp_path / "env", torch="2.13.0+cu130", cuda="13.0"), CARD)
    assert codes(examined) == set()
    assert examined.library == "libbitsandbytes_cuda130.so"


def _package(environment: Path) -> Path:
    return site_of(environment) / "bitsandbytes"


def _info(environment: Path, name: str = "bitsandbytes") -> Path:
    return next(site_of(environment).glob(f"{name}-*.dist-info"))


def _write(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(bytes(data))


def _interpreter(environment: Path, to: str) -> None:
    (environment / "bin" / "python").unlink()
    (environment / "bin" / "python").symlink_to(to)


def _command(environment: Path, interpreter: str) -> None:
    (environment / "bin" / "pip").write_text(f"#!{interpreter}\nimport sys\n", encoding="utf-8")


def _second_copy(environment: Path) -> None:
    shutil.copytree(_info(environment), site_of(environment) / "bitsandbytes-0.49.2.dist-info")


def _checkout(environment: Path) -> None:
    shutil.rmtree(_info(environment))
    for library in _package(environment).glob("lib*"):
        library.unlink()
    add(site_of(environment), "bitsandbytes", "0.51.0.dev0", {"bitsandbytes/__init__.py": b""})


def _to_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _without(environment: Path, name: str) -> None:
    shutil.rmtree(site_of(environment) / name)
    shutil.rmtree(_info(environment, name))


def _config_lost(environment: Path) -> None:
    (environment / "pyvenv.cfg").unlink()
    _write(environment / "bin" / "activate", b"")


def _numpy_lost(environment: Path) -> None:
    _without(environment, "numpy")
    add(site_of(environment), "trl", "1.14.2", {"trl/__init__.py": b""}, requires=("numpy>=1",))


FAULTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "library-deleted": ("file-damaged", lambda e: (_package(e) / "libbitsandbytes_cpu.so").unlink()),
    "library-flipped": ("file-damaged", lambda e: _flip(_package(e) / "libbitsandbytes_cuda126.so")),
    "library-truncated": ("file-damaged", lambda e: _write(_package(e) / "libbitsandbytes_cpu.so", b"")),
    "library-is-directory": ("file-damaged", lambda e: _to_directory(_package(e) / "libbitsandbytes_cpu.so")),
    "torch-library-truncated": ("file-damaged", lambda e: _write(site_of(e) / "torch" / "_C.so", b"")),
    "code-emptied": ("file-damaged", lambda e: _write(site_of(e) / "peft" / "__init__.py", b"")),
    "package-deleted": ("file-damaged", lambda e: shutil.rmtree(site_of(e) / "transformers")),
    "version-py-damaged": ("file-damaged", lambda e: _write(site_of(e) / "torch" / "version.py", b"(((")),
    "version-py-is-directory": (
        "file-damaged",
        lambda e: _to_directory(site_of(e) / "torch" / "version.py"),
    ),
    "record-missing": ("record-missing", lambda e: (_info(e) / "RECORD").unlink()),
    "record-garbage": ("record-missing", lambda e: _write(_info(e) / "RECORD", b"\xff\x00garbage\n")),
    "record-empty": ("record-missing", lambda e: _write(_info(e, "torch") / "RECORD", b"")),
    "dist-info-missing": ("record-missing", lambda e: shutil.rmtree(_info(e))),
    "dist-info-of-torch-missing": ("record-missing", lambda e: shutil.rmtree(_info(e, "torch"))),
    "stale-library": (
        "stale-library",
        lambda e: _write(_package(e) / "libbitsandbytes_cuda125.so", b"of another release"),
    ),
    "two-copies": ("duplicate-package", _second_copy),
    "torch-gone": ("torch-not-installed", lambda e: _without(e, "torch")),
    "bitsandbytes-gone": ("bnb-not-installed", lambda e: _without(e, "bitsandbytes")),
    "checkout": ("source-build-no-native-lib", _checkout),
    "interpreter-missing": ("interpreter-broken", lambda e: (e / "bin" / "python").unlink()),
    "base-deleted": ("interpreter-broken", lambda e: _interpreter(e, "/nowhere/bin/python3.11")),
    "config-garbage": ("interpreter-broken", lambda e: _write(e / "pyvenv.cfg", b"\xff garbage")),
    "config-missing": ("interpreter-broken", _config_lost),
    "home-gone": ("interpreter-broken", lambda e: _write(e / "pyvenv.cfg", b"home = /nowhere\n")),
    "moved": ("environment-moved", lambda e: _command(e, "/old/place/bin/python")),
    "numpy-missing": ("missing-python-dep", _numpy_lost),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(fault: str, look: Callable[..., Examined], tmp_path: Path) -> None:
    code, plant = FAULTS[fault]
    environment = make_site(tmp_path / "env")
    assert codes(look(environment)) == set()
    plant(environment)
    examined = look(environment)
    assert code in codes(examined), [(found.code, found.summary) for found in examined.findings]
    assert examined.findings[0].code == code or code not in codes(examined, least="error")
    assert not examined.healthy
    assert all(found.source for found in examined.findings)


def test_a_copied_interpreter_does_not_start_without_its_base(
    look: Callable[..., Examined], tmp_path: Path
) -> None:
    environment, link = make_site(tmp_path / "env"), tmp_path / "link"
    link.symlink_to(environment)
    python = environment / "bin" / "python"

    def told(at: Path) -> list[str]:
        return [found.severity for found in look(at).findings if found.code == "interpreter-broken"]

    config = (environment / "pyvenv.cfg").read_text(encoding="utf-8")
    _write(environment / "pyvenv.cfg", b"home = /nowhere\n")
    assert told(environment) == ["warning"]  # it leads to a Python that is there
    base = python.resolve()
    python.unlink()
    shutil.copyfile(base, python)
    assert [told(environment), told(link)] == [["error"], ["error"]]
    (environment / "pyvenv.cfg").write_text(config, encoding="utf-8")
    assert told(environment) == []


@pytest.mark.parametrize("lost", ["torch/version.py", "torch"])
def test_a_damaged_torch_is_not_called_absent(
    lost: str, look: Callable[..., Examined], tmp_path: Path
) -> None:
    environment = make_site(tmp_path / "env")
    path = site_of(environment) / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert codes(look(environment)) == {"file-damaged"}
    shutil.rmtree(_info(environment, "torch"))
    assert "torch-not-installed" in codes(look(environment))


@pytest.mark.parametrize("name", ["pytorch-triton-rocm", "triton-windows", "pytorch-triton"])
def test_triton_is_of_more_than_one_distribution(
    name: str, look: Callable[..., Examined], tmp_path: Path
) -> None:
    environment = make_site(tmp_path / "env")
    info = add(site_of(environment), name, "3.5.1", {"triton/__init__.py": b""})
    assert codes(look(environment)) == set()
    shutil.rmtree(info)
    assert codes(look(environment)) == {"record-missing"}


NCCL = "nvidia/nccl/lib/libnccl.so.2"


@pytest.mark.parametrize(
    ("requires", "severity"), [("nvidia-nccl-cu13", "info"), ("nvidia-nccl-cu12", "warning")]
)
def test_two_packages_that_bring_one_file(
    requires: str, severity: str, look: Callable[..., Examined], tmp_path: Path
) -> None:
    """After an upgrade of torch to another CUDA the old NCCL stays, and the new one lies in its place."""
    environment = make_site(
        tmp_path / "env", torch="2.13.0+cu130", cuda="13.0", torch_requires=(f"{requires}==2.27",)
    )
    site = site_of(environment)
    add(site, "nvidia-nccl-cu12", "2.27", {NCCL: b"of CUDA 12"})
    add(site, "nvidia-nccl-cu13", "2.27", {NCCL: b"of CUDA 13, longer"})
    [found] = [it for it in look(environment, CARD).findings if it.subject == "nvidia-nccl-cu12"]
    assert (found.code, found.severity) == ("duplicate-package", severity)
    assert NCCL in found.evidence
    (site / NCCL).write_bytes(b"of nobody")
    assert "file-damaged" in codes(look(environment, CARD))


def test_a_fork_over_bitsandbytes_is_an_error(look: Callable[..., Examined], tmp_path: Path) -> None:
    environment = make_site(tmp_path / "env")
    add(site_of(environment), "bitsandbytes-mine", "1.0", {"bitsandbytes/__init__.py": b"# another\n"})
    [found] = [it for it in look(environment).findings if it.severity == "error"]
    assert (found.code, found.subject) == ("duplicate-package", "bitsandbytes")


def test_a_fork_is_named(look: Callable[..., Examined], tmp_path: Path) -> None:
    environment = make_site(tmp_path / "env", bitsandbytes=None)
    add(site_of(environment), "bitsandbytes-windows", "0.37.5", {"bitsandbytes/__init__.py": b""})
    [found] = [it for it in look(environment).findings if it.code == "record-missing"]
    assert found.summary == "bitsandbytes was brought by bitsandbytes-windows 0.37.5, a fork"
    assert found.remedy is not None
    assert "Remove bitsandbytes-windows" in found.remedy.summary


_AUDITED = """
import sys
told = []
def watch(event, arguments):
    mode, flags = (arguments[1:3] if event == "open" else ("", 0))
    writes = event == "open" and (set(str(mode or "")) & set("wax+") or (mode is None and flags & 0o103))
    if writes or event in WATCHED:
        told.append((event, str(arguments)[:200]))
WATCHED = {"subprocess.Popen", "os.exec", "os.fork", "os.posix_spawn", "os.system", "socket.connect",
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.utime", "os.chmod"}
sys.addaudithook(watch)
from bnbenv.cli.main import main
main(["doctor", sys.argv[1], "--json"])
print(told, "torch" in sys.modules, file=sys.stderr)
if len(sys.argv) > 2:
    open(sys.argv[2], "w").close()
    print(told, file=sys.stderr)
"""


def test_nothing_is_started_written_or_asked(tmp_path: Path) -> None:
    import subprocess

    environment = make_site(tmp_path / "env")
    ran = subprocess.run(
        [sys.executable, "-B", "-c", _AUDITED, str(environment), str(tmp_path / "written")],
        env={"PATH": "", "HOME": str(tmp_path), "BNBENV_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
    )
    *_, quiet, seen = ran.stderr.splitlines()
    assert quiet == "[] False"
    assert "written" in seen  # the hook does see a write


def test_metadata_of_a_distribution_stand_twice(look: Callable[..., Examined], tmp_path: Path) -> None:
    environment = make_site(tmp_path / "env")
    egg = site_of(environment) / "peft.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text(f"Name: peft\nVersion: {PACKAGES['peft']}\n", encoding="utf-8")
    assert codes(look(environment)) == set()
    (egg / "PKG-INFO").write_text("Name: peft\nVersion: 0.1.0\n", encoding="utf-8")
    assert "duplicate-package" in codes(look(environment))


# What is wrong with a combination is the judge's to tell; here it is read out of an environment.
STACKS: dict[str, tuple[str, dict[str, Any], Target]] = {
    "torch-of-the-processor": ("torch-cpu-build", {}, CARD),
    "driver-too-old": (
        "driver-too-old",
        {"torch": "2.13.0+cu130", "cuda": "13.0"},
        target("8.9", driver="535.104.05", pythons=(PYTHON,)),
    ),
    "no-kernel": (
        "torch-arch-unsupported",
        {"torch": "2.9.1+cu126", "cuda": "12.6"},
        target("12.0", pythons=(PYTHON,)),
    ),
    "no-library": (
        "missing-cuda-binary",
        {"torch": "2.13.0+cu130", "cuda": "13.0", "bitsandbytes": "0.46.1"},
        CARD,
    ),
    "older-torch": ("bnb-torch-requirement", {"torch": "2.0.1+cpu", "bitsandbytes": "0.50.2"}, CPU),
    "triton": (
        "triton-ops-removed",
        {
            "torch": "2.9.1+cu128",
            "cuda": "12.8",
            "bitsandbytes": "0.44.1",
            "packages": {**PACKAGES, "triton": "3.5.1"},
        },
        CARD,
    ),
    "hazard": ("quant-lib-presence", {"packages": {**PACKAGES, "torchao": "0.14.0"}}, CPU),
    "hub": (
        "hub-at-import",
        {"packages": {**PACKAGES, "kernels": "0.12.0"}},
        replace(CPU, cpu_flags=frozenset({"avx512_bf16", "avx512f"})),
    ),
    "musl": ("no-wheel-for-platform", {}, target(pythons=(PYTHON,), libc=None)),
    "broken-release": ("broken-release", {"bitsandbytes": "0.45.4"}, CPU),
    "extension-of-another-torch": (
        "quant-ext-torch-abi",
        {"packages": {**PACKAGES, "flash-attn": "2.5.8+cu122torch2.3cxx11abiFALSE"}},
        CPU,
    ),
    "preview": ("rocm-broken-preview", {"bitsandbytes": "1.33.7rc0"}, CPU),
}


@pytest.mark.parametrize("stack", STACKS)
def test_the_judge_is_asked(stack: str, look: Callable[..., Examined], tmp_path: Path) -> None:
    from bnbenv.machine.target import Libc
    from bnbenv.units import DottedVersion

    code, given, machine = STACKS[stack]
    if stack == "musl":
        machine = replace(machine, libc=Libc(family="musl", version=DottedVersion.parse("1.2.4")))
    examined = look(make_site(tmp_path / "env", **given), machine)
    assert code in codes(examined), [(found.code, found.summary) for found in examined.findings]


def test_slow_bf16_is_a_notice(look: Callable[..., Examined], tmp_path: Path) -> None:
    t4 = target("7.5", pythons=(PYTHON,))
    examined = look(make_site(tmp_path / "env", torch="2.13.0+cu130", cuda="13.0"), t4)
    assert "slow-emulation" in codes(examined, least="info")
    assert examined.healthy


def test_a_library_that_the_matrix_does_not_know_is_measured(
    look: Callable[..., Examined], tmp_path: Path
) -> None:
    environment = make_site(tmp_path / "env", bitsandbytes="99.0")
    stub = Path(sys.executable).resolve().read_bytes()[:64]  # an ELF header alone: damaged, and said so
    (_package(environment) / "libbitsandbytes_cuda126.so").write_bytes(stub)
    assert {"stale-library", "unknown-bnb-release"} <= codes(look(environment))


def _built_by_somebody(environment: Path, *, conda: bool) -> None:
    """A bitsandbytes of a published version that holds two libraries of its own."""
    _without(environment, "bitsandbytes")
    native = next((Path(sysconfig.get_path("stdlib")) / "lib-dynload").glob("*.so")).read_bytes()
    files = {f"bitsandbytes/libbitsandbytes_{name}.so": native for name in ("cpu", "cuda126")}
    files["bitsandbytes/__init__.py"] = b""
    site = site_of(environment)
    info = add(site, "bitsandbytes", "0.50.2", files, installer="conda" if conda else "pip")
    if not conda:
        (info / "direct_url.json").write_text('{"url": "file:///src/bitsandbytes", "dir_info": {}}')


@pytest.mark.parametrize(
    ("conda", "code"), [(True, "missing-cuda-binary"), (False, "source-build-no-native-lib")]
)
def test_what_somebody_else_built_is_measured(
    conda: bool, code: str, look: Callable[..., Examined], tmp_path: Path
) -> None:
    environment = make_site(tmp_path / "env", torch="2.13.0+cu130", cuda="13.0")
    assert look(environment, CARD).works
    _built_by_somebody(environment, conda=conda)
    assert code in codes(look(environment, CARD))
    fits = make_site(tmp_path / "cpu")
    _built_by_somebody(fits, conda=conda)
    assert codes(look(fits)) == set()


def test_a_path_that_record_quotes_is_listed_all_the_same(
    look: Callable[..., Examined], tmp_path: Path
) -> None:
    environment = make_site(tmp_path / "env")
    [record] = site_of(environment).glob("bitsandbytes-*/RECORD")
    text, path = record.read_text(encoding="utf-8"), "bitsandbytes/libbitsandbytes_cpu.so"
    record.write_text(text.replace(path, f'"{path}"'), encoding="utf-8")
    assert record.read_text(encoding="utf-8") != text
    assert codes(look(environment)) == set()


def test_a_variable_that_forces_a_library(look: Callable[..., Examined], tmp_path: Path) -> None:
    environment = make_site(tmp_path / "env", torch="2.13.0+cu130", cuda="13.0")
    forced = look(environment, CARD, environ={"BNB_CUDA_VERSION": "125"})
    assert forced.findings[0].code == "bnb-cuda-override-wrong"
    assert not forced.works
    ignored = look(make_site(tmp_path / "cpu"), environ={"BNB_CUDA_VERSION": "125"})
    assert "bnb-cuda-override-wrong" in codes(ignored, least="info")
    assert ignored.healthy


@pytest.mark.parametrize(
    ("file", "line"),
    [
        (".bashrc", "export BNB_CUDA_VERSION=125"),
        (".zshrc", "  export BNB_CUDA_VERSION='125'  # for the old box"),
        (".profile", "BNB_CUDA_VERSION=125; export BNB_CUDA_VERSION"),
        (".config/fish/config.fish", "set -gx BNB_CUDA_VERSION 125"),
    ],
)
def test_a_start_up_file_that_sets_it(
    file: str, line: str, look: Callable[..., Examined], tmp_path: Path
) -> None:
    environment = make_site(tmp_path / "env", torch="2.13.0+cu130", cuda="13.0")
    home = tmp_path / "home"
    (home / file).parent.mkdir(parents=True, exist_ok=True)
    (home / file).write_text(f"# BNB_CUDA_VERSION=1 is a comment\n\n{line}\n", encoding="utf-8")
    examined = look(environment, CARD)
    (found,) = [found for found in examined.findings if found.code == "bnb-cuda-override-wrong"]
    assert found.severity == "warning"
    assert f"{home / file}:3: BNB_CUDA_VERSION=125" in found.evidence


def test_conda_keeps_variables_with_an_environment(look: Callable[..., Examined], tmp_path: Path) -> None:
    environment = make_site(tmp_path / "env", torch="2.13.0+cu130", cuda="13.0")
    (environment / "conda-meta").mkdir()
    (environment / "conda-meta" / "state").write_text('{"env_vars": {"BNB_CUDA_VERSION": "125"}}')
    scripts = environment / "etc" / "conda" / "activate.d"
    scripts.mkdir(parents=True)
    (scripts / "cuda.sh").write_text("export BNB_CUDA_VERSION=125\n")
    (found,) = [f for f in look(environment, CARD).findings if f.code == "bnb-cuda-override-wrong"]
    assert len([line for line in found.evidence if "BNB_CUDA_VERSION=125" in line]) == 2


def test_a_variable_is_taken_out_of_its_file_and_conda_s_by_conda(
    look: Callable[..., Examined], tmp_path: Path
) -> None:
    environment = make_site(tmp_path / "my env", torch="2.13.0+cu130", cuda="13.0")
    state, script = environment / "conda-meta" / "state", environment / "etc/conda/activate.d/cuda paths.sh"
    state.parent.mkdir()
    script.parent.mkdir(parents=True)

    def command() -> str:
        (found,) = [f for f in look(environment, CARD).findings if f.code == "bnb-cuda-override-wrong"]
        assert found.remedy is not None
        [only] = found.remedy.commands
        return only

    state.write_text('{"env_vars": {"BNB_CUDA_VERSION": "125"}}')
    assert command() == f"conda env config vars unset BNB_CUDA_VERSION -p '{environment}'"
    state.unlink()
    script.write_text("# of the old box\nexport BNB_CUDA_VERSION=125\n")
    assert command() == f"sed -i 2d '{script}'"


def test_directories_that_hide_torchs_libraries(look: Callable[..., Examined], tmp_path: Path) -> None:
    environment = make_site(tmp_path / "env", torch="2.13.0+cu130", cuda="13.0")
    own = site_of(environment) / "nvidia" / "cu13" / "lib"
    own.mkdir(parents=True)
    (own / "libcublas.so.13").write_bytes(b"torch's own")
    same, other, older, stub = (tmp_path / name for name in ("cuda-13.0", "lib64", "cuda-11.8", "stubs"))
    for directory, name, data in (
        (same, "libcublas.so.13", b"torch's own"),
        (other, "libcublas.so.13", b"another release's"),
        (older, "libcudart.so.11.0", b"of CUDA 11"),
        (stub, "libcuda.so.1", b"a stub"),
    ):
        directory.mkdir()
        (directory / name).write_bytes(data)

    def told(directory: Path) -> list[str]:
        examined = look(environment, CARD, environ={"LD_LIBRARY_PATH": f"{directory}:/nowhere:"})
        return [found.severity for found in examined.findings if found.code == "cuda-conflict-ldpath"]

    assert [told(it) for it in (same, other, older, stub, own)] == [[], ["warning"], ["info"], ["error"], []]

    def set_by_a_file(directory: Path) -> list[str]:
        line = f'export LD_LIBRARY_PATH="{directory}:$LD_LIBRARY_PATH"\n'
        (tmp_path / "home" / ".bashrc").write_text(line, encoding="utf-8")
        examined = look(environment, CARD)
        found = [it for it in examined.findings if it.code == "cuda-conflict-ldpath"]
        assert all(any(".bashrc:1:" in text for text in it.evidence) for it in found)
        return [it.severity for it in found]

    after = [set_by_a_file(it) for it in (same, other, older, stub, own)]
    assert after == [[], ["warning"], ["info"], ["warning"], []]


@pytest.mark.parametrize("how", ["cwd", "PYTHONPATH"])
@pytest.mark.parametrize("name", ["bitsandbytes", "torch", "triton"])
def test_a_directory_that_hides_a_package(
    how: str, name: str, look: Callable[..., Examined], tmp_path: Path
) -> None:
    environment = make_site(tmp_path / "env", packages={**PACKAGES, "triton": "3.5.1"})
    work = tmp_path / "work"
    (work / name).mkdir(parents=True)
    arguments: dict[str, Any] = (
        {"cwd": work} if how == "cwd" else {"environ": {"PYTHONPATH": f"{work}"}, "cwd": tmp_path}
    )
    assert codes(look(environment, **arguments)) == set()  # a plain directory hides nothing
    (work / name / "__init__.py").write_text("")
    examined = look(environment, **arguments)
    assert "cwd-shadowing" in codes(examined)
    assert codes(look(environment, cwd=tmp_path)) == set()


def test_an_editable_package_hides_nothing(look: Callable[..., Examined], tmp_path: Path) -> None:
    environment = make_site(tmp_path / "env", packages={k: v for k, v in PACKAGES.items() if k != "peft"})
    source = tmp_path / "peft-source"
    (source / "peft").mkdir(parents=True)
    (source / "peft" / "__init__.py").write_text("")
    (source / "peft.egg-info").mkdir()
    (source / "peft.egg-info" / "PKG-INFO").write_text("Name: peft\nVersion: 0.21.2\n")
    info = add(site_of(environment), "peft", "0.21.2", {"__editable__.peft.pth": f"{source}\n".encode()})
    (info / "direct_url.json").write_text(f'{{"url": "file://{source}", "dir_info": {{"editable": true}}}}')
    assert codes(look(environment, cwd=source)) == set()


def test_another_environment_on_the_import_path(look: Callable[..., Examined], tmp_path: Path) -> None:
    environment, other = make_site(tmp_path / "env"), make_site(tmp_path / "other", bitsandbytes="0.49.2")
    leak = {"PYTHONPATH": str(site_of(other))}
    assert "environment-leak" in codes(look(environment, environ=leak))
    assert "environment-leak" in codes(look(environment, environ={"PYTHONHOME": "/usr"}))


def test_packages_of_the_user_hide_those_of_the_system(look: Callable[..., Examined], tmp_path: Path) -> None:
    environment = make_site(tmp_path / "env")
    (environment / "pyvenv.cfg").unlink()
    (site_of(environment).parent / "os.py").write_text("")
    user = tmp_path / "home" / ".local" / "lib" / f"python{PYTHON}" / "site-packages"
    user.mkdir(parents=True)
    assert codes(look(environment)) == set()
    add(user, "bitsandbytes", "0.42.0", {"bitsandbytes/__init__.py": b""})
    examined = look(environment)
    assert examined.bitsandbytes == "0.42.0"
    assert "environment-leak" in codes(examined)
    assert codes(look(environment, environ={"PYTHONNOUSERSITE": "1"})) == set()


def test_pip_that_installs_elsewhere(look: Callable[..., Examined], tmp_path: Path) -> None:
    environment, other = make_site(tmp_path / "my env", bitsandbytes=None), make_site(tmp_path / "other")
    _command(other, str(other / "bin" / "python"))
    examined = look(environment, environ={"PATH": str(other / "bin")})
    assert {"bnb-not-installed", "wrong-env-install"} <= codes(examined)
    install = ["uv", "pip", "install", "--python", str(environment / "bin" / "python"), "bitsandbytes"]
    assert install in _typed(examined, "wrong-env-install")
    _command(environment, str(other / "bin" / "python"))
    told = _typed(look(environment), "wrong-env-install")
    assert told == [[str(environment / "bin" / "python"), "-m", "pip", "--version"]]


@pytest.mark.parametrize(("first_line", "holds"), [("python3.9", False), ("python3.8", True)])
def test_pip_installs_for_one_of_the_pythons_that_share_a_prefix(
    first_line: str, holds: bool, look: Callable[..., Examined], tmp_path: Path
) -> None:
    prefix = make_site(tmp_path / "usr", bitsandbytes=None)
    (prefix / "pyvenv.cfg").unlink()
    for name in ("python3.8", "python3.9"):
        (prefix / "lib" / name / "site-packages").mkdir(parents=True)
        _write(prefix / "lib" / name / "os.py", b"")
        _write(prefix / "bin" / name, b"\x7fELF")
    (prefix / "bin" / "python3").symlink_to("python3.9")
    site = prefix / "lib" / "python3.8" / "site-packages"
    add(site, "bitsandbytes", "0.49.2", {"bitsandbytes/__init__.py": b""})
    _command(prefix, str(prefix / "bin" / first_line))
    environ = {"PATH": str(prefix / "bin")}
    for environment in (make_site(tmp_path / "env", bitsandbytes=None), prefix):
        found = codes(look(environment, environ=environ))
        assert "bnb-not-installed" in found
        assert ("wrong-env-install" in found) == holds


@pytest.mark.parametrize(
    ("recorded", "listed", "told"),
    [
        ("pytorch-2.5.1-cpu_generic_py311_h0_0", "torch-2.5.1.dist-info/METADATA", True),
        ("pytorch-1.11.0-py3.7_cpu_0", "torch-1.11.0-py3.7.egg-info", True),
        ("pytorch-2.13.0-cpu_generic_py311_h0_0", "torch-2.13.0+cpu.dist-info/METADATA", False),
        (
            "pytorch-2.12.9-cpu_generic_py311_h0_0",
            "torch-2.13.0+cpu.dist-info/METADATA",
            False,
        ),  # another label
        ("pytorch-2.5.1-cpu_generic_py311_h0_0", "torch/version.py", False),
        ("pytorch-cuda-12.4-hc786d27_7", "torch-2.5.1.dist-info/METADATA", False),
    ],
)
def test_torch_was_put_over_the_one_of_conda(
    recorded: str, listed: str, told: bool, look: Callable[..., Examined], tmp_path: Path
) -> None:
    environment = make_site(tmp_path / "my env")
    (environment / "pyvenv.cfg").unlink()
    (environment / "conda-meta").mkdir()
    (environment / "conda-meta" / "history").touch()
    assert codes(look(environment)) == set()
    files = {"files": ["bin/torchrun", f"lib/python{PYTHON}/site-packages/{listed}"]}
    (environment / "conda-meta" / f"{recorded}.json").write_text(json.dumps(files), encoding="utf-8")
    examined = look(environment)
    assert codes(examined) == ({"installer-replaced-torch"} if told else set())
    if told:
        remove = ["conda", "remove", "--prefix", str(environment), "--force", "pytorch"]
        assert _typed(examined, "installer-replaced-torch") == [
            remove,
            ["bnbenv", "repair", str(environment)],
        ]


def _typed(examined: Examined, code: str) -> list[list[str]]:
    """The commands of a cause's remedies, as a shell reads them."""
    remedies = [found.remedy for found in examined.findings if found.code == code and found.remedy]
    return [shlex.split(command) for remedy in remedies for command in remedy.commands]


def test_an_environment_of_windows(look: Callable[..., Examined], tmp_path: Path) -> None:
    environment = tmp_path / "env"
    (environment / "Scripts").mkdir(parents=True)
    (environment / "Scripts" / "python.exe").write_bytes(b"MZ")
    add(
        environment / "Lib" / "site-packages", "torch", "2.13.0", {"torch/version.py": b"__version__ = '2'\n"}
    )
    (environment / "pyvenv.cfg").write_text("home = C:\\Python311\n")
    examined = look(environment)
    assert [found.code for found in examined.findings] == ["windows-environment"]


# --- what an environment of bnbenv's own remembers ----------------------------------------------------


@pytest.fixture
def own(make_environment: Callable[..., Generation]) -> Callable[..., Any]:
    """An environment of bnbenv's own with constructed packages in it."""
    from bnbenv.workflows.environment import Located

    def make(*, torch: str = "2.13.0+cpu", cuda: str | None = None, **changes: Any) -> Located:
        build = torch.partition("+")[2]
        facts: dict[str, Any] = {
            "torch": {"version": torch.partition("+")[0], "build": build, "index": "pypi"}
        }
        made = make_environment(**{**facts, **changes})
        for part in ("bin", "pyvenv.cfg"):
            path = made.directory / part
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        make_site(made.directory, torch=torch, cuda=cuda)
        names = {**PACKAGES, "bitsandbytes": "0.50.2", "torch": torch}
        lock = "".join(
            f'[[packages]]\nname = "{name}"\nversion = "{version}"\n' for name, version in names.items()
        )
        made.lock_file.write_text(f'lock-version = "1.0"\n{lock}', encoding="utf-8")
        made.ready_file.touch()
        return Located(directory=made.directory, kind="bnbenv", why="a test")

    return make


CARD_STATE = {
    "schema": 1,
    "name": "lab-a",
    "os": "linux",
    "arch": "x86_64",
    "libc": {"family": "glibc", "version": "2.35"},
    "accelerator": "cuda",
    "driver": "570.86.15",
    "gpus": [{"name": "a GPU of 8.9", "compute_capability": "8.9", "uuid": "GPU-1"}],
    "pythons": [PYTHON],
}
CUDA: dict[str, Any] = {"torch": "2.9.1+cu128", "cuda": "12.8", "target": CARD_STATE, "driver": "570.86.15"}


def test_nothing_has_changed(look: Callable[..., Examined], own: Callable[..., Any]) -> None:
    place = own()
    examined = look(place.directory, place=place)
    assert codes(examined) == set()
    assert examined.verdict == "passed"


def test_the_self_test_had_failed(look: Callable[..., Examined], own: Callable[..., Any]) -> None:
    place = own(verdict="failed")
    [found] = [f for f in look(place.directory, place=place).findings if f.severity != "info"]
    assert (found.code, found.severity) == ("wrong-result", "error")
    assert found.remedy is not None
    assert found.remedy.commands == (f"bnbenv verify {place.directory}",)


def test_the_self_test_fails(
    look: Callable[..., Examined], own: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = own()
    failed = Verified(
        environment=place, verdict=Verdict(verdict="failed", level="quick", library=None, devices=())
    )
    monkeypatch.setattr("bnbenv.workflows.verify.verify", lambda *_args, **_options: failed)
    proven = prove(look(place.directory, place=place), Listener(), {}, cwd=tmp_path)
    [found] = [f for f in proven.findings if f.code == "wrong-result"]
    assert found.remedy is not None
    assert found.remedy.commands == (f"bnbenv verify {place.directory}",)


def test_a_repair_is_advised_for_the_machine_that_was_asked_about(
    look: Callable[..., Examined], own: Callable[..., Any]
) -> None:
    place = own()
    described = ("--gpu", "RTX 4090", "--driver", "580")
    examined = look(place.directory, place=place, other=CARD, described=described)
    commands = [c for found in examined.findings if found.remedy for c in found.remedy.commands]
    assert commands == [f"bnbenv repair {place.directory} --gpu 'RTX 4090' --driver 580"]


def test_torch_was_replaced(look: Callable[..., Examined], own: Callable[..., Any]) -> None:
    place = own()
    site = site_of(place.directory)
    shutil.rmtree(site / "torch")
    shutil.rmtree(next(site.glob("torch-*")))
    files = {"torch/__init__.py": b"", "torch/version.py": b"__version__ = '2.14.0+cu130'\ncuda = '13.0'\n"}
    add(site, "torch", "2.14.0", files)
    examined = look(place.directory, place=place)
    assert "installer-replaced-torch" in codes(examined)
    assert "bnbenv repair" in " ".join(c for f in examined.findings if f.remedy for c in f.remedy.commands)


def test_what_was_let_in_anyway_is_not_for_repair_to_mend(
    look: Callable[..., Examined], own: Callable[..., Any]
) -> None:
    for let_in in ((), ("auto-gptq",)):
        place = own(request={"profile": "qlora", "anyway": list(let_in)})
        add(site_of(place.directory), "auto-gptq", "0.7.1", {"auto_gptq/__init__.py": b""})
        [found] = [f for f in look(place.directory, place=place).findings if f.code == "quant-lib-presence"]
        assert found.remedy is not None
        assert ("it was let in with `--anyway`" in found.summary) == bool(let_in)
        removal = (f"uv pip uninstall --python {place.python} auto-gptq",)
        assert found.remedy.commands == (*(() if let_in else removal), f"bnbenv split {place.directory}")


def test_split_is_named_where_it_serves(look: Callable[..., Examined], tmp_path: Path) -> None:
    packages = {**PACKAGES, "gptqmodel": "5.0.0", "bitsandbytes-windows": "0.41.1"}
    environment = make_site(tmp_path / "my env", packages=packages)
    found = {it.subject: it.remedy for it in look(environment).findings if it.code == "quant-lib-presence"}
    uninstall = ["uv", "pip", "uninstall", "--python", str(environment / "bin" / "python")]
    told = {name: [shlex.split(it) for it in remedy.commands] for name, remedy in found.items() if remedy}
    assert told == {
        "gptqmodel": [[*uninstall, "gptqmodel"], ["bnbenv", "split", str(environment)]],
        "bitsandbytes-windows": [[*uninstall, "bitsandbytes-windows"]],
    }


def test_packages_left_the_lock(look: Callable[..., Examined], own: Callable[..., Any]) -> None:
    place = own()
    site = site_of(place.directory)
    shutil.rmtree(next(site.glob("peft-*")))
    shutil.rmtree(site / "peft")
    shutil.rmtree(next(site.glob("trl-*")))
    add(site, "trl", "1.15.0", {"trl/__init__.py": b"# code\n"})
    found = [f for f in look(place.directory, place=place).findings if f.code == "environment-changed"]
    assert {(f.severity, f.subject) for f in found} == {("error", "peft"), ("warning", "trl")}


def test_another_spelling_of_a_locked_version_is_no_change(
    look: Callable[..., Examined], own: Callable[..., Any]
) -> None:
    place = own()
    lock = place.directory / ".bnbenv" / "lock.toml"
    text = lock.read_text(encoding="utf-8")
    lock.write_text(text.replace('"trl"\nversion = "', '"trl"\nversion = "0'), encoding="utf-8")
    assert lock.read_text(encoding="utf-8") != text
    assert codes(look(place.directory, place=place)) == set()


def test_the_guard_is_gone(look: Callable[..., Examined], own: Callable[..., Any]) -> None:
    place = own()
    (place.directory / ".bnbenv" / "guard").mkdir()  # it had one, and nothing of it is left
    [found] = [f for f in look(place.directory, place=place).findings if f.subject == "guard"]
    assert (found.code, found.severity) == ("environment-changed", "warning")
    assert "pip.conf is not bnbenv's" in found.evidence


def test_a_file_newer_than_the_environment(look: Callable[..., Examined], own: Callable[..., Any]) -> None:
    place = own()
    file = site_of(place.directory) / "transformers" / "__init__.py"
    file.write_bytes(b"# evil\n")  # of the same length
    os.utime(file, ns=(2**62, 2**62))
    assert "file-damaged" in codes(look(place.directory, place=place))


def _tick(beside: Path) -> None:
    """Go on once the file system's clock has: what is written from now on has another time."""
    probe = beside / "tick"
    probe.touch()
    first = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == first:
        probe.touch()


def _same_size_and_time(file: Path) -> None:
    times = file.stat()
    _flip(file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def _link_to_another(file: Path) -> None:
    other = file.with_name("elsewhere")
    file.rename(other)
    _flip(other)
    file.symlink_to(other)


TOUCHED: dict[str, Callable[[Path], object]] = {
    "altered": _same_size_and_time,
    "replaced": _link_to_another,
    "deleted": Path.unlink,
}


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps no time of change")
@pytest.mark.parametrize("touched", TOUCHED)
def test_what_was_touched_since_it_was_proven_is_hashed(
    touched: str,
    look: Callable[..., Examined],
    own: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bnbenv.env import record

    hashed = []

    def check_record(*arguments: Any, **options: Any) -> Any:
        hashed.append(arguments)
        return compare(*arguments, **options)

    compare = record.check_record
    monkeypatch.setattr(record, "check_record", check_record)
    place = own()
    _tick(tmp_path)
    (place.directory / ".bnbenv" / "READY").touch()
    _tick(tmp_path)
    assert codes(look(place.directory, place=place)) == set()
    assert hashed == []
    ready = place.directory / ".bnbenv" / "READY"
    times = ready.stat()
    os.utime(ready, (2**32, 2**32))  # by a clock that was wrong
    assert codes(look(place.directory, place=place)) == set()
    assert len(hashed) == 1
    hashed.clear()
    os.utime(ready, ns=(times.st_atime_ns, times.st_mtime_ns))
    TOUCHED[touched](_package(place.directory) / "libbitsandbytes_cuda126.so")
    assert "file-damaged" in codes(look(place.directory, place=place))
    assert len(hashed) == 1


def test_what_somebody_else_may_not_read_is_told(
    look: Callable[..., Examined], own: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root made it and a user has it: root, who runs the tests, may read everything."""
    place = own()
    file = _package(place.directory) / "libbitsandbytes_cpu.so"
    _tick(tmp_path)
    (place.directory / ".bnbenv" / "READY").touch()
    assert codes(look(place.directory, place=place)) == set()
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == file:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(os, "access", lambda path, _: os.fspath(path) != str(file))
    [found] = [it for it in look(place.directory, place=place).findings if it.severity == "error"]
    assert "cannot be read" in found.summary


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps no time of change")
def test_what_a_link_leads_to_is_hashed(
    look: Callable[..., Examined], own: Callable[..., Any], tmp_path: Path
) -> None:
    place = own()
    file = _package(place.directory) / "libbitsandbytes_cuda126.so"
    file.rename(tmp_path / "cached")
    file.symlink_to(tmp_path / "cached")
    _tick(tmp_path)
    (place.directory / ".bnbenv" / "READY").touch()
    assert codes(look(place.directory, place=place)) == set()
    _same_size_and_time(tmp_path / "cached")
    assert "file-damaged" in codes(look(place.directory, place=place))


def test_an_environment_of_another_maker_is_hashed(look: Callable[..., Examined], tmp_path: Path) -> None:
    environment = make_site(tmp_path / "env")
    _same_size_and_time(_package(environment) / "libbitsandbytes_cuda126.so")
    assert "file-damaged" in codes(look(environment))


def test_deep_reads_every_byte(look: Callable[..., Examined], tmp_path: Path) -> None:
    environment = make_site(tmp_path / "env")
    _write(site_of(environment) / "transformers" / "__init__.py", b"# evil\n")
    assert codes(look(environment)) == set()
    assert "file-damaged" in codes(look(environment, deep=True))


@pytest.mark.parametrize(
    ("driver", "severity", "code"),
    [
        ("580.95.05", "info", "driver-changed"),
        ("550.54.15", "info", "driver-changed"),
        ("470.57.02", "error", "driver-too-old"),
    ],
    ids=["up", "down", "too-far-down"],
)
def test_the_driver_changed(
    driver: str, severity: str, code: str, look: Callable[..., Examined], own: Callable[..., Any]
) -> None:
    place = own(**CUDA)
    machine = target("8.9", driver=driver, pythons=(PYTHON,))
    examined = look(place.directory, machine, place=place)
    assert (code, severity) in {(found.code, found.severity) for found in examined.findings}
    assert examined.works == (severity == "info")


def test_the_driver_is_as_it_was(look: Callable[..., Examined], own: Callable[..., Any]) -> None:
    place = own(**CUDA)
    examined = look(place.directory, target("8.9", driver="570.86.15", pythons=(PYTHON,)), place=place)
    assert codes(examined, least="info") & {"driver-changed", "gpu-changed", "no-gpu-visible"} == set()


@pytest.mark.parametrize(
    ("state", "traces", "code"),
    [
        ("mismatch", ("PCI 10de:2684",), "driver-broken"),
        ("not-communicating", (), "driver-broken"),
        ("absent", ("PCI 10de:2684",), "no-gpu-visible"),
        ("absent", (), "no-gpu-visible"),
    ],
)
def test_the_gpu_is_gone(
    state: Any, traces: tuple[str, ...], code: str, look: Callable[..., Examined], own: Callable[..., Any]
) -> None:
    place = own(**CUDA)
    host = Host(target=CPU, driver_state=state, facts=(), gpu_traces=traces)
    examined = look(place.directory, host, place=place)
    assert examined.findings[0].code == code
    assert not examined.works
    assert "torch-cpu-build" not in codes(examined, least="info")
    if code == "no-gpu-visible":
        assert "it was made for a GPU of 8.9" in examined.findings[0].evidence
    if state == "mismatch":
        assert "reboot" in str(examined.findings[0].remedy)


def test_a_login_node_is_told_and_not_blamed(look: Callable[..., Examined], own: Callable[..., Any]) -> None:
    place = own(**CUDA, verdict="not-run")
    examined = look(place.directory, CPU, place=place)
    assert "no-gpu-visible" in codes(examined, least="info")
    assert examined.healthy


def test_all_gpus_are_hidden(look: Callable[..., Examined], tmp_path: Path) -> None:
    hidden = replace(CARD, gpus=tuple(replace(gpu, visible=False) for gpu in CARD.gpus))
    fact = Fact(name="CUDA_VISIBLE_DEVICES", value="-1", source="environment")
    host = Host(target=hidden, driver_state="ok", facts=(fact,))
    examined = look(make_site(tmp_path / "env", torch="2.13.0+cu130", cuda="13.0"), host)
    assert examined.findings[0].code == "no-gpu-visible"
    assert examined.findings[0].subject == "CUDA_VISIBLE_DEVICES"


def test_the_gpu_changed(look: Callable[..., Examined], own: Callable[..., Any]) -> None:
    place = own(**CUDA)
    served = look(place.directory, target("9.0", driver="580.95.05", pythons=(PYTHON,)), place=place)
    assert "gpu-changed" in codes(served, least="info")
    assert served.works
    unserved = look(place.directory, target("6.1", driver="580.95.05", pythons=(PYTHON,)), place=place)
    assert {"gpu-changed", "torch-arch-unsupported"} <= codes(unserved, least="info")


def test_an_environment_for_the_processor_is_well_beside_a_gpu(
    look: Callable[..., Examined], own: Callable[..., Any]
) -> None:
    place = own(request={"profile": "qlora", "cpu": True})
    assert look(place.directory, CARD, place=place).healthy


def test_a_link_on_path_names_one_of_the_pythons_that_share_a_prefix(
    look: Callable[..., Examined], tmp_path: Path
) -> None:
    prefix = make_site(tmp_path / "usr")
    (prefix / "pyvenv.cfg").unlink()
    other = make_site(tmp_path / "other", bitsandbytes="0.49.2")
    shutil.copytree(site_of(other), prefix / "lib" / "python3.9" / "site-packages")
    (prefix / "bin" / "python3.9").write_bytes(b"\x7fELF")
    link = tmp_path / "bin" / "python"
    link.parent.mkdir()
    link.symlink_to(prefix / "bin" / "python3.9")
    place = Located(directory=prefix, kind="system", why="a link", interpreter=link)
    assert look(prefix, place=place).bitsandbytes == "0.49.2"


@pytest.mark.parametrize(("emulated", "word"), [("rosetta", "Rosetta"), ("32-bit", "32-bit")])
def test_an_interpreter_that_is_not_native(
    emulated: Any, word: str, look: Callable[..., Examined], tmp_path: Path
) -> None:
    host = Host(target=CPU, driver_state="absent", facts=(), emulated=emulated)
    environment = make_site(tmp_path / "env")
    assert codes(look(environment, host)) == set()  # its own interpreter is native, whatever runs bnbenv
    python = environment / "bin" / "python"
    python.unlink()
    python.write_bytes(b"\xca\xfe\xba\xbe, a universal binary")
    found = look(environment, host).findings[0]
    assert found.code == "emulated-interpreter"
    assert word in found.summary


def test_an_interpreter_of_another_processor(look: Callable[..., Examined], tmp_path: Path) -> None:
    environment = make_site(tmp_path / "env")
    python = environment / "bin" / "python"
    head = bytearray(python.resolve().read_bytes()[:4096])
    head[18] = {62: 183, 183: 62}[head[18]]  # the field e_machine
    python.unlink()
    python.write_bytes(bytes(head))
    assert "emulated-interpreter" in codes(look(environment))


def test_a_state_that_cannot_be_read(look: Callable[..., Examined], own: Callable[..., Any]) -> None:
    place = own()
    (place.directory / ".bnbenv" / "state.json").write_text("{")
    assert "state-broken" in codes(look(place.directory, place=place))


def test_the_base_changed(look: Callable[..., Examined], own: Callable[..., Any], tmp_path: Path) -> None:
    from bnbenv.env import state

    base = tmp_path / "base" / "torch"
    base.mkdir(parents=True)
    (base / "version.py").write_text("__version__ = '2.13.0'\n")
    place = own(base=state.Base(python="/usr/bin/python3", torch="2.12.0", directory=str(base)))
    assert "base-changed" in codes(look(place.directory, place=place))
