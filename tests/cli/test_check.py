"""`check` as a command: what it reads of the matrix for each way of asking."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.cli.main import main
from bnbenv.errors import EXIT_USAGE
from bnbenv.matrix.load import load
from support.sites import make_site

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = ["--gpu", "8.9", "--driver", "580.65.06", "--os", "linux", "--arch", "x86_64", "--glibc", "2.35"]
OWN = ("linux", "x86_64")


@pytest.mark.parametrize(
    ("words", "platform"),
    [
        (["--torch", "2.9.1", "--bitsandbytes", "0.46.1"], OWN),
        (["--torch", "2.9.1", "--bitsandbytes", "0.41.3"], OWN),
        (["--file", "requirements.txt"], OWN),
        (["--environment", "env"], OWN),
        (["--batch", "questions"], "every"),
    ],
    ids=["named", "old", "file", "environment", "batch"],
)
def test_only_the_rows_that_can_decide_are_read(
    words: list[str], platform: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = {"os": "linux", "arch": "x86_64", "accelerator": "cpu", "gpus": []}
    question = {"target": target, "torch": "2.9.1", "bitsandbytes": "0.46.1"}
    (tmp_path / "questions").write_text(json.dumps(question) + "\n", encoding="utf-8")
    (tmp_path / "requirements.txt").write_text("torch==2.9.1\nbitsandbytes\n", encoding="utf-8")
    make_site(tmp_path / "env", torch="2.9.1+cu128", cuda="12.8", bitsandbytes="0.46.1")
    monkeypatch.chdir(tmp_path)
    read: list[Any] = []

    def spy(*parts: str, **narrowing: Any) -> Any:
        if "bitsandbytes" in parts:
            read.append(narrowing.get("platform"))
        return load(*parts, **narrowing)

    monkeypatch.setattr("bnbenv.matrix.load.load", spy)
    machine = [] if "--batch" in words else MACHINE
    assert main(["check", *words, *machine, "--json"]) in (0, 1)
    assert read == [platform]


@pytest.mark.parametrize("package", ["transformers==main", "torch==2.5.0"], ids=["no-version", "named-apart"])
def test_a_package_that_cannot_be_judged_is_refused(
    package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["--torch", "2.3.1", "--bitsandbytes", "0.45.5"]
    assert main(["check", *named, "--package", package, *MACHINE]) == EXIT_USAGE
    name, _, version = package.partition("==")
    question = {"torch": "2.3.1", "bitsandbytes": "0.45.5", "packages": {name: version}}
    (tmp_path / "questions").write_text(json.dumps(question) + "\n", encoding="utf-8")
    capsys.readouterr()
    assert main(["check", "--batch", str(tmp_path / "questions"), *MACHINE]) == 0
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert name in problem["message"]
    assert "JSON" not in problem["message"]


def test_a_gpu_without_a_compute_capability_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = {"os": "linux", "arch": "x86_64", "accelerator": "xpu", "gpus": [{"name": "Intel Arc B580"}]}
    (tmp_path / "target.json").write_text(json.dumps(target), encoding="utf-8")
    words = ["--torch", "2.9.1+xpu", "--bitsandbytes", "0.50.2", "--target", str(tmp_path / "target.json")]
    assert main(["check", *words]) == 0
    assert "this GPU: torch xpu, bitsandbytes xpu" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("torch", "told"),
    [
        ("2.9.1+gitabcdef", "which library the loader takes is not known"),
        ("2.9.1+cu140", "the loader takes no library: it finds none"),
    ],
    ids=["unknown", "none"],
)
def test_no_library_is_told_apart_from_an_unknown_one(
    torch: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["check", "--torch", torch, "--bitsandbytes", "0.50.2", *MACHINE])
    assert told in capsys.readouterr().out.splitlines()
