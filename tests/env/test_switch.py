"""The link always leads somewhere whole, and a process that runs sees one generation."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from bnbenv.env import generation, switch
from bnbenv.env.activation import environ_for
from bnbenv.env.layout import Layout, Place, prepare
from bnbenv.errors import EnvironmentProblem
from support import faults

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["home", "path"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    layout = Layout(home=tmp_path / "home")
    made = layout.named("qlora") if request.param == "home" else layout.at(tmp_path / "project" / "env")
    prepare(made)
    return made


def _ready(place: Place, digest: str = "a1" * 32) -> generation.Generation:
    made = generation.begin(place, digest)
    (made.directory / "which").write_text(made.directory.name)
    generation.mark_ready(place, made)
    return made


def test_the_link_leads_to_the_current_generation(place: Place) -> None:
    assert switch.current(place) is None
    first, second = _ready(place), _ready(place)
    switch.switch(place, first)
    assert switch.current(place) == first
    switch.switch(place, second)
    assert switch.current(place) == second
    assert (place.link / "which").read_text() == second.directory.name
    assert switch.previous(place, second) == first
    assert switch.previous(place, first) is None


def test_a_link_that_leads_nowhere_or_elsewhere_is_no_environment(place: Place, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        switch.require_current(place)
    assert caught.value.code == "no-environment"
    made = _ready(place)
    switch.switch(place, made)
    made.ready_file.unlink()
    with pytest.raises(EnvironmentProblem) as caught:
        switch.require_current(place)
    assert caught.value.code == "state-broken"
    place.link.unlink()
    (tmp_path / "elsewhere").mkdir()
    place.link.symlink_to(tmp_path / "elsewhere")
    assert switch.current(place) is None


def test_both_can_be_moved_together_and_a_link_among_the_parents_does_not_mislead(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    home = tmp_path / "home"
    home.mkdir()
    (home / "envs").symlink_to(tmp_path / "disk")
    place = Layout(home=home).named("qlora")
    prepare(place)
    switch.switch(place, _ready(place))
    assert (place.link / "which").is_file()
    assert place.link.readlink().is_absolute()

    beside = Layout(home=home).at(tmp_path / "project" / "env")
    prepare(beside)
    switch.switch(beside, _ready(beside))
    (tmp_path / "project").rename(tmp_path / "moved")
    assert (tmp_path / "moved/env/which").is_file()


def test_at_no_moment_is_there_no_environment(place: Place) -> None:
    made = [_ready(place), _ready(place)]
    switch.switch(place, made[0])
    stop = threading.Event()
    seen: set[str] = set()

    def look() -> None:
        while not stop.is_set():
            seen.add((place.link / "which").read_text())

    looker = threading.Thread(target=look)
    looker.start()
    for turn in range(300):
        switch.switch(place, made[turn % 2])
    stop.set()
    looker.join()
    assert seen <= {one.directory.name for one in made}


# ---- the way of Windows, with a link where Windows has a junction ----


def _link(target: Path, link: Path) -> None:
    link.symlink_to(target)


def _locked(_target: Path, _link: Path) -> None:
    raise PermissionError(
        13, "The process cannot access the file because it is being used by another process"
    )


def test_on_windows_the_note_is_the_truth_and_the_junction_follows(place: Place) -> None:
    first, second = _ready(place), _ready(place)
    switch.switch_by_note(place, first, _link)
    assert switch.current_by_note(place) == first
    switch.switch_by_note(place, second, _locked)
    assert switch.current_by_note(place) == second
    assert switch.mend_link(place, _link)
    assert (place.link / "which").read_text() == second.directory.name
    assert not switch.mend_link(place, _link)


def test_on_windows_a_junction_that_was_held_open_follows_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = _ready(place), _ready(place)
    switch.switch_by_note(place, first, _link)
    switch.switch_by_note(place, second, _locked)
    monkeypatch.setattr(switch, "make_junction", _locked)
    switch.mend(place)
    monkeypatch.setattr(sys, "platform", "win32")
    switch.mend(place)
    assert not (place.link / "which").exists()
    monkeypatch.setattr(switch, "make_junction", _link)
    switch.mend(place)
    assert (place.link / "which").read_text() == second.directory.name


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"{",
        b"[]",
        b'{"generation": 3}',
        b'{"generation": "../../x"}',
        b'{"generation": "a1a1a1a1a1a1-9"}',
    ],
)
def test_a_damaged_note_is_no_environment(place: Place, note: bytes) -> None:
    _ready(place)
    place.current_file.write_bytes(note)
    assert switch.current_by_note(place) is None
    assert not switch.mend_link(place, _link)


def test_a_directory_of_the_user_in_the_place_of_the_junction_stays(place: Place) -> None:
    made = _ready(place)
    place.link.mkdir()
    (place.link / "thesis.tex").write_text("years of work")
    switch.switch_by_note(place, made, _link)
    assert (place.link / "thesis.tex").is_file()
    with pytest.raises(OSError, match="not empty"):
        switch.mend_link(place, _link)


@pytest.mark.skipif(sys.platform == "win32", reason="where junctions exist they are made")
def test_junctions_are_of_windows(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Windows"):
        switch.make_junction(tmp_path, tmp_path / "link")


# ---- a process that runs ----


def _venv_with(place: Place, word: str) -> generation.Generation:
    made = generation.begin(place, "c3" * 32)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made.directory], check=True, timeout=120)
    (site,) = made.directory.glob("lib/python*/site-packages")
    (site / "witness.py").write_text(f"WORD = {word!r}\n")
    generation.mark_ready(place, made)
    return made


_SLEEPER = "import sys; print('up', flush=True); sys.stdin.readline(); import witness; print(witness.WORD)"


@pytest.mark.skipif(sys.platform == "win32", reason="links as on POSIX")
def test_a_process_that_imports_after_the_switch_gets_its_own_generation(tmp_path: Path) -> None:
    place = Layout(home=tmp_path / "home").named("qlora")
    prepare(place)
    switch.switch(place, _venv_with(place, "old"))

    running = switch.require_current(place)  # resolved once, as `run` does
    environ = environ_for(place.link, faults.child_environ())
    environ.pop("PYTHONPATH")
    assert environ["VIRTUAL_ENV"] == str(running.directory)

    def start(python: Path | str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [python, "-c", _SLEEPER], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        return child

    by_generation, by_path, by_link = start(running.python), start("python"), start(place.link / "bin/python")
    switch.switch(place, _venv_with(place, "new"))
    assert by_generation.communicate("\n", timeout=60)[0] == "old\n"
    assert by_path.communicate("\n", timeout=60)[0] == "old\n"
    # This is why `run` resolves the link: a Python started through it changes under the process's feet.
    assert by_link.communicate("\n", timeout=60)[0] == "new\n"


def test_the_environment_of_a_generation(tmp_path: Path) -> None:
    (tmp_path / "g").mkdir()
    (tmp_path / "link").symlink_to("g")
    scripts = "Scripts" if sys.platform == "win32" else "bin"
    old = {"PATH": "/usr/bin", "PYTHONHOME": "/x", "PYTHONPATH": "/kept", "VIRTUAL_ENV": "/other"}
    made = environ_for(tmp_path / "link", old, name="qlora")
    assert made["VIRTUAL_ENV"] == str(tmp_path / "g")
    assert made["PATH"].split(":")[:2] == [str(tmp_path / "g" / scripts), "/usr/bin"]
    assert made["VIRTUAL_ENV_PROMPT"] == "qlora"
    assert made["PYTHONPATH"] == "/kept"
    assert "PYTHONHOME" not in made
    assert environ_for(tmp_path / "link", made)["PATH"] == made["PATH"]
    assert old["VIRTUAL_ENV"] == "/other"
