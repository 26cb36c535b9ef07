"""The guard against real pip and real uv; the packages are stand-ins of a wheelhouse, no index is asked."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bnbenv.env.guard import MARK, Guard, KeptOut, constraint_lines, missing_parts, moves_with_torch, stand
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
        program = self.directory / "bin" / words[0]
        done = subprocess.run(
            [program, *words[1:]],
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
        ("uv sync --active", "leave out `--active`"),
        ("python -m pip install torch==2.12.0", "torch"),
        ("python -m pip install pinner", "torch"),
        ("python -m pip install autoawq", "autoawq"),
    ],
)
def test_refuses_and_says_what_to_type(lab: Lab, words: str, said: str) -> None:
    code, out = lab(*words.split())
    assert code == 1
    assert said in out
    assert held(lab) == BEFORE
    assert "autoawq" not in lab.versions


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


def test_another_environment_is_not_held(lab: Lab, tmp_path: Path) -> None:
    other = tmp_path / "other"
    venv.create(other, with_pip=False, symlinks=True)
    assert lab("uv", "pip", "install", "--python", str(other / "bin" / "python"), "torch==2.12.0")[0] == 0
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
