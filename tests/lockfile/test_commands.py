from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from bnbenv.lockfile.commands import lock_command, resolve_command, sync_command


def test_a_directory_is_named_where_the_user_stands_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "my locks"
    there.mkdir()
    assert shlex.split(lock_command(there, "", "--check")) == [
        "bnbenv",
        "lock",
        "--check",
        "--dir",
        str(there),
    ]
    assert shlex.split(sync_command(there, "--frozen")) == ["bnbenv", "sync", str(there), "--frozen"]
    monkeypatch.chdir(tmp_path)
    assert lock_command(there) == "bnbenv lock --dir 'my locks'"
    assert sync_command(tmp_path / "locks") == "bnbenv sync locks"
    monkeypatch.chdir(there)
    assert lock_command(tmp_path / "other") == "bnbenv lock --dir ../other"
    for here in (there, Path()):
        assert (lock_command(here), sync_command(here, "")) == ("bnbenv lock", "bnbenv sync")


@pytest.mark.parametrize(
    ("line", "local"),
    [
        ('url = "file:///wheels/inhouse-1-py3-none-any.whl"', True),
        ('path = "wheels/inhouse-1-py3-none-any.whl"', True),
        ('url = "https://127.0.0.1/file:/inhouse-1-py3-none-any.whl"', False),
    ],
)
def test_a_lock_with_files_of_this_machine_is_locked_with_them(
    line: str, tmp_path: Path, *, local: bool
) -> None:
    (tmp_path / "pylock.cpu.toml").write_text(f"wheels = [{{ {line} }}]\n", encoding="utf-8")
    words = ["--allow-local"] * local
    assert lock_command(tmp_path, "--check").split() == [
        "bnbenv",
        "lock",
        "--check",
        *words,
        "--dir",
        str(tmp_path),
    ]
    assert lock_command(tmp_path, "--allow-local").count("--allow-local") == 1


def test_a_request_is_told_by_the_options_of_resolve() -> None:
    request = {
        "profile": "inference", "torch": ">=2.8,<2.10", "cpu": True, "without_index": ["pypi", "nvidia"],
        "packages": ["einops"], "exclude_newer": "2026-01-31",
    }  # fmt: skip
    assert resolve_command(request, "--target a.json") == (
        "bnbenv resolve inference --torch '>=2.8,<2.10' --cpu --without-index pypi --without-index nvidia "
        "--target a.json"
    )
    assert resolve_command({"profile": "qlora", "cpu": False}, "") == "bnbenv resolve qlora"
