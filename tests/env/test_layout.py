"""Names that can be used, places that are free, and what stands where."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnbenv.env.layout import Layout, check_free, check_windows_length, checked_name, prepare
from bnbenv.errors import UsageError


@pytest.fixture
def home(tmp_path: Path) -> Layout:
    return Layout.find({"BNBENV_HOME": str(tmp_path / "home")})


@pytest.mark.parametrize(
    "name",
    [
        "qlora",
        "qlora-2",
        "_x",
        "a.b",
        "übung",
        "实验",
        "モデル",
        "हिन्दी",
        "0",
        "x" * 64,
        "com10",
        "console",
        "nul-2",
    ],
)
def test_a_name_in_any_script_is_kept(name: str) -> None:
    assert checked_name(name) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "empty"),
        (".", "path"),
        ("..", "path"),
        ("../x", "path"),
        ("/tmp/x", "path"),
        ("a\\b", "path"),
        ("-x", "begin"),
        (".hidden", "begin"),
        ("\u0301x", "begin"),
        ("a b", "' '"),
        ("a\nb", "'\\n'"),
        ("a\0b", "'\\x00'"),
        ("a\u202eb", "\\u202e"),
        ("a\u200bb", "\\u200b"),
        ("~x", "'~'"),
        ("a:b", "':'"),
        ("😀", "cannot be used"),
        ("x.", "dot"),
        ("CON", "Windows"),
        ("nul.txt", "Windows"),
        ("Com1", "Windows"),
        ("lpt¹.x", "Windows"),
        ("x" * 65, "64 characters"),
        ("x" * 5000, "64 characters"),
        ("实" * 64 + "", None),
        ("𠀀" * 60, "200 bytes"),
        ("\ud800", "text"),
    ],
)
def test_a_name_that_cannot_be_used_is_told_why(name: str, words: str | None) -> None:
    if words is None:
        assert checked_name(name) == name  # 192 bytes: fits
        return
    with pytest.raises(UsageError) as caught:
        checked_name(name)
    assert caught.value.code == "bad-name"
    assert words in caught.value.message
    assert len(caught.value.message) < 300


def test_two_spellings_of_one_name_are_one_environment(home: Layout) -> None:
    assert home.named("u\u0308bung").link == home.named("\u00fcbung").link


def test_a_disk_that_folds_case_has_one_environment_of_a_name(
    home: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home.envs / "qlora").mkdir(parents=True)
    (tmp_path / "Env").mkdir()
    assert home.named("QLoRA").name == "QLoRA"

    def folded(path: Path) -> bool:
        return path.name.casefold() in {entry.name.casefold() for entry in path.parent.glob("*")}

    monkeypatch.setattr(os.path, "lexists", folded)
    assert home.named("QLoRA") == home.named("qlora")
    assert home.named("QLoRA").name == "qlora"
    assert home.at(tmp_path / "eNV").link == tmp_path / "Env"
    assert home.named("other").name == "other"


@given(st.text(max_size=80))
def test_a_name_is_refused_or_safe_to_use(text: str) -> None:
    try:
        name = checked_name(text)
    except UsageError:
        return
    assert checked_name(name) == name
    assert Path(name).name == name
    assert not name.startswith((".", "-"))
    assert len(os.fsencode(name)) <= 200
    place = Layout(home=Path("/h")).named(name)
    assert place.link.parent == Path("/h/envs")
    assert place.generations.parent == Path("/h/generations")


def test_home_is_the_user_data_directory_unless_told() -> None:
    assert Layout.find({}).home.name == "bnbenv"
    assert Layout.find({"BNBENV_HOME": "/somewhere"}).home == Path("/somewhere")


def test_a_home_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with pytest.raises(UsageError, match="not a directory"):
        Layout.find({"BNBENV_HOME": str(tmp_path / "f")})


def test_the_paths_of_the_contract(home: Layout, tmp_path: Path) -> None:
    named = home.named("qlora")
    assert named.link == home.home / "envs/qlora"
    assert named.generations == home.home / "generations/qlora"
    beside = home.at(tmp_path / "project" / ".venv")
    assert beside.link == tmp_path / "project/.venv"
    assert beside.generations == tmp_path / "project/.venv.generations"
    assert home.at(tmp_path / "image", generations=False).form == "plain"


def _files(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text() if path.is_file() else ""
        for path in directory.rglob("*")
    }


def _full(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "thesis.tex").write_text("years of work")


def _file(path: Path) -> None:
    path.write_text("a file")


def _link(path: Path) -> None:
    path.symlink_to("elsewhere")


def _full_generations(path: Path) -> None:
    _full(path.with_name(path.name + ".generations"))


def _file_generations(path: Path) -> None:
    path.with_name(path.name + ".generations").write_text("mine")


@pytest.mark.parametrize("generations", [True, False], ids=["generations", "plain"])
@pytest.mark.parametrize("occupy", [_full, _file, _link, _full_generations, _file_generations])
def test_a_path_with_files_of_the_user_is_never_touched(
    home: Layout, tmp_path: Path, occupy: object, *, generations: bool
) -> None:
    user = tmp_path / "user"
    user.mkdir()
    occupy(user / "env")  # type: ignore[operator]
    if not generations and occupy in (_full_generations, _file_generations):
        pytest.skip("a plain directory has no generations beside it")
    before = _files(user)
    place = home.at(user / "env", generations=generations)
    for check in (check_free, prepare):
        with pytest.raises(UsageError) as caught:
            check(place)
        assert caught.value.code == "path-occupied"
    assert _files(user) == before


def test_a_name_whose_link_is_a_foreign_directory_is_told(home: Layout) -> None:
    _full(home.envs / "qlora")
    with pytest.raises(UsageError, match="not free"):
        prepare(home.named("qlora"))


@pytest.mark.parametrize("generations", [True, False], ids=["generations", "plain"])
def test_an_empty_directory_is_free_and_preparing_twice_is_fine(
    home: Layout, tmp_path: Path, *, generations: bool
) -> None:
    (tmp_path / "env").mkdir()
    place = home.at(tmp_path / "env", generations=generations)
    prepare(place)
    prepare(place)
    assert (place.generations / ".gitignore").exists() == generations


def test_generations_beside_a_project_are_ignored_by_git(home: Layout, tmp_path: Path) -> None:
    place = home.at(tmp_path / "env")
    prepare(place)
    assert (place.generations / ".gitignore").read_text().splitlines()[-1] == "*"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("", "bad-name"),
        ("  ", "bad-name"),
        ("a\nb", "bad-name"),
        ("a\0b", "bad-name"),
        ("/", "bad-name"),
        ("HOME", "path-occupied"),
        ("HOME/envs/x", "path-occupied"),
    ],
)
def test_paths_that_cannot_be_used(home: Layout, path: str, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        home.at(path.replace("HOME", str(home.home)))
    assert caught.value.code == code


def test_a_path_through_a_link_is_the_same_place(home: Layout, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    assert home.at(tmp_path / "alias" / "env") == home.at(tmp_path / "real" / "env")


def test_names_and_known_paths(home: Layout, tmp_path: Path) -> None:
    assert home.names() == ()
    home.envs.mkdir(parents=True)
    (home.envs / "b").symlink_to("nowhere")
    (home.envs / ".b.12-aa.tmp").symlink_to("nowhere")
    (home.generations / "a" / "0123456789ab-1").mkdir(parents=True)
    (home.generations / "empty").mkdir()
    assert home.names() == ("a", "b")

    place = home.at(tmp_path / "env", generations=False)
    home.remember(place)
    assert home.known_paths() == ()  # nothing stands there
    place.link.mkdir()
    (home.paths / "damaged.json").write_text("{")
    assert home.known_paths() == (place,)
    home.forget(place)
    assert home.known_paths() == ()


@pytest.mark.parametrize(
    ("prefix", "fits"), [("C:\\" + "x" * 84, True), ("C:\\" + "x" * 85, False)], ids=["259", "260"]
)
def test_the_longest_member_must_fit_into_a_windows_path(prefix: str, *, fits: bool) -> None:
    if fits:
        check_windows_length(prefix)
    else:
        with pytest.raises(UsageError, match="1 characters too long"):
            check_windows_length(prefix)
