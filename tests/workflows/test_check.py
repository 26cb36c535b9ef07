# ruff: noqa: E501 - rows of tables, and of a lock, stand in one line
from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from bnbenv.errors import UsageError
from bnbenv.judge.check import Combination, check
from bnbenv.judge.document import check_document
from bnbenv.machine.document import target_from_dict
from bnbenv.matrix.load import load
from bnbenv.workflows.check import Matrices, load_matrix, of_environment, of_file
from bnbenv.workflows.choose import JUDGED
from support.sites import located, make_site
from support.voice import Listener

if TYPE_CHECKING:
    from pathlib import Path

ADA = target_from_dict(
    {"os": "linux", "arch": "x86_64", "gpus": [{"compute_capability": "8.9"}], "driver": "580.95.05"}
)
PASCAL = target_from_dict(
    {"os": "linux", "arch": "x86_64", "gpus": [{"compute_capability": "6.1"}], "driver": "580.95.05"}
)
WINDOWS = target_from_dict(
    {"os": "windows", "arch": "x86_64", "gpus": [{"compute_capability": "8.9"}], "driver": "581.15"}
)


@cache
def facts() -> Any:
    return load(*JUDGED)


def asked(tmp_path: Path, text: str, target: Any = ADA, name: str = "requirements.txt") -> Any:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return of_file(file, target, profile="qlora")[0]


@pytest.mark.parametrize(
    ("text", "torch", "bitsandbytes"),
    [
        ("torch==2.9.1\nbitsandbytes==0.46.1\n", "2.9.1", "0.46.1"),
        ("torch==2.9.1+cu128\nbitsandbytes==0.46.1", "2.9.1+cu128", "0.46.1"),
        ("--index-url https://mirror.example/whl/cu126\ntorch==2.9.1\nbitsandbytes", "2.9.1+cu126", "0.50.2"),
        ("--extra-index-url https://mirror.example/whl/cu126/\ntorch<2.9\nbitsandbytes<0.48", "2.8.0+cu126", "0.47.0"),
        ("torch\nbitsandbytes~=0.49.0", "2.15.0", "0.49.2"),
        ("torch==2.9.1 ; sys_platform == 'linux'\ntorch==2.8.0 ; sys_platform == 'win32'\n", "2.9.1", None),
    ],
    ids=["pinned", "local", "index", "ranges", "any", "markers"],
)  # fmt: skip
def test_requirements(tmp_path: Path, text: str, torch: str, bitsandbytes: str | None) -> None:
    found = asked(tmp_path, text)
    assert (found.torch, found.bitsandbytes) == (torch, bitsandbytes)


def test_markers_are_those_of_the_machines_python(tmp_path: Path) -> None:
    text = "torch==2.9.1 ; python_full_version >= '3.11'\ntorch==2.8.0 ; python_full_version < '3.11'\n"
    assert asked(tmp_path, text, replace(ADA, pythons=("3.10",))).torch == "2.8.0"


def test_packages_keep_their_ranges(tmp_path: Path) -> None:
    found = asked(tmp_path, "torch==2.4.1\nbitsandbytes==0.50.2\ntransformers>=5.21,<5.24\nPEFT==0.21.2\n")
    assert found.packages == {"transformers": "<5.24,>=5.21", "peft": "0.21.2"}
    assert check(found, ADA, facts()).judgement.works is False


def test_what_a_file_asks_for_is_judged_for_the_machine(tmp_path: Path) -> None:
    text = "torch\nbitsandbytes\n"
    assert check(asked(tmp_path, text), ADA, facts()).judgement.works is True
    pascal = check(asked(tmp_path, text, PASCAL), PASCAL, facts())
    assert "torch-arch-unsupported" in {found.code for found in pascal.judgement.findings}
    windows = check(asked(tmp_path, text, WINDOWS), WINDOWS, facts())
    assert "windows-cpu-torch" in {found.code for found in windows.judgement.findings}


LOCK = """\
lock-version = "1.0"
created-by = "somebody"

[[packages]]
name = "torch"
version = "2.9.1"
index = "https://mirror.example/whl/cu128"
marker = "sys_platform == 'linux'"
wheels = [{ name = "torch-2.9.1-cp312-cp312-manylinux_2_28_x86_64.whl", url = "https://mirror.example/t.whl", hashes = { sha256 = "@" } }]

[[packages]]
name = "bitsandbytes"
version = "0.50.2"
wheels = [{ name = "bitsandbytes-0.50.2-py3-none-manylinux_2_24_x86_64.whl", url = "https://mirror.example/b.whl", hashes = { sha256 = "@" } }]
""".replace("@", "0" * 64)


def test_lock(tmp_path: Path) -> None:
    found = asked(tmp_path, LOCK, name="pylock.toml")
    assert (found.torch, found.bitsandbytes) == ("2.9.1+cu128", "0.50.2")
    with pytest.raises(UsageError, match="names no torch"):
        asked(tmp_path, LOCK, WINDOWS, name="pylock.toml")


@pytest.mark.parametrize(
    "line",
    [
        "torch @ https://mirror.example/whl/cu126/torch-2.9.1%2Bcu126-cp312-cp312-manylinux_2_28_x86_64.whl",
        "https://mirror.example/torch-2.9.1%2Bcu126-cp312-cp312-manylinux_2_28_x86_64.whl#sha256=00",
        "./torch-2.9.1+cu126-cp312-cp312-manylinux_2_28_x86_64.whl",
    ],
    ids=["named", "address", "path"],
)
def test_a_wheel_tells_the_release(tmp_path: Path, line: str) -> None:
    assert asked(tmp_path, f"{line}\nbitsandbytes==0.50.2\n").torch == "2.9.1+cu126"


@pytest.mark.parametrize(
    "text",
    [
        "bitsandbytes==0.50.2\n",
        "torch>=99\nbitsandbytes\n",
        "torch==2.3.1\nbitsandbytes @ git+https://forge.example/bitsandbytes.git\n",
        "torch==2.3.1\nbitsandbytes==0.45.5\ntransformers===main\n",
    ],
    ids=["no", "none-such", "no-release", "no-version"],
)
def test_what_cannot_be_judged(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        asked(tmp_path, text)
    assert caught.value.hint


# ---- what is read of the matrix ------------------------------------------------------------------

PLATFORMS = [
    ("linux", "x86_64"),
    ("linux", "aarch64"),
    ("windows", "x86_64"),
    ("windows", "aarch64"),
    ("macos", "aarch64"),
]
CAPABILITIES = ["3.7", "5.2", "5.3", "6.1", "7.0", "8.6", "8.7", "8.9", "9.0", "12.0", "12.1"]
WHEELS = load("bitsandbytes").bitsandbytes
NAMED = sorted({row.version for row in WHEELS})
OTHERS = ["0.46", "v0.45.0", "0.41.3.post2", "0.99.0", "0.50.2+local"]
TORCHES = sorted({row.version for row in load("torch").torch})
LOCALS = ["", "+cpu", "+cu102", "+cu118", "+cu126", "+cu129", "+cu132", "+rocm6.4", "+rocm7.9", "+xpu"]


@some.composite
def questions(draw: some.DrawFn) -> tuple[Any, Combination]:
    system, arch = draw(some.sampled_from(PLATFORMS))
    document: dict[str, Any] = {"os": system, "arch": arch, "accelerator": "cpu"}
    kind = draw(some.sampled_from(["cuda", "cuda", "rocm", "cpu"]))
    if kind == "cuda":
        gpus = draw(some.lists(some.sampled_from(CAPABILITIES), min_size=1, max_size=2))
        document |= {"accelerator": kind, "gpus": [{"compute_capability": one} for one in gpus]}
        document["driver"] = draw(some.sampled_from(["470.82", "550.54", "580.95"]))
    elif kind == "rocm":
        gfx = draw(some.sampled_from(["gfx906", "gfx1100", "gfx1103"]))
        document |= {"accelerator": kind, "gpus": [{"gfx": gfx}]}
    combination = Combination(
        torch=draw(some.sampled_from([*TORCHES, "2.16.0"])) + draw(some.sampled_from(LOCALS)),
        bitsandbytes=draw(some.sampled_from(NAMED) | some.sampled_from(OTHERS)),
        profile=draw(some.sampled_from(["", "qlora", "int8"])),
    )
    return target_from_dict(document), combination


def told(asked: Combination, target: Any, matrix: Any) -> Any:
    return check_document(check(asked, target, matrix), target, matrix)


@cache
def matrices() -> Matrices:
    return Matrices()


@settings(max_examples=150, deadline=None)
@given(questions())
def test_the_rows_that_are_read_give_the_verdict_of_all_rows(question: tuple[Any, Combination]) -> None:
    target, asked = question
    expected = told(asked, target, facts())
    assert told(asked, target, load_matrix(target, release=asked.bitsandbytes)) == expected
    assert told(asked, target, matrices().naming(asked.bitsandbytes or "", target)) == expected


def foreign(matrix: Any, target: Any) -> set[str]:
    """The releases of which wheels were read that nothing would choose for the target."""
    own = (target.os, target.arch)
    return {row.version for row in matrix.bitsandbytes if (row.os, row.arch) != own or row.platform == "any"}


def test_a_file_reads_only_what_its_machine_is_judged_by(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    for text, expected in (
        ("torch==2.9.1\nbitsandbytes>=0.46", set()),
        ("torch==2.9.1\nbitsandbytes==0.46.1", {"0.46.1"}),
    ):
        file.write_text(text, encoding="utf-8")
        _, matrix = of_file(file, ADA, profile="qlora")
        assert foreign(matrix, ADA) == expected
        assert {(row.os, row.arch) for row in matrix.torch} == {("linux", "x86_64")}


def test_a_file_that_asks_for_what_nothing_would_choose_is_judged_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("torch==2.1.0\nbitsandbytes<0.43\n", encoding="utf-8")
    found, matrix = of_file(file, ADA, profile="qlora")
    assert found.bitsandbytes == "0.42.0"
    assert told(found, ADA, matrix) == told(found, ADA, facts())


def test_an_environment_reads_its_machine_and_its_release(tmp_path: Path) -> None:
    environment = make_site(tmp_path / "env", torch="2.9.1+cu128", cuda="12.8", bitsandbytes="0.46.1")
    for target in (ADA, WINDOWS):
        checked, matrix = of_environment(located(environment), target, {}, Listener(), profile="qlora")
        assert foreign(matrix, target) == {"0.46.1"}
        wheel = checked.stack.bitsandbytes
        assert wheel is not None
        assert wheel.libraries


def test_a_batch_reads_what_nothing_would_choose_once_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[Any] = []

    def spy(*parts: str, **narrowing: Any) -> Any:
        asked_for.append(narrowing.get("platform"))
        return load(*parts, **narrowing)

    monkeypatch.setattr("bnbenv.matrix.load.load", spy)
    several = Matrices()
    for release in ("0.50.2", "0.46", "0.43.0"):
        assert all(row.platform != "any" for row in several.naming(release, WINDOWS).bitsandbytes)
    assert asked_for == ["every"]
    for release in ("0.42.0", "0.41.3", "0.99.0"):
        assert len(several.naming(release, ADA).bitsandbytes) == len(WHEELS)
    assert asked_for == ["every", None]
