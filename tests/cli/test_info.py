"""What `info` tells of the guard, and of what was let in past it."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.cli.main import main
from bnbenv.env.guard import Guard, KeptOut, stand
from bnbenv.env.installed import read_installed
from support.schemas import validate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bnbenv.env.generation import Generation

GUARD = Guard(
    environment="qlora",
    profile="qlora",
    held={"torch": "2.13.0+cpu", "bitsandbytes": "0.50.2"},
    ranges={"transformers": ">=5.21,<5.24", "torch": ">=2", "einops": ""},
    kept_out={"autoawq": KeptOut(why="it breaks adapters", instead="awq")},
)


def data(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["info", "qlora", "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    validate(document)
    answer: dict[str, Any] = document["data"]
    return answer


def test_names_the_interpreter_that_an_editor_keeps_over_repairs(
    make_environment: Callable[..., Generation], capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_environment()
    link = data(capsys)["link"]
    assert main(["info", "qlora"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("for editors"))
    shown = row.split(maxsplit=2)[2]
    assert shown.startswith(link)
    assert os.path.realpath(os.path.dirname(shown)) == str(made.python.parent)  # noqa: PTH120


def test_shows_what_is_held_and_what_was_let_in(
    make_environment: Callable[..., Generation], capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_environment(request={"profile": "qlora", "anyway": ["auto-gptq"]})
    stand(made.directory, GUARD, read_installed(made.directory))
    answer = data(capsys)
    assert answer["let_in"] == ["auto-gptq"]
    assert answer["guard"] == {
        "held": {"bitsandbytes": "0.50.2", "torch": "2.13.0+cpu"},
        "ranges": {"transformers": ">=5.21,<5.24"},
        "kept_out": {"autoawq": "it breaks adapters"},
    }
    assert main(["info", "qlora"]) == 0
    text = capsys.readouterr().out
    assert "bitsandbytes 0.50.2, torch 2.13.0+cpu" in text
    assert "transformers >=5.21,<5.24" in text
    assert "autoawq: it breaks adapters" in text
    assert "with --anyway: auto-gptq" in text


def test_an_environment_without_a_guard_holds_nothing(
    make_environment: Callable[..., Generation], capsys: pytest.CaptureFixture[str]
) -> None:
    make_environment()
    answer = data(capsys)
    assert (answer["guard"], answer["let_in"]) == (None, [])
    assert main(["info", "qlora"]) == 0
    assert "nothing: there is no guard" in capsys.readouterr().out


def test_what_would_tell_whether_it_computes_is_typed_as_it_stands(
    make_environment: Callable[..., Generation], capsys: pytest.CaptureFixture[str]
) -> None:
    make_environment("lab", verdict="not-run")
    assert main(["info", "lab"]) == 0
    assert "not-run: bnbenv verify lab would tell" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="a link needs a privilege there")
@pytest.mark.parametrize("linked", [False, True])
def test_which_generations_are_older_and_which_newer(
    make_environment: Callable[..., Generation],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    linked: bool,
) -> None:
    first, second, third = (make_environment().directory.name for _ in range(3))
    if linked:
        (tmp_path / "link").symlink_to(os.environ["BNBENV_HOME"])
        monkeypatch.setenv("BNBENV_HOME", str(tmp_path / "link"))
    assert main(["rollback", "qlora"]) == 0
    assert f"to return: bnbenv rollback qlora --to {third}" in capsys.readouterr().out
    assert main(["info", "qlora"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"older generations: {first} (bnbenv rollback qlora)" in lines
    assert f"newer generations: {third} (bnbenv rollback qlora --to {third})" in lines
    assert main(["rollback", "qlora", "--to", third]) == 0
    assert main(["info", "qlora"]) == 0
    text = capsys.readouterr().out
    assert f"older generations: {first}, {second} (bnbenv rollback qlora)" in text
    assert "newer" not in text
