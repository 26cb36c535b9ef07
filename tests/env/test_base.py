from __future__ import annotations

import os
import sys
import venv
from typing import TYPE_CHECKING

import pytest

from bnbenv.env import state
from bnbenv.env.base import Base, changes_since, read_base
from bnbenv.errors import ExternalError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

VERSION_PY = """\
from typing import Optional
__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip', 'xpu']
__version__ = '2.14.1+cu126'
debug = False
cuda: Optional[str] = '12.6'
git_version = '0' * 40
hip: Optional[str] = None
"""


def install(site: Path, name: str, version: str, *, record: str | None = "x,,\n") -> None:
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if record is not None:
        info.joinpath("RECORD").write_text(record)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    venv.create(tmp_path / "base", with_pip=False, symlinks=True)
    [site] = (tmp_path / "base").glob("lib/python*/site-packages")
    install(site, "torch", "2.14.1+cu126")
    install(site, "numpy", "2.4.0")
    install(site, "nvidia_cublas_cu12", "12.6.4.1")
    site.joinpath("torch").mkdir()
    site.joinpath("torch", "version.py").write_text(VERSION_PY)
    return tmp_path / "base"


def read(python: Path, **environ: str) -> Base:
    return read_base(python, {**os.environ, **environ})


def test_a_base_tells_its_torch_and_its_packages_without_importing_them(base: Path) -> None:
    found = read(base / "bin" / "python")
    assert found.version == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert found.torch is not None
    assert (found.torch.version, found.torch.local, found.torch.cuda) == ("2.14.1", "cu126", "12.6")
    assert found.torch.hip is None
    assert found.torch.record_sha256 is not None
    assert found.held == {"torch", "nvidia-cublas-cu12"}
    assert found.constraints == ("numpy==2.4.0",)


def test_a_venv_directory_stands_for_its_interpreter(base: Path) -> None:
    assert read(base).python == base / "bin" / "python"


def test_a_module_on_pythonpath_is_part_of_the_base(base: Path, tmp_path: Path) -> None:
    install(tmp_path / "module", "scipy", "1.16.0")
    found = read(base, PYTHONPATH=str(tmp_path / "module"))
    assert found.packages["scipy"] == "1.16.0"
    assert tmp_path / "module" in found.paths


def test_a_torch_that_no_distribution_owns_has_no_record(base: Path) -> None:
    [info] = base.glob("lib/python*/site-packages/torch-*.dist-info")
    info.joinpath("RECORD").unlink()
    found = read(base)
    assert found.torch is not None
    assert found.torch.record_sha256 is None


def test_no_torch_is_told(base: Path) -> None:
    [version_py] = base.glob("lib/python*/site-packages/torch/version.py")
    version_py.unlink()
    assert read(base).torch is None


def test_a_missing_interpreter(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no interpreter"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "body",
    ["exit 3", "echo hello", "exit 0", "echo 1", "printf '\\377\\n'; printf '\\377\\n' >&2"],
    ids=["fails", "babbles", "silent", "a number", "no text"],
)
def test_an_executable_that_is_no_python(tmp_path: Path, body: str) -> None:
    impostor = tmp_path / "python"
    impostor.write_text(f"#!/bin/sh\n{body}\n")
    impostor.chmod(0o755)
    with pytest.raises(ExternalError, match="does not answer"):
        read(impostor)


def recorded(base: Path) -> state.Base:
    torch = read(base).torch
    assert torch is not None
    assert torch.metadata is not None
    return state.Base(
        python=str(base / "bin" / "python"),
        torch=torch.full_version,
        directory=str(torch.directory),
        metadata=str(torch.metadata),
        record=torch.record_sha256,
    )


def test_an_untouched_base_has_not_changed(base: Path) -> None:
    assert changes_since(recorded(base)) == ()
    assert changes_since(state.Base(python="/opt/python", record="0" * 64)) == ()


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("torch/version.py", "__version__ = '2.15.0+cu130'\n", "is 2.15.0+cu130 now"),
        ("torch/version.py", None, "no longer at"),
        ("torch-2.14.1+cu126.dist-info/RECORD", "y,,\n", "installed anew"),
        ("torch-2.14.1+cu126.dist-info/RECORD", None, "is gone"),
    ],
    ids=["another-release", "removed", "another-build", "record-gone"],
)
def test_a_changed_base_is_told(base: Path, file: str, text: str | None, told: str) -> None:
    before = recorded(base)
    [site] = base.glob("lib/python*/site-packages")
    site.joinpath(file).unlink()
    if text is not None:
        site.joinpath(file).write_text(text)
    [change] = changes_since(before)
    assert told in change


def test_constraints_give_way_from_the_outside_in(base: Path) -> None:
    [site] = base.glob("lib/python*/site-packages")
    for name, version in (("transformers", "4.57.1"), ("six", "1.17.0"), ("odd", "1.0-ubuntu~7")):
        install(site, name, version)
    rounds = read(base).constraint_rounds({"peft"})
    assert rounds == (
        ("numpy==2.4.0", "six==1.17.0", "transformers==4.57.1"),
        ("numpy==2.4.0", "six==1.17.0"),
        ("numpy==2.4.0",),
        (),
    )


def test_packages_without_record_and_editable_ones_are_unmanaged(base: Path) -> None:
    [site] = base.glob("lib/python*/site-packages")
    install(site, "orphan", "1.0", record=None)
    install(site, "mine", "0.1")
    site.joinpath("mine-0.1.dist-info", "direct_url.json").write_text(
        '{"url": "file:///src/mine", "dir_info": {"editable": true}}'
    )
    found = read(base)
    assert found.unmanaged == {"orphan", "mine"}
    assert found.sites == (site,)
