"""A home that users share: what one keeps to themselves is told to the others, and stops nothing else."""

from __future__ import annotations

import pwd  # noqa: F401 - before another user needs it
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.main import main
from bnbenv.env import generation as generations
from bnbenv.errors import EnvironmentProblem, ExternalError
from bnbenv.workflows import change, listing
from bnbenv.workflows.config import read_config
from bnbenv.workflows.environment import existing, locate
from bnbenv.workflows.uninstall import owned, uninstall
from support import faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bnbenv.env.generation import Generation
    from bnbenv.env.layout import Layout

    Make = Callable[..., Generation]


@pytest.fixture
def clean_environment(clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of root's that every user may enter and write in."""
    del clean_environment
    with faults.shared_directory() as home:
        home.chmod(0o777)
        monkeypatch.setenv("BNBENV_HOME", str(home))
        yield home


@pytest.fixture
def environ(clean_environment: Path) -> dict[str, str]:
    return {"BNBENV_HOME": str(clean_environment), "JUPYTER_DATA_DIR": str(clean_environment / "jupyter")}


def both(layout: Layout, make: Make, private: str = "alice") -> tuple[Generation, Generation]:
    """An environment that root keeps to itself, and one that all may change, each of two generations."""
    make(private, digest="cd" * 6)
    make("bob", digest="cd" * 6)
    made = make(private), make("bob")
    for path in (*layout.home.rglob("*"), layout.home):
        if not path.is_symlink():
            path.chmod(0o777)
    layout.named(private).generations.chmod(0o755)
    return made


def test_a_generation_that_may_not_be_entered_is_told_and_hides_no_other(
    layout: Layout, make_environment: Make
) -> None:
    private, _ = both(layout, make_environment)
    private.directory.chmod(0o700)
    listing.list_environments(layout)
    with faults.another_user():
        alice, bob = listing.list_environments(layout)
    assert alice.status == "broken"
    assert alice.problem is not None
    assert "belongs to `root`" in alice.problem
    assert (bob.status, bob.problem) == ("passed", None)


def test_an_environment_elsewhere_is_found_beside_a_private_one(
    layout: Layout, make_environment: Make, environ: dict[str, str]
) -> None:
    private, _ = both(layout, make_environment)
    private.directory.chmod(0o700)
    mine = layout.home / "venv"
    (mine / "bin").mkdir(parents=True)
    (mine / "pyvenv.cfg").write_text("home = /usr/bin\n", encoding="utf-8")
    locate(str(mine), environ, layout.home)
    with faults.another_user():
        assert locate(str(mine), environ, layout.home).directory == mine


@pytest.mark.parametrize("name", ["envs", "generations"])
def test_where_nobody_may_look_nobody_says_that_there_is_none(
    layout: Layout, make_environment: Make, name: str
) -> None:
    both(layout, make_environment)
    listing.list_environments(layout)
    with pytest.raises(EnvironmentProblem):
        existing("neither", layout)
    (layout.home / name).chmod(0o700)
    with faults.another_user():
        with pytest.raises(ExternalError) as listed:
            listing.list_environments(layout)
        with pytest.raises(ExternalError) as named:
            existing("neither", layout)
    for caught in (listed, named):
        assert caught.value.code == "permission"
        assert f"`{layout.home / name}` belongs to `root`" in caught.value.message


def test_a_configuration_with_a_credential_is_its_owners(
    clean_environment: Path, environ: dict[str, str]
) -> None:
    file = clean_environment / "config.toml"
    read_config(environ)
    file.write_text("schema = 1\n", encoding="utf-8")
    file.chmod(0o600)
    with faults.another_user(), pytest.raises(ExternalError) as caught:
        read_config(environ)
    assert "permission denied; it belongs to `root`" in caught.value.message
    assert f"chmod a+r {file}, by its owner" in (caught.value.hint or "")


def test_prune_passes_over_what_another_user_keeps(layout: Layout, make_environment: Make) -> None:
    both(layout, make_environment)
    places = [layout.named("alice"), layout.named("bob")]
    change.prune_each(places, lambda _: None, keep=0, dry_run=True)
    for place in places:
        place.lock.chmod(0o644)
    said: list[str] = []
    with faults.another_user():
        done = change.prune_each(places, said.append, keep=0, dry_run=False)
    assert [(place.name, len(plan.removed)) for place, plan in done] == [("bob", 1)]
    [line] = said
    assert line.startswith("`alice` is passed over: ")
    assert "belongs to `root`" in line


def test_what_cannot_be_removed_is_not_counted_either(
    layout: Layout, make_environment: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    both(layout, make_environment)
    layout.named("alice").generations.chmod(0o700)
    assert main(["remove", "alice", "--dry-run"]) == 0
    assert "2 generations" in capsys.readouterr().out
    with faults.another_user():
        assert main(["remove", "alice", "--dry-run"]) == 5
    told = capsys.readouterr()
    assert "belongs to `root`" in told.err
    assert "0 generations" not in told.out


def test_no_generation_goes_whose_files_would_stay(layout: Layout, make_environment: Make) -> None:
    _, made = both(layout, make_environment)
    place = layout.named("bob")
    change.prune(place, lambda _: None, keep=0, dry_run=True)
    older = generations.list_generations(place)[0]
    for found in (older, made):
        found.directory.chmod(0o755)
    with faults.another_user():
        with pytest.raises(ExternalError) as caught:
            change.remove(place, layout, lambda _: None)
        assert "belongs to `root`" in caught.value.message
        for dry_run in (True, False):
            pruned = change.prune(place, lambda _: None, keep=0, dry_run=dry_run)
            assert pruned == generations.Pruned(not_ours=(older.directory,))
    assert generations.list_generations(place) == (older, made)
    assert place.link.is_symlink()


def test_what_is_left_of_another_users_generation_does_not_hold_the_rest(
    layout: Layout, make_environment: Make
) -> None:
    both(layout, make_environment)
    place = layout.named("bob")
    change.prune(place, lambda _: None, keep=0, dry_run=True)
    left = place.generations / ".gone-0123456789ab"
    (left / "lib").mkdir(parents=True)
    with faults.another_user():
        change.remove(place, layout, lambda _: None)
    assert not place.exists
    assert generations.list_generations(place) == ()
    assert left.is_dir()


def test_a_lock_of_another_users_does_not_hold_the_rest(
    layout: Layout, make_environment: Make, environ: dict[str, str]
) -> None:
    make_environment("bob")
    layout.locks.mkdir(exist_ok=True)
    (layout.locks / "0123456789ab.lock").touch()
    for path in (*layout.home.rglob("*"), layout.home):
        if not path.is_symlink():
            path.chmod(0o777)
    (layout.locks / "0123456789ab.lock").chmod(0o644)
    layout.locks.chmod(0o755)
    items, said = owned(environ), list[str]()
    with faults.another_user():
        gone = uninstall(items, environ, said.append)
    assert layout.envs in gone
    assert layout.locks not in gone
    assert any("belongs to `root`" in line for line in said)


def test_what_another_user_began_is_left_to_that_user(layout: Layout, make_environment: Make) -> None:
    _, made = both(layout, make_environment)
    change.clean(layout, lambda _: None, dry_run=True)
    made.ready_file.unlink()
    made.directory.chmod(0o755)
    said: list[str] = []
    with faults.another_user():
        assert generations.sweep(layout.named("bob"), report=said.append) == ()
    assert made.directory.is_dir()
    assert [line for line in said if "is left alone: " in line and "belongs to `root`" in line]


def test_clean_passes_over_what_another_user_keeps(layout: Layout, make_environment: Make) -> None:
    private, open_to_all = both(layout, make_environment)
    for made in (private, open_to_all):
        made.ready_file.unlink()
    logs = [layout.runs / f"20261130T12000{number}-7.log" for number in (1, 2)]
    layout.runs.mkdir()
    for log in logs:
        log.touch()
    change.clean(layout, lambda _: None, dry_run=True)
    layout.runs.chmod(0o755)
    said: list[str] = []
    with faults.another_user():
        done = change.clean(layout, said.append, dry_run=False)
    assert done.half_made == (open_to_all.directory,)
    assert (done.files, done.stays) == ((), tuple(logs))
    assert [line for line in said if line.startswith("`alice` is passed over: ")]


def test_a_cache_that_may_not_be_entered_does_not_stop_a_look(
    layout: Layout, make_environment: Make, environ: dict[str, str]
) -> None:
    both(layout, make_environment)
    layout.bytecode.mkdir(parents=True)
    change.clean(layout, lambda _: None, dry_run=True)
    owned(environ)
    layout.cache.chmod(0o700)
    with faults.another_user():
        assert change.clean(layout, lambda _: None, dry_run=True).files == ()
        assert not {item.path for item in owned(environ)} & {layout.cache, layout.home}


def test_nothing_is_uninstalled_where_one_environment_is_another_users(
    layout: Layout, make_environment: Make, environ: dict[str, str]
) -> None:
    both(layout, make_environment, private="zoe")
    items = owned(environ)
    assert [item.place.name for item in items if item.place] == ["bob", "zoe"]
    with faults.another_user(), pytest.raises(ExternalError) as caught:
        uninstall(items, environ, lambda _: None)
    assert "belongs to `root`" in caught.value.message
    assert len(listing.list_environments(layout)) == 2
