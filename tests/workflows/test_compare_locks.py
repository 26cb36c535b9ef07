from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli import main
from bnbenv.errors import DataError, EnvironmentProblem
from bnbenv.lockfile import index
from bnbenv.lockfile.index import MachineClass, TeamLock, sha256_of
from bnbenv.workflows.compare_locks import compare_locks
from support.schemas import validate
from support.variants import CPU

if TYPE_CHECKING:
    from pathlib import Path


def team(directory: Path, *machines: str, einops: str, ends: str = "\n") -> Path:
    """A lock of one package for machines of two classes."""
    text = (
        'lock-version = "1.0"\ncreated-by = "uv"\n'
        f'[[packages]]\nname = "einops"\nversion = "{einops}"\n'
        f'[[packages.wheels]]\nurl = "https://files.example/einops-{einops}-py3-none-any.whl"\n'
        f'hashes = {{sha256 = "{"ab" * 32}"}}\n'
    ).replace("\n", ends)
    directory.mkdir()
    (directory / "pylock.cpu.toml").write_bytes(text.encode())
    classes = [
        MachineClass(variant="cpu", machines=(name,), facts={"os": "linux"}, seen="2026-11-23")
        for name in machines
    ]
    lock = TeamLock(
        request={"profile": "qlora"},
        matrix="2026.11.23",
        variants=(replace(CPU, sha256=sha256_of(text)),),
        classes=tuple(classes),
    )
    index.write(directory, lock)
    return directory


def test_what_is_other_for_whom(tmp_path: Path) -> None:
    old = team(tmp_path / "old", "ci", einops="0.8.1")
    new = team(tmp_path / "new", "ci", "desk", einops="0.8.2")
    assert compare_locks(old, new) == ("desk: new, gets cpu", "cpu (ci, desk): einops 0.8.1 → 0.8.2")
    assert compare_locks(new, old) == (
        "desk: no longer in the lock; had cpu",
        "cpu (ci): einops 0.8.2 → 0.8.1",
    )


def test_a_lock_to_compare_with_is_asked_for_by_its_directory(tmp_path: Path) -> None:
    new = team(tmp_path / "new", "ci", einops="0.8.2")
    with pytest.raises(EnvironmentProblem) as caught:
        compare_locks(new / "none", new)
    assert "such as another checkout's" in (caught.value.hint or "")


def test_line_ends_and_order_are_no_difference(tmp_path: Path) -> None:
    old = team(tmp_path / "old", "ci", "desk", einops="0.8.1")
    new = team(tmp_path / "new", "desk", "ci", einops="0.8.1", ends="\r\n")
    parts = (new / index.NAME).read_text(encoding="utf-8").split("[[classes]]\n")
    (new / index.NAME).write_text("[[classes]]\n".join((parts[0], *parts[:0:-1])), encoding="utf-8")
    assert (old / index.NAME).read_bytes() != (new / index.NAME).read_bytes()
    assert compare_locks(old, new) == ()


def test_what_is_no_lock_is_compared_with_nothing(tmp_path: Path) -> None:
    old = team(tmp_path / "old", "ci", einops="0.8.1")
    new = team(tmp_path / "new", "ci", einops="0.8.2")
    with pytest.raises(EnvironmentProblem, match="there is no"):
        compare_locks(tmp_path, new)
    (new / "pylock.cpu.toml").write_bytes((old / "pylock.cpu.toml").read_bytes())
    for pair in ((old, new), (new, old)):
        with pytest.raises(DataError, match="was changed after it was locked"):
            compare_locks(*pair)


def test_the_answer_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = team(tmp_path / "old", "ci", einops="0.8.1")
    new = team(tmp_path / "new", "ci", einops="0.8.2")
    for words, changes in (
        ([str(new), "--diff", "--against", str(old)], ["cpu (ci): einops 0.8.1 → 0.8.2"]),
        ([str(new), "--against", str(new)], []),
    ):
        assert main.main(["lock", "--dir", *words, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        validate(answer)
        assert answer["schema"] == "bnbenv.lock-against/1"
        assert answer["data"]["changes"] == changes
        assert answer["data"]["changed"] is bool(changes)
    assert main.main(["lock", "qlora", "--dir", str(new), "--against", str(old), "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["problems"][0]["hint"] == f"bnbenv lock --against {old} --dir {new}"
