from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bnbenv.errors import BnbenvError, DataError, EnvironmentProblem, UsageError
from bnbenv.lockfile.index import (
    MachineClass,
    TeamLock,
    Variant,
    dump,
    locked_bytes,
    parse,
    read,
    sha256_of,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path

VARIANT = Variant(
    name="cu126",
    sha256="ab" * 32,
    python="3.12",
    os="linux",
    arch="x86_64",
    glibc="2.31",
    torch={"version": "2.14.1", "build": "cu126", "index": "pytorch-cu126", "local": "cu126"},
    bitsandbytes={"version": "0.50.2", "wheel": "bitsandbytes-0.50.2-x.whl", "sha256": "cd" * 32},
    packages={"transformers": ">=5.21,<5.24"},
    evidence="none",
)
LAB = MachineClass(
    variant="cu126",
    machines=("lab-a", "lab-b"),
    facts={"os": "linux", "arch": "x86_64", "accelerator": "cuda", "driver": "550.54.15"},
    seen="2026-11-23",
)
OLD = MachineClass(
    variant=None, machines=("attic",), facts={"os": "linux"}, seen="2026-11-20", blocking=("driver 470",)
)
LOCK = TeamLock(request={"profile": "qlora"}, matrix="2026.11.23", variants=(VARIANT,), classes=(LAB, OLD))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path, LOCK)
    found = read(tmp_path)
    assert found.request == LOCK.request
    assert found.variants == LOCK.variants
    assert set(map(str, found.classes)) == set(map(str, LOCK.classes))
    assert dump(found) == dump(LOCK)


@pytest.mark.parametrize(
    ("made_for", "other"),
    [
        (None, {}),
        ("qlora", {}),
        ({}, {}),
        ({"profile": "qlora", "packages": ["einops"]}, {}),
        ({"profile": "qlora"}, {"packages": None}),
        ({"profile": "int8", "packages": ["einops"], "torch": "2.14"}, {"profile": "int8", "torch": "2.14"}),
    ],
)
def test_what_a_lock_was_made_for_otherwise(made_for: object, other: dict[str, object]) -> None:
    team = replace(LOCK, request={"profile": "qlora", "packages": ("einops",)})
    assert team.asked_otherwise({} if made_for is None else {"request": made_for}) == other


def test_the_order_of_classes_and_machines_does_not_matter() -> None:
    other = replace(LOCK, classes=(OLD, replace(LAB, machines=("lab-b", "lab-a"))))
    assert dump(other) == dump(LOCK)


def test_a_directory_without_one(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"there is no `bnbenv\.lock`"):
        read(tmp_path)


def test_one_that_stands_elsewhere_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `bnbenv lock` would make instead is a lock for one machine."""
    (tmp_path / "team locks").mkdir()
    (tmp_path / "src" / "deep").mkdir(parents=True)
    write(tmp_path / "team locks", LOCK)
    with pytest.raises(EnvironmentProblem) as caught:
        read(tmp_path)
    assert f"that is there: '{tmp_path}/team locks'" in (caught.value.hint or "")
    write(tmp_path, LOCK)
    with pytest.raises(EnvironmentProblem) as caught:
        read(tmp_path / "src" / "deep")
    assert f"that is there: {tmp_path}; or" in (caught.value.hint or "")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EnvironmentProblem) as caught:
        read(tmp_path / "src" / "deep")
    assert caught.value.hint == (
        "leave the directory out, for the one that is here; or, for another one, bnbenv lock --dir src/deep"
    )
    monkeypatch.undo()
    tmp_path.chmod(0o777)
    with pytest.raises(EnvironmentProblem) as caught:
        read(tmp_path / "src" / "deep")
    assert f"that is there: {tmp_path} (where others can write); or" in (caught.value.hint or "")
    for file in ("bnbenv.lock", "pylock.cpu.toml"):
        (tmp_path / file).touch()
        with pytest.raises(UsageError, match="is a file") as refused:
            read(tmp_path / file)
        assert refused.value.hint == f"name the directory: {tmp_path}"


def test_one_that_is_lost_beside_its_locks(tmp_path: Path) -> None:
    (tmp_path / "pylock.dev.toml").write_text('lock-version = "1.0"\n[tool.other]\n')
    with pytest.raises(EnvironmentProblem) as caught:
        read(tmp_path)
    assert caught.value.hint == f"bnbenv lock --dir {tmp_path}"
    (tmp_path / "pylock.cpu.toml").write_bytes(b'lock-version = "1.0"\r\n[tool.bnbenv]\r\n')
    with pytest.raises(EnvironmentProblem, match=r"which has `pylock\.cpu\.toml`$") as caught:
        read(tmp_path)
    assert f"git -C {tmp_path} check-ignore -v bnbenv.lock" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("version = 1", "version = 2", "format version 2, and this bnbenv reads up to 1"),
        ("version = 1", "version = true", "its format version is True"),
        ("version = 1", "", "its format version is None"),
        ('matrix = "2026.11.23"', "matrix = 3", "`matrix` is not text"),
        ('name = "cu126"', 'name = "../../etc/passwd"', "cannot be part of a file name"),
        ('name = "cu126"', 'name = "cu.126"', "cannot be part of a file name"),
        ("ab" * 32, "md5", r"`variants\[0\]\.sha256` is not a SHA-256"),
        ('variant = "cu126"', 'variant = "cu999"', "which no variant is called"),
        ('os = "linux"\narch', "os = 3\narch", r"`variants\[0\]\.os` is not text"),
        ("machines = [\n", "machines = [3,\n", "is not a list of texts"),
        ('python = "3.12"', 'python = "3.12\\u0000"', r"`variants\[0\]\.python` holds control characters"),
        ('"lab-a"', '"\\u001b[2Jsound"', r"`classes\[1\]\.machines\[0\]` .*\\x1b\[2Jsound"),
        ('"lab-a"', '"""lab\nnext: sh evil.sh"""', r"machines\[0\]` holds control characters"),
        ('"lab-a"', '"lab\u202e"', r"machines\[0\]` holds control characters"),
        ('os = "linux"\n\n', 'os = "linux"\n"\\u009b2J" = 1\n\n', "a key in `classes"),
        ('python = "3.12"', 'python = "/tmp/python"', "not a minor version such as 3"),
        ('os = "linux"\narch', 'os = "plan9"\narch', "is not one of linux, windows, macos"),
        ('arch = "x86_64"\nglibc', 'arch = "vax"\nglibc', "is not one of x86_64, aarch64"),
        ('glibc = "2.31"', 'glibc = "2.9999999999"', "not a version of glibc"),
        ('transformers = ">=5.21', 'transformers = "wat', "holds no range of versions"),
        ('profile = "qlora"', 'packages = ["--index-url https://evil.example"]', "is an option"),
        ('python = "3.12"', 'python = "3.12.1"', "not a minor version such as 3"),
    ],
)
def test_each_refusal_names_its_key(old: str, new: str, words: str) -> None:
    content = dump(LOCK)
    assert old in content
    with pytest.raises(DataError, match=words) as caught:
        parse(content.replace(old, new, 1))
    assert caught.value.code == "lock-invalid"


@pytest.mark.parametrize(
    "content",
    ["", "version = 1", "version = [", "\x00", "a" + ".a" * 50_000 + " = 1", "x = " + "[" * 50_000, "\ud800"],
)
def test_hostile_text_is_refused_and_never_crashes(content: str, tmp_path: Path) -> None:
    (tmp_path / "bnbenv.lock").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(BnbenvError):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("version = [", "bnbenv lock PROFILE --repack --dir {0}, with --target FILE"),
        ("version = 0", "bnbenv lock PROFILE --repack --dir {0}, with --target FILE"),
        ("version = 2", "upgrade"),
        (f"<<<<<<< HEAD\n{dump(LOCK)}=======\n>>>>>>> theirs\n", "git checkout HEAD -- {0}/bnbenv.lock"),
    ],
)
def test_each_hint_is_of_use(content: str, hint: str, tmp_path: Path) -> None:
    """`bnbenv lock` alone builds upon what is there, and refuses what cannot be read."""
    (tmp_path / "bnbenv.lock").write_bytes(content.encode())
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert hint.format(tmp_path) in (caught.value.hint or "")


def test_a_variant_twice() -> None:
    with pytest.raises(DataError, match="stands there twice"):
        parse(dump(replace(LOCK, variants=(VARIANT, VARIANT))))


def test_a_changed_lock_is_refused(tmp_path: Path) -> None:
    content = 'lock-version = "1.0"\n'
    (tmp_path / "pylock.cu126.toml").write_text(content)
    sound = replace(VARIANT, sha256=sha256_of(content))
    assert locked_bytes(tmp_path, sound) == content.encode()
    (tmp_path / "pylock.cu126.toml").write_text(content + "# more\n")
    with pytest.raises(DataError, match="changed after it was locked") as caught:
        locked_bytes(tmp_path, sound)
    assert caught.value.code == "hash-mismatch"
    assert f"bnbenv lock --dir {tmp_path}, which makes it anew, with the versions that it holds" in (
        caught.value.hint or ""
    )


def test_line_ends_of_a_checkout_are_no_change(tmp_path: Path) -> None:
    content = 'lock-version = "1.0"\n'
    (tmp_path / "pylock.cu126.toml").write_bytes(content.replace("\n", "\r\n").encode())
    assert locked_bytes(tmp_path, replace(VARIANT, sha256=sha256_of(content)))


def test_a_missing_lock_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`pylock\.cu126\.toml`, which is not there"):
        locked_bytes(tmp_path, VARIANT)
