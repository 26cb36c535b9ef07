from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.main import main
from bnbenv.cli.options import add_target, described_target, description_words, release_of

if TYPE_CHECKING:
    from pathlib import Path

guessed = pytest.mark.skipif(sys.platform == "win32", reason="Windows guesses where another user's home is")


@pytest.mark.parametrize(
    "typed",
    [
        [],
        ["--target", "lab a.json"],
        ["--gpu", "RTX 4090", "--gpu", "6.1", "--driver", "550", "--os", "linux", "--glibc", "2.35"],
    ],
    ids=["this machine", "a file", "described"],
)
def test_what_describes_another_machine_is_given_back(typed: list[str]) -> None:
    parser = ArgumentParser()
    add_target(parser)
    assert description_words(parser.parse_args(typed)) == tuple(typed)


@pytest.mark.parametrize(
    ("typed", "arch"),
    [
        (["--gpu", "Jetson AGX Orin"], "aarch64"),
        (["--gpu", "GB10"], "aarch64"),
        (["--gpu", "GH200"], "aarch64"),
        (["--gpu", "GB200"], "aarch64"),
        (["--gpu", "T4G"], "aarch64"),
        (["--gpu", "RTX 4090", "--arch", "x86_64"], "x86_64"),
        (["--gpu", "GB10", "--arch", "x86_64"], "x86_64"),  # as was said
    ],
    ids=["a board", "a chip", "Grace Hopper", "Grace Blackwell", "Graviton", "a card", "said"],
)
def test_a_chip_that_stands_beside_arm_alone_tells_the_processor(typed: list[str], arch: str) -> None:
    parser = ArgumentParser()
    add_target(parser)
    assert described_target(parser.parse_args(typed)).arch == arch


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        (["--os", "Windows 11"], ("windows", None)),
        (["--os", "win"], ("windows", None)),
        (["--os", "Linux", "--arch", "amd64"], ("linux", "x86_64")),
        (["--os", "darwin", "--arch", "arm64"], ("macos", "aarch64")),
        (["--arch", "x64"], (None, "x86_64")),
        (["--arch", "x86-64"], (None, "x86_64")),
    ],
    ids=str,
)
def test_systems_and_processors_by_other_names(typed: list[str], named: tuple[str | None, ...]) -> None:
    parser = ArgumentParser()
    add_target(parser)
    args = parser.parse_args(typed)
    assert (args.os, args.arch) == named


@pytest.mark.parametrize("name", ["wsl", "WSL2", "Windows Subsystem for Linux 2"])
def test_wsl_is_a_system_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    machine = ["--gpu", "RTX 4090", "--driver", "527.41", "--arch", "x86_64"]
    assert main(["why-not", "torch==2.9.1", *machine, "--os", name]) == 0
    text = capsys.readouterr().out
    assert "cannot serve described: WSL2 x86_64, NVIDIA GeForce RTX 4090 (8.9), driver 527.41" in text
    assert "on WSL2 the Windows driver counts" in text
    assert main(["why-not", "torch==2.9.1", *machine, "--os", "linux"]) == 0
    assert "torch==2.9.1 would work" in capsys.readouterr().out


def test_what_is_called_linux_in_wsl_is_another_machine() -> None:
    parser = ArgumentParser()
    add_target(parser)
    typed = ["--gpu", "8.9", "--os", "wsl"]
    target = described_target(parser.parse_args(typed))
    assert (target.os, target.wsl, target.libc) == ("linux", True, None)
    assert not described_target(parser.parse_args([*typed[:2], "--os", "linux"])).wsl


@pytest.mark.parametrize("name", ["i686", "armv7l", "riscv64"])
def test_no_other_processor_is_taken_for_one_of_64_bits(name: str) -> None:
    parser = ArgumentParser()
    add_target(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--arch", name])


@pytest.mark.parametrize(
    "spec", ["torch==2.9.1", "2.9.1", "torch 2.9.1", "==2.9.1", "pytorch=2.9.1", "torch2.9.1", "=2.9.1"]
)
def test_a_release_may_name_its_package(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    machine = ["--gpu", "RTX 4090", "--driver", "580", "--os", "linux", "--arch", "x86_64", "--glibc", "2.39"]
    assert main(["resolve", "qlora", "--torch", spec, *machine, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["torch"]["version"] == "2.9.1"


@pytest.mark.parametrize("typed", ["3.12", "3.12.4", "python3.12", "py312", "cp312", "Python 3.12"])
def test_a_python_as_people_write_it(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resolve", "qlora", "--python", typed, "--gpu", "8.9", "--driver", "580", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["python"] == "3.12"


def test_no_other_package_is_cut_to_a_release() -> None:
    assert release_of("torch")("torchvision==0.24") == "torchvision==0.24"


def test_an_answer_tells_the_machine_that_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    machine = ["--gpu", "4090", "--driver", "R580", "--os", "linux", "--arch", "x86_64", "--glibc", "2.39"]
    told = "linux x86_64, NVIDIA GeForce RTX 4090 (8.9), driver 580"
    for asked in (
        ["resolve"],
        ["why-not", "torch==2.9.1"],
        ["check", "--torch", "torch==2.9.1", "--bitsandbytes", "bitsandbytes==0.50.2"],
    ):
        assert main([*asked, *machine]) == 0
        assert told in capsys.readouterr().out


@pytest.mark.parametrize("command", ["resolve", "create", "sync", "check", "why-not", "detect", "doctor"])
def test_a_second_target_is_not_taken_instead_of_the_first(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        target = {"schema": 1, "name": name, "os": "linux", "arch": "x86_64", "accelerator": "cpu"}
        (tmp_path / f"{name}.json").write_text(json.dumps(target))
    words = {"check": ["--torch", "2.9.1", "--bitsandbytes", "0.50.2"], "why-not": ["torch==2.9.1"]}.get(
        command, []
    )
    files = [word for name in ("a", "b") for word in ("--target", str(tmp_path / f"{name}.json"))]
    assert main([command, *words, *files, "--json"]) == 2
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    assert "`--target` is given 2 times" in problem["message"]
    assert "bnbenv lock" in problem["hint"]


@guessed
@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("example -o ~", "`--output`"),
        ("matrix export -o ~", "`--output`"),
        ("matrix measure ~", "what is measured"),
        ("bundle -o ~", "`--output`"),
        ("bundle ~ -o .", "the locks"),
        ("lock qlora --dir ~", "`--dir`"),
        ("lock qlora --targets ~", "`--targets`"),
        ("sync ~", "the locks"),
        ("sync --path ~", "`--path`"),
        ("sync --wheelhouse ~", "`--wheelhouse`"),
        ("create --path ~", "`--path`"),
        ("create --base ~", "`--base`"),
        ("create --requirements ~", "`--requirements`"),
        ("doctor ~", "the environment"),
        ("doctor --lock ~", "`--lock`"),
        ("remove ~ --yes", "the environment"),
        ("memory ~", "the model"),
        ("quantize ~ .", "the model"),
        ("config set pytorch-cpu ~", "the mirror of `pytorch-cpu`"),
    ],
)
def test_the_home_of_nobody_is_refused_in_one_way(
    line: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = "~no-such-user/x"
    assert main([*line.replace("~", nobody).split(), "--json"]) == 2
    problem = json.loads(capsys.readouterr().out)["problems"][0]
    assert problem["code"] == "usage"
    assert problem["message"] == f"{what}: the home directory in `{nobody}` cannot be told"


@guessed
def test_a_home_of_bnbenv_that_cannot_be_told_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BNBENV_HOME", "~no-such-user/x")
    assert main(["list", "--json"]) == 2
    assert "`BNBENV_HOME`" in json.loads(capsys.readouterr().out)["problems"][0]["message"]
