from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bnbenv.env.base import Base
from bnbenv.errors import EnvironmentProblem, UnsolvableError, UsageError
from bnbenv.lockfile import pylock
from bnbenv.workflows.here import add_here, plan, running_python, unreplaceable
from bnbenv.workflows.request import CreateRequest, Wanted
from support.voice import Listener

LOCKED = {"fresh": "3.0", "same": "3.0", "certifi": "2024.8.30", "numpy": "1.26.4", "tool": "2.0"}


def base_at(prefix: Path, **facts: object) -> Base:
    site = prefix / "lib" / "python3.12" / "site-packages"
    values: dict[str, object] = {
        "python": prefix / "bin" / "python",
        "version": "3.12",
        "prefix": prefix,
        "paths": (site,),
        "packages": {
            "tool": "1.0",
            "same": "3.0",
            "certifi": "2024.08.30",
            "numpy": "1.26.4+computecanada",
        },
        "torch": None,
        "sites": (site,),
        **facts,
    }
    return Base(**values)  # type: ignore[arg-type]


def standing(prefix: Path, **facts: object) -> None:
    """Put a stand-in for an interpreter into an environment: it gives this answer to `read_base`."""
    answer = {
        "version": [3, 12, 3], "implementation": "cpython", "prefix": str(prefix), "paths": [],
        "torch": None, "packages": {}, "sites": [], "unmanaged": [], "locations": {}, **facts,
    }  # fmt: skip
    python = prefix / "bin" / "python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text(f"#!/bin/sh\ncat <<'.'\n{json.dumps(answer)}\n.\n")
    python.chmod(0o755)


def test_what_is_missing_or_of_another_version_changes(tmp_path: Path) -> None:
    packages = [
        {
            "name": name,
            "version": version,
            "wheels": [
                {
                    "name": f"{name}-{version}-py3-none-any.whl",
                    "path": "x.whl",
                    "hashes": {"sha256": "0" * 64},
                }
            ],
        }
        for name, version in LOCKED.items()
    ]
    lock = pylock.from_document({"lock-version": "1.0", "created-by": "uv", "packages": packages})
    changes = [str(change) for change in plan(lock, base_at(tmp_path))]
    assert changes == ["fresh 3.0", "tool 1.0 → 2.0"]


def test_what_no_installer_can_replace_stays(tmp_path: Path) -> None:
    site, front, behind = tmp_path / "site", tmp_path / "module", tmp_path / "system"
    base = base_at(
        tmp_path,
        paths=(front, site, behind),
        sites=(site,),
        unmanaged=frozenset({"editable"}),
        locations={"shadowing": front, "tool": site, "editable": site, "system": behind},
    )
    assert unreplaceable(base) == {"editable", "shadowing"}


@pytest.mark.parametrize("place", ["bin/python", "Scripts/python.exe", "python.exe"])
def test_here_is_the_activated_environment(tmp_path: Path, place: str) -> None:
    python = tmp_path / place
    python.parent.mkdir(exist_ok=True)
    python.touch()
    assert running_python({"VIRTUAL_ENV": str(tmp_path)}) == python


@pytest.mark.skipif(sys.platform == "win32", reason="only Linux distributions mark their Python so")
def test_the_systems_python_is_left_to_its_package_manager(tmp_path: Path) -> None:
    prefix, site = tmp_path / "usr", tmp_path / "usr" / "lib" / "python3.12" / "dist-packages"
    site.mkdir(parents=True)
    standing(prefix, paths=[str(site)], sites=[str(site)])
    request = CreateRequest(wanted=Wanted(profile="qlora"), name="qlora", dry_run=True, cwd=tmp_path)
    environ = {**os.environ, "VIRTUAL_ENV": str(prefix), "BNBENV_HOME": str(tmp_path / "home")}
    environ.pop("PIP_BREAK_SYSTEM_PACKAGES", None)
    with pytest.raises(UsageError, match="no torch"):
        add_here(request, Listener(), environ)
    (site.parent / "EXTERNALLY-MANAGED").touch()
    with pytest.raises(EnvironmentProblem, match="package manager"):
        add_here(request, Listener(), environ)
    with pytest.raises(EnvironmentProblem, match="package manager"):
        add_here(request, Listener(), {**environ, "PIP_BREAK_SYSTEM_PACKAGES": "0"})
    with pytest.raises(UsageError, match="no torch"):
        add_here(request, Listener(), {**environ, "PIP_BREAK_SYSTEM_PACKAGES": "1"})


SHARED_MEMORY = Path("/dev/shm")  # a disk of its own


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="only Linux has a second file system for everybody")
@pytest.mark.parametrize("part", ["lib/python3.12/site-packages", "bin"])
@pytest.mark.parametrize("dry_run", [False, True], ids=["for good", "dry run"])
def test_an_environment_on_two_disks_is_left_as_it_is(part: str, dry_run: bool, tmp_path: Path) -> None:
    prefix = tmp_path / "venv"
    if prefix.parent.stat().st_dev == SHARED_MEMORY.stat().st_dev:
        pytest.skip("temporary files are there already")
    site = prefix / "lib" / "python3.12" / "site-packages"
    with TemporaryDirectory(dir=SHARED_MEMORY) as elsewhere:
        for place in (site, prefix / "bin"):
            place.parent.mkdir(parents=True, exist_ok=True)
            if place == prefix / part:
                place.symlink_to(elsewhere)
            else:
                place.mkdir()
        standing(prefix, paths=[str(site)], sites=[str(site)])
        request = CreateRequest(wanted=Wanted(profile="qlora"), name="qlora", dry_run=dry_run, cwd=tmp_path)
        environ = {**os.environ, "VIRTUAL_ENV": str(prefix), "BNBENV_HOME": str(tmp_path / "home")}
        with pytest.raises(UsageError, match="on another disk") as caught:
            add_here(request, Listener(), environ)
        assert caught.value.code == "base-unusable"
        assert f"`{prefix / part}`" in caught.value.message
    assert not (tmp_path / "home").exists()


@pytest.mark.usefixtures("login_node")
def test_a_login_node_is_told_the_options_of_here(tmp_path: Path) -> None:
    torch = {"directory": str(tmp_path / "torch"), "version_py": "__version__ = '2.12.0+cpu'\n"}
    standing(tmp_path / "venv", torch=torch, sites=[str(tmp_path)])
    request = CreateRequest(wanted=Wanted(profile="qlora"), name="qlora", dry_run=True, cwd=tmp_path)
    environ = {**os.environ, "VIRTUAL_ENV": str(tmp_path / "venv")}
    with pytest.raises(UnsolvableError) as caught:
        add_here(request, Listener(), environ)
    assert caught.value.hint == "--cpu, or the same line where the GPU can be used"
