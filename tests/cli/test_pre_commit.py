"""The hook that other repositories name, run by a real pre-commit from this checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
BESIDE = str(Path(sys.executable).parent)
pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(not (CHECKOUT / ".git").exists(), reason="pre-commit takes hooks from a git checkout"),
    pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here"),
]


def run(directory: Path, *command: str, fails: bool = False) -> str:
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "PRE_COMMIT_HOME": str(directory.parent / "hooks"),
        "PATH": os.pathsep.join((BESIDE, os.environ["PATH"])),
    }
    done = subprocess.run(command, cwd=directory, env=environ, capture_output=True, text=True, check=False)
    told = done.stdout + done.stderr
    assert bool(done.returncode) == fails, told
    return told


def test_the_hook_passes_a_sound_lock_and_stops_a_changed_one(tmp_path: Path) -> None:
    pre_commit = shutil.which("pre-commit", path=os.pathsep.join((BESIDE, os.environ["PATH"])))
    if pre_commit is None:
        pytest.skip("pre-commit is not installed")
    team = tmp_path / "team"
    team.mkdir()
    machine = (
        "--gpu",
        "H100",
        "--driver",
        "580.95.05",
        "--os",
        "linux",
        "--arch",
        "x86_64",
        "--python",
        "3.12",
    )
    lock = ("lock", "qlora", *machine, "--without-index", "pytorch")
    run(team, sys.executable, "-m", "bnbenv", *lock)
    run(team, "git", "init", "--quiet")
    run(team, "git", "add", "--all")
    hook = (pre_commit, "try-repo", str(CHECKOUT), "bnbenv-lock-check", "--all-files")
    assert "Passed" in run(team, *hook)
    file = next(team.glob("pylock.*.toml"))
    file.write_text(file.read_text(encoding="utf-8").replace("peft", "evil"), encoding="utf-8")
    told = run(team, *hook, fails=True)
    assert "was changed after it was locked" in told


@pytest.mark.parametrize(
    ("file", "looked_at"),
    [
        ("bnbenv.lock", True),
        ("pylock.cu126.toml", True),
        ("team/locks/bnbenv.lock", True),
        ("locks/pylock.cu126.toml", True),
        ("mybnbenv.lock", False),
        ("pylock.toml.orig", False),
    ],
)
def test_the_hook_looks_at_locks_wherever_they_stand(file: str, looked_at: bool) -> None:
    text = (CHECKOUT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")
    pattern = re.search(r"^  files: (.+)$", text, re.MULTILINE)
    assert pattern is not None
    assert bool(re.search(pattern[1], file)) is looked_at
