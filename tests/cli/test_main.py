from __future__ import annotations

import errno
import io
import json
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv import __version__, errors
from bnbenv.cli import dispatch, main, parser
from bnbenv.cli.bugreport import write_report
from bnbenv.cli.commands import COMMANDS, module_name
from bnbenv.cli.outcome import Outcome, Problem, envelope
from bnbenv.errors import (
    BnbenvError,
    DataError,
    EnvironmentProblem,
    ExternalError,
    Interrupted,
    UnsolvableError,
    UsageError,
)

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from typing import NoReturn

    from bnbenv.cli.ui import Ui

SRC = Path(__file__).resolve().parents[2] / "src"


def command(body: Callable[[Namespace, Ui], Outcome | int]) -> ModuleType:
    """A command module of the shape that the real ones have."""
    module = ModuleType("command")
    module.run = body  # type: ignore[attr-defined]
    return module


def arguments(**values: Any) -> Namespace:
    from argparse import Namespace

    return Namespace(**{"json": True, "verbose": 0, "quiet": False, "command": "list", **values})


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"bnbenv {__version__}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert [name for name in COMMANDS if f"\n  {name} " not in out] == []


def test_help_names_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--help"]) == 0
    told = capsys.readouterr().out.partition("Exit codes:")[2].partition("\n\n")[0]
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    codes |= {128 + 15, 128 + 1}  # SIGTERM, SIGHUP
    assert {int(number) for number in re.findall(r"\b\d+\b", told)} == codes


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("memory", "stdout"),  # its `--batch` is the number of examples
        ("check", "stdout; with `--batch` one a line"),
        ("run", "stdout; only where nothing was started"),
    ],
)
def test_help_tells_of_json_what_the_command_does(
    name: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([name, "--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert f"--json print exactly one JSON object on {told} -v," in words


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: bnbenv {name}" in out
    assert "--json" in out
    assert "Examples:" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["create", "--dry-run", "--base", ""], "the value of `--base` is an empty word"),
        (["create", "--dry-run", "--path", " "], "the value of `--path` is an empty word"),
        (["lock", "--dir="], "the value of `--dir` is an empty word"),
        (["install", "einops", ""], "the package is an empty word"),
        (["run", "", "--", "true"], "the name is an empty word"),
        (["", "list"], "the command is an empty word"),
    ],
)
def test_an_empty_word_is_not_taken_for_none(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as ``--base "$PYTHON"`` where the variable is not set."""
    assert main.main(words) == 2
    assert capsys.readouterr().err.startswith(f"error: {told}\n")


def test_an_empty_word_for_the_program_is_its_own() -> None:
    assert main._parse(["run", "qlora", "--", "echo", ""])[0].tail == ["echo", ""]


@pytest.mark.parametrize(
    "words",
    [
        ["resolve", "--python", "3"],
        ["check", "--torch", "2.9.1", "--bitsandbytes", "0.50.2", "--python", "311"],
        ["why-not", "torch==2.9.1", "--python", "3"],
    ],
    ids=" ".join,
)
def test_a_python_without_its_minor_version_is_no_machines_fault(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(words) == 2
    assert "has no minor version\nnext: such as `--python 3.12`" in capsys.readouterr().err


def examples() -> list[str]:
    """The lines of all examples in the help that begin with bnbenv's name, up to what is said of them."""
    texts = [parser._ROOT_EXAMPLES, *(import_module(module_name(name)).EPILOG for name in COMMANDS)]
    lines = re.findall(r"(?m)^  (bnbenv .*)$", "\n".join(texts))
    return [re.split(r"  | > ", line.replace("$(command -v python)", "python"))[0] for line in lines]


@pytest.mark.parametrize("line", examples())
def test_every_example_can_be_typed(line: str) -> None:
    main._parse(shlex.split(line)[1:])


@pytest.mark.parametrize(
    ("words", "schema", "part"),
    [
        (["--json"], "error", "no command"),
        (["creat", "--json"], "error", "did you mean `create`?"),
        (["create", "--bitsandbite", "1", "--json"], "create", "did you mean `--bitsandbytes`?"),
        (["create", "--os", "linx", "--json"], "create", "did you mean `linux`?"),
        (["create", "--torch", "--json"], "create", "expected one argument"),
        (["--json", "list", "surplus"], "list", "`surplus`"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_line_is_answered_in_json(
    words: list[str], schema: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(words) == 2
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert answer["schema"] == f"bnbenv.{schema}/1"
    assert answer["status"] == "error"
    assert [problem["code"] for problem in answer["problems"]] == ["usage"]
    assert part in answer["problems"][0]["message"]
    assert answer["problems"][0]["hint"].startswith("bnbenv")


def test_a_wrong_line_is_answered_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["creat"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "error: there is no command `creat`; did you mean `create`?\nnext: bnbenv create --help\n"
    )


@pytest.mark.parametrize(
    ("words", "own", "tail"),
    [
        ("qlora -- python -v -- x", "qlora", "python -v -- x"),
        ("qlora python -- x", "qlora", "python -- x"),
        ("--json qlora -v -- python", "--json qlora -v", "python"),
        ("-v qlora python --json", "-v qlora", "python --json"),
        ("qlora", "qlora", ""),
        ("-h", "-h", ""),
        ("qlora --", "qlora", ""),
        ("-- python", "", "python"),
    ],
)
def test_run_leaves_the_childs_words_alone(words: str, own: str, tail: str) -> None:
    assert parser.split_run(words.split()) == (own.split(), tail.split())


def test_json_after_the_double_dash_belongs_to_the_child() -> None:
    assert parser.wants_json(["--json", "run"])
    assert not parser.wants_json(["run", "qlora", "--", "tool", "--json"])


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (UsageError("m"), 2, "error"),
        (UnsolvableError("m", data={"blocking": ["a"], "nearest": []}), 3, "unsolvable"),
        (EnvironmentProblem("m", hint="h"), 4, "error"),
        (ExternalError("m", code="index-unreachable"), 5, "error"),
        (DataError("m"), 6, "error"),
        (Interrupted("m"), 130, "error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BnbenvError) else str(value),
)
def test_errors_become_envelopes(
    error: BnbenvError, code: int, status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def body(_args: Namespace, _ui: Ui) -> Outcome:
        raise error

    assert dispatch.run(arguments(), command(body), []) == code
    answer = json.loads(capsys.readouterr().out)
    assert answer == {
        "schema": "bnbenv.list/1",
        "status": status,
        "data": dict(error.data or {}),
        "problems": [{"code": error.code, "message": "m", "hint": error.hint}],
    }


@pytest.mark.parametrize(("code", "status"), [(0, "ok"), (1, "findings"), (3, "unsolvable"), (5, "error")])
def test_status_follows_the_exit_code(code: int, status: str) -> None:
    assert envelope("check", Outcome(exit_code=code))["status"] == status


def test_warnings_leave_ok(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome(text="fine", problems=(Problem(code="notice", message="by the way"),))
    assert dispatch.run(arguments(json=False), command(lambda _args, _ui: outcome), []) == 0
    captured = capsys.readouterr()
    assert captured.out == "fine\n"
    assert captured.err == "note: by the way\n"


def test_a_notice_is_one_beside_an_error_too(capsys: pytest.CaptureFixture[str]) -> None:
    problems = (Problem(code="unsolvable", message="no"), Problem(code="notice", message="by the way"))
    outcome = Outcome(exit_code=3, problems=problems)
    assert dispatch.run(arguments(json=False), command(lambda _args, _ui: outcome), []) == 3
    assert capsys.readouterr().err == "error: no\nnote: by the way\n"


def test_a_problem_code_outside_the_list_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="closed list"):
        Problem(code="whatever", message="m")


def test_an_unexpected_exception_leaves_a_report(
    capsys: pytest.CaptureFixture[str], clean_environment: Path
) -> None:
    def body(_args: Namespace, _ui: Ui) -> Outcome:
        raise ZeroDivisionError("at https://me:hunter22@host.example/simple")

    assert dispatch.run(arguments(), command(body), ["list", "--json"]) == 70
    answer = json.loads(capsys.readouterr().out)
    assert answer["problems"][0]["code"] == "bug"
    report = Path(answer["data"]["report"])
    assert report.is_relative_to(clean_environment)
    text = report.read_text(encoding="utf-8")
    assert "ZeroDivisionError" in text
    assert f"bnbenv {__version__}" in text
    assert "hunter22" not in text + json.dumps(answer)


@pytest.mark.parametrize(
    ("number", "code", "exit_code"),
    [
        (errno.EACCES, "permission", 5),
        (errno.EROFS, "permission", 5),
        (errno.ENOSPC, "disk-full", 5),
        (errno.EIO, "tool-failed", 5),
        (errno.ENOTCONN, "tool-failed", 5),
        (errno.EMFILE, "tool-failed", 5),
        (errno.ENAMETOOLONG, "bad-name", 2),
        (errno.ENOENT, "bug", 70),
    ],
)
def test_what_the_machine_refuses_is_no_bug(
    capsys: pytest.CaptureFixture[str], number: int, code: str, exit_code: int
) -> None:
    def body(_args: Namespace, _ui: Ui) -> Outcome:
        raise OSError(number, os.strerror(number), "/srv/elsewhere/file")

    assert dispatch.run(arguments(), command(body), []) == exit_code
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    assert problem["code"] == code
    assert "/srv/elsewhere/file" in problem["message"]


@pytest.mark.parametrize(("known", "code", "exit_code"), [(False, "usage", 2), (True, "bug", 70)])
def test_a_user_without_a_home_is_no_bug(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    known: bool,
    code: str,
    exit_code: int,
) -> None:
    """As in a container that runs under a number which its system does not know."""

    def body(_args: Namespace, _ui: Ui) -> Outcome:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(os.path, "expanduser", lambda path: "/home/joe" if known else path)
    assert dispatch.run(arguments(), command(body), []) == exit_code
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    assert problem["code"] == code
    assert ("`HOME`" in problem["message"]) is not known


def test_an_error_without_a_file_is_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    def body(_args: Namespace, _ui: Ui) -> Outcome:
        raise PermissionError(errno.EACCES, "no")

    assert dispatch.run(arguments(), command(body), []) == 70
    assert json.loads(capsys.readouterr().out)["problems"][0]["code"] == "bug"


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["get", "--json", "link-mode"], "link-mode", None),
        (["set", "--json", "link-mode", "copy"], "link-mode", "copy"),
        (["set", "link-mode", "--json", "copy"], "link-mode", "copy"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_options_may_stand_between_words(words: list[str], key: str, value: str | None) -> None:
    args = parser.command_parser("config")[0].parse_args(words)
    assert (args.key, args.value, args.json) == (key, value, True)


def test_one_word_too_many_is_refused() -> None:
    with pytest.raises(UsageError, match="unexpected argument `four`"):
        parser.command_parser("config")[0].parse_args(["set", "link-mode", "copy", "--json", "four"])


def test_control_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    def body(_args: Namespace, _ui: Ui) -> Outcome:
        raise KeyboardInterrupt

    assert dispatch.run(arguments(), command(body), []) == 130
    assert json.loads(capsys.readouterr().out)["problems"][0]["code"] == "interrupted"


def test_control_c_while_a_command_is_loaded_is_answered(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def loads(*_words: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "command_parser", loads)
    assert main.main(["list", "--json"]) == 130
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["problems"][0]["code"]) == ("bnbenv.list/1", "interrupted")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["completion", "bash"], ["--help"], ["--version"]], ids=" ".join)
def test_a_closed_pipe_is_quiet(words: list[str], unbuffered: str) -> None:
    environ = {**os.environ, "PYTHONPATH": str(SRC), "PYTHONUNBUFFERED": unbuffered}
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stream:
        ran = subprocess.run(
            [sys.executable, "-m", "bnbenv", *words],
            stdout=stream,
            stderr=subprocess.PIPE,
            env=environ,
            text=True,
            check=False,
        )
    assert ran.stderr == ""
    assert ran.returncode == 0


def test_an_exit_code_of_windows_is_handed_on_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """There they have 32 bits without a sign, and `os._exit` takes a C `int`."""
    interrupted = 0xC000013A
    ended: list[int] = []

    def end(code: int) -> None:
        ended.append(code)
        raise SystemExit

    monkeypatch.setattr(main, "main", lambda: interrupted)
    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(SystemExit):
        main.entry()
    assert ended[0] % 2**32 == interrupted
    assert -(2**31) <= ended[0] < 2**31


def test_module_and_script_are_the_same() -> None:
    environ = {**os.environ, "PYTHONPATH": str(SRC), "PYTHONUNBUFFERED": ""}
    ran = subprocess.run(
        [sys.executable, "-m", "bnbenv", "--version"],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
    )
    assert ran.stdout == f"bnbenv {__version__}\n"


def test_a_report_can_hold_an_argument_that_is_no_text() -> None:
    path = write_report(RuntimeError("boom \udcff"), ["path", "\udcfe"])
    assert path is not None
    assert "\\udcfe" in path.read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="the shell's way of closing a stream")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_a_closed_stream_is_no_crash(closed: str) -> None:
    ran = subprocess.run(
        ["/bin/sh", "-c", f'"$0" -m bnbenv list {closed}', sys.executable],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC), "PYTHONUNBUFFERED": ""},
        check=False,
    )
    assert (ran.returncode, "Traceback" in ran.stderr) == (0, False)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps a directory in which a process is")
@pytest.mark.parametrize(
    "words", [["doctor"], ["list", "--json"], ["repair", "x", "--dry-run"]], ids=" ".join
)
def test_a_directory_that_is_gone_is_no_crash(words: list[str], tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    ran = subprocess.run(
        ["/bin/sh", "-c", 'rmdir "$PWD" && exec "$0" -m bnbenv "$@"', sys.executable, *words],
        cwd=gone,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC), "PYTHONUNBUFFERED": ""},
        check=False,
    )
    assert ran.returncode == 2, ran.stderr
    assert "the working directory is gone" in ran.stdout + ran.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "words",
    [["list", "--json"], ["list"], ["nonsense", "--json"], ["--version"], ["--help"], ["list", "--help"]],
    ids=" ".join,
)
def test_an_answer_that_cannot_be_written_is_exit_5(words: list[str], unbuffered: str) -> None:
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "bnbenv", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SRC), "PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    assert (ran.returncode, "Traceback" in ran.stderr) == (5, False)
    assert "cannot be written" in ran.stderr


@pytest.mark.parametrize(
    ("word", "near"), [("--bogus", None), ("--dry-rum", "--dry-run"), ("--offlin", "--offline")]
)
def test_only_a_like_option_is_suggested(word: str, near: str | None) -> None:
    assert parser.nearest(word, ["--os", "--dry-run", "--offline", "--verbose"]) == near


def test_what_is_piped_has_plain_line_ends_on_windows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252", newline="\r\n"))
    assert main.main(["config", "path"]) == 0
    assert written.getvalue().endswith(b"config.toml\n")
    assert b"\r" not in written.getvalue()
