"""What is told of an index with git's marks, as git itself leaves them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bnbenv.errors import DataError
from bnbenv.lockfile import index
from bnbenv.lockfile.conflict import sides
from bnbenv.lockfile.index import MachineClass, TeamLock

if TYPE_CHECKING:
    from pathlib import Path

LAB = MachineClass(
    variant=None, machines=("lab",), facts={"os": "linux", "driver": "550.54.15"}, seen="2026-11-23"
)
BASE = TeamLock(request={"profile": "qlora"}, matrix="2026.11.23", classes=(LAB,))
A40 = replace(BASE, classes=(LAB, replace(LAB, machines=("a40",), facts={"os": "linux", "driver": "535"})))
A100 = replace(BASE, classes=(LAB, replace(LAB, machines=("a100",), facts={"os": "linux", "driver": "580"})))


def asking(**request: object) -> TeamLock:
    return replace(BASE, request={"profile": "qlora", **request})


def merged(directory: Path, here: TeamLock, other: TeamLock, *options: str) -> str:
    """What git makes of two changes of one index."""
    if shutil.which("git") is None:
        pytest.skip("there is no git here")
    for name, team in (("here", here), ("base", BASE), ("other", other)):
        (directory / name).write_text(index.dump(team), encoding="utf-8")
    command = ["git", "merge-file", "-p", *options, "here", "base", "other"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode > 0, "there is no conflict"
    return done.stdout


@pytest.mark.parametrize("options", [(), ("--diff3",)])
def test_both_sides_are_found(tmp_path: Path, options: tuple[str, ...]) -> None:
    content = merged(tmp_path, A40, A100, *options)
    assert sides(content) == (index.dump(A40), index.dump(A100))
    ended = content.replace("\n", "\r\n")  # as a checkout on Windows ends lines
    assert [side.replace("\r\n", "\n") for side in sides(ended)] == [index.dump(A40), index.dump(A100)]


@pytest.mark.parametrize(
    ("here", "other", "told"),
    [
        (A40, A100, "then bnbenv lock --dir {0}; only the other side has `a100` (--target FILE for each"),
        (
            asking(packages=["einops", "wandb"]),
            asking(packages=["einops", "peft>0.1"]),
            "then bnbenv lock --with einops --with wandb --with 'peft>0.1' --dir {0}",
        ),
        (asking(torch="2.13"), asking(torch="2.14"), "; only the other side asks for torch: 2.14"),
        (
            asking(packages=["einops"], exclude_newer="2026-11-01"),
            replace(A100, request={"profile": "int8", "packages": ["einops"]}),
            "or --add-this-machine there) and asks for exclude-newer: nothing, profile: int8",
        ),
    ],
)
def test_the_way_out_names_what_the_other_side_has(
    here: TeamLock, other: TeamLock, told: str, tmp_path: Path
) -> None:
    content = merged(tmp_path, here, other)
    with pytest.raises(DataError, match="marks of a conflict") as caught:
        index.parse(content, origin=str(tmp_path / "bnbenv.lock"))
    hint = caught.value.hint or ""
    assert hint.startswith(f"git checkout HEAD -- {tmp_path}/bnbenv.lock '{tmp_path}/pylock.*.toml', then ")
    assert told.format(tmp_path) in hint


LOCAL = """lock-version = "1.0"
created-by = "uv"
[[packages]]
name = "inhouse"
version = "1"
wheels = [
  { url = "file:///wheels/inhouse-1-py3-none-any.whl", hashes = { sha256 = "%s" } },
]
""" % ("0" * 64)


@pytest.mark.parametrize(
    "content",
    [
        LOCAL,
        f"<<<<<<< HEAD\nlock-version = 3\n=======\n>>>>>>> other\n{LOCAL}",
        LOCAL.replace('{ url = "file:///wheels/', '{ path = "../'),
    ],
)
def test_a_lock_with_files_of_this_machine_is_made_again_with_them(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pylock.cpu.toml").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="marks of a conflict") as caught:
        index.parse(merged(tmp_path, A40, A100), origin=str(tmp_path / "bnbenv.lock"))
    hint = caught.value.hint or ""
    assert hint.startswith(
        "git checkout HEAD -- bnbenv.lock 'pylock.*.toml', then bnbenv lock --allow-local; only"
    )


@pytest.mark.parametrize(
    "content", ["<<<<<<< HEAD\n", f"{index.dump(BASE)}>>>>>>> other\r\n", "x\n>>>>>>> \n"]
)
def test_marks_without_two_whole_sides(content: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="marks of a conflict") as caught:
        index.parse(content, origin=str(tmp_path / "bnbenv.lock"))
    assert f"then bnbenv lock --dir {tmp_path}" in (caught.value.hint or "")
