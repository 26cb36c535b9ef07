"""What `split` plans from an environment's files; the parts themselves are built by `create`."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.main import main
from bnbenv.env import state
from bnbenv.env.installed import read_installed
from bnbenv.errors import EnvironmentProblem, ExternalError, Interrupted, UnsolvableError
from bnbenv.matrix.load import load
from bnbenv.workflows import create
from bnbenv.workflows.choose import JUDGED
from bnbenv.workflows.environment import locate
from bnbenv.workflows.split import Part, SplitRequest, own_commands, plan, split
from support.judge_facts import target
from support.schemas import validate
from support.voice import Listener

if TYPE_CHECKING:
    from collections.abc import Callable

    from bnbenv.env.generation import Generation
    from bnbenv.workflows.request import CreateRequest

MATRIX = load(*JUDGED, platform=("linux", "x86_64"))
TARGET = target("8.9")


def put(site: Path, name: str, version: str, *requires: str) -> None:
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {text}" for text in requires)]
    (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (info / "RECORD").write_text(f"{info.name}/METADATA,,\n", encoding="utf-8")


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A venv as users have them: two families, and packages of their own."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "mixed"], check=True)
    site = read_installed(tmp_path / "mixed").site_packages[0]
    put(site, "torch", "2.13.0", "sympy>=1.13")
    put(site, "sympy", "1.14.0")
    put(site, "bitsandbytes", "0.50.2", "torch<3")
    put(site, "transformers", "5.23.0")
    put(site, "peft", "0.21.2")
    put(site, "gptqmodel", "7.7.0", "random-words; extra == 'x'", "logbar")
    put(site, "logbar", "0.1")
    put(site, "wandb", "0.20.1", "click")
    put(site, "click", "8.2.0")
    put(site, "einops", "0.8.0")
    return tmp_path / "mixed"


def test_each_family_gets_the_users_packages_and_none_of_the_others(mixed: Path, tmp_path: Path) -> None:
    located = locate(str(mixed), os.environ, tmp_path)
    parts, left_out = plan(located, read_installed(mixed), TARGET, MATRIX)
    assert [(part.name, part.profile, dict(part.family)) for part in parts] == [
        ("mixed-qlora", "qlora", {"bitsandbytes": "0.50.2"}),
        ("mixed-gptq", "gptq", {"gptqmodel": "7.7.0"}),
    ]
    assert {part.packages for part in parts} == {("einops==0.8.0", "wandb==0.20.1")}
    assert left_out == ()


@pytest.mark.parametrize(("capability", "profile"), [("8.9", "gptq-legacy"), ("12.0", "gptq")])
def test_a_package_no_longer_developed_keeps_its_own_profile_where_that_serves(
    mixed: Path, tmp_path: Path, capability: str, profile: str
) -> None:
    site = read_installed(mixed).site_packages[0]
    (site / "gptqmodel-7.7.0.dist-info" / "METADATA").write_text("Name: auto-gptq\nVersion: 0.7.1\n")
    (site / "gptqmodel-7.7.0.dist-info").rename(site / "auto_gptq-0.7.1.dist-info")
    located = locate(str(mixed), os.environ, tmp_path)
    (_, part), _ = plan(located, read_installed(mixed), target(capability), MATRIX)
    assert (part.profile, part.name) == (profile, f"mixed-{profile}")
    assert part.note == "gptqmodel, profile gptq, is the maintained successor of auto-gptq"


def test_parts_are_called_after_the_environment_and_not_after_its_generation(
    make_environment: Callable[..., Generation], tmp_path: Path
) -> None:
    for ask, made in (
        ("named", make_environment("named")),
        (str(tmp_path / ".venv"), make_environment(path=tmp_path / ".venv")),
    ):
        site = made.directory / "lib" / "python3.12" / "site-packages"
        put(site, "bitsandbytes", "0.50.2")
        put(site, "gptqmodel", "7.7.0")
        parts, _ = plan(locate(ask, os.environ, tmp_path), read_installed(made.directory), TARGET, MATRIX)
        base = Path(ask).name.lstrip(".")
        assert [part.name for part in parts] == [f"{base}-qlora", f"{base}-gptq"]


def test_what_comes_by_an_extra_comes_by_itself(mixed: Path, tmp_path: Path) -> None:
    site = read_installed(mixed).site_packages[0]
    put(site, "cuda-toolkit", "13.2.0", "nvidia-cufft; extra == 'cufft'", "rich; extra == 'unasked'")
    put(site, "nvidia-cufft", "12.2.0")
    put(site, "rich", "14.0")
    metadata = site / "sympy-1.14.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text() + "Requires-Dist: cuda-toolkit[cufft]\n", encoding="utf-8")
    parts, left_out = plan(locate(str(mixed), os.environ, tmp_path), read_installed(mixed), TARGET, MATRIX)
    assert left_out == ()
    assert {part.packages for part in parts} == {("einops==0.8.0", "rich==14.0", "wandb==0.20.1")}


@pytest.mark.parametrize(("python", "asked"), [("3.10.4", True), ("3.13.1", False)])
def test_what_another_python_alone_needs_is_the_users_own(
    mixed: Path, tmp_path: Path, python: str, asked: bool
) -> None:
    (mixed / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion_info = {python}\n")
    site = read_installed(mixed).site_packages[0]
    put(site, "anyio", "4.9", "exceptiongroup; python_version < '3.11'")
    put(site, "exceptiongroup", "1.3.0")
    located = locate(str(mixed), os.environ, tmp_path)
    parts, _ = plan(located, read_installed(mixed), TARGET, MATRIX)
    assert all(("exceptiongroup==1.3.0" in part.packages) is not asked for part in parts)


def test_torchs_companions_come_along_in_the_release_that_fits(mixed: Path, tmp_path: Path) -> None:
    put(read_installed(mixed).site_packages[0], "torchvision", "0.28.0", "torch==2.13.0")
    parts, left_out = plan(locate(str(mixed), os.environ, tmp_path), read_installed(mixed), TARGET, MATRIX)
    assert left_out == ()
    assert {part.packages for part in parts} == {("einops==0.8.0", "wandb==0.20.1", "torchvision")}


def test_a_part_that_will_not_be_built_is_foretold(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(create, "create", fails)
    voice = Listener()
    located = locate(str(mixed), os.environ, tmp_path)
    split(located, SplitRequest(cwd=tmp_path), voice, {**os.environ, "PATH": str(tmp_path), "CXX": ""})
    line = next(line for line in voice.heard if "it will not be built" in line)
    assert "gptqmodel is built from source, and this machine lacks a C++ compiler" in line
    assert voice.heard.index(line) < voice.heard.index("build 2 environments beside it?")


def test_bitsandbytes_in_an_environment_for_another_family_goes_to_a_profile_of_its_own(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    located = replace(locate(str(mixed), os.environ, tmp_path), kind="bnbenv")
    monkeypatch.setattr(state, "read", lambda _: SimpleNamespace(profile="gptq"))
    parts, _ = plan(located, read_installed(mixed), TARGET, MATRIX)
    assert [(part.profile, dict(part.family)) for part in parts] == [
        ("qlora", {"bitsandbytes": "0.50.2"}),
        ("gptq", {"gptqmodel": "7.7.0"}),
    ]


def test_a_family_without_a_profile_is_left_to_the_user_with_the_commands(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = read_installed(mixed).site_packages[0]
    (site / "gptqmodel-7.7.0.dist-info" / "METADATA").write_text("Name: vllm\nVersion: 0.33.0\n")
    (site / "gptqmodel-7.7.0.dist-info").rename(site / "vllm-0.33.0.dist-info")
    (site / "bitsandbytes-0.50.2.dist-info").rename(site / "autoawq-0.2.9.dist-info")
    (site / "autoawq-0.2.9.dist-info" / "METADATA").write_text("Name: autoawq\nVersion: 0.2.9\n")
    monkeypatch.setattr(create, "create", fails)
    monkeypatch.chdir(tmp_path)
    assert main(["split", "./mixed", "--dry-run", "--json"]) == 5
    answer = json.loads(capsys.readouterr().out)
    validate(answer)
    awq, vllm = answer["data"]["parts"]
    assert (awq["profile"], awq["problem"]) == ("awq-legacy", "no way")
    assert awq["note"] == "gptqmodel, profile awq, is the maintained successor of autoawq"
    assert vllm["note"] is None
    assert vllm["profile"] is None
    assert vllm["commands"][1].endswith(" vllm einops==0.8.0 logbar==0.1 wandb==0.20.1")


def test_the_commands_can_be_typed() -> None:
    part = Part(
        profile=None,
        name="my env-vllm",
        family={"vllm": "0.33.0"},
        packages=("w @ https://example.org/w.whl", "logbar>=0.1"),
    )
    assert [shlex.split(command) for command in own_commands(part)] == [
        ["uv", "venv", "my env-vllm"],
        ["uv", "pip", "install", "--python", "my env-vllm", "vllm", *part.packages],
    ]


def fails(*_: object, **__: object) -> None:
    raise ExternalError("no way", code="index-unreachable")


def test_a_part_that_cannot_be_built_is_told_and_nothing_else_is_lost(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(create, "create", fails)
    before = read_installed(mixed).versions
    located = locate(str(mixed), os.environ, tmp_path)
    done = split(located, SplitRequest(cwd=tmp_path), Listener(), os.environ)
    assert [part.problem.message for part in done.parts if part.problem] == ["no way", "no way"]
    assert read_installed(mixed).versions == before


def test_a_part_that_nothing_serves_keeps_to_the_schema(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise UnsolvableError("nothing serves it", data={"blocking": ["CPU alone"], "nearest": []})

    assert mixed.is_dir()
    monkeypatch.setattr(create, "create", refuses)
    monkeypatch.chdir(tmp_path)
    assert main(["split", "./mixed", "--dry-run", "--json"]) == 3
    answer = json.loads(capsys.readouterr().out)
    validate(answer)
    assert [part["problem"] for part in answer["data"]["parts"]] == ["nothing serves it"] * 2


def test_versions_that_fit_no_part_are_let_go(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def conflicts(request: CreateRequest, *_: object, **__: object) -> object:
        asked.append(request.wanted.packages)
        if any("==" in text for text in request.wanted.packages):
            raise ExternalError("they exclude each other", code="conflict")
        return object()

    monkeypatch.setattr(create, "create", conflicts)
    done = split(locate(str(mixed), os.environ, tmp_path), SplitRequest(cwd=tmp_path), Listener(), os.environ)
    assert asked == [("einops==0.8.0", "wandb==0.20.1"), ("einops", "wandb")] * 2
    assert {part.packages for part in done.parts} == {("einops", "wandb")}


def test_no_is_respected(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create, "create", fails)
    located = locate(str(mixed), os.environ, tmp_path)
    with pytest.raises(Interrupted):
        split(located, SplitRequest(cwd=tmp_path), Listener(agrees=False), os.environ)


def test_one_family_needs_no_split(mixed: Path, tmp_path: Path) -> None:
    site = read_installed(mixed).site_packages[0]
    (site / "gptqmodel-7.7.0.dist-info").rename(site / "nothing-7.7.0.dist-info")
    (site / "nothing-7.7.0.dist-info" / "METADATA").write_text("Name: nothing\nVersion: 7.7.0\n")
    voice = Listener()
    split(locate(str(mixed), os.environ, tmp_path), SplitRequest(cwd=tmp_path), voice, os.environ)
    assert "nothing needs to be taken apart" in voice.heard[-1]


def test_without_any_family_there_is_nothing_to_split_by(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "plain"], check=True)
    located = locate(str(tmp_path / "plain"), os.environ, tmp_path)
    with pytest.raises(EnvironmentProblem, match="no quantisation package"):
        split(located, SplitRequest(cwd=tmp_path), Listener(), os.environ)
