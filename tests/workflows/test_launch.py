from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bnbenv.env import lease, transaction
from bnbenv.errors import EnvironmentProblem, UsageError
from bnbenv.workflows.launch import launch, shell_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from bnbenv.env.generation import Generation

    Make = Callable[..., Generation]

SRC = Path(__file__).resolve().parents[2] / "src"
posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", "import sys; from bnbenv.cli.main import main; sys.exit(main())", *words]


def environ(home: Path) -> dict[str, str]:
    return {**os.environ, "BNBENV_HOME": str(home), "PYTHONPATH": str(SRC)}


@pytest.mark.parametrize("code", [0, 1, 2, 3, 70, 255])
def test_the_exit_code_is_the_childs(make_environment: Make, code: int) -> None:
    made = make_environment()
    assert launch(made, ["python", "-c", f"raise SystemExit({code})"], os.environ, name="qlora") == code


@posix
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSEGV"])
def test_a_signal_is_128_more(make_environment: Make, name: str) -> None:
    made = make_environment()
    number = getattr(signal, name)
    program = f"import os, signal; os.kill(os.getpid(), signal.{name})"
    assert launch(made, ["python", "-c", program], os.environ, name="qlora") == 128 + number


@posix
@pytest.mark.parametrize("typed", [["run", "qlora", "--", "sh"], ["shell", "qlora"]], ids=["run", "shell"])
def test_nothing_is_started_in_what_an_interrupted_repair_left_half_done(
    make_environment: Make, clean_environment: Path, tmp_path: Path, typed: list[str]
) -> None:
    made = make_environment()
    file, work = made.directory / "torch.py", transaction.work_directory(made.directory)
    file.write_text("whole", encoding="utf-8")
    staged = transaction.staging(made.directory) / file.name
    staged.write_text("half", encoding="utf-8")
    swap = transaction.Swap(aside=frozenset({file}), place={staged: file})
    with transaction.replacing(made.directory, swap):
        shutil.copytree(work, tmp_path / "work")
    shutil.copytree(tmp_path / "work", work)
    assert transaction.is_half_done(made.directory)
    answer = subprocess.run(
        command(*typed),
        input=f"cat {shlex.quote(str(file))}\n",
        env={**environ(clean_environment), "SHELL": "/bin/sh"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert answer.stdout == "whole"
    assert "everything was put back first" in answer.stderr


def test_the_child_works_from_the_real_path(
    make_environment: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    made = make_environment()
    program = "import json, os, sys; print(json.dumps([sys.executable, os.environ['VIRTUAL_ENV']]))"
    assert (
        launch(made, ["python", "-c", program], {**os.environ, "PYTHONHOME": "/nowhere"}, name="qlora") == 0
    )
    executable, prefix = json.loads(capfd.readouterr().out)
    assert Path(prefix) == made.directory
    assert Path(executable).parent == made.python.parent


def test_the_lease_lasts_as_long_as_the_child(
    make_environment: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    made = make_environment()
    program = f"import os; print(os.listdir({str(made.facts / 'leases')!r}))"
    launch(made, ["python", "-c", program], os.environ, name="qlora")
    assert str(os.getpid()) in capfd.readouterr().out
    assert lease.users(made.directory) == ()


def test_an_unknown_program_is_told(make_environment: Make) -> None:
    with pytest.raises(UsageError, match="there is no program `no-such-program`") as caught:
        launch(make_environment(), ["no-such-program"], os.environ, name="/my work/env")
    assert (
        caught.value.hint == "bnbenv run '/my work/env' -- python --version, or bnbenv shell '/my work/env'"
    )


def test_a_script_is_started_by_the_environments_python(
    make_environment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match=r"there is no program `train\.py`") as caught:
        launch(make_environment(), ["train.py", "--lr", "3e-4"], os.environ, name="qlora")
    assert caught.value.hint == "bnbenv run qlora -- python train.py --lr 3e-4"


@posix
@pytest.mark.parametrize("base", ["gone", "not executable"])
@pytest.mark.parametrize("words", [["python", "-V"], ["/bin/sh", "-c", ":"]], ids=["python", "shell"])
def test_a_python_that_this_user_cannot_start_is_told(
    make_environment: Make, tmp_path: Path, base: str, words: list[str]
) -> None:
    made = make_environment()
    made.python.unlink()
    made.python.symlink_to(tmp_path / "python3.12")
    if base == "not executable":
        (tmp_path / "python3.12").write_text("")
    with pytest.raises(EnvironmentProblem, match=f"`{tmp_path}/python3.12`: ") as caught:
        launch(made, words, os.environ, name="qlora")  # there may be another `python` on PATH
    assert (caught.value.code, caught.value.hint) == ("python-missing", "bnbenv doctor qlora")


@posix
def test_signals_reach_the_child(make_environment: Make, clean_environment: Path) -> None:
    make_environment()
    program = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))\n"
        "print('up', flush=True)\n"
        "signal.pause()\n"
    )
    process = subprocess.Popen(
        command("run", "qlora", "--", "python", "-c", program),
        env=environ(clean_environment),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 42


@pytest.mark.parametrize("separator", [["--"], []], ids=["with", "without"])
def test_run_hands_every_word_on(
    make_environment: Make, clean_environment: Path, separator: list[str]
) -> None:
    make_environment()
    words = ["python", "-c", "import sys; print(sys.argv[1:])", "--json", "-v", "--", "x y", ""]
    ran = subprocess.run(
        command("run", "qlora", *separator, *words),
        env=environ(clean_environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "['--json', '-v', '--', 'x y', '']\n"


@posix
def test_the_users_shell(tmp_path: Path) -> None:
    (tmp_path / "zsh").touch()
    assert shell_command({"SHELL": str(tmp_path / "zsh")}) == [str(tmp_path / "zsh")]
    assert shell_command({"SHELL": str(tmp_path / "gone")}) == ["/bin/sh"]


@posix
def test_a_shell_runs_in_the_environment(make_environment: Make, clean_environment: Path) -> None:
    made = make_environment()
    ran = subprocess.run(
        command("shell", "qlora"),
        env={**environ(clean_environment), "SHELL": "/bin/sh"},
        input='echo "$VIRTUAL_ENV"; exit 7\n',
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 7
    assert ran.stdout.strip() == str(made.directory)
