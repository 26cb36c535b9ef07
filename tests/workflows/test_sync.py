"""`sync` of stand-ins, up to a self-test that must fail: the choice, the refusals, what is reused."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import tomli
import tomli_w

from bnbenv.env.generation import Generation
from bnbenv.env.layout import Layout
from bnbenv.env.switch import current
from bnbenv.errors import (
    BnbenvError,
    DataError,
    EnvironmentProblem,
    ExternalError,
    Interrupted,
    UnsolvableError,
    UsageError,
)
from bnbenv.lockfile import index as team_index
from bnbenv.lockfile import pylock
from bnbenv.lockfile.index import MachineClass
from bnbenv.machine.document import target_from_dict
from bnbenv.machine.probe import probe
from bnbenv.matrix.load import load
from bnbenv.workflows.choose import JUDGED
from bnbenv.workflows.doctor import examine
from bnbenv.workflows.environment import locate
from bnbenv.workflows.fleet import Given, facts_of
from bnbenv.workflows.lock import LockRequest, lock
from bnbenv.workflows.request import Wanted
from bnbenv.workflows.sync import SyncRequest, _healthy, pick, sync
from support.profile_index import MINOR, profile_index, write_torch
from support.schemas import validate
from support.voice import Listener
from support.wheels import write_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.index_server import IndexServer

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64",
    reason="the stand-ins are tagged for x86-64 Linux",
)
GPU = {
    "schema": 1,
    "name": "desk",
    "os": "linux",
    "arch": "x86_64",
    "accelerator": "cuda",
    "driver": "580.95.05",
    "libc": {"family": "glibc", "version": "2.39"},
    "pythons": [MINOR],
    "gpus": [{"name": "NVIDIA GeForce RTX 4090", "compute_capability": "8.9"}],
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexServer]:
    with profile_index(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture
def team(server: IndexServer, tmp_path: Path) -> Path:
    """A lock for the processor of this machine, made from the stand-ins."""
    del server
    request = LockRequest(
        asked={"profile": "qlora", "cpu": True, "python": MINOR, "without_index": ("pytorch",)},
        directory=tmp_path / "team",
        this_machine=False,
        today="2026-11-23",
        cwd=tmp_path,
    )
    lock(request, Listener(), os.environ)
    return tmp_path / "team"


def locked_for_the_desk(tmp_path: Path, profile: str) -> Path:
    """A lock for a machine with a GPU, which this one lacks."""
    request = LockRequest(
        asked={"profile": profile, "python": MINOR, "without_index": ("pytorch",)},
        directory=tmp_path / "team",
        targets=(Given(target=target_from_dict(GPU), origin="`desk.json`"),),
        today="2026-11-23",
        cwd=tmp_path,
    )
    lock(request, Listener(), os.environ)
    return tmp_path / "team"


@pytest.fixture
def builders(server: IndexServer, tmp_path: Path) -> Path:
    """A lock of GPTQModel, which builds, for another machine."""
    del server
    wheels = tmp_path / "wheels"
    write_torch(wheels, "2.14.1")
    for name, version in (("gptqmodel", "7.7.0"), ("optimum", "2.3.0")):
        write_wheel(wheels, name, version)
    return locked_for_the_desk(tmp_path, "gptq")


def asked(team: Path, **changes: Any) -> SyncRequest:
    return SyncRequest(**{"directory": team, "cwd": team, **changes})


def test_what_does_not_compute_is_never_switched_to(team: Path) -> None:
    told = Listener()
    synced = sync(asked(team), told, os.environ)
    assert synced.picked.variant.name == "cpu"
    assert "the lock has machines like this one" in synced.picked.why
    assert synced.realised is not None
    assert synced.realised.verdict.verdict == "failed"
    assert current(Layout.find(os.environ).named("qlora")) is None


def test_what_is_written_without_waiting_reaches_the_disk_all_the_same(
    team: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []

    def fsync(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", fsync)
    synced = sync(asked(team), Listener(), os.environ)
    assert synced.realised is not None
    names = {path.name for path in flushed}
    assert names >= {"lock.toml", "constraints.txt", "guard.json", "guard.py", "pip.conf", "uv"}
    assert names >= {"state.json", "verdict.json"}
    assert names >= {".bnbenv", "guard", "bin"}  # where their names stand


def test_offline_everything_comes_from_the_cache_or_is_refused(
    team: Path, server: IndexServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(asked(team, name="first"), Listener(), os.environ)  # fills the cache
    server.seen.clear()
    again = sync(asked(team, name="second", offline=True), Listener(), os.environ)
    assert again.realised is not None
    assert again.realised.verdict.verdict == "failed"  # built and tried: the stand-ins compute nothing
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    with pytest.raises(BnbenvError) as caught:
        sync(asked(team, name="third", offline=True), Listener(), os.environ)
    assert caught.value.code == "offline"
    assert server.seen == []
    hint = caught.value.hint or ""
    assert f"bnbenv bundle {team} -o DIR" in hint
    assert hint.endswith(f"bnbenv sync {team} --wheelhouse DIR")
    assert "PIP_FIND_LINKS" not in hint  # the lock pins addresses: it would not be looked into


def test_a_wheelhouse_needs_no_index_of_the_place_where_it_was_locked(
    team: Path, server: IndexServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch came from an index that is configured there alone."""
    [variant] = team_index.read(team).variants
    own = replace(variant, torch={**variant.torch, "index": "index-of-the-team"})
    team_index.write(team, replace(team_index.read(team), variants=(own,)))
    server.indexes["main"].mode = "broken"
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "fresh"))
    request = asked(team, wheelhouse=tmp_path / "wheels")
    synced = sync(request, Listener(), os.environ)
    assert synced.realised is not None
    assert synced.realised.verdict.verdict == "failed"  # built and tried: the stand-ins compute nothing
    assert (
        synced.choice.sources.find("index-of-the-team").url
        == pylock.read(team / own.file).find("torch")[0].index
    )


@pytest.mark.parametrize("way", ["wheelhouse", "offline"])
def test_without_a_network_the_python_of_the_lock_must_be_there(
    way: str, team: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bnbenv.workflows.choose.find_interpreter", lambda _host, _minor: None)
    request = asked(team, **{way: tmp_path / "wheels" if way == "wheelhouse" else True})
    tools = tmp_path / "tools"
    tools.mkdir()
    environ = {**os.environ, "PATH": str(tools)}
    with pytest.raises(
        ExternalError, match=f"no Python {MINOR} on this machine, and uv fetches none"
    ) as told:
        sync(request, Listener(), environ)
    hint = f"install Python {MINOR}: the lock is for no other"  # `sync` has no option for another
    assert (told.value.code, told.value.hint) == ("python-missing", hint)
    script = tools / "python3"
    script.write_text("#!/bin/sh\n", encoding="utf-8")
    script.chmod(0o755)
    with pytest.raises(ExternalError, match=f"not known without running them: `{script}`") as told:
        sync(request, Listener(), environ)
    assert "directory of the one that such a script starts on PATH: the lock" in (told.value.hint or "")


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_wheelhouse_without_the_files_is_told_by_a_dry_run_too(
    team: Path, tmp_path: Path, dry_run: bool
) -> None:
    (tmp_path / "none").mkdir()
    request = asked(team, wheelhouse=tmp_path / "none", dry_run=dry_run)
    with pytest.raises(ExternalError, match="has no file of ") as caught:
        sync(request, Listener(), os.environ)
    assert caught.value.code == "package-unavailable"
    filled = replace(request, wheelhouse=tmp_path / "wheels", dry_run=True)
    assert sync(filled, Listener(), os.environ).realised is None


def test_what_builds_is_refused_without_a_compiler_before_anything_is_made(
    builders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    request = asked(builders, target=target_from_dict(GPU))
    with pytest.raises(BnbenvError) as caught:
        sync(request, Listener(), os.environ)
    assert caught.value.code == "tool-missing"
    assert caught.value.hint is not None
    assert "bnbenv create" not in caught.value.hint  # the lock names torch: no other can be advised
    assert not Layout.find(os.environ).named("gptq").generations.exists()
    told = Listener()
    assert sync(replace(request, dry_run=True), told, os.environ).realised is None
    assert "gptqmodel is built from source, and this machine lacks a C++ compiler" in told.heard


def test_a_dry_run_says_which_and_why(team: Path) -> None:
    synced = sync(asked(team, dry_run=True, name="lab"), Listener(), os.environ)
    assert synced.realised is None
    assert synced.place.name == "lab"


def test_a_lock_that_was_made_for_another_request_is_told(team: Path) -> None:
    """git can merge the request of one side beside a lock of the other."""
    there = team_index.read(team)
    assert sync(asked(team, dry_run=True), Listener(), os.environ).notes == ()
    team_index.write(team, replace(there, request={**there.request, "exclude_newer": "2099-01-01"}))
    [note] = sync(asked(team, dry_run=True), Listener(), os.environ).notes
    assert "pylock.cpu.toml was made for another request than bnbenv.lock holds now (exclude-newer)" in note
    assert f"`bnbenv lock --dir {team}` makes it anew" in note


def test_the_variant_is_put_into_the_name_and_the_path(team: Path, tmp_path: Path) -> None:
    synced = sync(asked(team, dry_run=True, name="lab-{variant}"), Listener(), os.environ)
    assert synced.place.name == "lab-cpu"
    path = tmp_path / "{{template}}" / "{variant}" / "env"
    synced = sync(asked(team, dry_run=True, path=path), Listener(), os.environ)
    assert synced.place.link == tmp_path / "{{template}}" / "cpu" / "env"


@pytest.mark.parametrize("given", ["lab-{varaint}", "lab-{variant", "{{variant}}", "lab}"])
def test_other_braces_are_refused_before_anything_is_read(given: str, tmp_path: Path) -> None:
    for place in ({"name": given}, {"path": Path(given)}):
        with pytest.raises(UsageError, match=r"braces are for `\{variant\}` alone") as caught:
            sync(asked(tmp_path / "none", **place), Listener(), os.environ)
        assert caught.value.code == "bad-name"


def test_a_path_is_read_where_it_was_typed(
    team: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Braces in the name of the directory that the user stands in are that name's."""
    from bnbenv.cli.main import main

    here = tmp_path / "{project}"
    here.mkdir()
    monkeypatch.chdir(here)
    capsys.readouterr()
    assert main(["sync", str(team), "--path", ".venv-{variant}", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["link"] == str(here / ".venv-cpu")


def test_every_answer_keeps_to_its_schema(
    team: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bnbenv.cli.main import main

    def ask(*words: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main([*words, "--json"])
        document = json.loads(capsys.readouterr().out)
        validate(document)
        return code, document

    code, document = ask("sync", str(team), "--dry-run")
    assert (code, document["data"]["variant"], document["data"]["changed"]) == (0, "cpu", False)
    assert document["data"]["why"]
    code, document = ask("sync", str(team), "--variant", "cu999", "--dry-run")
    assert (code, document["status"]) == (2, "error")
    assert ask("sync", str(tmp_path), "--dry-run")[0] == 4


@pytest.mark.parametrize(
    ("machine", "told"),
    [
        ({"driver": None}, "the driver is not known"),
        ({"accelerator": "cpu", "driver": None, "gpus": []}, "build on a machine without GPU"),
    ],
    ids=["driver", "processor"],
)
def test_a_dry_run_tells_what_the_judge_warns_of(
    server: IndexServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    machine: dict[str, Any],
    told: str,
) -> None:
    from bnbenv.cli.main import main

    del server
    write_torch(tmp_path / "wheels", "2.14.1")
    team = locked_for_the_desk(tmp_path, "qlora")
    (tmp_path / "lost.json").write_text(json.dumps({**GPU, "name": "lost", **machine}))
    capsys.readouterr()
    assert main(["sync", str(team), "--target", str(tmp_path / "lost.json"), "--dry-run"]) == 0
    assert told in capsys.readouterr().err


def test_a_place_without_a_lock(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"no `bnbenv\.lock`"):
        sync(asked(tmp_path), Listener(), os.environ)


def test_a_machine_that_nothing_in_it_serves(team: Path) -> None:
    desk = target_from_dict(GPU)
    described = "--target 'my desk.json'"
    with pytest.raises(UnsolvableError) as caught:
        sync(asked(team, target=desk, described=described), Listener(), os.environ)
    hint = f"bnbenv lock {described} --dir {team} (and commit what it writes), or --variant NAME"
    assert caught.value.hint == hint
    index = team_index.read(team)
    request = {**index.request, "cpu": False}
    team_index.write(team, replace(index, request=request, classes=()))
    host = probe(environ=os.environ)
    with pytest.raises(UnsolvableError) as caught:
        pick(
            asked(team),
            team_index.read(team),
            Wanted(profile="qlora"),
            replace(host, target=desk),
            load(*JUDGED),
        )
    assert f"bnbenv lock --add-this-machine --dir {team} " in (caught.value.hint or "")


def test_a_machine_that_the_lock_knows_and_does_not_serve_is_not_sent_to_lock_again(team: Path) -> None:
    index = team_index.read(team)
    facts = facts_of(target_from_dict(GPU))
    attic = MachineClass(
        variant=None, machines=("attic",), facts=facts, seen="2026-11-23", blocking=("driver 580.95.05",)
    )
    team_index.write(team, replace(index, classes=(*index.classes, attic)))
    request = asked(team, target=target_from_dict(GPU), described="--gpu 8.9")
    with pytest.raises(UnsolvableError, match=r"nothing serves machines like `desk` \(driver") as caught:
        sync(request, Listener(), os.environ)
    command = f"bnbenv resolve qlora --python {MINOR} --cpu --without-index pytorch --gpu 8.9"
    assert caught.value.hint == f"{command} (what it would need)"


def test_a_machine_that_it_does_not_name_is_judged_unless_frozen(team: Path) -> None:
    index = team_index.read(team)
    team_index.write(team, replace(index, classes=()))
    synced = sync(asked(team, dry_run=True), Listener(), os.environ)
    assert "judged, this variant serves it" in synced.picked.why
    with pytest.raises(UnsolvableError, match="--frozen was given"):
        sync(asked(team, dry_run=True, frozen=True), Listener(), os.environ)


def test_facts_that_are_no_machines_are_refused(team: Path) -> None:
    index = team_index.read(team)
    [known] = index.classes
    team_index.write(team, replace(index, classes=(replace(known, facts={**known.facts, "os": "plan9"}),)))
    with pytest.raises(DataError, match=r"is not a valid lock: `classes\.facts\.os` is not one of") as caught:
        sync(asked(team, dry_run=True), Listener(), os.environ)
    assert caught.value.code == "lock-invalid"


def test_a_variant_that_is_none(team: Path) -> None:
    with pytest.raises(UsageError, match="no variant `cu999`; it has `cpu`"):
        sync(asked(team, variant="cu999"), Listener(), os.environ)


def test_a_variant_for_gpus_is_built_for_them_on_a_machine_without_one(
    server: IndexServer, tmp_path: Path
) -> None:
    del server
    write_torch(tmp_path / "wheels", "2.14.1")
    index = team_index.read(locked_for_the_desk(tmp_path, "qlora"))
    [variant] = index.variants
    host = probe(environ=os.environ)
    builder = replace(host, target=replace(host.target, accelerator="cpu", driver=None, gpus=()))
    desk = replace(host, target=target_from_dict(GPU))
    seen = {
        machine.target.name: pick(
            asked(tmp_path, variant=variant.name), index, Wanted(profile="qlora"), machine, load(*JUDGED)
        )
        for machine in (builder, desk)
    }
    assert {name: picked.elsewhere for name, picked in seen.items()} == {
        host.target.name: True,
        "desk": False,
    }
    assert {picked.target.accelerator for picked in seen.values()} == {"cuda"}


def test_a_login_node_is_told_the_options_of_sync(team: Path) -> None:
    host = probe(environ=os.environ)
    login = replace(host, target=replace(host.target, accelerator="cpu", gpus=()), slurm="login")
    with pytest.raises(UnsolvableError) as caught:
        pick(asked(team), team_index.read(team), Wanted(profile="qlora"), login, load(*JUDGED))
    hint = caught.value.hint or ""
    assert hint.startswith(f"bnbenv sync {team} --gpu ")
    assert hint.endswith("or --variant NAME (of cpu)")


def test_a_changed_lock_is_refused_before_anything_is_made(team: Path) -> None:
    path = team / "pylock.cpu.toml"
    path.write_text(path.read_text().replace("peft", "evil"))
    with pytest.raises(DataError) as caught:
        sync(asked(team), Listener(), os.environ)
    assert caught.value.code == "hash-mismatch"
    assert not (Layout.find(os.environ).generations / "qlora").exists()


@pytest.mark.parametrize(
    "how",
    [
        "by a mirror",
        "from the lock's own addresses",
        "from there, of unknown sizes",
        "out of uv's cache",
        "in a dry run",
    ],
)
@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ('lock-version = "1.0"', 'lock-version = "2.0"', "2.0"),  # what the standard's own reader knows
        ('name = "peft"', 'name = "Peft"', "packages"),
        ("[packages.wheels.hashes]", "[packages.wheels.hash]", "hashes"),  # what is read before it
    ],
)
def test_a_lock_that_is_none_installs_nothing(
    team: Path,
    server: IndexServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: str,
    after: str,
    named: str,
    how: str,
) -> None:
    """Its hash is right: whoever wrote it wrote the index too."""
    check = pylock.check

    def check_late(lock: pylock.Pylock) -> None:  # when a uv that had been started would have asked for files
        time.sleep(0.5)
        check(lock)

    monkeypatch.setattr(pylock, "check", check_late)
    path = team / "pylock.cpu.toml"
    if how == "out of uv's cache":  # it is checked when uv is done
        sync(asked(team, name="before"), Listener(), os.environ, yes=True)
    lines = path.read_text().splitlines(keepends=True)
    if how.startswith("from"):
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "fresh"))
        home = server.url("main").replace("/simple/", "/files/")
        lines = [re.sub(r'^url = "https://.*/', f'url = "{home}', line) for line in lines]
    if how == "from there, of unknown sizes":
        lines = [line for line in lines if not line.startswith("size = ")]
    if how not in ("by a mirror", "in a dry run"):
        lines = [line for line in lines if not line.startswith('index = "http')]
    assert before in "".join(lines)
    relocked(path, "".join(lines).replace(before, after))
    requests = len(server.seen)
    with pytest.raises(DataError, match=named) as caught:
        sync(asked(team, dry_run=how == "in a dry run"), Listener(), os.environ, yes=True)
    assert caught.value.code == "lock-invalid"
    assert len(server.seen) == requests
    place = Layout.find(os.environ).named("qlora")
    assert current(place) is None
    assert not any(it.is_dir() for it in place.generations.glob("*"))


@pytest.mark.parametrize(
    ("before", "after"),
    [('name = "peft"', 'name = "Peft"'), ('name = "peft"', 'name = "peft"\nattestation-identities = [1]')],
)
def test_a_lock_that_uv_takes_and_the_standard_refuses_runs_nothing(
    team: Path, server: IndexServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    """Its files are in uv's cache, under the addresses that it names: it is checked when they are there."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "fresh"))
    index, files = server.url("main"), server.url("main").replace("/simple/", "/files/")
    path = team / "pylock.cpu.toml"
    text = re.sub(r'(?m)^index = "https://.*"', f'index = "{index}"', path.read_text())
    relocked(path, re.sub(r'(?m)^url = "https://.*/', f'url = "{files}', text))
    sync(asked(team, name="before"), Listener(), os.environ, yes=True)
    relocked(path, path.read_text().replace(before, after))
    requests, told, ran = len(server.seen), Listener(), list[Any]()
    monkeypatch.setattr(told, "ran", ran.append)
    with pytest.raises(DataError, match="packages") as caught:
        sync(asked(team), told, os.environ, yes=True)
    assert caught.value.code == "lock-invalid"
    assert len(server.seen) == requests
    assert [it.returncode for it in ran if "sync" in it.arguments] == [0]
    assert not any("self-test" in line for line in told.heard)
    assert not any(it.is_dir() for it in Layout.find(os.environ).named("qlora").generations.glob("*"))


def test_a_lock_that_is_none_builds_nothing_though_all_is_at_hand(
    team: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To build runs a package's own code."""
    path, source = team / "pylock.cpu.toml", tmp_path / "peft-0.21.2.tar.gz"
    source.write_bytes(b"as far as this test is concerned")
    document = tomli.loads(path.read_text())
    document["packages"] = [entry for entry in document["packages"] if entry["name"] == "peft"]
    [entry] = document["packages"]
    del entry["wheels"], entry["index"]
    hashes = {"sha256": hashlib.sha256(source.read_bytes()).hexdigest()}
    entry |= {"attestation-identities": [1], "sdist": {"url": source.as_uri(), "size": 32, "hashes": hashes}}
    relocked(path, tomli_w.dumps(document))
    told, ran = Listener(), list[Any]()
    monkeypatch.setattr(told, "ran", ran.append)
    with pytest.raises(DataError, match="attestation") as caught:
        sync(asked(team, allow_local=True), told, os.environ, yes=True)
    assert caught.value.code == "lock-invalid"
    assert ran == []


def relocked(path: Path, text: str) -> None:
    """Write a lock, and its hash into the index, as whoever can write the one can write the other."""
    index, was = path.with_name("bnbenv.lock"), hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_text(text)
    index.write_text(index.read_text().replace(was, hashlib.sha256(path.read_bytes()).hexdigest()))


def test_a_file_with_another_hash_is_never_installed(
    team: Path, server: IndexServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(tmp_path / "wheels", "peft", "0.21.2", members={"peft/__init__.py": b"evil"})
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "fresh"))
    with pytest.raises(BnbenvError) as caught:  # the page of the mirror tells
        sync(asked(team), Listener(), os.environ)
    assert caught.value.code == "hash-mismatch"
    server.indexes["main"].mode = "no-hashes"
    with pytest.raises(BnbenvError) as caught:  # the bytes tell
        sync(asked(team), Listener(), os.environ)
    assert caught.value.code == "hash-mismatch"
    assert current(Layout.find(os.environ).named("qlora")) is None


@pytest.mark.parametrize("name", ["qlora", "lab-{variant}"])
def test_what_is_there_as_locked_is_reused(
    team: Path,
    make_environment: Callable[..., Generation],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    here = probe(environ=os.environ).target
    [variant] = team_index.read(team).variants
    made_of = pylock.read(team / variant.file)
    from bnbenv.machine.document import target_to_dict
    from bnbenv.workflows import sync as story

    made = make_environment(
        name.replace("{variant}", "cpu"),
        target=target_to_dict(here),
        lock=made_of.digest,
        request={"profile": "qlora", "cpu": True},
    )
    made.lock_file.write_text((team / variant.file).read_text())
    made.verdict_file.write_text(
        '{"schema": 1, "verdict": "passed", "level": "quick", "library": null, "devices": [], "notes": []}'
    )
    monkeypatch.setattr(story, "_healthy", lambda *_: True)
    synced = sync(asked(team, name=name), Listener(), os.environ)
    assert synced.realised is not None
    assert not synced.realised.changed
    assert synced.realised.generation is not None
    assert synced.realised.generation.directory == made.directory
    from bnbenv.cli.main import main

    capsys.readouterr()
    assert main(["sync", str(team), "--name", name, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    validate(document)
    assert document["data"]["changed"] is False
    assert document["data"]["verdict"] == "passed"
    assert document["data"]["link_mode"] is None
    main(["doctor", name, "--lock", str(team), "--json"])
    document = json.loads(capsys.readouterr().out)
    validate(document)
    assert document["data"]["environment"]["path"] == str(made.directory)
    monkeypatch.setattr(story, "_healthy", lambda *_: False)
    assert sync(asked(team, name=name, dry_run=True), Listener(), os.environ).realised is None


def test_why_what_is_there_is_built_anew_is_told(tmp_path: Path) -> None:
    gone = Generation(directory=tmp_path / "gone", digest="ab" * 6, number=1)
    place, voice = Layout.find(os.environ).named("qlora"), Listener()
    choice: Any = SimpleNamespace(target=None)
    assert not _healthy(gone, place, choice, voice, os.environ)
    assert voice.heard[-1].endswith(": building it anew")


def test_on_shared_storage_each_kind_of_machine_proves_the_environment_once(
    team: Path, make_environment: Callable[..., Generation], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bnbenv.machine.document import target_to_dict
    from bnbenv.selftest.document import verdict_from_dict
    from bnbenv.workflows import realise
    from bnbenv.workflows import sync as story

    passed = {"schema": 1, "verdict": "passed", "level": "quick", "library": None, "devices": [], "notes": []}
    builder = replace(probe(environ=os.environ).target, wsl=True)
    [variant] = team_index.read(team).variants
    made = make_environment(
        "qlora",
        target=target_to_dict(builder),
        lock=pylock.read(team / variant.file).digest,
        request={"profile": "qlora", "cpu": True},
    )
    made.lock_file.write_text((team / variant.file).read_text())
    made.verdict_file.write_text(json.dumps(passed))
    proofs = []

    def prove(present: Generation, *_: Any, **__: Any) -> Any:
        proofs.append(present.directory)
        return verdict_from_dict({**passed, "verdict": "degraded"})

    monkeypatch.setattr(story, "_healthy", lambda *_: True)
    monkeypatch.setattr(realise, "prove", prove)
    for _ in range(2):
        synced = sync(asked(team), Listener(), os.environ)
        assert synced.realised is not None
        assert synced.realised.verdict is not None
        assert (synced.realised.changed, synced.realised.verdict.verdict) == (False, "degraded")
    assert proofs == [made.directory]
    assert json.loads(made.verdict_file.read_text())["verdict"] == "passed"  # the builder's own stays


def unproven(team: Path, make_environment: Callable[..., Generation]) -> Generation:
    """An environment of the lock's one variant, for this machine, that nothing was computed in."""
    from bnbenv.machine.document import target_to_dict

    [variant] = team_index.read(team).variants
    made = make_environment(
        "qlora",
        target=target_to_dict(probe(environ=os.environ).target),
        lock=pylock.read(team / variant.file).digest,
        request={"profile": "qlora", "cpu": True},
        verdict="not-run",
    )
    made.lock_file.write_text((team / variant.file).read_text())
    return made


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_was_built_for_this_machine_elsewhere_is_proven_here_and_not_built_anew(
    team: Path, make_environment: Callable[..., Generation], monkeypatch: pytest.MonkeyPatch, *, dry_run: bool
) -> None:
    from bnbenv.env import state
    from bnbenv.selftest.document import verdict_from_dict
    from bnbenv.workflows import realise
    from bnbenv.workflows import sync as story

    facts = {"schema": 1, "level": "quick", "library": None, "devices": [], "notes": []}
    made = unproven(team, make_environment)
    made.verdict_file.write_text(json.dumps({**facts, "verdict": "not-run"}))
    monkeypatch.setattr(story, "_healthy", lambda *_: True)
    monkeypatch.setattr(realise, "prove", lambda *_, **__: verdict_from_dict({**facts, "verdict": "passed"}))
    synced = sync(asked(team, dry_run=dry_run), Listener(), os.environ)
    assert synced.realised is not None
    assert (synced.realised.changed, synced.realised.generation) == (False, made)
    proven = "not-run" if dry_run else "passed"
    assert json.loads(made.verdict_file.read_text())["verdict"] == proven
    assert state.read(made.state_file).verdict == proven


def test_what_another_switched_away_from_is_not_proven(
    team: Path, make_environment: Callable[..., Generation], monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    from bnbenv.env import generation as generations
    from bnbenv.env.locking import hold
    from bnbenv.workflows import sync as story

    made = unproven(team, make_environment)
    facts = {"schema": 1, "verdict": "not-run", "level": "quick", "library": None, "devices": [], "notes": []}
    made.verdict_file.write_text(json.dumps(facts))
    monkeypatch.setattr(story, "_healthy", lambda *_: True)
    place = layout.named("qlora")
    built: list[bool] = []

    def build(*_: Any, **__: Any) -> Any:
        built.append(True)
        raise Interrupted("built anew")

    monkeypatch.setattr(story, "_build", build)
    with contextlib.ExitStack() as held:

        class Other(Listener):
            """Has the lock when sync wants it, and removes the environment before it gives it up."""

            def progress(self, text: str) -> None:
                super().progress(text)
                if text.startswith("waiting for"):
                    generations.discard(made)
                    held.close()

        held.enter_context(hold(place.lock))
        with pytest.raises(Interrupted):
            sync(asked(team), Other(), os.environ)
    assert built


def test_doctor_tells_what_differs_from_the_lock(
    team: Path, make_environment: Callable[..., Generation]
) -> None:
    from bnbenv.workflows.against_lock import compare

    make_environment("qlora")
    located = locate("qlora", os.environ, team)
    examined = examine(located, Listener(), os.environ)
    compared = compare(examined, team, os.environ, mirrors={}, cwd=team)
    [first] = [
        found for found in compared.findings if found.source == "the lock" and found.severity == "error"
    ]
    assert first.code == "environment-changed"
    assert any(line.startswith("accelerate: missing instead of") for line in first.evidence)
    elsewhere = replace(examined, target=target_from_dict(GPU))
    for described, words in (("", "--add-this-machine"), ("--gpu 8.9", "--gpu 8.9")):
        compared = compare(elsewhere, team, os.environ, mirrors={}, cwd=team, described=described)
        assert compared.findings[0].code == "lock-stale"
        remedy = compared.findings[0].remedy
        assert remedy is not None
        sync_it = f"bnbenv sync {team} {described}".rstrip()
        assert remedy.commands == (f"bnbenv lock {words} --dir {team}", sync_it)
        assert not compared.works


def test_doctor_names_the_environment_that_it_was_asked_about(
    team: Path, make_environment: Callable[..., Generation], tmp_path: Path
) -> None:
    from bnbenv.workflows.against_lock import compare

    make_environment("lab")
    make_environment(path=tmp_path / "my env")
    for argument, words in (("lab", "--name lab"), (str(tmp_path / "my env"), f"--path '{tmp_path}/my env'")):
        examined = examine(locate(argument, os.environ, team), Listener(), os.environ)
        first = compare(examined, team, os.environ, mirrors={}, cwd=team).findings[0]
        assert first.code == "environment-changed"
        assert first.remedy is not None
        assert first.remedy.commands == (f"bnbenv sync {team} {words}",)


def test_doctor_sends_no_machine_that_the_lock_cannot_serve_to_lock_again(
    team: Path, make_environment: Callable[..., Generation]
) -> None:
    from bnbenv.workflows.against_lock import compare

    make_environment("qlora")
    index = team_index.read(team)
    desk = target_from_dict(GPU)
    attic = MachineClass(
        variant=None, machines=("attic",), facts=facts_of(desk), seen="2026-11-23", blocking=("driver",)
    )
    team_index.write(team, replace(index, classes=(attic,)))
    examined = replace(examine(locate("qlora", os.environ, team), Listener(), os.environ), target=desk)
    first = compare(examined, team, os.environ, mirrors={}, cwd=team).findings[0]
    assert first.remedy is not None
    [command] = first.remedy.commands
    assert command.startswith("bnbenv resolve qlora ")


def test_doctor_takes_another_spelling_of_a_version_for_the_same(
    team: Path, make_environment: Callable[..., Generation]
) -> None:
    from bnbenv.workflows.against_lock import compare

    [variant] = team_index.read(team).variants
    [locked] = pylock.read(team / variant.file).find("accelerate")
    made = make_environment("qlora")
    info = made.directory / "lib/python3.11/site-packages" / f"accelerate-{locked.version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: accelerate\nVersion: {locked.version}.0\n", encoding="utf-8")
    examined = examine(locate("qlora", os.environ, team), Listener(), os.environ)
    compared = compare(examined, team, os.environ, mirrors={}, cwd=team)
    [first] = [
        found for found in compared.findings if found.source == "the lock" and found.severity == "error"
    ]
    assert first.evidence
    assert not any(line.startswith("accelerate:") for line in first.evidence)


def test_doctor_judges_a_machine_that_the_lock_does_not_name_as_sync_does(
    team: Path, make_environment: Callable[..., Generation]
) -> None:
    from bnbenv.workflows.against_lock import compare

    make_environment("qlora")
    team_index.write(team, replace(team_index.read(team), classes=()))
    examined = examine(locate("qlora", os.environ, team), Listener(), os.environ)
    compared = compare(examined, team, os.environ, mirrors={}, cwd=team)
    first, second = (found for found in compared.findings if found.source == "the lock")
    assert (first.code, first.severity) == ("lock-stale", "warning")
    assert "judged, `cpu` serves it" in first.summary
    assert (second.code, second.severity) == ("environment-changed", "error")


def test_doctor_tells_a_newer_driver_and_another_gpu(
    team: Path, make_environment: Callable[..., Generation]
) -> None:
    from bnbenv.machine.document import target_to_dict
    from bnbenv.workflows.against_lock import compare

    make_environment("qlora")
    examined = examine(locate("qlora", os.environ, team), Listener(), os.environ)
    index = team_index.read(team)
    facts = {key: value for key, value in target_to_dict(target_from_dict(GPU)).items() if key != "name"}
    facts.pop("schema")
    [known] = index.classes
    team_index.write(team, replace(index, classes=(replace(known, facts=facts, machines=("desk",)),)))

    def told(**changes: Any) -> dict[str, str]:
        now = replace(examined, target=target_from_dict({**GPU, **changes}))
        compared = compare(now, team, os.environ, mirrors={}, cwd=team)
        return {found.code: found.severity for found in compared.findings if found.source == "the lock"}

    assert "driver-changed" not in told()
    assert told(driver="581.10")["driver-changed"] == "info"
    other = told(gpus=[{"name": "Tesla V100", "compute_capability": "7.0"}])
    assert other["gpu-changed"] == "warning"
    assert other["lock-stale"] == "error"
