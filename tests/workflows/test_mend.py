"""Mending in place on real venvs with real uv; the packages are stand-ins that compute nothing.

That a mended environment computes is shown on real packages by `scripts/prove_faults.py`.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bnbenv.env.guard import Guard, stand
from bnbenv.env.installed import read_installed
from bnbenv.env.transaction import WORK
from bnbenv.errors import BnbenvError, ExternalError
from bnbenv.install.uv import find_uv
from bnbenv.lockfile import pylock
from bnbenv.machine.probe import probe
from bnbenv.workflows.doctor import Examined, examine
from bnbenv.workflows.environment import heal_interrupted, locate
from bnbenv.workflows.mend import (
    Change,
    Part,
    choose_part,
    mend_guard,
    mend_packages,
    mend_venv,
    part_of,
)
from bnbenv.workflows.order import Means
from bnbenv.workflows.request import CreateRequest, Wanted
from support.voice import Listener
from support.wheels import write_wheel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "bitsandbytes"
MEMBERS = {"bitsandbytes/__init__.py": b"", "bitsandbytes/libbitsandbytes_cpu.so": b"right" * 99}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the venv is laid out as on POSIX")


@pytest.fixture
def uv_environ(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "UV_CACHE_DIR": str(tmp_path / "cache"), "BNBENV_HOME": str(tmp_path / "home")}


@pytest.fixture
def venv(tmp_path: Path, uv_environ: dict[str, str]) -> Path:
    """A venv in which a stand-in for bitsandbytes is installed, and a file of the user's beside its code."""
    uv = find_uv(uv_environ)
    directory = tmp_path / "env"
    python = os.path.realpath(sys.executable)
    uv.run(["venv", str(directory), "--python", python, "--no-project", "--no-config"], environ=uv_environ)
    wheel = write_wheel(tmp_path / "wheels", NAME, "0.50.2", members=MEMBERS)
    install = ["pip", "install", "--python", str(directory / "bin" / "python"), "--no-config", "--offline"]
    uv.run([*install, str(wheel)], environ=uv_environ)
    (site(directory) / NAME / "notes.txt").write_text("the user's", encoding="utf-8")
    return directory


def site(venv: Path) -> Path:
    return next((venv / "lib").glob("python3*")) / "site-packages"


def library(venv: Path) -> Path:
    return site(venv) / NAME / "libbitsandbytes_cpu.so"


def files(venv: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(venv)): path.read_bytes()
        for path in venv.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def examined(venv: Path, environ: dict[str, str]) -> Examined:
    return examine(locate(str(venv), environ, venv), Listener(), environ)


def part(tmp_path: Path, version: str = "0.50.2", *, members: dict[str, bytes] | None = None) -> Part:
    """The part of a lock that names one wheel of this disk."""
    from bnbenv.install.sources import read_sources

    wheel = write_wheel(tmp_path / "locked", NAME, version, members=members or MEMBERS)
    lock = pylock.from_document(
        {
            "lock-version": "1.0",
            "created-by": "test",
            "packages": [
                {
                    "name": NAME,
                    "version": version,
                    "wheels": [
                        {
                            "name": wheel.name,
                            "path": str(wheel),
                            "hashes": {"sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()},
                        }
                    ],
                }
            ],
        }
    )
    sources = read_sources(environ={}, cwd=tmp_path, home=tmp_path, index_rows=(), mirrors={})
    change = Change(name=NAME, version=version, present="0.50.2")
    return Part(lock=lock, changes=(change,), sources=sources.going_offline())


def mend(venv: Path, work: Part, environ: dict[str, str], prove: Callable[[], None] = lambda: None) -> None:
    mend_packages(
        read_installed(venv),
        venv / "bin" / "python",
        work,
        prove,
        Means(uv=find_uv(environ), voice=Listener(), environ=environ),
        pass_fds=(),
    )


def no_record(venv: Path) -> None:
    (site(venv) / "bitsandbytes-0.50.2.dist-info" / "RECORD").unlink()


def garbage_record(venv: Path) -> None:
    record = site(venv) / "bitsandbytes-0.50.2.dist-info" / "RECORD"
    record.unlink()
    record.write_bytes(b"\0\xff")


def no_metadata(venv: Path) -> None:
    shutil.rmtree(site(venv) / "bitsandbytes-0.50.2.dist-info")


def no_library(venv: Path) -> None:
    library(venv).unlink()


def stale_library(venv: Path) -> None:
    (site(venv) / NAME / "libbitsandbytes_cuda117.so").write_bytes(b"of another release")


def second_metadata(venv: Path) -> None:
    """Of an older release, with a directory inside that the RECORD in it does not name."""
    own = site(venv) / "bitsandbytes-0.50.2.dist-info"
    other = own.with_name("bitsandbytes-0.46.1.dist-info")
    shutil.copytree(own, other)
    (other / "licenses").mkdir()
    (other / "licenses" / "LICENSE").write_text("", encoding="utf-8")


@pytest.mark.parametrize(
    "harm", [no_record, garbage_record, no_metadata, no_library, stale_library, second_metadata]
)
def test_damage_is_mended_and_the_users_file_stays(
    venv: Path, tmp_path: Path, uv_environ: dict[str, str], harm: Callable[[Path], None]
) -> None:
    whole = files(venv)
    harm(venv)
    mend(venv, part(tmp_path), uv_environ)
    after = files(venv)
    # `direct_url.json` and the like are the installer's own notes of where a package came from.
    own = ("direct_url.json", "RECORD", "uv_cache.json")
    assert {k: v for k, v in after.items() if not k.endswith(own)} == {
        k: v for k, v in whole.items() if not k.endswith(own)
    }
    assert not (venv / WORK).exists()


def test_what_a_release_no_longer_has_goes_with_it(
    venv: Path, tmp_path: Path, uv_environ: dict[str, str]
) -> None:
    mend(venv, part(tmp_path, "0.50.1", members={"bitsandbytes/__init__.py": b"new"}), uv_environ)
    there = sorted(path.name for path in (site(venv) / NAME).iterdir() if path.is_file())
    assert there == ["__init__.py", "notes.txt"]
    assert [path.name for path in site(venv).glob("*.dist-info")] == ["bitsandbytes-0.50.1.dist-info"]


def test_what_is_not_proven_is_put_back(venv: Path, tmp_path: Path, uv_environ: dict[str, str]) -> None:
    no_library(venv)
    before = files(venv)

    def prove() -> None:
        assert library(venv).read_bytes() == MEMBERS["bitsandbytes/libbitsandbytes_cpu.so"]
        raise ExternalError("not better", code="tool-failed")

    with pytest.raises(ExternalError, match="not better"):
        mend(venv, part(tmp_path), uv_environ, prove)
    assert files(venv) == before
    assert not (venv / WORK).exists()


def test_a_file_in_the_cache_is_never_written(venv: Path, tmp_path: Path, uv_environ: dict[str, str]) -> None:
    cached = [path for path in (tmp_path / "cache").rglob("libbitsandbytes_cpu.so") if path.is_file()]
    inode = library(venv).stat().st_ino
    assert any(path.stat().st_ino == inode for path in cached), "the fixture must be hard-linked to the cache"
    content = {path: path.read_bytes() for path in cached}
    stale_library(venv)
    mend(venv, part(tmp_path), uv_environ)
    assert {path: path.read_bytes() for path in cached} == content


def test_files_come_as_they_are_asked_to(venv: Path, tmp_path: Path, uv_environ: dict[str, str]) -> None:
    assert library(venv).stat().st_nlink > 1
    mend(venv, replace(part(tmp_path), link_mode="copy"), uv_environ)
    assert library(venv).stat().st_nlink == 1


def test_the_link_mode_of_a_repair_is_what_was_asked_or_what_uv_does(tmp_path: Path) -> None:
    whole = part(tmp_path)
    sources = replace(whole.sources, link_mode="hardlink")
    modes = {
        asked: part_of(whole.lock, {NAME}, (), {}, given, link_mode=asked).link_mode
        for asked, given in (("copy", sources), ("auto", whole.sources))
    }
    assert modes == {"copy": "copy", "auto": None}
    assert part_of(whole.lock, {NAME}, (), {}, sources, link_mode="auto").link_mode == "hardlink"


def test_a_cache_that_is_damaged_is_fetched_anew(
    venv: Path, tmp_path: Path, uv_environ: dict[str, str]
) -> None:
    work = part(tmp_path)
    mend(venv, work, uv_environ)  # the locked wheel is in the cache now
    linked = library(venv)
    linked.chmod(0o644)
    with linked.open("r+b") as stream:  # in place: this cache belongs to the test alone
        stream.write(b"wrong")
    mend(venv, work, uv_environ)
    assert library(venv).read_bytes() == MEMBERS["bitsandbytes/libbitsandbytes_cpu.so"]


@pytest.mark.parametrize("kept", ["staged", "half done"])
def test_the_next_command_puts_back_what_a_dead_repair_left(
    venv: Path, tmp_path: Path, uv_environ: dict[str, str], kept: str
) -> None:
    before = files(venv)
    work = venv / WORK
    (work / "kept").mkdir(parents=True)
    if kept == "half done":
        document = {
            "schema": 1,
            "aside": [[str(library(venv)), str(work / "kept" / "0")]],
            "place": [],
            "made": [],
        }
        import json

        (work / "journal.json").write_text(json.dumps(document), encoding="utf-8")
        library(venv).rename(work / "kept" / "0")
    voice = Listener()
    heal_interrupted(locate(str(venv), uv_environ, tmp_path), voice, uv_environ)
    assert {name: data for name, data in files(venv).items() if not name.startswith(WORK)} == before
    assert bool(voice.heard) is (kept == "half done")


def test_a_lost_base_python_is_replaced(venv: Path, tmp_path: Path, uv_environ: dict[str, str]) -> None:
    for link in (venv / "bin").glob("python*"):
        if link.readlink().is_absolute():
            link.unlink()
            link.symlink_to(tmp_path / "gone" / "python3")
    config = venv / "pyvenv.cfg"
    config.write_text(
        "home = /gone\nversion_info = {}.{}.0\n".format(*sys.version_info[:2]), encoding="utf-8"
    )
    before = examined(venv, uv_environ)
    assert "interpreter-broken" in {found.code for found in before.findings}
    mend_venv(
        before,
        probe(environ=uv_environ),
        Means(uv=find_uv(uv_environ), voice=Listener(), environ=uv_environ),
        pass_fds=(),
    )
    after = examined(venv, uv_environ)
    assert "interpreter-broken" not in {found.code for found in after.findings}
    assert (site(venv) / NAME / "notes.txt").is_file()


@pytest.mark.parametrize("places", [("moved",), ("my env",), ("it's here", "there"), ("l" * 120, "my env")])
def test_commands_of_a_moved_environment_start_at_its_new_place(
    venv: Path, tmp_path: Path, uv_environ: dict[str, str], places: tuple[str, ...]
) -> None:
    tool = venv / "bin" / "torchrun"
    tool.write_text(f"#!{venv}/bin/python\nprint('fine')\n", encoding="utf-8")
    tool.chmod(0o755)
    for place in places:
        venv = venv.rename(tmp_path / place)
        _mend(venv, uv_environ)
    assert subprocess.check_output([venv / "bin" / "torchrun"], text=True) == "fine\n"
    assert _activated(venv) == str(venv)
    assert "environment-moved" not in _codes(venv, uv_environ)


def test_a_command_that_cannot_start_is_found_and_mended(
    venv: Path, tmp_path: Path, uv_environ: dict[str, str]
) -> None:
    venv = venv.rename(tmp_path / "my env")
    _mend(venv, uv_environ)
    tool = venv / "bin" / "hf"
    tool.write_text(f"#!{venv}/bin/python\nprint('fine')\n", encoding="utf-8")
    tool.chmod(0o755)
    assert "environment-moved" in _codes(venv, uv_environ)
    _mend(venv, uv_environ)
    assert subprocess.check_output([tool], text=True) == "fine\n"
    assert "environment-moved" not in _codes(venv, uv_environ)


def test_the_guard_of_a_moved_environment_holds_at_its_new_place(
    venv: Path, tmp_path: Path, uv_environ: dict[str, str]
) -> None:
    (venv / "bin" / "pip").write_text("", encoding="utf-8")
    stand(
        venv,
        Guard(
            environment=str(venv), profile="qlora", held={"peft": "0.21.2"}, uv=str(find_uv(uv_environ).path)
        ),
        read_installed(venv),
    )
    before = files(venv)
    venv = venv.rename(tmp_path / "it's my env")
    _mend(venv, uv_environ)
    assert (venv / ".bnbenv" / "guard" / "constraints.txt").as_uri() in (venv / "pip.conf").read_text()
    told = subprocess.run([venv / "bin" / "uv", "--version"], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("uv ")
    refused = subprocess.run(
        [venv / "bin" / "uv", "pip", "uninstall", "peft"],
        env={**os.environ, "VIRTUAL_ENV": str(venv)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"bnbenv remove {shlex.quote(str(venv))}" in refused.stderr
    assert "s my env/bin/python' -I " in (venv / "bin" / "pip").read_text(encoding="utf-8")
    changed = {name for name, text in files(venv).items() if before.get(name) != text}
    assert {"bin/pip", "bin/uv", "pip.conf", "bin/activate"} <= changed
    assert os.access(venv / "bin" / "pip", os.X_OK)


def guarded(venv: Path, environ: dict[str, str]) -> dict[str, bytes]:
    """Stand a guard there, beside a pip of that name; its files with what is in them."""
    (venv / "bin" / "pip").write_text("#!/bin/sh\necho the real pip\n", encoding="utf-8")
    guard = Guard(environment="lab", profile="qlora", held={NAME: "0.50.2"}, uv=str(find_uv(environ).path))
    stand(venv, guard, read_installed(venv))
    before = files(venv)
    assert {"pip.conf", "bin/pip", "bin/uv", ".bnbenv/guard/guard.py"} <= before.keys()
    return before


def test_what_is_gone_of_the_guard_is_written_anew(venv: Path, uv_environ: dict[str, str]) -> None:
    before = guarded(venv, uv_environ)
    (venv / "pip.conf").unlink()
    (venv / ".bnbenv" / "guard" / "constraints.txt").write_text("", encoding="utf-8")
    for name in ("pip", "uv"):  # as installers replace them, by a rename
        program = venv / "bin" / name
        program.unlink()
        program.write_text(f"#!/bin/sh\necho the real {name}\n", encoding="utf-8")
        program.chmod(0o755)
    damaged = files(venv)
    with pytest.raises(BnbenvError, match="not proven"):
        mend_guard(venv, not_proven)
    assert files(venv) == damaged
    mend_guard(venv, lambda: None)
    own = files(venv).pop(".bnbenv/guard/uv")
    assert own == b"#!/bin/sh\necho the real uv\n"
    assert files(venv) == {**before, ".bnbenv/guard/uv": own}
    assert os.access(venv / "bin" / "pip", os.X_OK)
    assert os.access(venv / ".bnbenv" / "guard" / "uv", os.X_OK)


def test_a_pip_that_is_installed_again_stands_behind_the_guard(
    venv: Path, tmp_path: Path, uv_environ: dict[str, str]
) -> None:
    before = guarded(venv, uv_environ)
    scripts = {"bitsandbytes-0.50.2.data/scripts/pip": b"#!python\nprint('the real pip')\n"}
    mend(venv, part(tmp_path, members={**MEMBERS, **scripts}), uv_environ)
    after = files(venv)
    assert after["bin/pip"] == before["bin/pip"]
    assert "../../../bin/pip" in after[next(name for name in after if name.endswith("/RECORD"))].decode()


def not_proven() -> None:
    raise BnbenvError("not proven")


def _mend(venv: Path, environ: dict[str, str]) -> None:
    mend_venv(
        examined(venv, environ),
        probe(environ=environ),
        Means(uv=find_uv(environ), voice=Listener(), environ=environ),
        pass_fds=(),
    )


def _codes(venv: Path, environ: dict[str, str]) -> set[str]:
    return {found.code for found in examined(venv, environ).findings}


def _activated(venv: Path) -> str:
    script = '. "$1/bin/activate" && printf %s "$VIRTUAL_ENV"'
    return subprocess.check_output(["/bin/sh", "-c", script, "sh", venv], text=True)


def test_a_package_that_is_in_no_lock_is_named(
    venv: Path, tmp_path: Path, uv_environ: dict[str, str]
) -> None:
    from bnbenv.doctor.plan import Plan, Step

    step = Step(action="reinstall", subject="lonely", summary="", why=())
    asked = CreateRequest(wanted=Wanted(profile="qlora"), name="env", cwd=tmp_path)
    with pytest.raises(BnbenvError) as caught:
        choose_part(
            examined(venv, uv_environ),
            Plan(steps=(step,)),
            part(tmp_path).lock,
            asked,
            "auto",
            Means(uv=find_uv(uv_environ), voice=Listener(), environ=uv_environ),
        )
    assert caught.value.code == "package-unavailable"
    assert "lonely" in caught.value.message
