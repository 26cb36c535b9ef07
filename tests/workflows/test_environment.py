from __future__ import annotations

import json
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bnbenv.env import generation as generations
from bnbenv.env import lease, switch
from bnbenv.env.locking import hold
from bnbenv.env.processes import ProcessIdentity, this_host
from bnbenv.errors import EnvironmentProblem, ExternalError, UsageError
from bnbenv.workflows import change, listing
from bnbenv.workflows.environment import Located, all_places, existing, holding, locate, missing, place_of
from support.voice import Listener

if TYPE_CHECKING:
    from collections.abc import Callable

    from bnbenv.env.generation import Generation
    from bnbenv.env.layout import Layout, Place

    Make = Callable[..., Generation]


def silent(_text: str) -> None:
    return None


@pytest.fixture
def environ(clean_environment: Path) -> dict[str, str]:
    return {"BNBENV_HOME": str(clean_environment), "PATH": os.environ["PATH"]}


def venv(directory: Path) -> Path:
    (directory / "bin").mkdir(parents=True)
    (directory / "bin" / "python").symlink_to(sys.executable)
    (directory / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.12.4\n", encoding="utf-8")
    return directory


def test_the_argument_comes_first(make_environment: Make, environ: dict[str, str], tmp_path: Path) -> None:
    made = make_environment("qlora")
    other = venv(tmp_path / "other")
    found = locate("qlora", {**environ, "VIRTUAL_ENV": str(other)}, tmp_path)
    assert (found.directory, found.kind) == (made.directory, "bnbenv")
    assert found.python == made.python
    assert "`qlora`" in found.why


@pytest.mark.parametrize(
    ("variables", "dotted", "expected"),
    [
        (("VIRTUAL_ENV", "CONDA_PREFIX"), True, "VIRTUAL_ENV"),
        (("CONDA_PREFIX",), True, "CONDA_PREFIX"),
        ((), True, ".venv"),
        ((), False, "installed in"),
    ],
    ids=["virtual-env", "conda", "dot-venv", "own"],
)
def test_without_an_argument(
    variables: tuple[str, ...], dotted: bool, expected: str, environ: dict[str, str], tmp_path: Path
) -> None:
    for name in variables:
        environ[name] = str(venv(tmp_path / name))
    if dotted:
        venv(tmp_path / ".venv")
    found = locate(None, environ, tmp_path)
    assert expected in found.why
    own = Path(sys.prefix)
    assert found.directory == {".venv": tmp_path / ".venv", "installed in": own}.get(
        expected, tmp_path / expected
    )


@pytest.mark.parametrize(("name", "expected"), [("base", ".venv"), ("lab", "conda"), ("", "conda")])
def test_what_conda_activates_by_itself_stands_behind_a_dot_venv(
    name: str, expected: str, environ: dict[str, str], tmp_path: Path
) -> None:
    environ |= {"CONDA_PREFIX": str(venv(tmp_path / "conda")), "CONDA_DEFAULT_ENV": name}
    assert locate(None, environ, tmp_path).directory == tmp_path / "conda"
    venv(tmp_path / ".venv")
    assert locate(None, environ, tmp_path).directory == tmp_path / expected
    other = str(venv(tmp_path / "other"))
    assert locate(None, {**environ, "VIRTUAL_ENV": other}, tmp_path).directory == tmp_path / "other"


@pytest.mark.skipif(find_spec("torch") is not None, reason="the Python of these tests has torch")
def test_the_only_environment_is_meant_where_nothing_else_can_be(
    make_environment: Make, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert locate(None, environ, tmp_path).directory == Path(sys.prefix)
    made = make_environment("lab")
    found = locate(None, environ, tmp_path)
    assert (found.directory, found.why) == (made.directory, "the only environment that there is")
    (tmp_path / "site" / "torch").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path / "site")
        assert locate(None, environ, tmp_path).directory == Path(sys.prefix)
    make_environment("other")
    assert locate(None, environ, tmp_path).directory == Path(sys.prefix)


def test_a_variable_that_leads_nowhere_is_passed_over(environ: dict[str, str], tmp_path: Path) -> None:
    venv(tmp_path / ".venv")
    found = locate(None, {**environ, "VIRTUAL_ENV": str(tmp_path / "gone")}, tmp_path)
    assert found.directory == tmp_path / ".venv"


def test_an_interpreter_names_its_environment(environ: dict[str, str], tmp_path: Path) -> None:
    directory = venv(tmp_path / "other")
    found = locate(str(directory / "bin" / "python"), environ, tmp_path)
    assert (found.directory, found.kind) == (directory, "venv")


def test_a_link_on_the_path_names_what_it_leads_to(environ: dict[str, str], tmp_path: Path) -> None:
    framework = tmp_path / "Versions" / "3.12"
    (framework / "lib" / "python3.12" / "site-packages").mkdir(parents=True)
    (framework / "bin").mkdir()
    python = framework / "bin" / "python3.12"
    python.write_bytes(b"\x7fELF")
    link = tmp_path / "local" / "bin" / "python3"
    link.parent.mkdir(parents=True)
    link.symlink_to(python)
    found = locate(str(link), environ, tmp_path)
    assert (found.directory, found.kind, found.python) == (framework, "system", link)
    python.rename(tmp_path / "python3")
    link.unlink()
    link.symlink_to(tmp_path / "python3")
    with pytest.raises(EnvironmentProblem, match="no Python environment"):
        locate(str(link), environ, tmp_path)


def test_the_interpreter_that_was_named_is_the_one_that_is_used(
    environ: dict[str, str], tmp_path: Path
) -> None:
    directory = venv(tmp_path / "other")
    (directory / "bin" / "python").rename(directory / "bin" / "python3.12")
    (directory / "bin" / "pip").touch()
    assert locate(str(directory / "bin" / "python3.12"), environ, tmp_path).python.name == "python3.12"
    assert locate(str(directory / "bin" / "pip"), environ, tmp_path).python.name == "python"


def test_the_packages_are_those_of_the_interpreter_that_was_named(
    environ: dict[str, str], tmp_path: Path
) -> None:
    for minor in ("3.11", "3.12"):
        (tmp_path / "lib" / f"python{minor}" / "site-packages" / f"of-1.{minor}.dist-info").mkdir(
            parents=True
        )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3.11").touch()
    (tmp_path / "bin" / "python3.12").touch()
    (tmp_path / "bin" / "python3").symlink_to("python3.12")
    seen = {
        name: locate(str(tmp_path / "bin" / name), environ, tmp_path).read_installed().versions["of"]
        for name in ("python3", "python3.11", "python3.12")
    }
    assert seen == {"python3": "1.3.12", "python3.11": "1.3.11", "python3.12": "1.3.12"}


def test_a_system_without_python_has_python3(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "lib" / "python3.12" / "dist-packages").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    found = locate(str(tmp_path), environ, tmp_path)
    assert (found.kind, found.python) == ("system", tmp_path / "bin" / "python3")


@pytest.mark.parametrize("name", ["my work", "a+b", "é env"])
def test_a_directory_that_could_not_be_a_name_needs_no_dot(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Layout, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="environment name"):
        locate(name, environ, tmp_path)
    venv(tmp_path / name)
    assert locate(name, environ, tmp_path).directory == tmp_path / name
    with pytest.raises(EnvironmentProblem, match="no environment that bnbenv made"):
        existing(name, layout)


def test_the_command_that_would_make_a_missing_environment_can_be_typed(layout: Layout) -> None:
    assert (missing("./my work", layout).hint or "").startswith("bnbenv create --path './my work'")


def test_a_link_is_resolved_once(make_environment: Make, environ: dict[str, str], tmp_path: Path) -> None:
    first = make_environment(path=tmp_path / "env")
    found = locate(str(tmp_path / "env"), environ, tmp_path)
    second = make_environment(path=tmp_path / "env")
    assert found.directory == first.directory
    assert first.directory != second.directory
    assert locate(str(first.directory), environ, tmp_path).kind == "bnbenv"


def test_what_is_not_there_names_the_nearest(
    make_environment: Make, environ: dict[str, str], tmp_path: Path
) -> None:
    make_environment("qlora")
    with pytest.raises(EnvironmentProblem, match=r"did you mean `qlora`\?"):
        locate("qlroa", environ, tmp_path)
    with pytest.raises(EnvironmentProblem, match="no environment") as problem:
        locate(str(tmp_path / "nothing"), environ, tmp_path)
    assert problem.value.exit_code == 4


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("inference", "bnbenv create inference"),
        ("lab", "bnbenv create lab"),
        ("other", "bnbenv create --name other"),
        ("./env of mine", "bnbenv create --path './env of mine'"),
    ],
    ids=["a profile", "a profile of the user's", "a name", "a path"],
)
def test_what_is_not_there_is_made_by_what_is_typed(
    text: str, typed: str, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bnbenv.toml").write_text('[profiles.lab]\nextends = "inference"\n', encoding="utf-8")
    with pytest.raises(EnvironmentProblem) as problem:
        locate(text, environ, tmp_path)
    assert problem.value.hint == typed


def test_a_shim_of_a_version_manager_tells_how_to_name_what_it_starts(
    environ: dict[str, str], tmp_path: Path
) -> None:
    shim = tmp_path / "shims" / "python3"
    shim.parent.mkdir()
    shim.write_text('#!/usr/bin/env bash\nexec pyenv exec python3 "$@"\n', encoding="utf-8")
    with pytest.raises(
        EnvironmentProblem, match="is a script that starts a Python of another place"
    ) as problem:
        locate(str(shim), environ, tmp_path)
    assert f"{shim} -c 'import sys; print(sys.prefix)'" in (problem.value.hint or "")


def test_a_link_that_leads_nowhere(environ: dict[str, str], tmp_path: Path) -> None:
    link = tmp_path / "env"
    link.symlink_to("/nowhere/env")
    with pytest.raises(EnvironmentProblem, match="is a link to `/nowhere/env`, and no environment is there"):
        locate(str(link), environ, tmp_path)


def test_names_and_paths_are_told_apart(layout: Layout, tmp_path: Path) -> None:
    assert place_of("qlora", layout).form == "home"
    assert place_of(str(tmp_path / "env"), layout).form == "path"


def test_the_list_shows_every_state(make_environment: Make, layout: Layout, tmp_path: Path) -> None:
    make_environment("good")
    make_environment("later", verdict="not-run")
    make_environment(path=tmp_path / "env", verdict="degraded")
    make_environment("broken").state_file.write_text("{", encoding="utf-8")
    newer = make_environment("newer").state_file
    newer.write_text('{"schema": 99}', encoding="utf-8")
    found = {entry.name: entry.status for entry in listing.list_environments(layout)}
    assert found == {
        "good": "passed",
        "later": "unverified",
        str(tmp_path / "env"): "degraded",
        "broken": "broken",
        "newer": "broken",
    }


def test_the_list_tells_that_a_python_is_gone(make_environment: Make, layout: Layout, tmp_path: Path) -> None:
    python = make_environment("qlora").python
    python.unlink()
    python.symlink_to(tmp_path / "conda" / "envs" / "work" / "bin" / "python3.12")
    (entry,) = listing.list_environments(layout)
    assert (entry.status, entry.problem) == (
        "broken",
        f"its Python cannot be started: `{tmp_path}/conda/envs/work/bin/python3.12`",
    )


def test_nothing_half_made_is_listed(make_environment: Make, layout: Layout) -> None:
    make_environment("qlora")
    generations.begin(layout.named("half"), "cd" * 6)
    assert [entry.name for entry in listing.list_environments(layout)] == ["qlora"]


def test_info_tells_everything(make_environment: Make, layout: Layout) -> None:
    first = make_environment("qlora")
    site = make_environment("qlora").directory / "lib" / "python3.12" / "site-packages"
    (site / "torch-2.14.1.dist-info").mkdir(parents=True)
    (site / "torch-2.14.1.dist-info" / "METADATA").write_text(
        "Name: torch\nVersion: 2.14.1\n", encoding="utf-8"
    )
    told = listing.info(layout.named("qlora"))
    assert told["packages"] == {"torch": "2.14.1"}
    assert [entry["current"] for entry in told["history"]] == [False, True]
    assert told["history"][0]["generation"] == first.directory.name
    assert told["bytes"] > 0


def test_hard_links_count_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    os.link(tmp_path / "a", tmp_path / "b")
    assert listing.size_of(tmp_path) == 1000


def test_rollback_and_back_again(make_environment: Make, layout: Layout) -> None:
    first, second = make_environment("qlora"), make_environment("qlora")
    place = layout.named("qlora")
    assert change.rollback(place, silent, dry_run=True) == (second, first)
    assert switch.require_current(place) == second
    change.rollback(place, silent)
    assert switch.require_current(place) == first
    with pytest.raises(EnvironmentProblem, match="no older generation") as caught:
        change.rollback(place, silent)
    assert caught.value.hint == f"bnbenv rollback qlora --to {second.directory.name}"
    assert change.rollback(place, silent, to=second.directory.name) == (first, second)
    assert switch.require_current(place) == second
    with pytest.raises(EnvironmentProblem, match=f"no generation `x`; it has {first.directory.name}, "):
        change.rollback(place, silent, to="x")
    assert switch.require_current(place) == second


def test_where_nothing_is_older_the_same_profile_is_made_anew(
    make_environment: Make, layout: Layout, tmp_path: Path
) -> None:
    make_environment("lab", profile="inference")
    with pytest.raises(EnvironmentProblem) as problem:
        change.rollback(layout.named("lab"), silent)
    assert problem.value.hint == "bnbenv create inference --name lab"
    make_environment(path=tmp_path / "env", profile="int8")
    with pytest.raises(EnvironmentProblem) as problem:
        change.rollback(layout.at(tmp_path / "env"), silent)
    assert problem.value.hint == f"bnbenv create int8 --path {tmp_path / 'env'}"


def test_remove_refuses_what_is_in_use(
    make_environment: Make, layout: Layout, tmp_path: Path, sleeper: Callable[[Path], int]
) -> None:
    place = layout.at(tmp_path / "my env")
    made = make_environment(path=place.link)
    pid = sleeper(made.directory)
    with pytest.raises(EnvironmentProblem, match=f"in use by process .*{pid}") as problem:
        change.remove(place, layout, silent)
    assert problem.value.hint == f"end them, or bnbenv remove --force '{place.link}'"
    assert made.ready
    change.remove(place, layout, silent, force=True)
    assert not made.directory.exists()


def test_remove_leaves_the_others(make_environment: Make, layout: Layout, tmp_path: Path) -> None:
    make_environment("qlora")
    make_environment("other")
    make_environment(path=tmp_path / "env")
    (tmp_path / "mine.txt").write_text("a user's file", encoding="utf-8")
    change.remove(existing(str(tmp_path / "env"), layout), layout, silent)
    change.remove(layout.named("qlora"), layout, silent)
    assert [place.name for place in all_places(layout)] == ["other"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt"]


@pytest.mark.parametrize("what", ["a directory", "an empty directory", "a link", "a file"])
def test_remove_leaves_what_a_user_put_in_the_links_place(
    what: str, make_environment: Make, layout: Layout, tmp_path: Path
) -> None:
    made = make_environment(path=tmp_path / "env")
    place = layout.at(tmp_path / "env")
    # As Windows notes it: a directory in the link's place may be a junction there.
    place.current_file.write_text(f'{{"schema": 1, "generation": "{made.directory.name}"}}', encoding="utf-8")
    place.link.unlink()
    if what == "a directory":
        venv(place.link)
    elif what == "an empty directory":
        place.link.mkdir()
    elif what == "a link":
        place.link.symlink_to(venv(tmp_path / "theirs"))
    else:
        place.link.touch()
    said: list[str] = []
    change.remove(existing(str(place.link), layout), layout, said.append)
    assert any(f"`{place.link}` is not bnbenv's and stays" in line for line in said)
    assert os.path.lexists(place.link)
    assert not place.generations.exists()
    assert all_places(layout) == ()


def test_remove_takes_generations_whose_link_is_lost(make_environment: Make, layout: Layout) -> None:
    make_environment("qlora")
    place = layout.named("qlora")
    place.link.unlink()
    said: list[str] = []
    change.remove(place, layout, said.append)
    assert said == []
    assert not place.generations.exists()


def test_prune_keeps_what_is_in_use(
    make_environment: Make, layout: Layout, sleeper: Callable[[Path], int]
) -> None:
    made = [make_environment("qlora") for _ in range(4)]
    pid = sleeper(made[0].directory)
    place = layout.named("qlora")
    planned = change.prune(place, silent, keep=1, dry_run=True)
    assert all(one.ready for one in made)
    done = change.prune(place, silent, keep=1, dry_run=False)
    assert planned == done
    assert done.removed == (made[1].directory,)
    assert [directory for directory, _ in done.in_use] == [made[0].directory]
    assert pid in done.in_use[0][1]
    assert [one.ready for one in made] == [True, False, True, True]


def test_clean_takes_debris_and_logs_alone(make_environment: Make, layout: Layout) -> None:
    made = make_environment("qlora")
    half = generations.begin(layout.named("half"), "cd" * 6)
    (half.facts / "BUILDING").write_text("{}", encoding="utf-8")  # nobody who lives
    layout.runs.mkdir(parents=True)
    (layout.runs / "20261130T120000-7.log").write_text("old\n", encoding="utf-8")
    layout.bytecode.mkdir(parents=True)
    (layout.bytecode / ("ab" * 32)).write_bytes(b"compiled")
    aside = layout.named("half").generations / ".gone-0123456789ab"  # a deletion that did not get to its end
    aside.mkdir()
    theirs = [layout.runs / "mine.log", layout.reports / "mine.txt", layout.generations / "x" / "data"]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    planned = change.clean(layout, silent, dry_run=True)
    assert planned.half_made == (half.directory, aside)
    assert half.directory.exists()
    done = change.clean(layout, silent, dry_run=False)
    assert done == planned
    assert not half.directory.exists()
    assert not aside.exists()
    assert [[*path.parent.iterdir()] for path in theirs] == [[path] for path in theirs]
    assert not layout.bytecode.exists()
    assert made.ready


def test_clean_takes_what_a_first_build_at_a_path_left(layout: Layout, tmp_path: Path) -> None:
    place = layout.at(tmp_path / "env")
    half = generations.begin(place, "cd" * 6)
    layout.remember(place)
    (half.facts / "BUILDING").write_text("{}", encoding="utf-8")  # nobody who lives
    with pytest.raises(EnvironmentProblem) as caught:
        existing(str(place.link), layout)
    assert (caught.value.hint or "").endswith("bnbenv clean takes away what was begun")
    assert change.clean(layout, silent, dry_run=False).half_made == (half.directory,)
    assert not half.directory.exists()


def test_what_was_never_finished_is_offered_to_no_command(
    layout: Layout, environ: dict[str, str], tmp_path: Path
) -> None:
    generations.begin(layout.named("half"), "cd" * 6)
    with pytest.raises(EnvironmentProblem) as caught:
        locate(None, environ, tmp_path, changing="bnbenv install X --in", only_ours=True)
    assert caught.value.hint == "bnbenv create qlora"


def test_clean_lets_a_junction_follow(
    make_environment: Make, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_environment("qlora")
    mended: list[Place] = []
    monkeypatch.setattr(switch, "mend", mended.append)
    change.clean(layout, silent, dry_run=False)
    assert mended == [layout.named("qlora")]


def test_a_dry_run_of_clean_lists_nothing_that_another_process_builds(
    layout: Layout, sleeper: Callable[[Path], int], tmp_path: Path
) -> None:
    half = generations.begin(layout.named("half"), "cd" * 6)
    builder = ProcessIdentity(host=this_host(), pid=sleeper(tmp_path), start="")
    (half.facts / "BUILDING").write_text(json.dumps(builder.as_dict()), encoding="utf-8")
    assert change.clean(layout, silent, dry_run=True).half_made == ()
    assert change.clean(layout, silent, dry_run=False).half_made == ()
    assert half.directory.is_dir()


def test_leases_keep_a_generation(make_environment: Make, layout: Layout) -> None:
    old = make_environment("qlora")
    make_environment("qlora")
    held = lease.take(old.directory, command="a test")
    try:
        done = change.prune(layout.named("qlora"), silent, keep=0, dry_run=False)
    finally:
        lease.release(held)
    assert done.removed == ()
    assert old.ready


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every path is text")
def test_an_environment_whose_path_is_no_text_is_locked_too(environ: dict[str, str], tmp_path: Path) -> None:
    directory = tmp_path / os.fsdecode(b"v\xff")
    directory.mkdir()
    located = Located(directory=directory, kind="venv", why="a test")
    with holding(located, "repair", Listener(), environ) as held:
        assert held.pass_fds


def test_one_directory_has_one_lock_whether_its_place_is_known_or_not(
    layout: Layout, environ: dict[str, str], tmp_path: Path
) -> None:
    place = layout.at(tmp_path / "image", generations=False)
    place.link.mkdir()
    (tmp_path / "link").symlink_to(place.link)
    located = Located(directory=tmp_path / "link", kind="bnbenv", why="a test")
    with (
        holding(located, "repair", Listener(), environ),
        pytest.raises(ExternalError) as caught,
        hold(place.lock, timeout=0.0),
    ):
        pass
    assert caught.value.code == "locked"


def test_what_is_not_ours_is_no_environment(layout: Layout, tmp_path: Path) -> None:
    directory = tmp_path / "photos"
    directory.mkdir()
    link = tmp_path / "shortcut"
    link.symlink_to(directory)
    for path in (directory, link):
        with pytest.raises(EnvironmentProblem, match="left alone"):
            existing(str(path), layout)
    assert link.is_symlink()


@pytest.mark.parametrize("what", ["a directory", "a file", "a link"])
def test_what_others_keep_among_the_links_is_no_environment(
    what: str, layout: Layout, environ: dict[str, str], tmp_path: Path
) -> None:
    theirs = layout.envs / "conda1"
    layout.envs.mkdir(parents=True)
    if what == "a directory":
        venv(theirs)
    elif what == "a file":
        theirs.touch()
    else:
        theirs.symlink_to(venv(tmp_path / "theirs"))
    for ask in (lambda: existing("conda1", layout), lambda: locate("conda1", environ, tmp_path)):
        with pytest.raises(EnvironmentProblem, match=f"that bnbenv made, but {what}") as caught:
            ask()
        assert caught.value.exit_code == 4
    assert all_places(layout) == ()
    with pytest.raises(EnvironmentProblem) as caught:
        existing("conda2", layout)
    assert "conda1" not in caught.value.message


def test_a_path_environment_is_found_by_its_bare_name(
    make_environment: Make,
    layout: Layout,
    environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    made = make_environment(path=tmp_path / "e1")
    assert existing("e1", layout) == existing("./e1", layout) == layout.at("e1")
    make_environment("e1")
    assert existing("e1", layout) == layout.named("e1")
    change.remove(layout.named("e1"), layout, silent)
    shutil.rmtree(made.directory)  # the link is bnbenv's all the same
    with pytest.raises(EnvironmentProblem) as caught:
        locate("e1", environ, tmp_path)
    assert "remove the link" not in (caught.value.hint or "")
    assert caught.value.code == "state-broken"


@pytest.mark.parametrize("unreadable", ["secret", "secret.generations"])
def test_what_may_not_be_entered_is_none_of_ours(
    unreadable: str,
    make_environment: Make,
    layout: Layout,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = layout.at(tmp_path / "secret", generations=False)
    shared.link.mkdir()
    layout.remember(shared)
    made = make_environment("qlora")
    monkeypatch.chdir(tmp_path)
    stat = os.stat

    def refused(path: str | Path, *rest: object, **options: object) -> os.stat_result:
        if tmp_path / unreadable in Path(os.path.abspath(path)).parents:  # noqa: PTH100
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("os.stat", refused)  # the superuser may enter all
    assert [place.name for place in all_places(layout)] == ["qlora"]
    assert made.ready
    with pytest.raises(EnvironmentProblem, match="there is no environment `secret`"):
        existing("secret", layout)


def test_a_link_that_lost_its_generations_is_still_ours(layout: Layout, tmp_path: Path) -> None:
    link = tmp_path / "env"
    link.symlink_to("env.generations/0123456789ab-1")
    assert existing(str(link), layout).link == link


def test_a_plain_directory_that_was_never_finished_is_no_venv_to_examine_or_mend(
    environ: dict[str, str], layout: Layout, tmp_path: Path
) -> None:
    place = layout.at(tmp_path / "image", generations=False)
    made = generations.begin(place, "")
    venv(made.directory)
    for text, variables in ((str(place.link), {}), (None, {"VIRTUAL_ENV": str(place.link)})):
        with pytest.raises(EnvironmentProblem, match="begun and never finished") as caught:
            locate(text, {**environ, **variables}, tmp_path)
        assert caught.value.code == "state-broken"
        assert f"--path {place.link} --no-generations" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("command", "again"),
    [
        ("bnbenv sync half", "bnbenv sync LOCKDIR --name half makes it anew"),
        ("bnbenv create half", "bnbenv create PROFILE --name half makes it anew"),
    ],
)
def test_what_was_begun_and_never_finished_is_told_with_the_command_that_makes_it(
    command: str, again: str, layout: Layout, environ: dict[str, str], tmp_path: Path
) -> None:
    place = layout.named("half")
    place.lock.parent.mkdir(parents=True)
    with hold(place.lock, silent, command=command):
        half = generations.begin(place, "cd" * 6)
    (half.facts / "BUILDING").write_text("{}", encoding="utf-8")  # nobody who lives
    for ask in (lambda: existing("half", layout), lambda: locate("half", environ, tmp_path)):
        with pytest.raises(EnvironmentProblem, match=r"`half` was begun by .*, and never finished") as caught:
            ask()
        assert (caught.value.hint or "").startswith(again)


def test_what_is_being_built_is_no_missing_environment(
    layout: Layout, sleeper: Callable[[Path], int], tmp_path: Path
) -> None:
    place = layout.named("half")
    place.lock.parent.mkdir(parents=True)
    with hold(place.lock, silent, command="bnbenv sync half"):
        half = generations.begin(place, "cd" * 6)
        builder = ProcessIdentity(host=this_host(), pid=sleeper(tmp_path), start="")
        (half.facts / "BUILDING").write_text(json.dumps(builder.as_dict()), encoding="utf-8")
        with pytest.raises(
            EnvironmentProblem, match=r"being built for the first time by .*`bnbenv sync half`"
        ):
            existing("half", layout)
