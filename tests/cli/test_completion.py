"""The completion scripts are valid in their shells, and complete commands in the one that is always there."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.commands.completion import SHELLS
from bnbenv.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

COMPLETE = """
source "$1"
COMP_WORDS=(bnbenv cre) COMP_CWORD=1
_shtab_bnbenv
echo "${COMPREPLY[@]}"
COMP_WORDS=(bnbenv verify --lev) COMP_CWORD=2
_shtab_bnbenv
echo "${COMPREPLY[@]}"
"""


def script_for(shell: str, capsys: pytest.CaptureFixture[str], directory: Path) -> Path:
    assert main(["completion", shell]) == 0
    path = directory / f"completion.{shell}"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    return path


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shell != "powershell"])  # it has no `-n`
def test_the_shell_itself_can_read_it(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"there is no {shell} here")
    path = script_for(shell, capsys, tmp_path)
    read = subprocess.run([program, "-n", str(path)], capture_output=True, text=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_completes_commands_and_options(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = script_for("bash", capsys, tmp_path)
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", str(path)], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["create", "--level"], done.stderr
