from __future__ import annotations

import sys
from pathlib import Path

import platformdirs
import pytest

from bnbenv.home import data_home


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
