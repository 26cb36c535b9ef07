from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bnbenv.errors import UsageError
from bnbenv.install.requirement_files import read_requirement_files

if TYPE_CHECKING:
    from pathlib import Path


def write(directory: Path, **files: str) -> Path:
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        directory.joinpath(f"{name}.txt").write_text(text)
    return directory / "main.txt"


def test_includes_and_paths_count_from_the_file_that_names_them(tmp_path: Path) -> None:
    write(tmp_path / "sub", other="rich  # for tables\n-c deep.txt\n./pkg\n", deep="numpy<3\n")
    main = write(
        tmp_path / "top",
        main="# mine\neinops>=0.8 ; python_version > '3'\n-r ../sub/other.txt\n"
        "--constraint=cons.txt\n-e ./pkg\n",
        cons="tqdm==4.*\n",
    )
    found = read_requirement_files([main])
    assert found.requirements == (
        "einops>=0.8 ; python_version > '3'",
        "rich",
        str(tmp_path / "sub" / "pkg"),
        f"-e {tmp_path / 'top' / 'pkg'}",
    )
    assert found.constraints == ("numpy<3", "tqdm==4.*")


def test_what_is_for_uv_stays_as_it_stands(tmp_path: Path) -> None:
    lines = (
        "-i https://index.example/simple",
        "six==1.17.0 --hash=sha256:00",
        "git+https://host.example/x#egg=x",
    )
    main = write(tmp_path, main="\n".join((lines[0], "six==1.17.0 \\", "--hash=sha256:00", lines[2])))
    assert [" ".join(line.split()) for line in read_requirement_files([main]).requirements] == [*lines]


def test_a_requirement_with_its_hashes_may_be_longer_than_a_name(tmp_path: Path) -> None:
    hashes = [f"--hash=sha256:{digit * 64}" for digit in "abcd"]
    main = write(tmp_path, main=" \\\n    ".join(("six==1.17.0", *hashes)))
    (line,) = read_requirement_files([main]).requirements
    assert line.split() == ["six==1.17.0", *hashes]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("six\n\nnot a requirement\n", "line 3: `not a requirement`"),
        ("six>=\n", "line 1: `six>=`"),
        ("-r gone.txt\n", "gone.txt"),
        ("-r main.txt\n", "includes itself"),
        ("-r https://host.example/r.txt\n", "no file of this machine"),
    ],
    ids=["babble", "no-version", "missing-include", "loop", "address"],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_requirement_files([write(tmp_path, main=text)])
    assert told in caught.value.message
    assert str(tmp_path) in caught.value.message
    assert "Traceback" not in caught.value.message
    assert caught.value.code == "bad-request"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-8"])
def test_a_file_is_read_as_powershell_writes_it(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "requirements.txt"
    file.write_bytes("torch==2.9.1\r\neinops\r\n".encode(encoding))
    assert read_requirement_files([file]).requirements == ("torch==2.9.1", "einops")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.txt` cannot be read"):
        read_requirement_files([tmp_path / "nowhere.txt"])
