"""Bases of every shape, and those that cannot serve: before anything is built."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bnbenv.env.base import read_base
from bnbenv.env.generation import Generation
from bnbenv.env.installed import read_installed, with_base
from bnbenv.errors import UsageError
from bnbenv.machine.document import target_from_dict
from bnbenv.workflows.choose import Choice, choose
from bnbenv.workflows.create import provided
from bnbenv.workflows.realise import _join_base
from bnbenv.workflows.request import CreateRequest, Wanted
from support.bases import a_venv, put_torch, site_of
from support.voice import Listener

if TYPE_CHECKING:
    from pathlib import Path

    from bnbenv.machine.target import Target


def machine(*, gpu: bool, python: str) -> Target:
    facts = {
        "schema": 1,
        "name": "there",
        "os": "linux",
        "arch": "x86_64",
        "libc": {"family": "glibc", "version": "2.35"},
        "accelerator": "cuda" if gpu else "cpu",
        "driver": "580.65.06" if gpu else None,
        "gpus": [{"name": "RTX 4090", "compute_capability": "8.9", "memory_mib": 24564}] if gpu else [],
        "pythons": [python],
    }
    return target_from_dict(facts)


def chosen(
    python: Path,
    tmp_path: Path,
    *,
    gpu: bool = False,
    torch: str | None = None,
    env: dict[str, str] | None = None,
) -> Choice:
    environ = {**os.environ, **(env or {})}
    request = CreateRequest(
        wanted=Wanted(profile="qlora", base=str(python), torch=torch),
        name="on-base",
        target=machine(gpu=gpu, python=read_base(python, environ).version),
        cwd=tmp_path,
    )
    return choose(request, Listener(), environ)


@pytest.mark.parametrize("shape", ["venv", "system-site", "module", "conda"])
def test_a_base_of_any_shape_is_chosen_and_its_torch_kept_out_of_the_lock(tmp_path: Path, shape: str) -> None:
    base, env = a_venv(tmp_path / "base", system=shape == "system-site"), dict[str, str]()
    if shape == "module":
        put_torch(tmp_path / "module" / "lib")
        env["PYTHONPATH"] = str(tmp_path / "module" / "lib")
    else:
        put_torch(site_of(base))
    if shape == "conda":
        base.joinpath("conda-meta").mkdir()
        base.joinpath("conda-meta", "history").touch()
    choice = chosen(base / "bin" / "python", tmp_path, env=env)
    stack = choice.solution.stack
    assert (stack.torch.version, stack.torch.build, stack.torch.index) == ("2.13.0", "cpu", "base")
    assert {"torch", "triton"} <= provided(choice)
    assert choice.base is not None
    assert choice.base.torch is not None
    assert choice.base.torch.record_sha256 is not None


def test_a_base_without_torch_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no torch to build on"):
        chosen(a_venv(tmp_path / "base") / "bin" / "python", tmp_path)


def test_a_cpu_torch_is_not_built_on_for_a_gpu(tmp_path: Path) -> None:
    base = a_venv(tmp_path / "base")
    put_torch(site_of(base))
    with pytest.raises(UsageError, match=r"is a CPU build, and there is RTX 4090") as caught:
        chosen(base / "bin" / "python", tmp_path, gpu=True)
    assert caught.value.code == "base-unusable"


def test_another_torch_than_the_bases_cannot_be_asked_for(tmp_path: Path) -> None:
    base = a_venv(tmp_path / "base")
    put_torch(site_of(base))
    with pytest.raises(UsageError, match=r"excludes torch 2\.13\.0\+cpu"):
        chosen(base / "bin" / "python", tmp_path, torch=">=2.14")


def test_a_base_is_joined_in_ascii_whatever_its_path(tmp_path: Path) -> None:
    made = Generation(directory=a_venv(tmp_path / "env"), digest="", number=0)
    base = tmp_path / "Jörg" / "base"
    put_torch(base)
    _join_base(made, (base,))
    assert (site_of(made.directory) / "_bnbenv_base.pth").read_bytes().isascii()
    assert with_base(read_installed(made.directory)).versions["torch"] == "2.13.0+cpu"
