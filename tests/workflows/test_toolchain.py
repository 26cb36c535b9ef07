"""When a profile that compiles its kernels is refused, before anything is fetched, and what is advised."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from bnbenv.errors import ExternalError
from bnbenv.machine import toolchain
from bnbenv.matrix.load import load
from bnbenv.units import CudaVersion
from bnbenv.workflows.request import CreateRequest, Wanted
from bnbenv.workflows.toolchain import foretell, require_toolchain
from support.toolkit import COMPILER_HEADERS, put_compiler, put_toolkit
from support.voice import Listener

if TYPE_CHECKING:
    from bnbenv.workflows.choose import Choice

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-ins are shell scripts")


@pytest.fixture(autouse=True)
def _no_toolkit_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_USUAL", Path("/nowhere"))


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A machine with a C++ compiler alone."""
    put_compiler(tmp_path / "bin")
    return {"PATH": str(tmp_path / "bin")}


def choice_of(
    profile: str = "gptq", *, cuda: str | None = "13.2", elsewhere: bool = False, os: str = "linux"
) -> Choice:
    """As much of a choice as is read."""
    torch = SimpleNamespace(cuda=CudaVersion.parse(cuda) if cuda else None)
    choice = SimpleNamespace(
        solution=SimpleNamespace(stack=SimpleNamespace(profile=profile, torch=torch)),
        matrix=load("profiles", "torch"),
        target=SimpleNamespace(name="lab-a", os=os, arch="x86_64"),
        elsewhere=elsewhere,
    )
    return cast("Choice", choice)


def told(choice: Choice, environ: dict[str, str], *, dry_run: bool = False) -> list[str]:
    """What is said on the way; raises where it is refused."""
    voice = Listener()
    wanted = Wanted(profile=choice.solution.stack.profile)
    request = CreateRequest(wanted=wanted, name="trial", dry_run=dry_run)
    require_toolchain(request, choice, voice, environ)
    return voice.heard


def refusal(choice: Choice, environ: dict[str, str]) -> ExternalError:
    with pytest.raises(ExternalError) as caught:
        told(choice, environ)
    assert caught.value.code == "tool-missing"
    return caught.value


def test_the_machine_that_runs_it_needs_a_toolkit(environ: dict[str, str]) -> None:
    words = "gptqmodel is built from source, and this machine lacks the CUDA toolkit (nvcc)"
    assert refusal(choice_of(), environ).message == words
    assert told(choice_of(), environ, dry_run=True)[-1] == words
    assert told(choice_of("qlora"), environ) == []


def test_the_machine_that_builds_for_another_needs_a_compiler_alone(
    environ: dict[str, str], tmp_path: Path
) -> None:
    assert told(choice_of(elsewhere=True), environ)[-1] == (
        "lab-a needs a C++ compiler and the whole CUDA 13 toolkit for that"
    )
    assert "lacks a C++ compiler" in refusal(choice_of(elsewhere=True), {"PATH": str(tmp_path)}).message


def test_outside_linux_and_without_cuda_no_kernel_is_compiled(environ: dict[str, str]) -> None:
    assert told(choice_of(os="windows"), environ) == []
    assert told(choice_of(cuda=None), environ) == []


@pytest.mark.parametrize("cuda", ["13.0", "13.2", "13.4"])
def test_a_whole_toolkit_of_the_same_major_version_serves(
    environ: dict[str, str], tmp_path: Path, cuda: str
) -> None:
    put_toolkit(tmp_path / "cuda", cuda=cuda)
    environ["CUDA_HOME"] = str(tmp_path / "cuda")
    assert told(choice_of(), environ) == ["gptqmodel compiles its kernels at first use, where it runs"]


def test_a_toolkit_without_the_libraries_headers_serves_its_own_minor_version(
    environ: dict[str, str], tmp_path: Path
) -> None:
    put_toolkit(tmp_path / "cuda", cuda="13.0", headers=COMPILER_HEADERS)
    environ["CUDA_HOME"] = str(tmp_path / "cuda")
    told(choice_of(cuda="13.0"), environ)
    with pytest.raises(ExternalError) as locked:
        require_toolchain(
            CreateRequest(wanted=Wanted(profile="gptq"), name="trial"),
            choice_of(cuda="13.2"),
            Listener(),
            environ,
            torch_given=True,
        )
    assert (locked.value.hint or "").startswith("install g++ and the whole CUDA 13 toolkit")
    problem = refusal(choice_of(cuda="13.2"), environ)
    assert problem.message.endswith("those that torch brings are of CUDA 13.2, and nvcc 13.0 refuses them")
    assert problem.hint is not None
    assert problem.hint.startswith("bnbenv create gptq --cuda 13.0, or install g++ and the whole CUDA 13")


def test_a_toolkit_that_is_hidden_has_only_to_be_named(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_toolkit(tmp_path / "usual")
    monkeypatch.setattr(toolchain, "_USUAL", tmp_path / "usual")
    environ["CUDA_HOME"] = "/nowhere"
    assert refusal(choice_of(), environ).hint == f"export CUDA_HOME={tmp_path / 'usual'}"


def test_another_major_version_is_refused(environ: dict[str, str], tmp_path: Path) -> None:
    put_toolkit(tmp_path / "cuda", cuda="12.9")
    environ["CUDA_HOME"] = str(tmp_path / "cuda")
    problem = refusal(choice_of(), environ)
    assert problem.message.endswith("torch is built with CUDA 13.2, and the one here is 12.9")
    assert problem.hint is not None  # no torch that the profile admits is built with 12.9
    assert problem.hint.startswith("install g++ and the whole CUDA 13 toolkit")


def test_it_is_foretold_before_torch_is_chosen(environ: dict[str, str]) -> None:
    rows: dict[str, Any] = {row.name: row for row in load("profiles").profiles}
    assert foretell(rows["gptq"], environ, elsewhere=True) is None
    assert foretell(rows["qlora"], {"PATH": ""}, elsewhere=False) is None
    sentence = foretell(rows["gptq"], environ, elsewhere=False)
    assert sentence is not None
    assert sentence.endswith("this machine lacks the CUDA toolkit (nvcc)")
