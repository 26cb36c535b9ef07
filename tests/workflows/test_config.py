from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.main import main
from bnbenv.errors import EnvironmentProblem, ExternalError, UsageError
from bnbenv.workflows.config import (
    Config,
    checked_mirror,
    config_path,
    read_config,
    set_value,
    unset_value,
    write_config,
)

if TYPE_CHECKING:
    from pathlib import Path

INDEXES = frozenset({"pytorch", "pytorch-cu126"})


def test_an_absent_file_is_an_empty_one(clean_environment: Path) -> None:
    assert read_config() == Config(path=clean_environment / "config.toml")


def test_what_is_set_is_read_back() -> None:
    config = read_config()
    for key, value in (
        ("pytorch-cu126", "https://mirror.example/cu126"),
        ("link-mode", "copy"),
        ("keep", "3"),
    ):
        config = set_value(config, key, value, INDEXES)
    write_config(config)
    assert read_config() == config
    assert config.mirrors == {"pytorch-cu126": "https://mirror.example/cu126"}
    config = unset_value(unset_value(config, "keep", INDEXES), "pytorch-cu126", INDEXES)
    write_config(config)
    assert read_config().to_dict() == {"link-mode": "copy"}


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
@pytest.mark.parametrize(
    "mirror", ["https://me:secret@mirror.example/cu128", "https://m.example/cu128?token=abc"]
)
def test_the_file_is_the_owners_alone(clean_environment: Path, mirror: str) -> None:
    write_config(set_value(read_config(), "pytorch", mirror, INDEXES))
    assert stat.S_IMODE((clean_environment / "config.toml").stat().st_mode) == 0o600


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_a_file_without_credentials_is_for_all_who_share_the_home(clean_environment: Path) -> None:
    written = clean_environment / "config.toml"
    umask = os.umask(0o027)
    try:
        write_config(set_value(read_config(), "pytorch", "https://mirror.example/simple", INDEXES))
        assert stat.S_IMODE(written.stat().st_mode) == 0o640
        write_config(set_value(read_config(), "pytorch", "https://me:secret@mirror.example", INDEXES))
        assert stat.S_IMODE(written.stat().st_mode) == 0o600
        write_config(unset_value(read_config(), "pytorch", INDEXES))
        assert stat.S_IMODE(written.stat().st_mode) == 0o640
        written.chmod(0o600)
        write_config(set_value(read_config(), "keep", "2", INDEXES))
        assert stat.S_IMODE(written.stat().st_mode) == 0o600
    finally:
        os.umask(umask)


def test_a_file_that_is_another_users_is_told_with_what_helps(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(set_value(read_config(), "keep", "2", INDEXES))

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    with pytest.raises(ExternalError) as caught:
        read_config()
    hint = caught.value.hint or ""
    assert f"chmod a+r {clean_environment / 'config.toml'}" in hint
    assert "BNBENV_HOME" in hint


def test_the_configuration_of_a_newer_bnbenv_is_left_to_it(clean_environment: Path) -> None:
    file = clean_environment / "config.toml"
    file.write_text("schema = 2\nnew = true\n", encoding="utf-8")
    with pytest.raises(EnvironmentProblem) as caught:
        read_config()
    assert caught.value.code == "state-too-new"
    assert "upgrade" in (caught.value.hint or "")


def test_what_cannot_be_written_leaves_nothing_behind(clean_environment: Path) -> None:
    config = set_value(read_config(), "pytorch", "https://me:secret@mirror.example/simple", INDEXES)
    config.path.mkdir(parents=True)
    with pytest.raises(ExternalError):
        write_config(config)
    assert [entry.name for entry in clean_environment.iterdir()] == ["config.toml"]


def test_without_a_home_the_platform_decides(tmp_path: Path) -> None:
    assert config_path({}).name == "config.toml"
    assert config_path({"BNBENV_HOME": str(tmp_path)}) == tmp_path / "config.toml"


@pytest.mark.parametrize(
    "value",
    [
        "https://mirror.example/cu126",
        "file:///srv/wheels",
        "http://127.0.0.1:8080/simple",
        "http://127.0.0.2:8080/simple",
        "http://localhost/simple",
        "/srv/wheels",
    ],
)
def test_addresses_that_can_be_used(value: str) -> None:
    assert set_value(read_config(), "pytorch", value, INDEXES).mirrors == {"pytorch": value}


def test_a_host_that_pip_trusts_may_be_a_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = "http://mirror.example/simple"
    with pytest.raises(UsageError) as problem:
        set_value(read_config(), "pytorch", mirror, INDEXES)
    assert problem.value.code == "insecure-index"
    monkeypatch.setenv("PIP_TRUSTED_HOST", "mirror.example")
    write_config(set_value(read_config(), "pytorch", mirror, INDEXES))
    assert read_config().mirrors == {"pytorch": mirror}


@pytest.mark.parametrize(
    "value",
    ["ftp://mirror.example", "mirror.example/simple", "wheels", "  ", "https://[broken", "/srv/\udcff", 7],
)
def test_addresses_that_cannot(value: object) -> None:
    with pytest.raises(UsageError) as problem:
        checked_mirror("pytorch", value)
    assert problem.value.code == "usage"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("link-mode", "teleport"),
        ("keep", "-1"),
        ("keep", "many"),
        ("keep", "²"),
        ("keep", "9" * 20),
        ("pytorch-cu12", "https://x.example"),
    ],
)
def test_values_that_cannot_be_set(key: str, value: str) -> None:
    with pytest.raises(UsageError):
        set_value(read_config(), key, value, INDEXES)


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean `pytorch-cu126`"):
        set_value(read_config(), "pytorch-cu12", "https://x.example", INDEXES)


def test_the_default_index_is_set_where_pip_and_uv_read_it(
    clean_environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("set", "pypi", "https://mirror.example/simple"), ("get", "pypi"), ("unset", "pypi")):
        assert main(["config", *words]) == 2
        told = capsys.readouterr().err
        assert "`pypi` has no mirror here" in told
        assert "pip config set global.index-url URL, or the variable UV_DEFAULT_INDEX" in told
    assert not (clean_environment / "config.toml").exists()


def test_what_stands_in_the_file_for_the_default_index_is_told_and_taken_out(
    clean_environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clean_environment / "config.toml").write_text(
        '[mirrors]\npypi = "https://mirror.example/simple"\n"my own" = "https://mirror.example/own"\n'
    )
    assert main(["config"]) == 0
    listed = capsys.readouterr().out
    assert "not used: bnbenv config unset pypi" in listed
    assert "not used: bnbenv config unset 'my own'\n" in listed
    [settable] = [line for line in listed.splitlines() if line.startswith("Mirrors can be set for: ")]
    assert "pypi" not in settable
    assert main(["config", "unset", "pypi"]) == 0
    assert read_config().mirrors.keys() == {"my own"}


@pytest.mark.parametrize(
    "text",
    ["not toml", 'mirrors = "x"', "[mirrors]\npytorch = 7", 'link-mode = "teleport"', "keep = true"],
    ids=["syntax", "table", "address", "mode", "number"],
)
def test_a_broken_file_is_named(text: str, clean_environment: Path) -> None:
    (clean_environment / "config.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as problem:
        read_config()
    assert str(clean_environment / "config.toml") in problem.value.message
    assert problem.value.hint


def test_a_file_that_is_no_text_is_the_users_to_mend(clean_environment: Path) -> None:
    (clean_environment / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="UTF-8"):
        read_config()


def test_a_home_that_is_a_file_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="not a directory"):
        read_config({"BNBENV_HOME": str(tmp_path / "file")})
