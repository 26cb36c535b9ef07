# ruff: noqa: E501 - rows of tables, and of a lock, stand in one line
from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.errors import UsageError
from bnbenv.judge.check import check
from bnbenv.machine.document import target_from_dict
from bnbenv.matrix.load import load
from bnbenv.workflows.check import of_file
from bnbenv.workflows.choose import JUDGED

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
    return of_file(file, target, facts(), profile="qlora")


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
    "text", ["bitsandbytes==0.50.2\n", "torch>=99\nbitsandbytes\n"], ids=["no", "none-such"]
)
def test_what_cannot_be_judged(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        asked(tmp_path, text)
    assert caught.value.hint
