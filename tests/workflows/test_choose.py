from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.errors import ExternalError, UnsolvableError, UsageError
from bnbenv.install.availability import Availability
from bnbenv.install.listing import IndexProblem
from bnbenv.install.sources import Index, Role, Sources
from bnbenv.judge.solve import solve
from bnbenv.judge.stack import Offers, Unsolvable
from bnbenv.machine.host import Fact, Host, Python
from bnbenv.matrix.load import load
from bnbenv.workflows.choose import (
    ask_indexes,
    find_interpreter,
    judge_request,
    refuse_lost_gpu,
    sources_in_doubt,
    unsolvable,
)
from bnbenv.workflows.realise import interpreter
from bnbenv.workflows.request import Wanted
from support.judge_facts import gpu, matrix, target
from support.voice import Listener

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BOARD: dict[str, Any] = {"arch": "aarch64", "tegra": True}


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (target("9.0", arch="aarch64"), set()),
        (target(arch="aarch64"), set()),
        (target("8.7", **BOARD, l4t="36.4.3"), {"jetson-jp6-cu126"}),
        (target("8.7", **BOARD, l4t="38.2"), set()),
        (target("12.1", os="windows", arch="aarch64"), {"nvidia"}),
        (target("12.0", os="windows"), set()),
    ],
    ids=["server", "cpu", "jetpack-6", "jetpack-7", "windows-arm", "windows"],
)
def test_only_machines_that_an_index_serves_ask_it(
    machine: Any, expected: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    asked: list[set[str]] = []

    def probe(_sources: Any, names: set[str], **_: Any) -> Availability:
        asked.append(names)
        return Availability()

    monkeypatch.setattr("bnbenv.install.availability.probe", probe)
    matrix = load("torch", "indexes")
    ask_indexes(
        Wanted(profile="qlora"), [machine], matrix, Sources(indexes=()), Listener(), {"HOME": str(tmp_path)}
    )
    (names,) = asked
    assert {name for name in names if not name.startswith("pytorch-")} - {"pypi"} == expected


@pytest.mark.parametrize(
    ("torch", "hint"),
    [
        ("2.14.1+cu130", "--torch 2.14.1 --cuda 13.0"),
        ("==2.14.1+cu126", "--torch 2.14.1 --cuda 12.6"),
        ("2.14.1+cpu", "--torch 2.14.1 --cpu"),
        ("2.14.1+rocm6.4", "`--torch 2.14.1`: the GPU decides the build"),
        ("!=2.14.1+xpu", "`--torch 2.14.1`: the GPU decides the build"),
    ],
)
def test_torch_is_asked_for_by_releases_and_builds_are_named_otherwise(torch: str, hint: str) -> None:
    with pytest.raises(UsageError, match="names a build") as caught:
        judge_request(Wanted(profile="qlora", torch=torch))
    assert caught.value.hint == hint


def test_what_is_never_chosen_is_told_with_what_to_take_instead() -> None:
    request = judge_request(Wanted(profile="qlora", bitsandbytes="0.42.0"))
    answer = solve(request, target("8.9"), matrix())
    assert isinstance(answer, Unsolvable)
    error = unsolvable(answer)
    assert "`any`, lies" in error.message
    assert (error.hint or "").startswith("Take bitsandbytes 0.43.0 or newer")


@pytest.mark.parametrize(
    ("gpus", "driver", "first", "second"),
    [
        (("12.0",), "550.54.15", "update the NVIDIA driver to 570 or newer, for torch 2.", " from 580 on"),
        (("6.1", "12.0"), "580.65.06", "would serve without GPU 0 (6.1): CUDA_DEVICE_ORDER", "GPU 1 (12.0)"),
    ],
)
def test_the_next_step_where_nothing_serves(
    gpus: tuple[str, ...], driver: str, first: str, second: str
) -> None:
    answer = solve(judge_request(Wanted(profile="qlora")), target(*gpus, driver=driver), matrix())
    assert isinstance(answer, Unsolvable)
    hint = unsolvable(answer).hint or ""
    assert first in hint
    assert second in hint
    assert "a torch build that serves the GPU" not in hint  # a way that wants another's needs, and more


def test_a_cpu_build_has_no_cuda_version() -> None:
    with pytest.raises(UsageError, match="`--cpu` and `--cuda` exclude each other"):
        judge_request(Wanted(profile="qlora", cpu=True, cuda="12.6"))


def test_a_build_that_only_a_missing_index_has_is_told_with_what_could_stand_in_for_it() -> None:
    shut = Offers(unavailable=frozenset({"pytorch-cpu"}))
    answer = solve(judge_request(Wanted(profile="qlora", cpu=True)), target("8.9"), matrix(), shut)
    assert isinstance(answer, Unsolvable)
    error = unsolvable(answer)
    assert error.message.endswith("unavailable: pytorch-cpu; a CPU build of torch")
    assert "a wheelhouse (`PIP_FIND_LINKS=DIR`)" in (error.hint or "")


def test_an_index_of_ordinary_packages_that_fails_is_told_though_torch_is_had_elsewhere() -> None:
    roles: dict[str, Role] = {"pypi": "default", "pytorch-cpu": "explicit"}
    problems = [
        IndexProblem(index=name, url="", code="index-unreachable", message=f"`{name}` is slow", hint="")
        for name in roles
    ]
    indexes = [Index(name=name, url=None, role=role, origin="a test") for name, role in roles.items()]
    told = sources_in_doubt(Availability(problems=tuple(problems)), Sources(indexes=tuple(indexes)))
    assert told == ("`pypi` is slow; other packages may have to come from it",)


def host_with(pythons: Mapping[Path, str]) -> Host:
    """A machine with these interpreters, each with its version."""
    found = (Python(path=str(path), version=version, source="PATH") for path, version in pythons.items())
    return Host(target=target(), driver_state="absent", facts=(), pythons=tuple(found))


def test_the_newest_interpreter_of_a_minor_version_is_taken_and_an_environments_last(tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    at = {"first": "3.12.1", "second": "3.12.11", "other": "3.13.0", "venv": "3.12.12"}
    paths = {place: tmp_path / place / "bin" / "python3" for place in at}
    host = host_with({paths[place]: version for place, version in at.items()})
    assert find_interpreter(host, "3.12") == paths["second"]
    assert find_interpreter(host, "3.12", outside=tmp_path / "second") == paths["first"]
    assert find_interpreter(host, "3.11") is None


@pytest.mark.parametrize("windows", [False, True], ids=["posix", "windows"])
def test_an_environment_of_conda_is_built_upon_only_where_nothing_else_is(
    tmp_path: Path, windows: bool
) -> None:
    at = {
        "system": "3.12.1",
        "conda": "3.12.4",
        "conda/envs/work": "3.12.11",
        "work/.pixi/envs/default": "3.13.2",
    }
    for place in set(at) - {"system"}:
        (tmp_path / place / "conda-meta").mkdir(parents=True)
    (tmp_path / "conda" / "condabin").mkdir()
    paths = {place: tmp_path / place / ("python.exe" if windows else "bin/python3") for place in at}
    host = host_with({paths[place]: version for place, version in at.items()})
    assert find_interpreter(host, "3.12") == paths["conda"]
    assert find_interpreter(host, "3.12", outside=tmp_path / "conda") == paths["system"]
    assert find_interpreter(host, "3.13") == paths["work/.pixi/envs/default"]


@pytest.mark.parametrize(
    ("locked", "otherwise"),
    [(False, ", or name another with `--python`"), (True, ": the lock is for no other")],
)
def test_a_python_that_cannot_come_is_refused_in_words_that_fit(locked: bool, otherwise: str) -> None:
    solution = SimpleNamespace(stack=SimpleNamespace(python="3.12"))
    uv: Any = None
    choice: Any = SimpleNamespace(
        interpreter=None, locked=locked, sources=SimpleNamespace(offline=True), solution=solution
    )
    with pytest.raises(ExternalError, match=r"no Python 3\.12 on this machine") as caught:
        interpreter(uv, choice, {}, Listener())
    assert (caught.value.code, caught.value.hint) == ("python-missing", f"install Python 3.12{otherwise}")


def test_gpus_that_a_variable_hides_are_not_taken_for_none() -> None:
    fact = Fact(name="CUDA_VISIBLE_DEVICES", value="-1", source="environment")
    card = gpu("8.9", visible=False)
    hidden = Host(target=target(card, card), driver_state="ok", facts=(fact,))
    with pytest.raises(UnsolvableError, match=r"^2 GPUs .* hidden .*: CUDA_VISIBLE_DEVICES=-1$") as caught:
        refuse_lost_gpu(hidden, "bnbenv create gptq")
    assert caught.value.code == "no-usable-gpu"
    hint = caught.value.hint or ""
    assert hint.startswith("unset what hides them; or bnbenv create gptq --gpu ")
    assert all(option in hint for option in ("--gpu", "--target", "--cpu"))
    refuse_lost_gpu(Host(target=target(card, gpu("8.9")), driver_state="ok", facts=()), "bnbenv create")


def test_a_python_under_rosetta_is_told_to_be_replaced() -> None:
    intel = target(os="macos", accelerator="cpu", libc=None, driver=None)
    traces = ("Apple M2, hidden by Rosetta",)
    host = Host(target=intel, driver_state="absent", facts=(), gpu_traces=traces, emulated="rosetta")
    with pytest.raises(UnsolvableError, match="under Rosetta, without the GPU: Apple M2") as caught:
        refuse_lost_gpu(host, "bnbenv create qlora")
    assert (caught.value.hint or "").startswith("uv python install cpython-3.12-macos-aarch64")
    assert "--gpu" not in (caught.value.hint or "")
