from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.cli.main import main
from bnbenv.errors import UsageError
from bnbenv.judge.lookup import profile
from bnbenv.matrix.load import load
from bnbenv.workflows.create import tell_note
from bnbenv.workflows.profiles import definition_of, read_definitions, with_definition
from bnbenv.workflows.realise import prove
from bnbenv.workflows.request import CreateRequest, Wanted
from support.schemas import validate
from support.voice import Listener

if TYPE_CHECKING:
    from bnbenv.matrix.matrix import Matrix

MINE = """
[profiles.mine]
summary = "what our lab trains with"
extends = "qlora"
torch = ">=2.10"
packages = { einops = ">=0.8", transformers = "<5.23" }
excludes = ["deepspeed"]
"""
TARGET = ["--gpu", "8.9", "--driver", "580.65.06", "--os", "linux", "--arch", "x86_64", "--glibc", "2.35"]


def test_a_profile_extends_another_in_each_of_its_sets(tmp_path: Path) -> None:
    (tmp_path / "bnbenv.toml").write_text(MINE, encoding="utf-8")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    definition = definition_of("mine", below)
    assert definition is not None
    assert definition["file"] == str(tmp_path / "bnbenv.toml")
    wanted = Wanted(profile="mine", definition=definition)
    assert (
        Wanted.from_dict(json.loads(json.dumps(wanted.to_dict()))) == wanted
    )  # it is stored, and read again
    matrix = with_definition(load("profiles"), wanted)
    row, base = profile(matrix, "mine"), profile(matrix, "qlora")
    assert len(row.sets) == len(base.sets)
    assert row.sets[0].torch == ">=2.6,<2.16,>=2.10"
    assert row.sets[0].packages["einops"] == ">=0.8"
    assert row.sets[0].packages["transformers"] == base.sets[0].packages["transformers"] + ",<5.23"
    assert set(row.excludes) == {*base.excludes, "deepspeed"}


def test_what_a_profile_asks_for_is_not_kept_out_of_it() -> None:
    definition = {"extends": "gptq", "packages": {"bitsandbytes": ">=0.50,<0.51"}}
    matrix = with_definition(load("profiles"), Wanted(profile="both", definition=definition))
    row, base = profile(matrix, "both"), profile(matrix, "gptq")
    assert set(row.excludes) == set(base.excludes) - {"bitsandbytes"}
    assert all(group.packages["bitsandbytes"] == ">=0.50,<0.51" for group in row.sets)


def test_names_of_packages_are_compared_as_indexes_compare_them(tmp_path: Path) -> None:
    text = (
        '[profiles.mine]\nextends = "qlora"\nexcludes = ["Deep_Speed"]\n'
        'packages = { Transformers = "<5.23", GPTQModel = "" }\n'
    )
    (tmp_path / "bnbenv.toml").write_text(text, encoding="utf-8")
    wanted = Wanted(profile="mine", definition=definition_of("mine", tmp_path))
    matrix = with_definition(load("profiles"), wanted)
    row, base = profile(matrix, "mine"), profile(matrix, "qlora")
    assert set(row.sets[0].packages) == {*base.sets[0].packages, "gptqmodel"}
    assert row.sets[0].packages["transformers"] == base.sets[0].packages["transformers"] + ",<5.23"
    assert "deep-speed" in row.excludes
    assert "gptqmodel" not in row.excludes


def test_a_pyproject_may_define_one_that_stands_alone(tmp_path: Path) -> None:
    text = '[tool.bnbenv.profiles.tiny]\npackages = { transformers = ">=5" }\n'
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    definition = definition_of("tiny", tmp_path)
    assert definition is not None
    matrix = with_definition(load("profiles"), Wanted(profile="tiny", definition=definition))
    assert profile(matrix, "tiny").sets[0].packages == {"transformers": ">=5"}


def test_projects_without_profiles_have_none(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("this is no TOML [", encoding="utf-8")
    assert definition_of("mine", tmp_path) is None
    for text in ("[tool.bnbenv]\nx = 1\n", "tool = 3\n"):
        (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
        assert read_definitions(tmp_path)[1] == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[profiles", "cannot be read"),
        ("profiles = 1", "`profiles` is no table"),
        ("[profiles]\nmine = 1", "`profiles.mine` is no table"),
        ('[profiles.mine]\nextend = "qlora"', "did you mean `extends`?"),
        ("[profiles.mine]\nextends = 1", "`profiles.mine.extends` is no text"),
        ('[profiles.mine]\nsummary = "x"', "neither extends a profile nor names packages"),
        ('[profiles.mine]\npackages = { einops = ">=what" }', "the range of `einops`"),
        ("[profiles.mine]\npackages = { einops = 1 }", "`profiles.mine.packages` is no table of ranges"),
        ('[profiles.mine]\nextends = "qlora"\ntorch = "new"', "the range of `torch`"),
        ('[profiles.mine]\nextends = "qlora"\nexcludes = "x"', "`profiles.mine.excludes` is no list"),
        ('[profiles.mine]\nextends = "qlora"\ndevices = "tpu"', "neither `any` nor `gpu`"),
        ('[profiles.mine]\nextends = "qlora"\nmin_capability = "new"', "is no compute capability"),
        ('[profiles.qlora]\nextends = "int8"', "which bnbenv has"),
        ('[profiles.mine]\npackages = { "../x" = "" }', "`../x` in `profiles.mine` is no name of a package"),
        ('[profiles.mine]\nextends = "qlora"\nexcludes = ["a b"]', "`a b` in `profiles.mine` is no name"),
        ('[profiles.mine]\npackages = { torch = "<2.10" }', "beside `packages`, as `profiles.mine.torch`"),
        ('[profiles.mine]\npackages = { python = "<3.12" }', "as `profiles.mine.python`"),
        ('[profiles."a/b"]\nextends = "qlora"', "`profiles.a/b`: profile name 'a/b': it is a path"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_file(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "bnbenv.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        definition_of("mine", tmp_path)
    assert caught.value.code == "bad-request"
    assert said in caught.value.message
    assert "bnbenv.toml" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("base", ["qlorra", "mine", "other"])
def test_a_profile_that_extends_nothing_of_bnbenvs(base: str, tmp_path: Path) -> None:
    text = f'[profiles.mine]\nextends = "{base}"\n[profiles.other]\nextends = "int8"\n'
    (tmp_path / "bnbenv.toml").write_text(text, encoding="utf-8")
    wanted = Wanted(profile="mine", definition=definition_of("mine", tmp_path))
    with pytest.raises(UsageError) as caught:
        with_definition(load("profiles"), wanted)
    file = tmp_path / "bnbenv.toml"
    assert (
        caught.value.message == f"`{file}`: `profiles.mine.extends` is `{base}`, no profile of bnbenv's own"
    )
    assert (caught.value.hint or "").startswith("extend one of `qlora`, `int8`, ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[tool.bnbenv.profiles.mine\nextends = "qlora"', "cannot be read"),
        ("[tool]\nbnbenv = 3", "`tool.bnbenv` is no table"),
        ("[tool.bnbenv]\nprofiles = 3", "`tool.bnbenv.profiles` is no table"),
        ("[tool.bnbenv.profiles]\nmine = 3", "`tool.bnbenv.profiles.mine` is no table"),
    ],
)
def test_a_pyproject_that_speaks_to_bnbenv_in_vain_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said) as caught:
        definition_of("mine", tmp_path)
    assert f"`{tmp_path / 'pyproject.toml'}`" in caught.value.message
    assert "[tool.bnbenv.profiles.mine]" in (caught.value.hint or "")


def test_resolve_and_the_listing_know_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bnbenv.toml").write_text(MINE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["resolve", "mine", *TARGET, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    validate(answer)
    assert answer["data"]["packages"]["einops"] == ">=0.8"
    assert main(["profiles", "--json"]) == 0
    listing = json.loads(capsys.readouterr().out)
    validate(listing)
    names = [entry["name"] for entry in listing["data"]["profiles"]]
    assert names == ["qlora", "int8", "inference", "gptq", "awq", "gptq-legacy", "awq-legacy", "mine"]
    assert all(entry["wanted_by"].startswith("whoever ") for entry in listing["data"]["profiles"][:7])
    assert main(["profiles", "gptq"]) == 0
    assert "gptqmodel compiles its kernels at first use" in capsys.readouterr().out
    assert main(["profiles", "qlora"]) == 0
    assert "autoawq: beside peft <0.19 and transformers >=4.57,<5: " in capsys.readouterr().out
    assert main(["profiles", "awq-legacy"]) == 0
    assert "with CUDA >=12,<13, on linux-x86_64 alone" in capsys.readouterr().out


def request_for(name: str, **more: Any) -> CreateRequest:
    return CreateRequest(wanted=Wanted(profile=name), name=name, **more)


def test_inference_says_what_it_is_not_for() -> None:
    voice = Listener()
    tell_note(request_for("inference"), voice)
    assert "wrong tool for serving" in voice.heard[0]


@pytest.mark.parametrize("name", ["gptq", "awq", "gptq-legacy", "awq-legacy"])
def test_what_a_profile_without_bitsandbytes_is_proven_by(name: str) -> None:
    """The interpreter of these tests has none of the modules; the verdict names what was asked for."""
    matrix: Matrix = load("profiles")
    row = profile(matrix, name)
    stack = SimpleNamespace(bitsandbytes=None, profile=name)
    choice: Any = SimpleNamespace(matrix=matrix, solution=SimpleNamespace(stack=stack))
    made: Any = SimpleNamespace(python=Path(sys.executable))
    nothing: Any = None
    verdict = prove(made, choice, nothing, held=nothing, voice=Listener(), environ=os.environ)
    assert verdict.verdict == "failed"
    assert verdict.devices[0].name == ", ".join(("torch", *row.imports))
    assert row.imports
