"""The guard against real pip and real uv; the packages are stand-ins of a wheelhouse, no index is asked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bnbenv.env import guard_script
from bnbenv.env.guard import (
    MARK,
    Guard,
    KeptOut,
    constraint_lines,
    files,
    missing_parts,
    moves_with_torch,
    stand,
)
from bnbenv.env.installed import read_installed
from bnbenv.env.record import check_record
from bnbenv.install import pip_config
from bnbenv.install.uv import find_uv
from support.wheels import write_wheel

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there the guard has no wrappers")

GUARD = Guard(
    environment="lab",
    profile="qlora",
    held={"torch": "2.13.0+cpu", "bitsandbytes": "0.50.2"},
    ranges={"transformers": ">=5.21,<5.24", "torch": ">=2"},
    kept_out={"autoawq": KeptOut(why="it breaks adapters", instead="awq")},
)
WHEELS = {
    "torch": ("2.12.0", "2.13.0", "2.13.0+cpu"),
    "bitsandbytes": ("0.45.0", "0.50.2"),
    "transformers": ("4.40.0", "5.22.0", "5.23.0"),
    "autoawq": ("0.2.9",),
    "einops": ("0.8.0",),
}


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheelhouse")
    for name, versions in WHEELS.items():
        for version in versions:
            write_wheel(directory, name, version)
    write_wheel(directory, "pinner", "1.0", requires=["torch==2.12.0"])
    return directory


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, wheelhouse: Path) -> Path:
    """A venv, at a path with a blank in it, with pip and the stand-ins, unguarded."""
    directory = tmp_path_factory.mktemp("a place") / "generation 1"
    venv.create(directory, with_pip=True, symlinks=True)
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    subprocess.run(
        [
            directory / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-index",
            "--find-links", wheelhouse, "torch==2.13.0+cpu", "bitsandbytes==0.50.2", "transformers==5.22.0",
        ],
        env={**outer, "PIP_CONFIG_FILE": os.devnull},
        check=True,
    )  # fmt: skip
    return directory


class Lab:
    """A guarded environment, its versions, and a way to hurt it."""

    def __init__(self, directory: Path, wheelhouse: Path) -> None:
        self.directory = directory
        self.wheelhouse = wheelhouse
        self.settings = directory.parent / "uv.toml"
        self.settings.write_text(f"no-index = true\nfind-links = [{str(wheelhouse)!r}]\n", encoding="utf-8")

    @property
    def versions(self) -> Mapping[str, str]:
        return read_installed(self.directory).versions

    def __call__(self, *words: str, **variables: str) -> tuple[int, str]:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory.parent),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": self.wheelhouse.as_uri(),
            "UV_CONFIG_FILE": str(self.settings),
            "VIRTUAL_ENV": str(self.directory),
            "UV_CACHE_DIR": str(self.directory.parent / "uv-cache"),
            **variables,
        }
        env["PATH"] = f"{self.directory / 'bin'}{os.pathsep}{env['PATH']}"
        done = subprocess.run(
            [self.directory / "bin" / words[0] if words[0] != "bash" else "bash", *words[1:]],
            env=env,
            cwd=self.directory.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def lab(template: Path, wheelhouse: Path) -> Lab:
    """The template, guarded; whatever a test has changed of the packages is put back before the next one."""
    uv = find_uv(os.environ)
    stand(template, replace(GUARD, uv=str(uv.path)), read_installed(template))
    return Lab(template, wheelhouse)


@pytest.fixture(autouse=True)
def restored(template: Path, wheelhouse: Path) -> None:
    if read_installed(template).versions.get("torch") != "2.13.0+cpu":
        subprocess.run(
            [
                template / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-index",
                "--find-links", wheelhouse, "torch==2.13.0+cpu",
            ],
            env={"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull},
            check=True,
        )  # fmt: skip


BEFORE = {"torch": "2.13.0+cpu", "bitsandbytes": "0.50.2", "transformers": "5.22.0"}


def held(lab: Lab) -> dict[str, str]:
    return {name: lab.versions[name] for name in BEFORE}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("pip install torch==2.12.0", "bnbenv upgrade torch==2.12.0 --in lab"),
        ("pip install torch==2.13.0 --force-reinstall", "bnbenv repair lab"),
        ("pip install --no-deps bitsandbytes==0.45.0", "bnbenv upgrade bitsandbytes==0.45.0 --in lab"),
        ("pip3 install pinner", "bnbenv install pinner --in lab"),
        ("pip install transformers==4.40.0", "bnbenv install transformers==4.40.0 --in lab"),
        ("pip install autoawq", "bnbenv create awq"),
        ("pip install autoawq", "bnbenv install autoawq --in lab --anyway"),
        ("pip uninstall -y torch", "bnbenv remove lab"),
        ("uv pip install torch==2.12.0", "bnbenv upgrade torch==2.12.0 --in lab"),
        ("uv pip install pinner", "bnbenv install pinner --in lab"),
        ("uv pip install --reinstall torch", "bnbenv repair lab"),
        ("uv pip uninstall bitsandbytes", "bnbenv remove lab"),
        ("uv pip sync requirements.txt", "bnbenv install --requirements FILE --in lab"),
        ("uv --color never pip install torch==2.12.0", "bnbenv upgrade torch==2.12.0 --in lab"),
        ("uv --preview-features pylock pip install pinner", "bnbenv install pinner --in lab"),
        ("uv pip --color never install --reinstall torch", "bnbenv repair lab"),
        (
            "uv --directory / pip install --python={lab} torch==2.12.0",
            "bnbenv upgrade torch==2.12.0 --in lab",
        ),
        ("uv --directory {lab} pip uninstall -qp bin/python torch", "bnbenv remove lab"),
        ("uv pip install --python {version} torch==2.12.0", "bnbenv upgrade torch==2.12.0 --in lab"),
        ("uv pip install --reinstall-package torch einops", "bnbenv repair lab"),
        ("pip install -UI torch", "bnbenv repair lab"),
        ("pip install --ignore-inst torch", "bnbenv repair lab"),
        ("pip --python {lab} uninstall -y torch", "bnbenv remove lab"),
        ("pip install --prefix {lab} torch==2.12.0", "bnbenv upgrade torch==2.12.0 --in lab"),
        ("python -m pip install torch==2.12.0", "torch"),
        ("python -m pip install pinner", "torch"),
        ("python -m pip install autoawq", "autoawq"),
    ],
)
def test_refuses_and_says_what_to_type(lab: Lab, words: str, said: str) -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    code, out = lab(*(word.format(lab=lab.directory, version=version) for word in words.split()))
    assert code == 1
    assert said in out
    assert held(lab) == BEFORE
    assert "autoawq" not in lab.versions


@pytest.mark.parametrize("variable", ["PIP_FORCE_REINSTALL", "PIP_IGNORE_INSTALLED"])
def test_a_variable_counts_as_its_option(lab: Lab, variable: str) -> None:
    code, out = lab("pip", "install", "torch", **{variable: "1"})
    assert code == 1
    assert "bnbenv repair lab" in out


def test_pips_configuration_counts_as_options(lab: Lab, tmp_path: Path) -> None:
    settings = tmp_path / "pip.conf"
    settings.write_text("[install]\nforce-reinstall = true\n", encoding="utf-8")
    code, out = lab("pip", "install", "torch", PIP_CONFIG_FILE=str(settings))
    assert code == 1
    assert "bnbenv repair lab" in out


@pytest.mark.parametrize("tool", ["pip uninstall -y -r", "pip uninstall -yr", "uv pip uninstall -r"])
def test_reads_what_a_file_would_take_away(lab: Lab, tmp_path: Path, tool: str) -> None:
    file = tmp_path / "requirements.txt"
    (tmp_path / "more.txt").write_text("einops\nTorch == 2.13.0 \\\n  --hash=sha256:0\n", encoding="utf-8")
    file.write_text("# all of it\n-r more.txt\n", encoding="utf-8")
    code, out = lab(*tool.split(), str(file))
    assert code == 1
    assert "bnbenv remove lab" in out
    assert held(lab) == BEFORE


def test_reads_what_a_project_file_would_take_away(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text("[project]\nname = 'own'\nversion = '1'\ndependencies = ['torch>=2']\n", encoding="utf-8")
    assert lab("uv", "pip", "uninstall", "-r", str(file))[0] == 1
    assert held(lab) == BEFORE


@pytest.mark.parametrize("tool", ["pip uninstall -y", "uv pip uninstall"])
def test_what_cannot_be_read_beforehand_takes_nothing_away(lab: Lab, tool: str) -> None:
    code, out = lab(*tool.split(), "-r", "/dev/stdin")
    assert code == 1
    assert "`/dev/stdin` names" in out


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("tool", ["pip", "uv pip"])
def test_a_file_that_the_shell_makes_is_read(lab: Lab, tool: str) -> None:
    """Its name is a descriptor that only those have to whom it is passed on."""
    code, out = lab("bash", "-c", f"{tool} install -r <(echo transformers)")
    assert code == 0, out


def test_reads_what_a_file_would_bring(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("autoawq>=0.2  # fast\ntorch\n", encoding="utf-8")
    for tool in (["pip"], ["uv", "pip"]):
        code, out = lab(*tool, "install", "-r", str(file))
        assert code == 1
        assert "bnbenv install 'autoawq>=0.2' --in lab --anyway" in out
    file.write_text("autoawq; python_version < '3'\ntorch\n", encoding="utf-8")
    assert lab("pip", "install", "-r", str(file))[0] == 0
    assert "bnbenv repair lab" in lab("pip", "install", "--force-reinstall", "-r", str(file))[1]
    assert "bnbenv repair lab" in lab("uv", "pip", "install", "--reinstall", "-r", str(file))[1]


class Project:
    """A project that wants another torch, an environment of its own, and uv's words for this one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "pyproject.toml").write_text(
            "[project]\nname = 'own'\nversion = '1'\nrequires-python = '>=3.9'\n"
            "dependencies = ['torch==2.12.0']\n",
            encoding="utf-8",
        )
        (directory / "script.py").write_text(
            "# /// script\n# dependencies = ['torch==2.12.0']\n# ///\n"
            "import torch\nprint('torch', torch.__version__)\n",
            encoding="utf-8",
        )
        (directory / "show.py").write_text(
            "import torch\nprint('torch', torch.__version__)\n", encoding="utf-8"
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    directory = tmp_path / "project"
    directory.mkdir()
    return Project(directory)


@pytest.mark.parametrize(
    "words",
    [
        "run --active show.py",
        "run --active -p {version} python show.py",
        "--color never run --active -- python show.py",
        "run --active --script script.py",
        "run --active script.py",
        "sync --active",
        "sync --active --script script.py",
        "add --active einops",
        "remove --active torch",
        "version --active --bump patch",
    ],
)
def test_no_project_takes_the_active_environment(lab: Lab, project: Project, words: str) -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    where = ["--directory", str(project.directory)]
    code, out = lab("uv", *where, *words.format(version=version).split())
    assert code == 1
    assert "leave out `--active`" in out
    assert held(lab) == BEFORE


@pytest.mark.parametrize("words", ["run show.py", "sync", "add einops", "remove torch", "check"])
def test_no_project_takes_it_by_a_variable(lab: Lab, project: Project, words: str) -> None:
    variables = {"UV_PROJECT_ENVIRONMENT": str(lab.directory), "UV_PROJECT": str(project.directory)}
    code, out = lab("uv", *words.split(), **variables)
    assert code == 1
    assert "UV_PROJECT_ENVIRONMENT" in out
    assert held(lab) == BEFORE


def test_no_project_takes_it_as_its_venv(lab: Lab, project: Project) -> None:
    (project.directory / ".venv").symlink_to(lab.directory)
    inner = project.directory / "inner"
    inner.mkdir()
    assert "would make" in lab("uv", "--directory", str(inner), "run", "../show.py")[1]
    assert held(lab) == BEFORE


@pytest.mark.parametrize(
    ("words", "version"),
    [
        ("run --no-sync --active python show.py", "2.13.0+cpu"),
        ("run --no-project show.py", "2.13.0+cpu"),
        ("run --isolated --active show.py", "2.12.0"),
        ("run show.py", "2.12.0"),
        ("run python show.py --active", "2.12.0"),
        ("run script.py", "2.12.0"),
    ],
)
def test_another_environment_of_a_project_is_not_held(
    lab: Lab, project: Project, words: str, version: str
) -> None:
    code, out = lab("uv", "--directory", str(project.directory), *words.split())
    assert (code, version in out) == (0, True), out
    assert held(lab) == BEFORE


@pytest.mark.parametrize("words", ["venv --clear {here}", "venv --prompt x -c {here}/", "venv {here} --seed"])
def test_no_empty_environment_takes_its_place(lab: Lab, words: str) -> None:
    line = [word.format(here=lab.directory) for word in words.split()]
    code, out = lab("uv", *line, UV_PYTHON=sys.executable)
    assert code == 1
    assert "bnbenv remove" in out
    assert held(lab) == BEFORE


def test_no_empty_environment_takes_its_place_as_a_projects_venv(lab: Lab, project: Project) -> None:
    here = {"UV_PROJECT_ENVIRONMENT": str(lab.directory), "UV_VENV_CLEAR": "1"}
    assert lab("uv", "--directory", str(project.directory), "venv", **here)[0] == 1
    assert held(lab) == BEFORE
    elsewhere = ["--directory", str(project.directory), "venv", "--no-project", "--python", sys.executable]
    assert lab("uv", *elsewhere, **here)[0] == 0
    assert (project.directory / ".venv" / "pyvenv.cfg").is_file()
    (project.directory / "inner").symlink_to(lab.directory)
    assert lab("uv", "--directory", str(project.directory), "venv", "--clear", "inner")[0] == 1
    assert held(lab) == BEFORE


def test_another_environment_is_made_as_ever(lab: Lab, tmp_path: Path) -> None:
    code, out = lab("uv", "venv", "--clear", str(tmp_path / "new"), "--python", sys.executable)
    assert (code, (tmp_path / "new" / "pyvenv.cfg").is_file()) == (0, True), out
    assert lab("uv", "venv", "--help")[0] == 0


def test_uv_runs_as_it_likes_where_there_is_no_project(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n", encoding="utf-8")
    code, out = lab("uv", "--directory", str(tmp_path), "run", "--active", "python", "-c", "import torch")
    assert (code, held(lab)) == (0, BEFORE), out


@pytest.mark.parametrize(
    ("command", "known"),
    [
        ("", guard_script._UV_VALUES),
        ("run", guard_script._UV_RUN_VALUES),
        ("venv", guard_script._UV_VENV_VALUES),
        ("pip install", guard_script._UV_PIP_VALUES),
        ("pip sync", guard_script._UV_PIP_VALUES),
        ("pip uninstall", guard_script._UV_PIP_VALUES),
    ],
)
def test_knows_which_options_of_uv_have_a_value(command: str, known: frozenset[str]) -> None:
    uv = find_uv(os.environ).path
    text = subprocess.run([uv, *command.split(), "--help"], capture_output=True, text=True, check=True).stdout
    options = re.findall(r"^ +(?:(-\w), |    )?(--[a-z-]+)(?:\.\.\.)?( <|$| )", text, re.MULTILINE)
    named = {name: bool(value.strip()) for *names, value in options for name in names if name}
    assert len(named) > 10
    assert {name for name, value in named.items() if value} <= known
    assert not {name for name, value in named.items() if not value} & known


def test_a_wheel_by_its_path_or_address_is_held_too(lab: Lab) -> None:
    wheel = next(lab.wheelhouse.glob("bitsandbytes-0.45.0-*"))
    for tool in (["pip"], ["uv", "pip"], ["python", "-m", "pip"]):
        for text in (str(wheel), wheel.as_uri(), f"bitsandbytes @ {wheel.as_uri()}"):
            assert lab(*tool, "install", text)[0] == 1
    assert held(lab) == BEFORE


@pytest.mark.parametrize("variables", [{"PIP_CONSTRAINT": os.devnull}, {"PIP_CONFIG_FILE": os.devnull}])
def test_the_wrapper_holds_where_the_users_variables_switch_pips_configuration_off(
    lab: Lab, variables: dict[str, str]
) -> None:
    assert lab("pip", "install", "torch==2.12.0", **variables)[0] == 1
    assert held(lab) == BEFORE
    # This is what it is for: pip alone is not held then, and the doctor has to find it.
    assert lab("python", "-m", "pip", "install", "torch==2.12.0", **variables)[0] == 0
    assert lab.versions["torch"] == "2.12.0"


def test_the_users_own_constraints_stay_in_force(lab: Lab) -> None:
    file = lab.directory.parent / "mine.txt"
    file.write_text("einops==0.1\n", encoding="utf-8")
    assert lab("pip", "install", "einops", PIP_CONSTRAINT=file.as_uri())[0] == 1
    assert (
        lab("uv", "pip", "install", "einops", UV_CONSTRAINT=os.path.relpath(file, lab.directory.parent))[0]
        == 1
    )


@pytest.mark.parametrize("tool", ["pip", "uv pip", "python -m pip"])
def test_what_fits_is_installed(lab: Lab, tool: str) -> None:
    code, out = lab(*tool.split(), "install", "einops")
    assert code == 0, out
    assert lab.versions["einops"] == "0.8.0"
    assert lab(*tool.split(), "uninstall", *([] if tool == "uv pip" else ["-y"]), "einops")[0] == 0
    assert "einops" not in lab.versions
    assert held(lab) == BEFORE


def test_another_place_is_not_held(lab: Lab, tmp_path: Path) -> None:
    for number, tool in enumerate((["pip"], ["uv", "pip"])):
        place = tmp_path / str(number)
        assert lab(*tool, "install", "--target", str(place), "torch==2.12.0")[0] == 0
        assert (place / "torch").is_dir()


@pytest.mark.parametrize("variable", ["PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"])
def test_a_variable_leads_elsewhere_too(lab: Lab, tmp_path: Path, variable: str) -> None:
    place = str(tmp_path / "place")
    code, out = lab("pip", "install", "torch==2.12.0", **{variable: place, "PIP_IGNORE_INSTALLED": "1"})
    assert code == 0, out
    assert next((tmp_path / "place").rglob("torch")).is_dir()
    assert held(lab) == BEFORE


@pytest.mark.parametrize("option", ["--prefix", "--root"])
def test_another_place_for_which_pip_would_take_away_what_is_here(
    lab: Lab, tmp_path: Path, option: str
) -> None:
    code, out = lab("pip", "install", option, str(tmp_path), "torch==2.12.0")
    assert code == 1
    assert "left alone:  --ignore-installed" in out
    assert held(lab) == BEFORE


def test_another_environment_is_not_held(lab: Lab, tmp_path: Path) -> None:
    other = tmp_path / "other"
    venv.create(other, with_pip=False, symlinks=True)
    assert lab("uv", "pip", "install", "--python", str(other / "bin" / "python"), "torch==2.12.0")[0] == 0
    assert read_installed(other).versions == {"torch": "2.12.0"}
    assert lab("uv", "pip", "install", "torch===2.13.0", UV_PYTHON=str(other))[0] == 0
    assert read_installed(other).versions == {"torch": "2.13.0"}
    assert lab("pip", "install", "torch==2.12.0", PIP_PYTHON=str(other))[0] == 0
    assert read_installed(other).versions == {"torch": "2.12.0"}
    assert held(lab) == BEFORE


def test_changed_all_the_same_is_told_at_once(lab: Lab) -> None:
    assert lab("python", "-m", "pip", "install", "torch==2.12.0", PIP_CONSTRAINT=os.devnull)[0] == 0
    _, out = lab("pip", "install", "einops")
    assert "torch is no longer as it was locked:  bnbenv repair lab" in out


def test_record_stays_true(lab: Lab) -> None:
    assert check_record(lab.directory) == ()


def test_the_wrappers_need_no_bnbenv(lab: Lab) -> None:
    code, out = lab("pip", "--version", PYTHONPATH="/nowhere")
    assert code == 0
    assert str(lab.directory) in out
    assert lab("uv", "--version", PATH="/nowhere")[0] == 0  # the uv that was there when it was built


def test_help_is_the_tools_own(lab: Lab) -> None:
    for words in (
        ["pip", "install", "--help"],
        ["pip", "uninstall", "torch", "--help"],
        ["uv", "pip", "sync", "-h"],
    ):
        assert lab(*words)[0] == 0


def test_knows_when_a_part_is_gone(lab: Lab) -> None:
    assert missing_parts(lab.directory) == ()
    (lab.directory / "pip.conf").unlink()
    (lab.directory / "bin" / "pip").write_text("#!/bin/sh\n", encoding="utf-8")
    assert missing_parts(lab.directory) == ("pip.conf", "bin/pip")
    assert missing_parts(lab.wheelhouse) == ()


def test_a_uv_of_the_environments_own_is_started_by_the_wrapper(lab: Lab) -> None:
    program = lab.directory / "bin" / "uv"
    program.unlink()
    program.write_text("#!/bin/sh\necho own uv: $*\n", encoding="utf-8")
    program.chmod(0o755)
    stand(lab.directory, GUARD, read_installed(lab.directory))
    try:
        assert lab("uv", "--version") == (0, "own uv: --version\n")
    finally:
        (lab.directory / ".bnbenv" / "guard" / "uv").unlink()


def test_its_files_are_all_that_it_writes(lab: Lab) -> None:
    def inodes() -> dict[Path, int]:
        return {path: path.lstat().st_ino for path in lab.directory.rglob("*") if path.is_file()}

    before = inodes()
    stand(lab.directory, GUARD, read_installed(lab.directory))
    written = {path for path, inode in inodes().items() if before.get(path) != inode}
    assert {path.name for path in written} >= {"guard.json", "guard.py", "pip.conf", "pip", "uv"}
    assert written == set(files(lab.directory))


def test_the_constraints_are_exact_for_what_is_held_and_ranges_for_the_rest() -> None:
    lines = list(constraint_lines(GUARD))
    assert lines[0].startswith(MARK)
    assert lines[1:] == [
        "bitsandbytes===0.50.2",
        "torch===2.13.0+cpu",
        "transformers>=5.21,<5.24",
        "autoawq<0.dev0",
    ]


def test_what_moves_with_torch() -> None:
    names = ("torch", "nvidia-cublas-cu12", "triton", "pytorch-triton-rocm", "bitsandbytes", "pip", "numpy")
    assert [name for name in names if not moves_with_torch(name)] == ["numpy"]


def test_bnbenv_takes_its_own_file_for_no_wish_of_the_users(lab: Lab) -> None:
    index = "https://index.example/cu126"
    stand(lab.directory, replace(GUARD, index=index), read_installed(lab.directory))
    text = (lab.directory / "pip.conf").read_text(encoding="utf-8")
    assert f"extra-index-url = {index}" in text
    read = pip_config.read_pip(
        environ={}, home=Path("/nowhere"), prefixes=[lab.directory], root=Path("/nowhere")
    )
    assert read == {}
    assert MARK.startswith(pip_config._OUR_MARK)


def test_an_address_with_a_login_in_it_is_written_nowhere(lab: Lab) -> None:
    guard = replace(GUARD, index="https://index.example/cu126", extra_indexes=None)
    stand(lab.directory, guard, read_installed(lab.directory))
    assert "extra-index-url" not in (lab.directory / "pip.conf").read_text(encoding="utf-8")
