"""What `repair` refuses; that it mends is shown in `test_mend.py` and by `scripts/prove_faults.py`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from bnbenv.errors import EnvironmentProblem
from bnbenv.workflows.doctor import examine
from bnbenv.workflows.environment import locate
from bnbenv.workflows.repair import RepairRequest, repair
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


@pytest.mark.parametrize("dry_run", [True, False])
def test_the_systems_python_is_not_changed(
    usr: Path, tmp_path: Path, clean_environment: Path, dry_run: bool
) -> None:
    environ = {**os.environ, "BNBENV_HOME": str(clean_environment)}
    before = sorted(usr.rglob("*"))
    with pytest.raises(EnvironmentProblem, match="package manager") as caught:
        located = locate(str(usr), environ, tmp_path)
        repair(located, RepairRequest(dry_run=dry_run, cwd=tmp_path), Listener(), environ, yes=True)
    assert (caught.value.hint or "").startswith("bnbenv create")
    assert sorted(usr.rglob("*")) == before


def test_the_doctor_sends_the_user_of_the_systems_python_to_an_environment_of_its_own(
    usr: Path, tmp_path: Path, clean_environment: Path
) -> None:
    environ = {**os.environ, "BNBENV_HOME": str(clean_environment)}
    found = examine(locate(str(usr / "bin" / "python3"), environ, tmp_path), Listener(), environ).findings
    told = {it.code: it.remedy.commands for it in found if it.remedy and it.severity == "error"}
    assert told["torch-not-installed"] == ("bnbenv create",)
