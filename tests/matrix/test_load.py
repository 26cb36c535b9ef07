from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bnbenv.errors import DataError
from bnbenv.matrix.dump import dump_json, dump_toml
from bnbenv.matrix.load import FILES, compat_directory, load, parse_document, read_rows
from bnbenv.matrix.matrix import PARTS, PartNotLoaded

COMPAT = Path(__file__).resolve().parents[2] / "compat"

CAUSE = """\
schema = 1
revision = "2026.01.02"

[[causes]]
id = "a"
definition = "b"
differs = "c"
remedy = "d"
how = "published"
source = "somewhere"
checked = "2026-01-02"
"""


def write(directory: Path, name: str, text: str) -> None:
    (directory / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", sorted(set(FILES.values())))
def test_writing_what_was_read_gives_the_same_text(name: str) -> None:
    text = (COMPAT / name).read_text(encoding="utf-8")
    document = parse_document(text, COMPAT / name)
    parts = {part: read_rows(part, document, COMPAT / name) for part, file in FILES.items() if file == name}
    if name.endswith(".json"):
        [(part, rows)] = parts.items()
        assert dump_json(part, rows, revision=document["revision"]) == text
    else:
        assert dump_toml(name, parts, revision=document["revision"], text=text) == text


def test_every_part_loads_and_is_not_empty() -> None:
    matrix = load(directory=COMPAT)
    assert all(getattr(matrix, part) for part in PARTS)


def test_a_platform_gets_its_own_rows_and_the_torch_by_which_toolkits_are_told() -> None:
    whole = load("bitsandbytes", "torch", directory=COMPAT)
    for platform in (("linux", "x86_64"), ("windows", "x86_64"), ("macos", "aarch64")):
        matrix = load("bitsandbytes", "torch", directory=COMPAT, platform=platform)
        wanted = {platform, ("linux", "x86_64")}
        assert matrix.torch == tuple(row for row in whole.torch if (row.os, row.arch) in wanted)
        assert matrix.bitsandbytes == tuple(
            row for row in whole.bitsandbytes if (row.os, row.arch) == platform and row.platform != "any"
        )


def test_every_platform_gets_what_can_be_chosen_somewhere() -> None:
    whole = load("bitsandbytes", "torch", directory=COMPAT)
    matrix = load("bitsandbytes", "torch", directory=COMPAT, platform="every", release="0.41.3")
    assert matrix.torch == whole.torch
    assert matrix.bitsandbytes == tuple(
        row for row in whole.bitsandbytes if row.platform != "any" or row.version == "0.41.3"
    )


def test_a_release_is_there_for_every_platform_if_named() -> None:
    for named, release in (("0.46.1", "0.46.1"), (" v0.46", "0.46.0")):
        matrix = load("bitsandbytes", directory=COMPAT, platform=("macos", "aarch64"), release=named)
        assert {row.os for row in matrix.bitsandbytes if row.version == release} == {"linux", "windows"}
        assert {row.os for row in matrix.bitsandbytes if row.version != release} == {"macos"}


def test_a_file_in_another_form_is_read_whole(tmp_path: Path) -> None:
    document = json.loads((COMPAT / "torch.json").read_text(encoding="utf-8"))
    write(tmp_path, "torch.json", json.dumps(document))
    matrix = load("torch", directory=tmp_path, platform=("linux", "x86_64"))
    assert len(matrix.torch) == len(document["rows"])


@pytest.mark.parametrize("platform", [None, "every", ("linux", "x86_64")])
def test_a_file_of_a_row_a_line_is_never_held_whole(monkeypatch: pytest.MonkeyPatch, platform: Any) -> None:
    lengths: list[int] = []

    def spy(text: str) -> Any:
        lengths.append(len(text))
        return json.JSONDecoder().decode(text)

    monkeypatch.setattr("bnbenv.matrix.load.json.loads", spy)
    load("torch", directory=COMPAT, platform=platform)
    assert max(lengths) < (COMPAT / "torch.json").stat().st_size / 5


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n]}\n", "\n"),
        ("\n]}\n", "\n]}\n{}\n"),
        ("\n]}\n", "\n]]\n"),
        ("},\n{", "},,\n{"),
        ("},\n{", "},\n["),
    ],
    ids=["cut short", "more behind it", "closed wrongly", "two commas", "no row"],
)
def test_a_damaged_file_of_a_row_a_line_is_refused(tmp_path: Path, old: str, new: str) -> None:
    text = (COMPAT / "torch.json").read_text(encoding="utf-8")
    write(tmp_path, "torch.json", text.replace(old, new, 1))
    with pytest.raises(DataError, match=r"torch\.json"):
        load("torch", directory=tmp_path)


def test_what_was_read_once_is_not_what_was_written_into_it_since() -> None:
    document = json.loads((COMPAT / "bitsandbytes.json").read_text(encoding="utf-8"))
    [before] = read_rows("bitsandbytes", {"rows": document["rows"][-1:]}, COMPAT / "bitsandbytes.json")
    held = document["rows"][-1]["libraries"][0]
    held["needed"].append("libnew.so.1")
    [after] = read_rows("bitsandbytes", {"rows": document["rows"][-1:]}, COMPAT / "bitsandbytes.json")
    assert after.libraries[0].needed == (*before.libraries[0].needed, "libnew.so.1")
    held["needed"].pop()
    [again] = read_rows("bitsandbytes", {"rows": document["rows"][-1:]}, COMPAT / "bitsandbytes.json")
    assert again == before


@pytest.mark.parametrize("value", ['["somewhere"]', "7", '" "'], ids=["list", "number", "blank"])
def test_a_source_is_a_text(tmp_path: Path, value: str) -> None:
    write(tmp_path, "causes.toml", CAUSE.replace('"somewhere"', value))
    with pytest.raises(DataError, match=r"row 1 \(a\): `source`: must be a text that is not empty"):
        load("causes", directory=tmp_path)


def test_a_part_that_was_not_asked_for_raises() -> None:
    matrix = load("causes", directory=COMPAT)
    assert matrix.causes
    with pytest.raises(PartNotLoaded, match="torch"):
        _ = matrix.torch
    assert not hasattr(matrix, "torch")


def test_only_the_files_of_the_parts_are_needed(tmp_path: Path) -> None:
    write(tmp_path, "causes.toml", CAUSE)
    matrix = load("causes", directory=tmp_path)
    assert [cause.id for cause in matrix.causes] == ["a"]
    assert matrix.revision == "2026.01.02"


def test_the_revision_is_the_newest_of_all_files(tmp_path: Path) -> None:
    write(tmp_path, "causes.toml", CAUSE)
    write(tmp_path, "torch.json", '{"schema": 1, "revision": "2026.03.04", "rows": [\n\n]}\n')
    assert load("causes", directory=tmp_path).revision == "2026.03.04"


@pytest.mark.parametrize("key", ["how", "source", "checked"])
def test_a_row_without_provenance_is_refused(tmp_path: Path, key: str) -> None:
    lines = [line for line in CAUSE.splitlines() if not line.startswith(f"{key} =")]
    write(tmp_path, "causes.toml", "\n".join(lines))
    with pytest.raises(DataError, match=rf"causes\.toml: causes row 1 \(a\): `{key}`: is missing"):
        load("causes", directory=tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('id = "a"', "", r"row 1 .*`id`: is missing"),
        ('remedy = "d"', 'remedy = "d"\nextra = 1', r"row 1 \(a\): `extra`: is not a known key"),
        ('remedy = "d"', "remedy = 4", r"row 1 \(a\): `remedy`: expected a text"),
        ('how = "published"', 'how = "guessed"', r"`how`: must be"),
        ('checked = "2026-01-02"', 'checked = "2026-13-02"', r"`checked`: must be a date"),
        ("schema = 1", "schema = 2", r"schema 2 is not the one"),
        ('revision = "2026.01.02"', 'revision = "yesterday"', r"`revision` must be"),
        ("[[causes]]", "[[cause]]", r"the list `causes` is missing"),
        ("[[causes]]", "[[causes", r"causes\.toml: "),
    ],
    ids=["no key", "unknown key", "wrong type", "how", "date", "schema", "revision", "part", "syntax"],
)
def test_errors_name_file_and_row(tmp_path: Path, old: str, new: str, words: str) -> None:
    write(tmp_path, "causes.toml", CAUSE.replace(old, new))
    write(tmp_path, "floors.toml", 'schema = 1\nrevision = "2026.01.01"\n')
    with pytest.raises(DataError, match=words) as caught:
        load("causes", directory=tmp_path)
    assert caught.value.code == "matrix-invalid"
    assert "causes.toml" in caught.value.message


def test_an_error_inside_a_library_names_its_place(tmp_path: Path) -> None:
    text = (COMPAT / "bitsandbytes.json").read_text(encoding="utf-8")
    document = json.loads(text)
    document["rows"][4]["libraries"][2]["cubins"] = ["9.x"]
    write(tmp_path, "bitsandbytes.json", json.dumps(document))
    with pytest.raises(DataError, match=r"row 5 \(.*\): `libraries\[2\]\.cubins`: .*'9\.x'"):
        load("bitsandbytes", directory=tmp_path)


def test_a_missing_file_and_one_that_is_no_text_are_errors(tmp_path: Path) -> None:
    write(tmp_path, "causes.toml", CAUSE)
    with pytest.raises(DataError, match=r"torch\.json: the file is missing"):
        load("torch", directory=tmp_path)
    (tmp_path / "gpus.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"gpus\.json: cannot be read"):
        load("gpus", directory=tmp_path)


def test_the_garbage_collector_is_left_as_it_was_and_passes_over_the_matrix() -> None:
    gc.unfreeze()
    gc.disable()
    try:
        load("loaders")
        assert not gc.isenabled()
        assert not gc.get_freeze_count()
    finally:
        gc.enable()
    load("loaders")
    assert gc.isenabled()
    assert gc.get_freeze_count()


def test_the_file_that_is_missing_is_the_one_that_should_be_there(tmp_path: Path) -> None:
    """An installed bnbenv holds as JSON what is TOML in a checkout."""
    with pytest.raises(DataError, match=r"claims\.toml: the file is missing"):
        load("claims", directory=tmp_path)
    write(tmp_path, "loaders.json", "{}")
    with pytest.raises(DataError, match=r"claims\.json: the file is missing"):
        load("claims", directory=tmp_path)


def test_the_directory_can_be_named_by_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNBENV_COMPAT", str(tmp_path))
    with pytest.raises(DataError, match="missing"):
        compat_directory()
    monkeypatch.delenv("BNBENV_COMPAT")
    assert compat_directory().is_dir()


def test_a_home_that_cannot_be_looked_into_adds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BNBENV_HOME", str(tmp_path / ("x" * 300)))  # root may enter all that can be named
    assert load("torch").torch == load("torch", directory=COMPAT).torch


def test_loading_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom bnbenv.matrix.load import load\nload()\n"
        "heavy = {'packaging', 'requests', 'rich', 'pypi_simple', 'email', 'zipfile'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=_environment()
    )
    assert done.returncode == 0, done.stderr


def _environment() -> dict[str, str]:
    import os

    source = str(Path(__file__).resolve().parents[2] / "src")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
