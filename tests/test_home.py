from __future__ import annotations

import os
import sys
from pathlib import Path

import platformdirs
import pytest

from bnbenv.errors import UsageError
from bnbenv.home import data_home, expanded, unknown


@pytest.mark.parametrize("base", [None, "", "/srv/data"])
def test_is_what_platformdirs_says(base: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BNBENV_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    if base is not None:
        monkeypatch.setenv("XDG_DATA_HOME", base)
    environ = {} if base is None else {"XDG_DATA_HOME": base}
    assert data_home(environ) == Path(platformdirs.user_data_dir("bnbenv", appauthor=False))


def test_asks_platformdirs_only_where_it_must() -> None:
    if sys.platform != "linux":
        pytest.skip("the short way is Linux' own")
    import subprocess

    code = (
        "import sys; from bnbenv.home import data_home; data_home({}); print('platformdirs' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_the_variable_wins(tmp_path: Path) -> None:
    assert data_home({"BNBENV_HOME": str(tmp_path / "h")}) == tmp_path / "h"


def test_a_tilde_is_the_users_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert expanded("~/a", "`--path`") == tmp_path / "a"
    assert expanded("a/~", "`--path`") == Path("a/~")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows guesses where another user's home is")
def test_a_home_that_cannot_be_told_is_no_bug() -> None:
    with pytest.raises(UsageError, match="`--path`: the home directory in `~no-such-user/a`"):
        expanded("~no-such-user/a", "`--path`")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number which its system does not know."""
    if sys.platform != "linux":
        pytest.skip("elsewhere platformdirs answers")
    assert unknown() is None
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    for environ in ({}, {"XDG_DATA_HOME": " "}):
        with pytest.raises(UsageError, match="`HOME` is not set"):
            data_home(environ)
    assert data_home({"XDG_DATA_HOME": "/srv"}) == Path("/srv/bnbenv")


def test_no_other_place_writes_a_home_directory_out() -> None:
    """Elsewhere the same would be a bug report; what pip's and uv's own configuration says is theirs."""
    package = Path(__file__).resolve().parents[1] / "src" / "bnbenv"
    parts = ("cli", "workflows", "memory")
    files = [file for part in parts for file in (package / part).rglob("*.py")]
    assert files
    assert [file.name for file in files if ".expanduser(" in file.read_text(encoding="utf-8")] == []
