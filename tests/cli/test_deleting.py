from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.main import main
from bnbenv.env.kernel import Kernel, write_kernel
from bnbenv.env.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bnbenv.env.generation import Generation

LINES = (
    "remove qlora",
    "remove qlora --force",
    "prune --keep 0",
    "clean",
    "self uninstall",
    "self uninstall --keep-environments",
    "kernel remove mine",
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def home(
    make_environment: Callable[..., Generation],
    clean_environment: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A home in which each of `LINES` finds something to delete."""
    make_environment()
    make_environment()
    layout = Layout(home=clean_environment)
    layout.runs.mkdir()
    (layout.runs / "20261130T120000-7.log").touch()
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(clean_environment))
    link = layout.named("qlora").link
    write_kernel(
        Kernel(name="mine", shown="Mine", link=link, directory=clean_environment / "kernels" / "mine")
    )
    monkeypatch.chdir(tmp_path)
    return clean_environment


def tree(directory: Path) -> list[str]:
    """All that stands there, but locks, which a look may leave."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.name != ".lock")


@pytest.mark.parametrize("as_json", [False, True], ids=["words", "json"])
@pytest.mark.parametrize("line", LINES)
def test_nothing_is_deleted_where_nobody_can_agree(
    line: str, as_json: bool, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # With `--json` nobody is asked even in a terminal.
    monkeypatch.setattr("sys.stdin", (Terminal if as_json else io.StringIO)("y\n"))
    before = tree(home)
    words = [*line.split(), *(["--json"] if as_json else [])]
    assert main(words) == 2
    told = capsys.readouterr()
    assert tree(home) == before
    hint = f"bnbenv {' '.join(words)} --yes"
    if as_json:
        (problem,) = json.loads(told.out)["problems"]
        assert (problem["code"], problem["hint"]) == ("not-in-a-terminal", hint)
    else:
        assert told.err.endswith(f"\nnext: {hint}\n")
    assert main(hint.split()[1:]) == 0
    assert tree(home) != before


def test_the_line_to_type_agrees_before_what_ends_the_options(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["remove", "--force", "--", "qlora"]) == 2
    assert capsys.readouterr().err.endswith("\nnext: bnbenv remove --force --yes -- qlora\n")
    assert main(["remove", "--force", "--yes", "--", "qlora"]) == 0
    assert not Layout(home=home).named("qlora").exists


@pytest.mark.parametrize("line", LINES)
def test_a_dry_run_needs_no_agreement(line: str, home: Path) -> None:
    before = tree(home)
    assert main([*line.split(), "--dry-run"]) == 0
    assert tree(home) == before


def test_a_terminal_asks(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Terminal())
    for typed, stands in (("n\n", True), ("y\n", False)):
        monkeypatch.setattr("sys.stdin", Terminal(typed))
        assert main(["remove", "qlora"]) == 0
        assert Layout(home=home).named("qlora").exists is stands


@pytest.mark.parametrize("line", LINES)
def test_who_declines_is_told_that_nothing_went(
    line: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    before = tree(home)
    assert main(line.split()) == 0
    assert capsys.readouterr().out == "nothing was deleted\n"
    assert tree(home) == before


@pytest.mark.parametrize("line", ["prune --keep 5", "clean", "self uninstall"])
def test_where_nothing_would_go_nothing_is_asked(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BNBENV_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    assert main(line.split()) == 0


def test_a_name_that_is_not_there_is_not_made_to_be_removed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["remove", "qlora"]) == 4
    assert capsys.readouterr().err == "error: there is no environment `qlora`\nnext: bnbenv list\n"


def test_the_question_names_only_what_there_is(
    clean_environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Layout(home=clean_environment).runs
    runs.mkdir(parents=True)
    (runs / "20261130T120000-7.log").touch()
    assert main(["clean"]) == 2
    assert capsys.readouterr().err.startswith("error: Delete 1 log or cache? There is nobody to ask")
