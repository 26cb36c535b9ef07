"""The completion scripts are valid in their shells, and complete commands, files and directories there."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.commands.completion import DIRECTORIES, ENVIRONMENT, EPILOG, FILES, SHELLS, whole_parser
from bnbenv.cli.main import main

if TYPE_CHECKING:
    from argparse import Action, ArgumentParser
    from collections.abc import Iterator

# What the help's words stand for where it is neither a file nor a directory.
NEITHER = {
    None, "ACTION", "ANSWER", "COMMAND", "DATE", "GENERATION", "GIB", "GPU", "INDEX", "KEY", "N", "NAME",
    "NAME==VERSION", "NAME=VALUE", "PACKAGE", "PACKAGE==VERSION", "PROFILE", "R", "SHELL", "SPEC", "TEXT",
    "TOKENS", "VALUE", "VERSION",
}  # fmt: skip
TYPED = {
    "bnbenv diagnose uni": "unique.log",
    "bnbenv detect --target uni": "unique.log",
    "bnbenv check --file uni": "unique.log",
    "bnbenv create --path nes": "nest/",
    "bnbenv doctor ./nes": "./nest/",
    "bnbenv remove nes": "nest/",
    "bnbenv create qlo": "qlora",
    "bnbenv check --profile qlo": "qlora",
}
NAMED = {"bnbenv run tut": "tutorial", "bnbenv repair tut": "tutorial", "bnbenv upgrade --in tut": "tutorial"}
"""Where environments are called by name, too; not in tcsh."""
BASH = """
source "$1"
complete_line() {
  COMP_WORDS=($1) COMP_CWORD=2 COMPREPLY=()
  [ "${#COMP_WORDS[@]}" -eq 4 ] && COMP_CWORD=3
  _shtab_bnbenv
  for found in "${COMPREPLY[@]}"; do [ -d "$found" ] && echo "$found/" || echo "$found"; done
}
shift
for line in "$@"; do complete_line "$line"; done
"""

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


def _actions(parser: ArgumentParser) -> Iterator[Action]:
    for action in parser._actions:
        yield action
        if isinstance(action.choices, dict):  # the commands
            for below in action.choices.values():
                yield from _actions(below)


def test_every_word_of_the_help_is_known_to_stand_for_a_file_or_not() -> None:
    told = {action.metavar for action in _actions(whole_parser())}
    assert told - NEITHER == {*FILES, *DIRECTORIES, ENVIRONMENT}


def test_the_examples_work_in_a_new_home(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("bnbenv")
    examples = EPILOG.split("\n\n")[0].partition("\n")[2]
    environ = {**os.environ, "HOME": str(tmp_path), "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-ec", examples], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*bnbenv*") if path.is_file()} == {
        ".local/share/bash-completion/completions/bnbenv",
        ".zfunc/_bnbenv",
        ".config/fish/completions/bnbenv.fish",
    }


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "nest").mkdir()
    (tmp_path / "unique.log").touch()
    stand_in = tmp_path / "bin" / "bnbenv"
    stand_in.parent.mkdir()
    stand_in.write_text("#!/bin/sh\n[ \"$*\" = 'list --names' ] && echo tutorial && echo other\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_bash_completes_files_directories_and_names(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("there is no bash here")
    path = script_for("bash", capsys, here)
    done = subprocess.run(
        ["bash", "-c", BASH, "bash", str(path), *TYPED, *NAMED], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [*TYPED.values(), *NAMED.values()], done.stderr


def test_fish_completes_files_directories_and_names(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    if (fish := shutil.which("fish")) is None:
        pytest.skip("there is no fish here")
    path = script_for("fish", capsys, here)
    for line, whole in {**TYPED, **NAMED}.items():
        done = subprocess.run(
            [fish, "--no-config", "-c", f"source {path}; complete -C '{line}'"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.split("\t")[0].strip() == whole, done.stderr


def test_zsh_completes_files_directories_and_names(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    if (zsh := shutil.which("zsh")) is None:
        pytest.skip("there is no zsh here")
    functions = here / "functions"
    functions.mkdir()
    script_for("zsh", capsys, here).rename(functions / "_bnbenv")
    start = f"PS1=; fpath+={functions}; autoload -Uz compinit; compinit -u -D; print REA''DY"
    _type([zsh, "-i"], start, here, {**TYPED, **NAMED})


def test_tcsh_completes_files_and_directories(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    if (tcsh := shutil.which("tcsh")) is None:
        pytest.skip("there is no tcsh here")
    path = script_for("tcsh", capsys, here)
    _type([tcsh, "-f", "-i"], f"set edit prompt=''; source {path}; echo REA''DY", here, TYPED)


def _type(shell: list[str], start: str, cwd: Path, typed: dict[str, str]) -> None:
    """Type each line and a tab, and wait for what they become."""
    with _terminal(shell, cwd) as terminal:
        os.write(terminal, f"{start}\n".encode())
        _wait_for("READY", terminal)
        for line, whole in {"bnbenv cre": "create", "bnbenv verify --lev": "--level", **typed}.items():
            os.write(terminal, f"{line}\t".encode())
            _wait_for(f"{line.rpartition(' ')[0]} {whole}", terminal)
            os.write(terminal, b"\x15")  # take the line back


@contextmanager
def _terminal(shell: list[str], cwd: Path) -> Iterator[int]:
    """A shell that is typed to, by its terminal."""
    ours, theirs = os.openpty()
    environ = {**os.environ, "TERM": "dumb"}
    process = subprocess.Popen(shell, cwd=cwd, env=environ, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        yield ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _wait_for(text: str, terminal: int) -> None:
    shown, until = "", time.monotonic() + 60
    while text not in shown:
        assert time.monotonic() < until, shown
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
