from __future__ import annotations

import json
import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.bugreport import write_report
from bnbenv.cli.main import main
from bnbenv.cli.runlog import KEPT, RunLog
from bnbenv.env import durable, switch
from bnbenv.env import generation as generations
from bnbenv.env.kernel import Kernel, write_kernel
from bnbenv.env.locking import hold
from bnbenv.errors import EnvironmentProblem
from bnbenv.install.remembered import remember
from bnbenv.install.sources import Sources
from bnbenv.matrix.dump import dump_json
from bnbenv.matrix.load import added_directory, load
from bnbenv.selftest.launcher import write as write_compiled
from bnbenv.workflows.config import read_config, set_value, write_config
from bnbenv.workflows.environment import Located, holding
from bnbenv.workflows.uninstall import left, owned, uninstall
from support.voice import Listener

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bnbenv.env.generation import Generation
    from bnbenv.env.layout import Layout

    Make = Callable[..., Generation]


def silent(_text: str) -> None:
    return None


@pytest.fixture
def environ(clean_environment: Path, tmp_path: Path) -> dict[str, str]:
    return {
        "BNBENV_HOME": str(clean_environment),
        "JUPYTER_DATA_DIR": str(tmp_path / "jupyter"),
        "PATH": os.environ["PATH"],
    }


def everything(make: Make, layout: Layout, environ: dict[str, str], tmp_path: Path) -> None:
    """Each thing that bnbenv writes into its home, by what writes it."""
    make("qlora")
    make(path=tmp_path / "env")
    link = layout.named("qlora").link
    write_kernel(
        Kernel(name="mine", shown="Mine", link=link, directory=tmp_path / "jupyter" / "kernels" / "mine")
    )
    log = RunLog(["list"])
    log.ran(["uv", "--version"], 0)
    write_report(ValueError("a bug"), ["list"])
    remember((), Sources(indexes=()), layout.cache, environ=environ, now=0.0)
    layout.bytecode.mkdir()
    write_compiled(str(layout.bytecode / ("ab" * 32)), compile("1", "x", "eval"))
    added_directory().mkdir()
    rows = load("bitsandbytes").bitsandbytes[:1]
    (added_directory() / "bitsandbytes.json").write_text(
        dump_json("bitsandbytes", rows, revision="2026.11.30"), encoding="utf-8"
    )
    write_config(set_value(read_config(environ), "keep", "3", frozenset()))
    venv = Located(directory=tmp_path, kind="venv", why="a test")
    with holding(venv, "repair", Listener(), environ):
        pass
    (layout.named("half").generations / ".gone-0123456789ab").mkdir(parents=True)
    with hold(layout.named("half").lock, method="flock"):  # an environment that never came to be
        pass
    (layout.locks / "0123456789ab.lock.d").mkdir()  # its holder was killed, and so was who took it away
    (layout.locks / ".0123456789ab.lock.d.7-0123456789abcdef.tmp").mkdir()
    for number, torn in enumerate(("", "[]", '{"path": 7, "form": "path"}')):
        (layout.paths / f"{number:012}.json").write_text(torn)
    durable.temporary_beside(layout.named("qlora").link).symlink_to("nowhere")
    durable.temporary_beside(layout.named("qlora").current_file).touch()
    durable.temporary_beside(added_directory() / "torch.json").touch()


def theirs(layout: Layout) -> list[Path]:
    """Files of the user's own in the same directories, under names such as bnbenv's."""
    home = layout.home
    inside = [
        "mine.txt",
        "runs/exp1/metrics.json",
        "runs/train.log",
        "runs/20260101T000000-7.log/mine",
        "reports/mine.txt",
        "cache/hf/model",
        "cache/bytecode/mine",
        "envs/conda1/bin/python",
        "envs/.link.7-0123abcd.tmp",
        "generations/x/best",
        "generations/qlora/mine",
        "generations/run/abcdefabcdef-1/weights",
        "generations/run/env/.bnbenv/state.json",
        "paths/list.json",
        "locks/door.lock",
        "matrix/torch.json",
    ]
    made = [home / name for name in inside]
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}", encoding="utf-8")
    (layout.envs / "linked").symlink_to(home / "runs" / "exp1")
    return [*made, layout.envs / "linked"]


def files(directory: Path) -> set[Path]:
    return {path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir()}


def test_all_that_bnbenv_writes_goes(
    make_environment: Make, layout: Layout, environ: dict[str, str], tmp_path: Path
) -> None:
    everything(make_environment, layout, environ, tmp_path)
    items = owned(environ)
    assert {item.kind for item in items} == {
        *("environment", "kernel", "configuration", "log", "cache", "rows", "record", "directory")
    }
    assert left(environ) == ()
    assert uninstall(items, environ, silent) == tuple(item.path for item in items)
    assert not layout.home.exists()
    assert files(tmp_path) == set()


def test_what_others_keep_in_its_home_stays(
    make_environment: Make, layout: Layout, environ: dict[str, str], tmp_path: Path
) -> None:
    everything(make_environment, layout, environ, tmp_path)
    kept = [*theirs(layout), layout.named("half").generations / "mine"]
    kept[-1].touch()
    items = owned(environ)
    stays = {stay.path: stay.why for stay in left(environ)}
    assert uninstall(items, environ, silent) == tuple(item.path for item in items)
    assert files(layout.home) == set(kept)
    assert stays == {
        layout.named("qlora").generations: "it holds `mine`, which bnbenv did not make",
        layout.named("half").generations: "it holds `mine`, which bnbenv did not make",
        layout.envs: "it holds `.link.7-0123abcd.tmp`, `conda1`, `linked`, which bnbenv did not make",
        layout.generations: "it holds `run`, `x`, which bnbenv did not make",
        layout.paths: "it holds `list.json`, which bnbenv did not make",
        layout.locks: "it holds `door.lock`, which bnbenv did not make",
        layout.rows: "it holds `torch.json`, which bnbenv did not make",
        layout.runs: "it holds `20260101T000000-7.log`, `exp1`, `train.log`, which bnbenv did not make",
        layout.reports: "it holds `mine.txt`, which bnbenv did not make",
        layout.cache: "it holds `hf`, which bnbenv did not make",
        layout.bytecode: "it holds `mine`, which bnbenv did not make",
        layout.home: "it holds `mine.txt`, which bnbenv did not make",
    }


def test_a_home_that_bnbenv_never_used_stays_as_it_is(layout: Layout, environ: dict[str, str]) -> None:
    kept = theirs(layout)
    (layout.home / "config.toml").write_text("[training]\nrate = 1\n", encoding="utf-8")
    (layout.generations / "empty").mkdir()
    assert owned(environ) == ()
    (layout.home / "config.toml").write_text("# all defaults\n", encoding="utf-8")
    assert owned(environ) == ()
    assert files(layout.home) == {*kept, layout.home / "config.toml"}


@pytest.mark.skipif(sys.platform != "linux", reason="sets the places of XDG")
def test_the_directory_of_the_configuration_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BNBENV_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    write_config(set_value(read_config(), "keep", "3", frozenset()))
    uninstall(owned(os.environ), os.environ, silent)
    assert [*(tmp_path / "config").iterdir()] == []
    write_config(set_value(read_config(), "keep", "3", frozenset()))
    mine = tmp_path / "config" / "bnbenv" / "mine"
    mine.touch()
    uninstall(owned(os.environ), os.environ, silent)
    assert files(tmp_path / "config") == {mine}


def test_an_empty_directory_beside_others_may_be_a_users(layout: Layout, environ: dict[str, str]) -> None:
    layout.reports.mkdir()
    (layout.home / "mine.txt").touch()
    assert owned(environ) == ()
    (layout.home / "mine.txt").unlink()
    assert [item.path for item in owned(environ)] == [layout.reports, layout.home]


def test_an_environment_that_a_user_put_something_else_in_place_of_stops_nothing(
    layout: Layout, environ: dict[str, str], tmp_path: Path
) -> None:
    for place in (layout.at(tmp_path / "plain", generations=False), layout.at(tmp_path / "env")):
        place.link.mkdir()
        (place.link / "mine.txt").touch()
        layout.remember(place)
    uninstall(owned(environ), environ, silent)
    assert len(files(tmp_path)) == 2
    assert not layout.home.exists()


def test_what_a_user_put_in_a_links_place_stays(
    make_environment: Make, layout: Layout, environ: dict[str, str], tmp_path: Path
) -> None:
    for path in (tmp_path / ".venv", tmp_path / "mine"):
        made = make_environment(path=path)
        note = layout.at(path).current_file  # the form of Windows, where a link is a directory to Python
        note.write_text(f'{{"schema": 1, "generation": "{made.directory.name}"}}', encoding="utf-8")
        path.unlink()
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "pyvenv.cfg").touch()
    (tmp_path / "mine").symlink_to(".venv")
    make_environment("qlora")
    link = layout.named("qlora").link
    link.unlink()
    link.symlink_to(tmp_path)
    items = owned(environ)
    assert {item.path for item in items if item.kind == "environment"} == {
        *(tmp_path / ".venv.generations", tmp_path / "mine.generations", layout.generations / "qlora")
    }
    assert [stay.path for stay in left(environ)] == [layout.envs]
    assert uninstall(items, environ, silent) == tuple(item.path for item in items)
    assert files(tmp_path) == {tmp_path / ".venv" / "pyvenv.cfg", tmp_path / "mine"}
    assert files(layout.home) == {link}


def test_beside_a_plain_environment_nothing_goes(
    layout: Layout, environ: dict[str, str], tmp_path: Path
) -> None:
    for project in ("one", "other"):
        place = layout.at(tmp_path / project / "env", generations=False)
        generations.mark_ready(place, generations.begin(place, "ab" * 6))
        layout.remember(place)
    (tmp_path / "one" / ".lock").touch()
    uninstall(owned(environ), environ, silent)
    assert {*tmp_path.rglob("*")} == {tmp_path / "one", tmp_path / "one" / ".lock", tmp_path / "other"}


def test_kernels_go_whose_environment_is_gone(environ: dict[str, str], tmp_path: Path) -> None:
    theirs = tmp_path / "jupyter" / "kernels" / "python3"
    write_kernel(Kernel(name="a", shown="A", link=tmp_path / "gone", directory=theirs.with_name("a")))
    theirs.mkdir()
    (theirs / "kernel.json").write_text('{"display_name": "Python 3"}', encoding="utf-8")
    uninstall(owned(environ), environ, silent)
    assert files(tmp_path) == {theirs / "kernel.json"}


def test_a_kernel_of_an_environment_in_another_home_stays(
    make_environment: Make, layout: Layout, environ: dict[str, str], tmp_path: Path
) -> None:
    make_environment("qlora")
    make_environment(path=tmp_path / "env")
    kernels = tmp_path / "jupyter" / "kernels"
    for name, link in (("named", layout.named("qlora").link), ("at-a-path", tmp_path / "env")):
        write_kernel(Kernel(name=name, shown=name, link=link, directory=kernels / name))

    def kernels_that_go(home: Path) -> list[str]:
        items = owned({**environ, "BNBENV_HOME": str(home)})
        return [item.path.name for item in items if item.kind == "kernel"]

    assert kernels_that_go(tmp_path / "another") == []
    assert kernels_that_go(layout.home) == ["at-a-path", "named"]


@pytest.mark.parametrize("worker", ["repair of a venv", "first build", "first build at a path"])
def test_who_works_below_a_lock_is_waited_for(
    worker: str, layout: Layout, environ: dict[str, str], tmp_path: Path
) -> None:
    if worker == "repair of a venv":
        lock = layout.lock_of(tmp_path / "venv")
    elif worker == "first build":
        lock = layout.named("new").lock
    else:
        place = layout.at(tmp_path / "new")
        layout.remember(place)
        generations.begin(place, "ab" * 6)
        lock = place.lock
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        with hold(lock, method="flock"):
            begun.set()
            ended.wait(60)

    def report(text: str) -> None:
        if text.startswith("waiting for"):
            assert lock.exists()
            ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(60)
    try:
        uninstall(owned(environ), environ, report)
        assert ended.is_set()
    finally:
        ended.set()
        thread.join()
    assert files(tmp_path) == set()


def test_generations_go_whose_link_is_lost_or_never_came(
    make_environment: Make, layout: Layout, environ: dict[str, str], tmp_path: Path
) -> None:
    make_environment(path=tmp_path / "lost")
    (tmp_path / "lost").unlink()
    for name in ("killed", "mixed"):
        half = layout.at(tmp_path / name)
        generations.begin(half, "cd" * 6)
        layout.remember(half)
    mine = tmp_path / "mixed.generations" / "mine"
    mine.touch()
    assert [(stay.path, stay.why) for stay in left(environ)] == [
        (mine.parent, "it holds `mine`, which bnbenv did not make")
    ]
    items = owned(environ)
    assert uninstall(items, environ, silent) == tuple(item.path for item in items)
    assert {*tmp_path.iterdir(), *mine.parent.iterdir()} == {mine.parent, mine}


def test_a_lost_link_protects_what_is_in_use(
    make_environment: Make, environ: dict[str, str], tmp_path: Path, sleeper: Callable[[Path], int]
) -> None:
    made = make_environment(path=tmp_path / "lost")
    (tmp_path / "lost").unlink()
    sleeper(made.directory)
    with pytest.raises(EnvironmentProblem, match="nothing was deleted"):
        uninstall(owned(environ), environ, silent)
    assert made.ready


def test_a_directory_that_the_deletion_made_anew_goes_with_the_home(
    layout: Layout, environ: dict[str, str]
) -> None:
    link = layout.named("qlora").link
    link.parent.mkdir()
    link.symlink_to("../generations/qlora/0123456789ab-1")  # its generations were deleted
    uninstall(owned(environ), environ, silent)
    assert not layout.home.exists()


def test_what_could_not_be_deleted_is_a_failure(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout.runs.mkdir()
    log = layout.runs / "20200101T000000-1.log"
    log.touch()
    monkeypatch.setattr("bnbenv.workflows.uninstall.remove_tree", lambda _path: False)
    assert main(["self", "uninstall", "--yes", "--json"]) == 5
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == "error"
    assert {"code": "permission", "message": f"not deleted: {log}", "hint": None} in answer["problems"]


def test_the_environments_can_be_left(
    make_environment: Make, layout: Layout, environ: dict[str, str], tmp_path: Path
) -> None:
    made = make_environment("qlora")
    kernel = tmp_path / "jupyter" / "kernels" / "a"
    write_kernel(Kernel(name="a", shown="A", link=layout.named("qlora").link, directory=kernel))
    uninstall(owned(environ, keep_environments=True), environ, silent)
    assert switch.require_current(layout.named("qlora")) == made
    assert kernel.exists()
    assert left(environ) == ()


def test_nothing_is_deleted_while_one_is_in_use(
    make_environment: Make, layout: Layout, environ: dict[str, str], sleeper: Callable[[Path], int]
) -> None:
    one, other = make_environment("one"), make_environment("other")
    sleeper(other.directory)
    with pytest.raises(EnvironmentProblem, match="nothing was deleted"):
        uninstall(owned(environ), environ, silent)
    assert one.ready
    assert other.ready
    assert layout.named("one").exists


def test_logs_of_others_are_not_forgotten(layout: Layout) -> None:
    layout.runs.mkdir()
    (layout.runs / "0.log").touch()
    for number in range(KEPT):
        (layout.runs / f"20200101T0000{number:02}-1.log").touch()
    log = RunLog(["list"])
    log.ran(["uv", "--version"], 0)
    assert len([*layout.runs.iterdir()]) == KEPT + 1
    assert (layout.runs / "0.log").exists()
