"""What `repair` leaves alone; that it mends is shown in `test_mend.py` and by `scripts/prove_faults.py`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.main import main
from bnbenv.errors import EXIT_ENVIRONMENT
from bnbenv.workflows.doctor import examine
from bnbenv.workflows.environment import locate
from support.sites import make_site
from support.voice import Listener

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is laid out as on Debian")


@pytest.fixture
def usr(tmp_path: Path) -> Path:
    """A Python as a Linux distribution ships it: no `python`, and for its package manager alone to change."""
    prefix = make_site(tmp_path / "usr", torch=None, bitsandbytes=None, packages={})
    (prefix / "pyvenv.cfg").unlink()
    (prefix / "bin" / "python").rename(prefix / "bin" / "python3")
    next(prefix.glob("lib/python3*")).joinpath("EXTERNALLY-MANAGED").touch()
    return prefix


@pytest.mark.usefixtures("clean_environment")
@pytest.mark.parametrize("words", [[], ["--dry-run"]])
def test_the_systems_python_is_not_changed(
    usr: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(usr.rglob("*"))
    assert main(["repair", str(usr / "bin" / "python3"), "--yes", *words]) == EXIT_ENVIRONMENT
    told = capsys.readouterr().err
    assert "package manager" in told
    assert "next: bnbenv create" in told
    assert sorted(usr.rglob("*")) == before


def test_the_doctor_sends_the_user_of_the_systems_python_to_an_environment_of_its_own(
    usr: Path, tmp_path: Path, clean_environment: Path
) -> None:
    environ = {**os.environ, "BNBENV_HOME": str(clean_environment)}
    found = examine(locate(str(usr / "bin" / "python3"), environ, tmp_path), Listener(), environ).findings
    told = {it.code: it.remedy.commands for it in found if it.remedy and it.severity == "error"}
    assert told["torch-not-installed"] == ("bnbenv create",)
