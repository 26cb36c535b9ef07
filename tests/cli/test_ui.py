from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.outcome import Problem
from bnbenv.cli.redact import redact
from bnbenv.cli.runlog import KEPT, RunLog
from bnbenv.cli.ui import Ui

if TYPE_CHECKING:
    from pathlib import Path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "stream", "coloured"),
    [
        ({}, io.StringIO(), False),
        ({}, Terminal(), True),
        ({"NO_COLOR": "1"}, Terminal(), False),
        ({"NO_COLOR": ""}, Terminal(), True),
        ({"FORCE_COLOR": "1"}, io.StringIO(), True),
        ({"FORCE_COLOR": "0"}, io.StringIO(), False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, io.StringIO(), False),
        ({"TERM": "dumb"}, Terminal(), False),
    ],
    ids=["pipe", "terminal", "no-color", "empty-no-color", "force", "force-0", "both", "dumb"],
)
def test_colours(environ: dict[str, str], stream: io.StringIO, coloured: bool) -> None:
    assert ("\x1b[" in Ui(out=stream, environ=environ).paint("word", "red")) is coloured


def test_progress_goes_to_stderr_and_results_to_stdout() -> None:
    out, err = io.StringIO(), io.StringIO()
    ui = Ui(out=out, err=err)
    ui.progress("building")
    ui.out("built")
    ui.detail("only with -v")
    assert (out.getvalue(), err.getvalue()) == ("built\n", "building\n")


def test_json_keeps_stdout_for_itself() -> None:
    out, err = io.StringIO(), io.StringIO()
    ui = Ui(json=True, out=out, err=err)
    ui.out("prose")
    ui.progress("still told")
    ui.answer({"name": "größe"})
    assert out.getvalue() == '{"name": "gr\\u00f6\\u00dfe"}\n'
    assert err.getvalue() == "still told\n"


def test_quiet_still_tells_problems() -> None:
    err = io.StringIO()
    ui = Ui(quiet=True, err=err, out=io.StringIO())
    ui.progress("building")
    ui.problem(Problem(code="disk-full", message="no space", hint="bnbenv clean"), error=True)
    assert err.getvalue() == "error: no space\nnext: bnbenv clean\n"


def test_without_a_terminal_nothing_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    err = io.StringIO()
    assert Ui(err=err, out=io.StringIO()).confirm("build `qlora`?")
    assert err.getvalue() == "build `qlora`? (nobody to ask: going on)\n"


@pytest.mark.parametrize(
    ("typed", "agreed"),
    [("\n", True), ("y\n", True), ("YES\n", True), ("n\n", False), ("what\n", False), ("", False)],
)
def test_a_terminal_asks(typed: str, agreed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    err = Terminal()
    assert Ui(err=err, out=io.StringIO()).confirm("Delete?") is agreed
    assert err.getvalue() == "Delete? [Y/n] "
    assert Ui(err=err, out=io.StringIO()).confirm("Delete?", yes=True)


def test_a_cell_of_a_notebook_is_a_terminal_that_answers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    cell = {"TERM": "xterm-color", "CLICOLOR": "1", "PAGER": "cat", "GIT_PAGER": "cat"}
    err = Terminal()
    assert Ui(err=err, out=io.StringIO(), environ=cell).confirm("build `qlora`?")
    assert err.getvalue() == "build `qlora`? (nobody to ask: going on)\n"
    assert Ui(err=err, out=io.StringIO(), environ=cell | {"TERM": "xterm-256color"}).asks


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:pw@host.example/simple", "https://****@host.example/simple"),
        ("https://token@host.example/x", "https://****@host.example/x"),
        ("Authorization: Bearer abc.def", "Authorization: ****"),
        ("UV_INDEX_LAB_PASSWORD=hunter2 uv sync", "UV_INDEX_LAB_PASSWORD=**** uv sync"),
        ("--password hunter2", "--password ****"),
        ("https://h.example/s?token=abc&x=1", "https://h.example/s?token=****&x=1"),
        ("hf_" + "a" * 34, "****"),
        ("the token is missing", "the token is missing"),
        ("tokenizers==0.22", "tokenizers==0.22"),
        ("https://host.example/simple", "https://host.example/simple"),
    ],
)
def test_credentials_are_masked(text: str, shown: str) -> None:
    assert redact(text, environ={}) == shown


def test_an_answer_with_a_secret_in_quotes_is_json_and_hides_it() -> None:
    out = io.StringIO()
    Ui(json=True, out=out).answer({"line": 'CUDA Setup failed token="correct-horse"'})
    assert json.loads(out.getvalue()) == {"line": 'CUDA Setup failed token="****"'}


def test_secrets_of_the_environment_are_masked_wherever_they_turn_up() -> None:
    environ = {"LAB_TOKEN": "s3cr3t-value", "SHORT_TOKEN": "abc", "PATH": "/usr/bin"}
    assert redact("abc /usr/bin s3cr3t-value", environ) == "abc /usr/bin ****"


def test_nothing_is_printed_with_a_credential() -> None:
    out, err = io.StringIO(), io.StringIO()
    ui = Ui(json=True, out=out, err=err)
    ui.answer({"index": "https://me:hunter22@host.example/simple"})
    ui.progress("asking https://me:hunter22@host.example/simple")
    assert "hunter22" not in out.getvalue() + err.getvalue()


def test_the_run_log_appears_with_its_first_entry(tmp_path: Path) -> None:
    log = RunLog(["list"], tmp_path / "logs")
    log.finish(0)
    assert not (tmp_path / "logs").exists()
    log = RunLog(["create", "qlora"], tmp_path / "logs")
    log.ran(["uv", "pip", "sync", "--index", "https://me:hunter22@host.example"], 2, 1.25)
    log.finish(5)
    (file,) = (tmp_path / "logs").glob("*.log")
    first, second, last = file.read_text(encoding="utf-8").splitlines()
    assert first.endswith("create qlora")
    assert second == "exit 2 in 1.2 s: uv pip sync --index 'https://****@host.example'"
    assert last.startswith("bnbenv ended with exit 5")


def test_the_last_runs_are_kept(tmp_path: Path) -> None:
    for number in range(KEPT + 3):
        (tmp_path / f"20200101T0000{number:02}-1.log").write_text("old\n", encoding="utf-8")
    log = RunLog(["create"], tmp_path)
    log.ran(["uv", "--version"], 0)
    kept = sorted(path.name for path in tmp_path.glob("*.log"))
    assert len(kept) == KEPT
    assert "20200101T000022-1.log" in kept
    assert "20200101T000000-1.log" not in kept


def test_bnbenv_log_takes_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNBENV_LOG", str(tmp_path / "own.log"))
    log = RunLog(["list"], tmp_path / "logs")
    log.note("looking")
    log.finish(0)
    text = (tmp_path / "own.log").read_text(encoding="utf-8")
    assert "list" in text
    assert "looking" in text


def test_an_argument_that_is_no_text_can_be_logged(tmp_path: Path) -> None:
    log = RunLog(["run", "qlora", "--", "tar", "\udcff"], tmp_path)
    log.ran(["tar", "\udcff"], 0)
    (file,) = tmp_path.glob("*.log")
    assert "\\udcff" in file.read_text(encoding="utf-8")
