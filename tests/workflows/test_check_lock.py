from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bnbenv.errors import DataError
from bnbenv.lockfile import index
from bnbenv.lockfile.index import MachineClass, TeamLock, Variant, sha256_of
from bnbenv.workflows.check_lock import check_lock
from support.voice import Listener

if TYPE_CHECKING:
    from pathlib import Path

    from bnbenv.judge.stack import Finding

EMPTY = 'lock-version = "1.0"\ncreated-by = "uv"\npackages = []\n'
CPU = Variant(
    name="cpu",
    sha256=sha256_of(EMPTY),
    python="3.12",
    os="linux",
    arch="x86_64",
    glibc="2.31",
    torch={"version": "2.14.1", "build": "cpu", "index": "pytorch-cpu", "local": "cpu"},
    bitsandbytes=None,
    packages={},
    evidence="none",
)
CI = MachineClass(
    variant="cpu",
    machines=("ci",),
    facts={"os": "linux", "arch": "x86_64", "accelerator": "cpu"},
    seen="2026-11-23",
)
LOCK = TeamLock(request={"profile": "qlora"}, matrix="2026.11.23", variants=(CPU,), classes=(CI,))


@pytest.fixture
def team(tmp_path: Path) -> Path:
    (tmp_path / "pylock.cpu.toml").write_text(EMPTY)
    index.write(tmp_path, LOCK)
    return tmp_path


def told(directory: Path, *words: str) -> list[Finding]:
    answer = check_lock(directory, Listener(), os.environ, mirrors={}, offline=True, cwd=directory)
    wanted = words or ("no machine", "no part")
    return [found for found in answer.findings if any(word in found.summary for word in wanted)]


def test_a_lock_that_serves_no_machine_is_told(team: Path) -> None:
    assert told(team) == []
    index.write(team, replace(LOCK, classes=()))
    [found] = told(team)
    assert (found.code, found.severity, found.subject) == ("lock-disagrees", "info", "cpu")
    assert found.remedy is not None
    assert found.remedy.commands == (f"bnbenv lock --dir {team}",)


def test_a_lock_of_ours_that_the_index_does_not_name_is_told(team: Path) -> None:
    (team / "pylock.dev.toml").write_text(EMPTY)  # somebody else's
    assert told(team) == []
    (team / "pylock.old.toml").write_text(EMPTY + '[tool.bnbenv]\nvariant = "old"\n')
    [found] = told(team)
    assert (found.code, found.severity, found.subject) == ("lock-disagrees", "info", "pylock.old.toml")


def test_machines_of_one_kind_that_a_hand_has_put_apart_are_told(team: Path) -> None:
    apart = replace(CI, machines=("other",), variant=None, blocking=("a driver",))
    index.write(team, replace(LOCK, classes=(CI, replace(apart, variant="cpu", blocking=()))))
    assert told(team, "one kind") == []  # who reads the lock gets one answer
    index.write(team, replace(LOCK, classes=(CI, apart)))
    [found] = told(team, "one kind")
    assert (found.code, found.severity) == ("lock-disagrees", "error")
    assert sorted(found.evidence) == ["ci: cpu", "other: nothing"]


def test_facts_that_contradict_each_other_are_told(team: Path) -> None:
    gpus = [{"name": "RTX 4090", "compute_capability": "8.9"}]
    mixed = replace(CI, variant=None, facts={**CI.facts, "accelerator": "rocm", "gpus": gpus})
    index.write(team, replace(LOCK, classes=(CI, mixed)))
    with pytest.raises(DataError, match=r"classes\.facts"):
        told(team)


def test_who_was_made_for_what_is_told(team: Path) -> None:
    assert told(team, "made for") == []
    text = EMPTY + '[tool.bnbenv.request]\nprofile = "int8"\npackages = ["einops"]\n'
    (team / "pylock.cpu.toml").write_text(text)
    index.write(team, replace(LOCK, variants=(replace(CPU, sha256=sha256_of(text)),)))
    assert {found.subject: found.evidence for found in told(team, "made for")} == {
        "packages": ("bnbenv.lock: nothing", "pylock.cpu.toml: ['einops']"),
        "profile": ("bnbenv.lock: qlora", "pylock.cpu.toml: int8"),
    }
