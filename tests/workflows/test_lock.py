"""`lock`, its checks and `bundle`, by a real uv against metadata-only stand-ins, which nothing installs."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.errors import (
    UPGRADE,
    BnbenvError,
    DataError,
    EnvironmentProblem,
    ExternalError,
    UnsolvableError,
    UsageError,
)
from bnbenv.install.uv import Ran
from bnbenv.judge.evidence import evidence
from bnbenv.lockfile import index as team_index
from bnbenv.lockfile import pylock
from bnbenv.machine.document import target_from_dict, target_to_dict
from bnbenv.machine.host import Host
from bnbenv.matrix.load import load
from bnbenv.matrix.matrix import PARTS, Matrix
from bnbenv.workflows.bundle import BundleRequest, bundle
from bnbenv.workflows.check_lock import check_lock
from bnbenv.workflows.choose import JUDGED
from bnbenv.workflows.export_lock import export_lock
from bnbenv.workflows.fleet import Given, stack_of
from bnbenv.workflows.lock import Locked, LockRequest, lock
from bnbenv.workflows.sync import SyncRequest, sync
from support.index_server import IndexServer
from support.schemas import validate
from support.stand_ins import write_stand_ins
from support.voice import Listener
from support.wheels import write_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bnbenv.machine.target import Target

PYTHON = "3.12"
LINUX = {"schema": 1, "os": "linux", "arch": "x86_64", "libc": {"family": "glibc", "version": "2.35"}}


def machine(name: str, card: str | None = None, driver: str = "580.95.05", **more: Any) -> Target:
    gpus = [{"name": f"a GPU of {card}", "compute_capability": card}] if card else []
    facts = {"accelerator": "cuda" if card else "cpu", "driver": driver if card else None, "gpus": gpus}
    return target_from_dict({**LINUX, "name": name, "pythons": [PYTHON], **facts, **more})


WINDOWS = {"os": "windows", "libc": None}
TEAM = (
    machine("desk", "8.9", "550.54.15"),
    machine("volta-1", "7.0", "535.161.08"),
    machine("volta-2", "7.0", "535.161.08"),
    machine("node", "9.0"),
    machine("laptop", "8.6", "581.29", **WINDOWS),
    machine("ci"),
)


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_stand_ins(
        tmp_path_factory.mktemp("stand-ins"), load(*JUDGED), pythons=[PYTHON], torch=["2.14.1", "2.15.0"]
    )


@pytest.fixture
def mirrors(
    stand_ins: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with IndexServer() as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.add("pypi", stand_ins["pypi"]))
        rows = [row for row in load("indexes").indexes if row.family == "pytorch"]
        yield {row.name: server.add(row.name, stand_ins.get(row.name, tmp_path / "none")) for row in rows}


def given(*targets: Target) -> list[Given]:
    return [Given(target=target, origin=f"`{target.name}.json`") for target in targets]


def locked(directory: Path, mirrors: dict[str, str], *targets: Target, **changes: Any) -> Locked:
    asked, voice = changes.pop("asked", {"profile": "qlora"}), changes.pop("voice", None) or Listener()
    request = LockRequest(
        asked=asked,
        directory=directory,
        targets=given(*targets),
        today=changes.pop("today", "2026-11-23"),
        mirrors=mirrors,
        cwd=directory,
        **changes,
    )
    return lock(request, voice, os.environ)


def serving(found: Locked) -> dict[str, str | None]:
    return {name: entry.variant for entry in found.lock.classes for name in entry.machines}


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()}


def test_a_team_gets_the_fewest_files(mirrors: dict[str, str], tmp_path: Path) -> None:
    found = locked(tmp_path, mirrors, *TEAM)
    assert serving(found) == {
        "desk": "cu126",
        "volta-1": "cu126",
        "volta-2": "cu126",
        "node": "cu126",
        "laptop": "cu132-windows",
        "ci": "cpu",
    }
    assert {variant.torch["version"] for variant in found.lock.variants} == {"2.14.1"}
    assert set(contents(tmp_path)) >= {"bnbenv.lock", "pylock.cu126.toml", "pylock.cpu.toml"}
    for variant in found.lock.variants:
        read = pylock.read(tmp_path / variant.file)
        assert all(artefact.sha256 for package in read.packages for artefact in package.artefacts)
        assert all(package.index for package in read.packages)
        assert b"127.0.0.1" not in (tmp_path / variant.file).read_bytes()
        [torch] = read.find("torch")
        assert torch.index == next(
            row.url for row in load("indexes").indexes if row.name == variant.torch["index"]
        )


def test_the_same_inputs_give_the_same_bytes(mirrors: dict[str, str], tmp_path: Path) -> None:
    locked(tmp_path / "a", mirrors, *TEAM)
    locked(tmp_path / "b", mirrors, *reversed(TEAM))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_locking_again_changes_nothing(mirrors: dict[str, str], tmp_path: Path) -> None:
    locked(tmp_path, mirrors, *TEAM)
    before = contents(tmp_path)
    again = locked(tmp_path, mirrors, *TEAM, today="2027-01-01", asked={})
    assert not again.changed
    assert again.changes == ()
    assert contents(tmp_path) == before


def test_line_ends_of_a_checkout_are_no_change(mirrors: dict[str, str], tmp_path: Path) -> None:
    locked(tmp_path, mirrors, *TEAM[:1])
    for name, content in contents(tmp_path).items():
        (tmp_path / name).write_bytes(content.replace(b"\n", b"\r\n"))
    before = contents(tmp_path)
    for write in (False, True):
        again = locked(tmp_path, mirrors, asked={}, write=write)
        assert (again.changed, again.changes) == (False, ())
    assert contents(tmp_path) == before


def test_a_machine_that_is_away_keeps_its_facts_with_their_day(
    mirrors: dict[str, str], tmp_path: Path
) -> None:
    locked(tmp_path, mirrors, *TEAM)
    later = locked(tmp_path, mirrors, *TEAM[:1], today="2027-01-01", asked={})
    assert serving(later).keys() == {"desk", "volta-1", "volta-2", "node", "laptop", "ci"}
    assert {entry.seen for entry in later.lock.classes} == {"2026-11-23"}
    gone = locked(tmp_path, mirrors, forget=("node", "laptop"), asked={})
    assert "node" not in serving(gone)
    assert not (tmp_path / "pylock.cu132-windows.toml").exists()
    assert any("no longer in the lock" in line for line in gone.changes)


def test_a_gpu_that_is_lost_moves_nobody_to_the_processor(mirrors: dict[str, str], tmp_path: Path) -> None:
    locked(tmp_path, mirrors, *TEAM)
    later = locked(tmp_path, mirrors, machine("desk"), asked={})
    assert later.lost == ("desk",)
    assert serving(later)["desk"] == "cu126"


def test_a_new_machine_moves_no_other(mirrors: dict[str, str], tmp_path: Path) -> None:
    locked(tmp_path, mirrors, *TEAM)
    before = contents(tmp_path)
    later = locked(tmp_path, mirrors, machine("big", "10.0"), asked={})
    assert serving(later)["big"] == "cu130"
    assert contents(tmp_path)["pylock.cu126.toml"] == before["pylock.cu126.toml"]
    assert any(line.startswith("big: new, gets cu130") for line in later.changes)


def test_a_machine_that_nothing_serves_stops_no_other(mirrors: dict[str, str], tmp_path: Path) -> None:
    found = locked(tmp_path, mirrors, *TEAM, machine("attic", "8.9", "470.82.01"))
    [entry] = [entry for entry in found.lock.classes if entry.variant is None]
    assert entry.machines == ("attic",)
    assert entry.blocking[0] == "driver 470.82.01"
    assert len(found.lock.variants) == 3


def test_diff_writes_nothing_and_says_who_gets_what(mirrors: dict[str, str], tmp_path: Path) -> None:
    locked(tmp_path, mirrors, *TEAM)
    before = contents(tmp_path)
    told = locked(tmp_path, mirrors, machine("desk", "12.0"), write=False, asked={})
    assert told.changed
    assert "desk: from cu126 to cu130" in told.changes
    assert contents(tmp_path) == before


def test_another_request_is_told_by_what_is_other_in_it(mirrors: dict[str, str], tmp_path: Path) -> None:
    first = {"profile": "qlora", "without_index": ("pytorch-cu118",), "torch": "2.14.1"}
    locked(tmp_path, mirrors, TEAM[-1], asked=first)
    again = locked(tmp_path, mirrors, asked={})
    assert (again.changed, again.changes) == (False, ())
    other = locked(tmp_path, mirrors, asked={"profile": "qlora", "torch": "2.14.1"})
    assert other.changes == ("what was asked for changed: without-index",)


def test_versions_stay_until_they_are_let_go(
    mirrors: dict[str, str], tmp_path: Path, stand_ins: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pypi = tmp_path / "pypi"
    shutil.copytree(stand_ins["pypi"], pypi)
    with IndexServer() as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.add("pypi", pypi))
        locked(tmp_path / "team", mirrors, *TEAM[:3])
        write_wheel(pypi, "peft", "0.21.9")
        write_wheel(pypi, "accelerate", "1.16.0")
        monkeypatch.setenv("UV_NO_CACHE", "1")
        assert not locked(tmp_path / "team", mirrors, asked={}).changed
        one = locked(tmp_path / "team", mirrors, upgrade_packages=("peft",), asked={})
        assert [line for line in one.changes if "→" in line] == [
            "cu126 (desk, volta-1, volta-2): peft 0.21.2 → 0.21.9"
        ]
        every = locked(tmp_path / "team", mirrors, upgrade=True, asked={})
        assert any("accelerate 1.15.0 → 1.16.0" in line for line in every.changes)


def test_nothing_newer_than_a_date_is_locked(
    mirrors: dict[str, str], tmp_path: Path, stand_ins: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(stand_ins["pypi"], tmp_path / "pypi")
    write_wheel(tmp_path / "pypi", "peft", "0.21.9")
    uploaded = {path.name: "2026-01-02T00:00:00Z" for path in (tmp_path / "pypi").iterdir()}
    uploaded["peft-0.21.9-py3-none-any.whl"] = "2026-06-01T00:00:00Z"
    with IndexServer() as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.add("pypi", tmp_path / "pypi", uploaded=uploaded))
        for day, version in (("2026-03-01", "0.21.2"), ("2026-07-01", "0.21.9")):
            asked = {"profile": "qlora", "exclude_newer": day}
            found = locked(tmp_path / day, mirrors, TEAM[-1], asked=asked)
            [peft] = pylock.read(tmp_path / day / "pylock.cpu.toml").find("peft")
            assert peft.version == version
            assert found.lock.request["exclude_newer"] == day


def test_repacking_ignores_what_the_present_lock_assigns(mirrors: dict[str, str], tmp_path: Path) -> None:
    locked(tmp_path, mirrors, machine("big", "10.0"))
    joined = locked(tmp_path, mirrors, TEAM[0], asked={}, forget=("big",))
    kept = serving(joined)["desk"]
    found = locked(tmp_path, mirrors, asked={}, repack=True)
    alone = locked(tmp_path / "alone", mirrors, TEAM[0])
    assert serving(found) == serving(alone)
    assert found.lock.variant(str(serving(found)["desk"])).torch["build"] == "cu126"
    assert kept is not None


def test_a_request_that_takes_their_stack_from_machines_writes_nothing(
    mirrors: dict[str, str], tmp_path: Path
) -> None:
    names = set(serving(locked(tmp_path, mirrors, *TEAM)))
    old = {"desk", "volta-1", "volta-2"}
    before = contents(tmp_path)
    for asked, losing in (
        ({"torch": "2.51"}, names),
        ({"torch": "2.15.0"}, old),
    ):
        for write in (True, False):
            with pytest.raises(UnsolvableError) as caught:
                locked(tmp_path, mirrors, asked=asked, write=write)
            assert caught.value.data is not None
            told = caught.value.data["unserved"]
            assert {name for entry in told for name in entry["machines"]} == losing
            assert all(entry["blocking"] for entry in told)
            assert all(name in caught.value.message for name in losing)
        assert contents(tmp_path) == before
    # As the hint says, it is done all the same.
    found = locked(tmp_path, mirrors, asked={"torch": "2.15.0"}, forget=tuple(old))
    assert serving(found).keys() == names - old
    found = locked(tmp_path, mirrors, asked={"torch": "2.51"}, repack=True)
    assert set(serving(found).values()) == {None}


def test_machines_whose_facts_change_stop_no_other(mirrors: dict[str, str], tmp_path: Path) -> None:
    locked(tmp_path, mirrors, *TEAM)
    found = locked(tmp_path, mirrors, machine("desk", "8.9", "470.82.01"), asked={})
    assert serving(found)["desk"] is None
    assert serving(found)["node"] == "cu126"


def test_an_older_matrix_downgrades_nobody_in_silence(
    mirrors: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bnbenv.matrix import load as loading

    asked = {"profile": "qlora", "torch": ">=2.14.1"}
    locked(tmp_path, mirrors, TEAM[-1], asked=asked)
    before, matrix = contents(tmp_path), load(*JUDGED)
    assert {variant.torch["version"] for variant in team_index.read(tmp_path).variants} == {"2.15.0"}
    parts = {part: getattr(matrix, part) for part in PARTS if hasattr(matrix, part)}
    builds = tuple(row for row in matrix.torch if row.version != "2.15.0")
    older = Matrix(revision="2026.01.01", **{**parts, "torch": builds})
    monkeypatch.setattr(loading, "load", lambda *_, **__: older)
    for changes in ({"today": "2026-11-24"}, {"upgrade": True}, {"asked": {**asked, "python": PYTHON}}):
        with pytest.raises(DataError, match=r"torch 2\.15\.0 .*, which the matrix 2026\.01\.01") as caught:
            locked(tmp_path, mirrors, TEAM[0], **{"asked": {}, **changes})
        assert (caught.value.hint or "").endswith(f"or bnbenv lock --repack --dir {tmp_path}")
    assert contents(tmp_path) == before
    found = locked(tmp_path, mirrors, asked={}, repack=True)
    assert {variant.torch["version"] for variant in found.lock.variants} == {"2.14.1"}


def test_an_older_matrix_takes_nothing_back_from_a_newer_one(
    mirrors: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bnbenv.matrix import load as loading

    locked(tmp_path, mirrors, TEAM[-1])
    before, matrix = contents(tmp_path), load(*JUDGED)
    parts = {part: getattr(matrix, part) for part in PARTS if hasattr(matrix, part)}
    older = Matrix(revision="2026.01.01+2027.01.01", **parts)
    monkeypatch.setattr(loading, "load", lambda *_, **__: older)
    for changes in ({}, {"upgrade": True}, {"write": False}, {"asked": {"profile": "inference"}}):
        with pytest.raises(DataError, match=r"2026\.01\.01\+2027\.01\.01") as caught:
            locked(tmp_path, mirrors, TEAM[0], **{"asked": {}, **changes})
        hint = caught.value.hint or ""
        assert hint.startswith(UPGRADE)
        assert hint.endswith(f"bnbenv lock --repack --dir {tmp_path}")
    assert contents(tmp_path) == before
    [found] = [
        it
        for it in check_lock(
            tmp_path, Listener(), os.environ, mirrors=mirrors, offline=True, cwd=tmp_path
        ).findings
        if it.subject == "matrix"
    ]
    assert (found.severity, found.code) == ("warning", "lock-stale")
    assert locked(tmp_path, mirrors, asked={}, repack=True).lock.matrix == older.revision


def test_a_lock_of_a_later_standard_is_left_to_a_newer_bnbenv(
    mirrors: dict[str, str], tmp_path: Path
) -> None:
    locked(tmp_path, mirrors, TEAM[-1])
    [variant] = team_index.read(tmp_path).variants
    path = tmp_path / variant.file
    later = path.read_text(encoding="utf-8").replace('lock-version = "1.0"', 'lock-version = "2.0"')
    path.write_text(later, encoding="utf-8")
    index = tmp_path / team_index.NAME
    named = index.read_text(encoding="utf-8").replace(variant.sha256, team_index.sha256_of(later))
    index.write_text(named, encoding="utf-8")
    before = contents(tmp_path)
    with pytest.raises(DataError, match=r"2\.0 is not supported") as caught:
        locked(tmp_path, mirrors, asked={})
    assert caught.value.hint == UPGRADE
    assert contents(tmp_path) == before
    assert locked(tmp_path, mirrors, asked={}, repack=True).changed


def test_an_index_that_does_not_answer_changes_no_torch_in_silence(
    mirrors: dict[str, str], tmp_path: Path
) -> None:
    with IndexServer() as server:
        broken = server.add("late", tmp_path / "none", mode="broken")
        late = {**mirrors, "pytorch-cu126": broken}
        with pytest.raises(ExternalError, match="pytorch-cu126") as caught:
            locked(tmp_path / "a", late, *TEAM[:1])
        assert caught.value.code == "index-unreachable"
        assert not (tmp_path / "a").exists()
        assert "--without-index pytorch-cu126" in (caught.value.hint or "")
        excluded = {"profile": "qlora", "without_index": ("pytorch-cu126",)}
        assert serving(locked(tmp_path / "b", late, *TEAM[:1], asked=excluded))["desk"] != "cu126"
        # An index whose torch would not be taken anyway.
        assert locked(tmp_path / "c", {**mirrors, "pytorch-cu132": broken}, *TEAM[:1]).lock.variants
        # A lock that is there, all of whose machines stay where they are.
        unneeded = {**mirrors, "pytorch-cu132": broken}
        assert not locked(tmp_path / "c", unneeded, asked={}).changed


class Watcher(Listener):
    """Counts uv's resolutions, and tells when one has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.resolved = 0
        self.ended = threading.Event()

    def ran(self, ran: object) -> None:
        assert isinstance(ran, Ran)
        self.resolved += "compile" in ran.arguments
        self.ended.set()


def test_uv_resolves_while_the_indexes_are_asked_and_only_once(
    mirrors: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bnbenv.workflows import lock as module
    from bnbenv.workflows.lock_offers import ask_for

    watcher = Watcher()

    def late(*arguments: Any) -> Any:
        assert watcher.ended.wait(60), "uv was not started before the indexes had answered"
        return ask_for(*arguments)

    monkeypatch.setattr(module, "ask_for", late)
    request = LockRequest(
        asked={"profile": "qlora", "torch": "2.14.1"},
        directory=tmp_path / "team",
        targets=given(TEAM[0], TEAM[-1]),
        today="2026-11-23",
        mirrors=mirrors,
        cwd=tmp_path,
    )
    found = lock(request, watcher, os.environ)
    assert serving(found) == {"desk": "cu126", "ci": "cpu"}
    assert watcher.resolved == 2


def test_what_was_foreseen_wrongly_is_thrown_away(
    mirrors: dict[str, str], tmp_path: Path, stand_ins: dict[str, Path]
) -> None:
    shutil.copytree(stand_ins["pytorch-cpu"], tmp_path / "fewer")
    for wheel in (tmp_path / "fewer").glob("torch-2.15.0*"):
        wheel.unlink()
    asked = {"profile": "qlora", "torch": ">=2.14.1"}
    listener = Listener()
    with IndexServer() as server:
        fewer = {**mirrors, "pytorch-cpu": server.add("fewer", tmp_path / "fewer")}
        full = locked(tmp_path / "full", mirrors, TEAM[-1], asked=asked)
        found = locked(tmp_path / "found", fewer, TEAM[-1], asked=asked, voice=listener)
    assert listener.heard.count("locking every package with its hash") == 1
    assert full.lock.variant("cpu").torch["version"] == "2.15.0"
    assert found.lock.variant("cpu").torch["version"] == "2.14.1"


def test_an_index_that_has_just_answered_is_not_asked_again(
    mirrors: dict[str, str], tmp_path: Path, stand_ins: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"profile": "qlora", "torch": "2.14.1"}
    with IndexServer() as server:
        counted = {**mirrors, "pytorch-cpu": server.add("counted", stand_ins["pytorch-cpu"])}
        first = locked(tmp_path / "a", counted, TEAM[-1], asked=asked)
        before = len(server.asked("counted"))
        assert "torch" in server.asked("counted")
        again = locked(tmp_path / "b", counted, TEAM[-1], asked=asked)
        assert len(server.asked("counted")) == before  # nor does uv, whose page is as fresh
        assert again.files == first.files
        # One that is out of order since then is found out by uv, and asked to say so.
        server.indexes["counted"].mode = "broken"
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
        with pytest.raises(ExternalError, match="pytorch-cpu") as caught:
            locked(tmp_path / "c", counted, TEAM[-1], asked=asked)
        assert caught.value.code == "index-unreachable"


def test_a_hasty_failure_is_tried_again_with_patience(
    mirrors: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bnbenv.workflows import lock as module

    monkeypatch.setattr(
        module, "hasty", lambda environ: {**environ, "NO_PROXY": "", "HTTP_PROXY": "http://127.0.0.1:9"}
    )
    assert serving(locked(tmp_path, mirrors, TEAM[-1], asked={"profile": "qlora", "torch": "2.14.1"})) == {
        "ci": "cpu"
    }


@pytest.mark.parametrize("tag", ["py3-none-manylinux_2_28_x86_64", "py3-none-win_amd64"])
def test_the_variants_have_the_same_versions_where_one_fits_all(
    tag: str,
    mirrors: dict[str, str],
    tmp_path: Path,
    stand_ins: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(stand_ins["pypi"], tmp_path / "pypi")
    write_wheel(tmp_path / "pypi", "safetensors", "0.9.0", tag=tag)
    with IndexServer() as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.add("pypi", tmp_path / "pypi"))
        found = locked(tmp_path / "team", mirrors, *TEAM)
        versions = {
            pylock.read(tmp_path / "team" / variant.file).find("safetensors")[0].version
            for variant in found.lock.variants
        }
        assert versions == {"0.8.0"}
        assert not locked(tmp_path / "team", mirrors, asked={}).changed


def test_a_variant_that_uv_cannot_lock_stops_no_other(
    mirrors: dict[str, str], tmp_path: Path, stand_ins: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(stand_ins["pypi"], tmp_path / "pypi")
    write_wheel(tmp_path / "pypi", "inhouse", "1", tag="py3-none-manylinux_2_28_x86_64")
    with IndexServer() as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.add("pypi", tmp_path / "pypi"))
        asked = {"profile": "qlora", "packages": ("inhouse",)}
        found = locked(tmp_path / "t", mirrors, *TEAM, asked=asked)
        assert serving(found)["laptop"] is None
        assert serving(found)["desk"] == "cu126"
        [entry] = [entry for entry in found.lock.classes if entry.variant is None]
        assert any("inhouse" in line for line in entry.blocking)
        assert team_index.read(tmp_path / "t").variants  # uv's words have several lines, and none gets in
        assert not list((tmp_path / "t").glob("*windows*"))
        with pytest.raises(ExternalError, match="inhouse"):
            locked(tmp_path / "u", mirrors, TEAM[4], asked=asked)


def test_the_evidence_is_the_judges(
    mirrors: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = locked(tmp_path / "a", mirrors, *TEAM)
    by_name = {variant.name: variant for variant in found.lock.variants}
    cpu = by_name["cpu"]
    assert cpu.bitsandbytes is not None
    [ci] = [entry for entry in found.lock.classes if "ci" in entry.machines]
    matrix = load(*JUDGED)
    target = target_from_dict({"schema": 1, **ci.facts})
    assert cpu.evidence == evidence(stack_of(cpu, "qlora", matrix), target, matrix)
    assert by_name["cu126"].evidence == "none"
    # As if this very stack had been seen to work with one of the two GPUs, then with both.
    from bnbenv.matrix import load as loading

    cu126 = by_name["cu126"]
    row = matrix.verified[0]._replace(torch=cu126.torch["version"], build="cu126", accelerator="cuda",
        bitsandbytes=(cu126.bitsandbytes or {})["version"], capability="8.9",
    )  # fmt: skip
    for seen, word in ((("8.9",), "none"), (("8.9", "7.0", "9.0"), "verified")):
        rows = tuple(row._replace(capability=capability) for capability in seen)
        parts = {part: getattr(matrix, part) for part in PARTS if hasattr(matrix, part)}
        shown = Matrix(revision=matrix.revision, **{**parts, "verified": rows})
        monkeypatch.setattr(loading, "load", lambda *_, shown=shown, **__: shown)
        again = locked(tmp_path / "-".join(seen), mirrors, *TEAM[:4])
        assert [variant.evidence for variant in again.lock.variants] == [word]


def test_every_answer_keeps_to_its_schema(
    mirrors: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bnbenv.cli.main import main

    def ask(*words: str, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*words, "--json"]) == code
        document = json.loads(capsys.readouterr().out)
        validate(document)
        return document["data"]  # type: ignore[no-any-return]

    for name, url in mirrors.items():
        assert main(["config", "set", name, url]) == 0
    team = str(tmp_path / "team")
    gpu = ("--gpu", "8.9", "--driver", "550.54.15", "--os", "linux", "--arch", "x86_64", "--glibc", "2.35")
    made = ask("lock", "qlora", "--dir", team, "--python", PYTHON, *gpu)
    assert made["written"]
    assert [variant["name"] for variant in made["variants"]] == ["cu126"]
    assert not ask("lock", "--dir", team)["changed"]
    told = ask("lock", "--dir", team, "--diff", "--python", PYTHON, "--gpu", "7.0", *gpu[2:])
    assert not told["written"]
    assert told["changes"]
    old = ("--driver", "470.82.01", *gpu[4:])
    assert ask("lock", "--dir", team, "--diff", "--gpu", "8.9", *old, code=3)["unserved"]
    # The stand-ins of bitsandbytes are not the wheels that were judged.
    findings = ask("lock", "--dir", team, "--check", code=1)["findings"]
    assert {found["code"] for found in findings if found["severity"] == "error"} == {"lock-disagrees"}
    assert ask("lock", "--dir", team, "--export", "dockerfile", "--variant", "cu126")["text"]
    assert ask("bundle", team, "-o", str(tmp_path / "b"), "--dry-run")["bytes"] is None
    assert ask("bundle", team, "-o", str(tmp_path / "b"))["fetched"] > 5
    assert ask("lock", "--dir", str(tmp_path / "none"), "--check", code=4) is not None


@pytest.fixture
def typed(
    mirrors: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str, str]]:
    """Type a line in a directory that holds target files with a blank in their names."""
    from bnbenv.cli.main import main

    for name, url in mirrors.items():
        assert main(["config", "set", name, url]) == 0
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for target in (machine("attic", "8.9", "470.82.01"), machine("ci")):
        document = json.dumps(target_to_dict(target))
        (here / f"the {target.name}.json").write_text(document)

    def ask(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(words)
        told = capsys.readouterr()
        hints = [line for line in told.err.splitlines() if line.startswith("next: ")]
        return code, told.out, hints[0].removeprefix("next: ") if hints else ""

    return ask


def test_a_line_to_type_next_is_whole(
    typed: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(tmp_path / "house", "inhouse", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "house"))
    code, told, hint = typed("lock", "qlora", "--dir", "my locks", "--target", "the attic.json")
    assert (code, hint) == (3, "bnbenv resolve qlora --target 'the attic.json' (what it would need)")
    assert told.splitlines()[-1] == "nothing was written: it would serve no machine"
    assert not (tmp_path / "here" / "my locks").exists()
    assert typed(*shlex.split(hint.partition(" (")[0])[1:])[0] == 3
    assert typed("lock", "--dir", "my locks", "--target", "the ci.json")[0] == 0
    code, told, _ = typed("lock", "--dir", "my locks", "--target", "the attic.json", "--forget", "ci")
    assert (code, told.splitlines()[-1]) == (3, f"written to {tmp_path}/here/my locks: it serves no machine")
    code, told, hint = typed("lock", "--dir", "my locks")
    assert (code, hint) == (3, "bnbenv resolve qlora, on that machine (what it would need)")
    lock_it = ("lock", "--with", "inhouse", "--target", "the ci.json", "--allow-local")
    code, told, _ = typed(*lock_it, "--dir", "my locks")
    assert told.splitlines()[-1].endswith("then `bnbenv sync 'my locks' --allow-local`")
    code, told, _ = typed("bundle", "my locks", "-o", "my usb", "--allow-local")
    usb = f"'{tmp_path}/here/my usb'"
    assert told.splitlines()[-1] == f"  bnbenv sync {usb} --wheelhouse {usb} --allow-local"


def test_the_nearest_lock_above_is_meant_where_none_is_named(
    typed: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    team, below = tmp_path / "here", tmp_path / "here" / "src"
    below.mkdir()
    typed("lock", "qlora", "--target", "the ci.json")
    (team / ".git").mkdir()
    monkeypatch.chdir(below)
    before = contents(team)
    assert typed("lock")[1].splitlines()[-1] == "nothing changed"
    code, told, _ = typed("lock", "--with", "pip")
    assert (code, told.splitlines()[-1].partition(": ")[0]) == (0, f"written to {team}")
    assert told.splitlines()[-1].endswith("then `bnbenv sync ..`")
    assert contents(team).keys() == before.keys()
    assert contents(team) != before
    assert typed("lock", "--check", "--offline")[1]
    assert typed("bundle", "-o", "usb", "--dry-run")[0] == 0
    assert typed("sync", "--dry-run")[2] == typed("sync", "..", "--dry-run")[2]
    code, told, _ = typed("lock", "qlora", "--target", "../the ci.json")  # another one, for what is here
    assert (code, told.splitlines()[-1].partition(": ")[0]) == (0, f"written to {below}")


def test_a_line_to_type_without_a_silent_index_is_the_whole_line(
    typed: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    with IndexServer() as server:
        typed("config", "set", "pytorch-cpu", server.add("late", tmp_path / "none", mode="broken"))
        line = ("lock", "inference", "--dir", "my locks", "--target", "the ci.json")
        code, _, hint = typed(*line)
    assert code == 5
    command = f"bnbenv {shlex.join(line)} --without-index pytorch-cpu"
    assert hint == f"try again later; or lock without it: {command}"


def test_where_an_index_is_silent_what_this_machine_has_comes_first(
    typed: Callable[..., tuple[int, str, str]],
    stand_ins: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(stand_ins["pytorch-cpu"]))
    with IndexServer() as server:
        typed("config", "set", "pytorch-cpu", server.add("late", tmp_path / "none", mode="broken"))
        code, _, hint = typed("lock", "inference", "--cpu", "--target", "the ci.json")
        assert code == 5
        first, _, rest = hint.partition("; or ")
        assert rest.startswith("try again later; or lock without it: ")
        assert typed(*shlex.split(first.partition(": bnbenv ")[2]))[0] == 0


def changed(path: Path) -> None:
    path.write_text(path.read_text().replace('version = "0.21.2"', 'version = "0.9.9"'))


def broken(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\r\n"))


def deleted(path: Path) -> None:
    path.unlink()


def not_utf8(path: Path) -> None:
    path.write_bytes(b"\xff" + path.read_bytes())


def no_lock_with_its_hash(path: Path) -> None:
    """Whoever wrote it wrote the index too."""
    index = path.parent / "bnbenv.lock"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_text(path.read_text().replace('lock-version = "1.0"', 'lock-version = "one"'))
    index.write_text(index.read_text().replace(before, hashlib.sha256(path.read_bytes()).hexdigest()))


@pytest.mark.parametrize("hurt", [changed, broken, deleted, not_utf8, no_lock_with_its_hash])
def test_a_lock_that_was_changed_is_made_anew_by_lock_alone(
    hurt: Callable[[Path], None], mirrors: dict[str, str], tmp_path: Path
) -> None:
    locked(tmp_path, mirrors, *TEAM)
    before = contents(tmp_path)
    hurt(tmp_path / "pylock.cu126.toml")
    with pytest.raises(DataError):
        checked(tmp_path, mirrors, offline=True)
    told = locked(tmp_path, mirrors, asked={}, write=False)
    assert told.changed
    found = locked(tmp_path, mirrors, asked={})
    assert found.changes == told.changes
    [line] = found.changes
    assert line.startswith("pylock.cu126.toml is made anew: ")
    assert contents(tmp_path) == before
    assert not locked(tmp_path, mirrors, asked={}).changed


def test_the_versions_of_a_lock_that_was_changed_are_kept_where_they_fit(
    mirrors: dict[str, str], tmp_path: Path, stand_ins: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(stand_ins["pypi"], tmp_path / "pypi")
    write_wheel(tmp_path / "pypi", "inhouse", "1")
    write_wheel(tmp_path / "pypi", "inhouse", "2")
    with IndexServer() as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.add("pypi", tmp_path / "pypi"))
        team, other = tmp_path / "team", tmp_path / "other"
        for directory, line in ((team, "inhouse"), (other, "inhouse<2")):
            locked(directory, mirrors, TEAM[0], asked={"profile": "qlora", "packages": (line,)})
        mine = team / "pylock.cu126.toml"
        edited = mine.read_text().replace('"inhouse"\nversion = "2"', '"inhouse"\nversion = "1"')
        assert edited != mine.read_text()
        mine.write_text(edited)  # by hand, and so that the file is no lock any more
        found = locked(team, mirrors, asked={}, write=False)
        assert [it.version for it in pylock.parse(found.files[mine.name]).find("inhouse")] == ["1"]
        marks = edited.replace('version = "1"\n', '<<<<<<< HEAD\nversion = "1"\n=======\n=\n>>>>>>> other\n')
        mine.write_text(marks)
        found = locked(team, mirrors, asked={}, write=False)
        assert [it.version for it in pylock.parse(found.files[mine.name]).find("inhouse")] == ["1"]
        taken = other / "pylock.cu126.toml"  # as git does, of the other side of a merge
        for changes, version in (
            ({}, "1"),
            ({"asked": {"packages": ("inhouse>1",)}}, "2"),
            ({"upgrade": True}, "2"),
            ({"repack": True}, "1"),
        ):
            shutil.copy(taken, team)
            found = locked(team, mirrors, **{"asked": {}, "write": False, **changes})
            made = pylock.parse(found.files["pylock.cu126.toml"])
            assert [it.version for it in made.find("inhouse")] == [version], changes
            told = "with the versions that it holds" in found.changes[0]
            assert told == ("upgrade" not in changes)
        (team / "bnbenv.lock").unlink()
        found = locked(team, mirrors, TEAM[0], asked={"packages": ("inhouse",)}, repack=True)
        assert [it.version for it in pylock.parse(found.files["pylock.cu126.toml"]).find("inhouse")] == ["1"]


def test_of_a_lock_that_was_changed_nothing_but_versions_is_taken(
    mirrors: dict[str, str], tmp_path: Path
) -> None:
    locked(tmp_path, mirrors, *TEAM[:1])
    before = contents(tmp_path)
    path = tmp_path / "pylock.cu126.toml"
    path.write_text(path.read_text().replace('url = "', 'url = "https://elsewhere.invalid/'))
    found = locked(tmp_path, mirrors, asked={})
    assert found.changes[0].startswith("pylock.cu126.toml is made anew: ")
    assert contents(tmp_path) == before


@pytest.fixture
def shared(mirrors: dict[str, str], tmp_path: Path) -> tuple[Path, Path]:
    """A directory whose locks are links to files of another one."""
    team, there = tmp_path / "team", tmp_path / "configuration"
    locked(there, mirrors, *TEAM[:1])
    team.mkdir()
    for name in contents(there):
        (team / name).symlink_to(f"../configuration/{name}")
    return team, there


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_lock_is_written_where_links_lead(shared: tuple[Path, Path], mirrors: dict[str, str]) -> None:
    team, there = shared
    before = contents(there)
    assert not locked(team, mirrors, asked={}).linked
    found = locked(team, mirrors, asked={"packages": ("pip",)})
    assert found.linked == {name: there / name for name in before}
    assert all((team / name).is_symlink() for name in before)
    assert contents(there) == contents(team)
    assert all(contents(there)[name] != before[name] for name in before)
    for name in before:  # a link may be there first
        (there / name).unlink()
    locked(team, mirrors, *TEAM[:1])
    assert contents(there) == before
    bundle(BundleRequest(directory=there, output=team, mirrors=mirrors), Listener(), os.environ)
    assert all((team / name).is_symlink() for name in before)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
@pytest.mark.parametrize(
    ("to", "error", "told"),
    [
        ("../.bashrc", UsageError, "not called as a lock is"),
        ("pylock.cu126.toml", ExternalError, "levels of symbolic links"),
        ("../nowhere/pylock.cu126.toml", ExternalError, "nowhere"),
    ],
)
def test_a_link_that_leads_to_no_place_for_a_lock_is_told_and_nothing_is_written(
    to: str, error: type[BnbenvError], told: str, mirrors: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / ".bashrc").write_text("mine")
    team = tmp_path / "team"
    team.mkdir()
    (team / "pylock.cu126.toml").symlink_to(to)
    with pytest.raises(error, match=told):
        locked(team, mirrors, *TEAM)
    assert [path.name for path in team.iterdir()] == ["pylock.cu126.toml"]
    assert (tmp_path / ".bashrc").read_text() == "mine"


def test_locks_whose_index_could_not_be_written_are_made_anew(
    mirrors: dict[str, str], tmp_path: Path
) -> None:
    locked(tmp_path, mirrors, *TEAM)
    index = (tmp_path / "bnbenv.lock").read_bytes()
    locked(tmp_path, mirrors, asked={"packages": ("pip",)})
    (tmp_path / "bnbenv.lock").write_bytes(index)
    found = locked(tmp_path, mirrors, asked={})
    assert len(found.changes) == len(found.lock.variants)
    assert all("is made anew" in line for line in found.changes)
    assert not locked(tmp_path, mirrors, asked={}).changed


def test_an_index_that_cannot_be_read_is_made_from_nothing_on_request(
    mirrors: dict[str, str], tmp_path: Path
) -> None:
    locked(tmp_path, mirrors, *TEAM[:1])
    before = contents(tmp_path)
    index = tmp_path / "bnbenv.lock"
    index.write_text(index.read_text() + "=\n")
    for targets, changes in (
        (TEAM[:1], {}),
        ((), {"repack": True}),  # it may be a whole team's
        ((), {"repack": True, "this_machine": True}),
    ):
        with pytest.raises(DataError, match="it is not TOML"):
            locked(tmp_path, mirrors, *targets, **changes)
    found = locked(tmp_path, mirrors, *TEAM[:1], repack=True)
    assert found.changes[0].startswith("bnbenv.lock is made anew: ")
    assert contents(tmp_path) == before


def test_a_request_that_cannot_be_read_is_replaced_by_a_whole_one(
    mirrors: dict[str, str], tmp_path: Path
) -> None:
    locked(tmp_path, mirrors, *TEAM[:1])
    before = contents(tmp_path)
    team_index.write(tmp_path, replace(team_index.read(tmp_path), request={"profile": "qlora", "torch": 3}))
    with pytest.raises(DataError, match="its request cannot be read") as caught:
        locked(tmp_path, mirrors, asked={})
    assert caught.value.hint == f"bnbenv lock PROFILE --dir {tmp_path}"
    locked(tmp_path, mirrors)
    assert contents(tmp_path) == before


def test_a_login_node_is_told_the_options_of_lock(
    mirrors: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = Host(target=machine("login"), driver_state="absent", facts=(), slurm="login")
    monkeypatch.setattr("bnbenv.machine.probe.probe", lambda **_: login)
    with pytest.raises(UnsolvableError, match="outside a job") as caught:
        locked(tmp_path / "new", mirrors, command="bnbenv lock --torch 2.13.0")
    assert (caught.value.hint or "").startswith("bnbenv lock --torch 2.13.0 --gpu ")
    assert (caught.value.hint or "").endswith("or --cpu")
    locked(tmp_path / "old", mirrors, machine("ci"))
    with pytest.raises(UnsolvableError, match="outside a job") as caught:
        locked(tmp_path / "old", mirrors, this_machine=True, command="bnbenv lock --add-this-machine")
    assert (caught.value.hint or "").startswith(f"bnbenv lock --dir {tmp_path / 'old'} --gpu ")
    assert "--cpu" not in (caught.value.hint or "")


def test_adding_a_machine_needs_a_lock(mirrors: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem):
        locked(tmp_path, mirrors, this_machine=True, asked={})


def test_a_package_on_two_indexes_is_refused(
    mirrors: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(tmp_path / "own", "peft", "0.21.2", members={"peft/__init__.py": b"evil"})
    with IndexServer() as server:
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", server.add("own", tmp_path / "own"))
        with pytest.raises(DataError, match="`peft` is on two indexes"):
            locked(tmp_path / "team", mirrors, *TEAM[:1])


def test_the_same_file_on_two_indexes_is_no_danger(
    mirrors: dict[str, str], tmp_path: Path, stand_ins: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with IndexServer() as server:
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", server.add("copy", stand_ins["pypi"]))
        assert locked(tmp_path / "team", mirrors, *TEAM[:1]).lock.variants


def test_credentials_never_reach_a_lock_or_the_log(
    mirrors: dict[str, str], tmp_path: Path, stand_ins: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with IndexServer() as server:
        server.add("own", stand_ins["pypi"], credential="me:hunter2")
        monkeypatch.setenv("PIP_INDEX_URL", server.url("own", credential="me:hunter2"))
        told = Listener()
        request = LockRequest(
            asked={"profile": "qlora"}, directory=tmp_path / "t", targets=given(*TEAM[:1]),
            today="2026-11-23", mirrors=mirrors, cwd=tmp_path,
        )  # fmt: skip
        lock(request, told, os.environ)
    assert all(b"hunter2" not in data for data in contents(tmp_path / "t").values())
    assert not any("hunter2" in line for line in told.heard)


def test_files_of_this_machine_are_locked_only_on_request(
    mirrors: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(tmp_path / "house", "inhouse", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "house"))
    asked = {"profile": "qlora", "packages": ("inhouse",)}
    with pytest.raises(BnbenvError, match="inhouse"):
        locked(tmp_path / "a", mirrors, *TEAM[:1], asked=asked)
    found = locked(tmp_path / "b", mirrors, *TEAM[:1], asked=asked, allow_local=True)
    assert [line.partition(":")[0] for line in found.local] == ["inhouse"]
    with pytest.raises(DataError, match="only one machine has"):
        sync(SyncRequest(directory=tmp_path / "b", target=TEAM[0], mirrors=mirrors), Listener(), os.environ)


def test_a_lock_of_a_wheelhouses_torch_is_not_taken_over_unasked(
    mirrors: dict[str, str], tmp_path: Path, stand_ins: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(stand_ins["pytorch-cpu"]))
    asked = {"profile": "qlora", "without_index": ("pytorch", "pypi")}
    locked(tmp_path, mirrors, TEAM[-1], asked=asked, allow_local=True)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="present lock has torch from `wheelhouse-") as caught:
        locked(tmp_path, mirrors, asked=asked)
    assert caught.value.hint
    assert " --allow-local" in caught.value.hint
    assert contents(tmp_path) == before
    locked(tmp_path, mirrors, asked=asked, allow_local=True)


def test_a_lock_with_files_of_this_machine_is_checked_and_exported_on_request(
    mirrors: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(tmp_path / "house", "inhouse", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "house"))
    asked = {"profile": "qlora", "packages": ("inhouse",)}
    team = tmp_path / "team"
    locked(team, mirrors, TEAM[-1], asked=asked, allow_local=True)
    assert " --allow-local" in export_lock(team, "slurm", allow_local=True).text
    for kind in ("dockerfile", "devcontainer"):
        with pytest.raises(UsageError, match="a container has none of the files of this machine"):
            export_lock(team, kind, allow_local=True)
    lines = export_lock(team, "requirements", allow_local=True).text.splitlines()
    assert f"--find-links {(tmp_path / 'house').as_uri()}" in lines
    assert lines[0].startswith("# ONLY THIS MACHINE HAS inhouse: `file://")
    assert checked(team, mirrors, offline=True, allow_local=True) == []
    for refused in (lambda: export_lock(team, "slurm"), lambda: checked(team, mirrors, offline=True)):
        with pytest.raises(DataError, match="only one machine has"):
            refused()


@pytest.mark.parametrize(
    ("words", "named", "hint"),
    [
        ("gptq --check --offline", "`gptq`", "bnbenv lock --check --dir {} --offline"),
        ("--check --forget hopper --with einops", "`--with`, `--forget`", "bnbenv lock --check --dir {}"),
        ("--check --variant cpu", "`--variant`", "bnbenv lock --check --dir {}"),
        (
            "--export slurm --variant cpu --upgrade",
            "`--upgrade`",
            "bnbenv lock --export slurm --variant cpu --dir {}",
        ),
        ("--variant cpu --diff", "`--variant cpu`", "bnbenv lock --dir {} --diff"),
        ("--upgrade-package peft --variant=cpu", "`--variant", "bnbenv lock --dir {} --upgrade-package peft"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(
    words: str, named: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bnbenv.cli.main import main

    assert main(["lock", "--dir", str(tmp_path), *words.split()]) == 2
    told = capsys.readouterr().err
    assert named in told
    [line] = [line for line in told.splitlines() if line.startswith("next: ")]
    assert sorted(line.split()[1:]) == sorted(hint.format(tmp_path).split())


def checked(directory: Path, mirrors: dict[str, str], **more: Any) -> list[tuple[str, str]]:
    options = {"offline": False, **more}
    answer = check_lock(directory, Listener(), os.environ, mirrors=mirrors, cwd=directory, **options)
    # The stand-ins of bitsandbytes are not the wheels that were judged, and `--check` says so.
    return [
        (found.code, found.subject)
        for found in answer.findings
        if found.severity != "info" and found.summary.find("it is not the wheel that was judged") < 0
    ]


def test_check_finds_a_sound_lock_sound(mirrors: dict[str, str], tmp_path: Path) -> None:
    locked(tmp_path, mirrors, *TEAM)
    assert checked(tmp_path, mirrors) == []
    assert checked(tmp_path, mirrors, offline=True) == []


def test_check_tells_wheels_that_were_not_judged(mirrors: dict[str, str], tmp_path: Path) -> None:
    locked(tmp_path, mirrors, *TEAM[:1])
    answer = check_lock(tmp_path, Listener(), os.environ, mirrors=mirrors, offline=True, cwd=tmp_path)
    assert [found.code for found in answer.findings if found.severity == "error"] == ["lock-disagrees"]


def rewritten(directory: Path, old: str, new: str) -> None:
    """Change a lock as somebody would who also mends the index."""
    team = team_index.read(directory)
    [variant] = team.variants
    path = directory / variant.file
    content = path.read_text().replace(old, new)
    assert content != path.read_text()
    path.write_text(content)
    mended = replace(variant, sha256=team_index.sha256_of(content))
    team_index.write(directory, replace(team, variants=(mended,)))


def test_check_finds_a_version_that_was_not_asked_for(mirrors: dict[str, str], tmp_path: Path) -> None:
    locked(tmp_path, mirrors, *TEAM[:1])
    rewritten(tmp_path, "0.21.2", "0.19.0")
    assert ("lock-disagrees", "peft") in checked(tmp_path, mirrors, offline=True)


@pytest.mark.parametrize(
    ("key", "value", "subject"),
    [
        ("python", "3.11", "python"),
        ("torch", "<2.12", "torch"),
        ("bitsandbytes", "0.49.0", "bitsandbytes"),
        ("cuda", "12.6", "cuda"),
        ("cpu", True, "cpu"),
        ("without_index", ["pypi"], "without-index"),
        ("without_index", ["pytorch-cpu"], "without-index"),
        ("packages", ["einops"], "einops"),
        ("requirements", ["peft<0.21 --hash=sha256:00"], "peft"),
        ("constraints", ["trl<1"], "trl"),
        ("constraints", ["numpy<2"], "constraints"),  # the lock has none
        ("exclude_newer", "2026-01-31", "exclude-newer"),
        ("profile", "gptq", "profile"),
    ],
)
def test_check_finds_a_request_that_the_lock_was_not_made_for(
    key: str, value: Any, subject: str, mirrors: dict[str, str], tmp_path: Path
) -> None:
    """As a merge leaves it: the index of one branch, the locks of another."""
    locked(tmp_path, mirrors, TEAM[-1])
    team = team_index.read(tmp_path)
    team_index.write(tmp_path, replace(team, request={**team.request, key: value}))
    errors = [found for found in checked(tmp_path, mirrors, offline=True) if found[0] == "lock-disagrees"]
    assert ("lock-disagrees", subject) in errors
    locked(tmp_path, mirrors, asked={"profile": "qlora"})
    assert checked(tmp_path, mirrors, offline=True) == []


def test_check_finds_another_python_and_a_machine_that_stands_there_twice(
    mirrors: dict[str, str], tmp_path: Path
) -> None:
    locked(tmp_path, mirrors, TEAM[0], TEAM[-1])
    team = team_index.read(tmp_path)
    [first, second] = team.variants
    team_index.write(tmp_path, replace(team, variants=(replace(first, python="3.13"), second)))
    assert checked(tmp_path, mirrors, offline=True) == [("lock-disagrees", "python")]
    both = tuple(replace(entry, machines=(*entry.machines, "new")) for entry in team.classes)
    team_index.write(tmp_path, replace(team, classes=both))
    assert checked(tmp_path, mirrors, offline=True) == [("lock-disagrees", "new")]


def test_check_finds_a_machine_that_the_matrix_objects_to(mirrors: dict[str, str], tmp_path: Path) -> None:
    locked(tmp_path, mirrors, *TEAM[:1])
    team = team_index.read(tmp_path)
    [entry] = team.classes
    older = replace(entry, facts={**entry.facts, "driver": "470.82.01"})
    team_index.write(tmp_path, replace(team, classes=(older,)))
    assert [code for code, _ in checked(tmp_path, mirrors, offline=True)][:1] == ["driver-too-old"]


def test_check_finds_a_release_that_was_withdrawn(
    mirrors: dict[str, str], tmp_path: Path, stand_ins: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    locked(tmp_path / "t", mirrors, *TEAM[:1])
    yanked = {"peft-0.21.2-py3-none-any.whl": "trains nothing"}
    with IndexServer() as server:
        for as_json in (True, False):
            url = server.add("pypi", stand_ins["pypi"], yanked=yanked, as_json=as_json)
            monkeypatch.setenv("PIP_INDEX_URL", url)
            assert ("release-yanked", "peft") in checked(tmp_path / "t", mirrors)
        assert checked(tmp_path / "t", mirrors, offline=True) == []


def test_check_finds_another_file_on_the_index(
    mirrors: dict[str, str], tmp_path: Path, stand_ins: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    locked(tmp_path / "t", mirrors, *TEAM[:1])
    shutil.copytree(stand_ins["pypi"], tmp_path / "pypi")
    write_wheel(tmp_path / "pypi", "peft", "0.21.2", members={"peft/__init__.py": b"evil"})
    with IndexServer() as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.add("pypi", tmp_path / "pypi"))
        with pytest.raises(DataError, match="has another `peft-0"):
            checked(tmp_path / "t", mirrors)


def test_bundle_fetches_what_a_variant_needs_and_nothing_twice(
    mirrors: dict[str, str], tmp_path: Path
) -> None:
    locked(tmp_path / "t", mirrors, *TEAM)
    request = BundleRequest(
        directory=tmp_path / "t",
        output=tmp_path / "b",
        variants=("cu126", "cpu"),
        mirrors=mirrors,
        cwd=tmp_path,
    )
    first = bundle(request, Listener(), os.environ)
    wheels = {path.name for path in (tmp_path / "b" / "wheels").iterdir()}
    assert wheels == set(first.files)
    assert sum(name.startswith("torch-") for name in wheels) == 2
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert set(manifest["variants"]) == {"cu126", "cpu"}
    with pytest.raises(UsageError, match="no variant `typo`; it has `cpu`, "):
        bundle(replace(request, variants=("typo",)), Listener(), os.environ)
    victim = next((tmp_path / "b" / "wheels").glob("peft-*"))
    victim.write_bytes(victim.read_bytes()[:10])
    assert bundle(request, Listener(), os.environ).fetched == 1
    assert bundle(request, Listener(), os.environ).fetched == 0


def test_bundle_keeps_no_file_with_another_hash(
    mirrors: dict[str, str], tmp_path: Path, stand_ins: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    locked(tmp_path / "t", mirrors, *TEAM[:1])
    shutil.copytree(stand_ins["pypi"], tmp_path / "pypi")
    write_wheel(tmp_path / "pypi", "peft", "0.21.2", members={"peft/__init__.py": b"evil"})
    with IndexServer() as server:
        url = server.add("pypi", tmp_path / "pypi", mode="no-hashes")
        monkeypatch.setenv("PIP_INDEX_URL", url)
        request = BundleRequest(
            directory=tmp_path / "t", output=tmp_path / "b", mirrors=mirrors, cwd=tmp_path
        )
        with pytest.raises(DataError, match="is not the file that was locked"):
            bundle(request, Listener(), os.environ)
    assert not list((tmp_path / "b" / "wheels").glob("peft*"))


def test_a_file_that_is_gone_is_told_with_the_whole_line_that_locks_another(
    mirrors: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = write_wheel(tmp_path / "house", "inhouse", "1")
    with IndexServer() as server:
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", server.add("house", tmp_path / "house"))
        asked = {"profile": "qlora", "packages": ("inhouse",)}
        locked(tmp_path / "t", mirrors, machine("ci"), asked=asked)
        wheel.unlink()
        request = BundleRequest(
            directory=tmp_path / "t", output=tmp_path / "b", mirrors=mirrors, cwd=tmp_path
        )
        with pytest.raises(ExternalError, match=r"does not exist \(HTTP 404\)") as caught:
            bundle(request, Listener(), os.environ)
    assert (caught.value.hint or "").startswith(f"bnbenv lock --upgrade --dir {tmp_path / 't'}, or ")


def test_an_index_of_the_users_own_that_refuses_access_is_named_where_nothing_is_left(
    mirrors: dict[str, str], stand_ins: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with IndexServer() as server:
        server.add("own", stand_ins["pytorch-cpu"], credential="me:hunter2")
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", server.url("own", credential="me:wrong"))
        asked = {"profile": "qlora", "without_index": ("pypi", "pytorch")}
        found = locked(tmp_path, mirrors, machine("ci"), asked=asked)
    [entry] = found.lock.classes
    assert entry.variant is None
    assert any("HTTP 401" in line for line in entry.blocking)
    assert not any("wrong" in line for line in entry.blocking)


def test_a_machine_to_forget_has_to_be_there(mirrors: dict[str, str], tmp_path: Path) -> None:
    locked(tmp_path, mirrors, *TEAM)
    with pytest.raises(UsageError, match="has no such machine; it has ci, desk, "):
        locked(tmp_path, mirrors, forget=("nobody",), asked={})


def test_a_fleet_without_a_machine_is_not_this_one(mirrors: dict[str, str], tmp_path: Path) -> None:
    locked(tmp_path, mirrors, TEAM[0])
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="for no machine"):
        locked(tmp_path, mirrors, forget=("desk",), asked={})
    assert contents(tmp_path) == before
    assert serving(locked(tmp_path, mirrors, TEAM[-1], forget=("desk",), asked={})) == {"ci": "cpu"}


def test_a_package_to_upgrade_has_to_be_there(mirrors: dict[str, str], tmp_path: Path) -> None:
    locked(tmp_path, mirrors, *TEAM[:1], upgrade_packages=("peft",))  # a first lock has nothing to upgrade
    assert not locked(tmp_path, mirrors, upgrade_packages=("Peft",), asked={}).changed
    missing = "`--upgrade-package pefft`: no lock there has such a package"
    with pytest.raises(UsageError, match=missing) as caught:
        locked(tmp_path, mirrors, upgrade_packages=("pefft",), asked={})
    assert caught.value.hint == (
        f"bnbenv lock --upgrade --dir {tmp_path}, for all of them; "
        f"to add one: bnbenv lock --with NAME --dir {tmp_path}"
    )
    with pytest.raises(UsageError, match="without a version") as caught:
        locked(tmp_path, mirrors, upgrade_packages=("peft==0.17",), asked={})
    assert caught.value.hint == f"bnbenv lock --with 'NAME==VERSION' --dir {tmp_path}, for a version"


def test_a_request_is_checked_for_the_system_of_each_variant(mirrors: dict[str, str], tmp_path: Path) -> None:
    locked(tmp_path, mirrors, *TEAM)
    team = team_index.read(tmp_path)
    elsewhere = replace(team, request={**team.request, "packages": ["peft>999; sys_platform == 'win32'"]})
    team_index.write(tmp_path, elsewhere)
    windows = {variant.file for variant in team.variants if variant.os == "windows"}
    assert windows
    answer = check_lock(tmp_path, Listener(), os.environ, mirrors=mirrors, offline=True, cwd=tmp_path)
    told = {found.summary.partition(":")[0] for found in answer.findings if found.subject == "peft"}
    assert told == windows


@pytest.mark.parametrize("kind", ["requirements", "dockerfile", "devcontainer", "slurm"])
def test_each_export_names_the_variant(kind: str, mirrors: dict[str, str], tmp_path: Path) -> None:
    locked(tmp_path, mirrors, *TEAM)
    made = export_lock(tmp_path, kind, variant="cu126")
    assert "cu126" in made.text
    with pytest.raises(UsageError, match="which variant") as caught:
        export_lock(tmp_path, kind)
    assert caught.value.hint == f"bnbenv lock --export {kind} --variant cpu --dir {tmp_path}"
    with pytest.raises(UsageError, match="no variant `cu999`"):
        export_lock(tmp_path, kind, variant="cu999")


def test_nothing_that_a_terminal_obeys_gets_into_a_lock(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bnbenv.cli.main import main

    assert main(["lock", "qlora", "--dir", str(tmp_path), "--exclude-newer", "2026-01-31\nnext: sh"]) == 2
    target = tmp_path / "lab\x1b[2J.json"
    target.write_text(json.dumps({**LINUX, "accelerator": "cpu"}))
    assert main(["lock", "qlora", "--dir", str(tmp_path), "--targets", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.count("control characters") == 2
    assert "\x1b" not in told


def test_what_is_asked_without_a_profile_is_added(mirrors: dict[str, str], tmp_path: Path) -> None:
    locked(tmp_path, mirrors, TEAM[-1], asked={"profile": "qlora", "packages": ("Peft>=0.17", "trl")})
    found = locked(tmp_path, mirrors, asked={"packages": ("accelerate", "peft>=0.18")})
    assert found.lock.request["packages"] == ("trl", "accelerate", "peft>=0.18")
    found = locked(tmp_path, mirrors, asked={"cpu": True})
    assert found.lock.request["packages"] == ("trl", "accelerate", "peft>=0.18")
    found = locked(tmp_path, mirrors, asked={"profile": "qlora", "packages": ("trl",)})
    assert found.lock.request["packages"] == ("trl",)


def test_locks_without_their_index_are_not_buried_under_a_first_one(
    mirrors: dict[str, str], tmp_path: Path
) -> None:
    locked(tmp_path, mirrors, *TEAM)
    (tmp_path / "bnbenv.lock").unlink()
    before = contents(tmp_path)
    with pytest.raises(EnvironmentProblem, match=r"`pylock\.cpu\.toml`") as caught:
        locked(tmp_path, mirrors, TEAM[-1])
    assert "--repack" in (caught.value.hint or "")
    assert contents(tmp_path) == before
    locked(tmp_path, mirrors, TEAM[-1], repack=True)
    assert set(contents(tmp_path)) == {"bnbenv.lock", "pylock.cpu.toml"}
