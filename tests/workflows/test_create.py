"""`create` up to and including a self-test that must fail: the packages are stand-ins that compute nothing.

Everything else is real: uv, the solver, an index on loopback, the file system. That a *good* environment is
switched to is shown with real packages by `scripts/prove_create.py` and by the end-to-end run.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest

from bnbenv.env.layout import Layout
from bnbenv.env.switch import current, require_current
from bnbenv.errors import (
    BnbenvError,
    ExternalError,
    Interrupted,
    UnsolvableError,
    UsageError,
)
from bnbenv.lockfile import pylock
from bnbenv.machine.document import target_from_dict
from bnbenv.matrix.matrix import PARTS, Matrix
from bnbenv.selftest.verdict import Verdict
from bnbenv.workflows import realise
from bnbenv.workflows.create import create
from bnbenv.workflows.here import SelfTestFailedError, add_here
from bnbenv.workflows.order import Order
from bnbenv.workflows.request import CreateRequest, Wanted
from support.bases import a_venv, put_torch, site_of
from support.profile_index import MINOR, profile_index
from support.voice import Listener
from support.wheels import write_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bnbenv.env.generation import Generation
    from support.index_server import IndexServer

LAPTOP = {
    "schema": 1,
    "name": "laptop",
    "os": "linux",
    "arch": "x86_64",
    "accelerator": "cuda",
    "driver": "580.95.05",
    "libc": {"family": "glibc", "version": "2.39"},
    "pythons": [MINOR],
    "gpus": [{"name": "NVIDIA GeForce RTX 4090", "compute_capability": "8.9", "memory_mib": 24564}],
}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexServer]:
    """An index with a stand-in for every package of the profile, and no other index in reach."""
    with profile_index(tmp_path, monkeypatch) as server:
        yield server


def request(tmp_path: Path, **changes: object) -> CreateRequest:
    wanted = {"profile": "qlora", "cpu": True, "python": MINOR, "without_index": ("pytorch",)}
    wanted |= {key: changes.pop(key) for key in [*changes] if key in Wanted.__dataclass_fields__}
    return CreateRequest(wanted=Wanted(**wanted), name="qlora", cwd=tmp_path, **changes)  # type: ignore[arg-type]


pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64",
    reason="the stand-ins are tagged for x86-64 Linux",
)


def test_what_does_not_compute_is_never_switched_to(index: IndexServer, tmp_path: Path) -> None:
    del index
    created = create(request(tmp_path), Listener(), os.environ)
    assert created.realised is not None
    assert created.realised.verdict.verdict == "failed"
    place = Layout.find(os.environ).named("qlora")
    assert current(place) is None
    assert not [*place.generations.glob("*-*")]


def test_the_old_environment_stays_current_when_the_new_one_fails(
    index: IndexServer, tmp_path: Path, make_environment: Callable[..., Generation]
) -> None:
    del index
    old = make_environment("qlora", target={"schema": 1, "accelerator": "cpu"})
    created = create(request(tmp_path), Listener(), os.environ)
    assert created.realised is not None
    assert created.realised.generation is not None
    assert created.realised.generation.directory == old.directory
    found = current(Layout.find(os.environ).named("qlora"))
    assert found is not None
    assert found.directory == old.directory


def test_a_stored_lock_that_is_damaged_is_mended_by_creating_anew(
    index: IndexServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del index
    passed = Verdict(verdict="passed", level="quick", library=None, devices=())
    monkeypatch.setattr(realise, "prove", lambda *_, **__: passed)
    place = Layout.find(os.environ).named("qlora")
    create(request(tmp_path), Listener(), os.environ)
    damaged = require_current(place)
    damaged.lock_file.write_text("this is no lock", encoding="utf-8")
    again = create(request(tmp_path), Listener(), os.environ)
    assert again.realised is not None
    assert again.realised.changed
    assert pylock.digest(require_current(place).lock_file) == again.lock.digest


@pytest.mark.parametrize(
    ("added", "head", "hint"),
    [
        (
            "transformers<1",
            "`transformers<1` cannot stand beside the profile `qlora` with torch 2.13.0:\n",
            "leave it out, or: uv venv qlora-plain; uv pip install --python qlora-plain 'transformers<1' (an",
        ),
        ("no-such-package", "uv pip compile failed\n", "check the spelling"),
    ],
)
def test_what_cannot_be_added_is_told_in_the_users_terms(
    index: IndexServer, tmp_path: Path, added: str, head: str, hint: str
) -> None:
    del index
    with pytest.raises(ExternalError) as caught:
        create(request(tmp_path, packages=(added,), dry_run=True), Listener(), os.environ)
    assert caught.value.message.startswith(head)
    assert "bnbenv-request" not in caught.value.message
    assert (caught.value.hint or "").startswith(hint)


def test_the_lock_pins_the_judged_release_and_holds_a_hash_for_every_file(
    index: IndexServer, tmp_path: Path
) -> None:
    del index
    created = create(request(tmp_path, dry_run=True), Listener(), os.environ)
    assert created.realised is None
    [torch] = created.lock.find("torch")
    assert torch.version == "2.13.0+cpu"
    [bitsandbytes] = created.lock.find("bitsandbytes")
    assert bitsandbytes.version == "0.50.2"
    assert all(artefact.sha256 for package in created.lock.packages for artefact in package.artefacts)
    assert created.lock.provenance["request"]["profile"] == "qlora"
    assert not (Layout.find(os.environ).generations / "qlora").exists()


@pytest.mark.parametrize("torch", ["2.14.1+cu130", "not a version"])
def test_what_cannot_be_read_is_refused_before_an_index_is_asked(
    index: IndexServer, tmp_path: Path, torch: str
) -> None:
    index.seen.clear()
    with pytest.raises(UsageError):
        create(request(tmp_path, dry_run=True, torch=torch), Listener(), os.environ)
    assert index.seen == []


@pytest.mark.parametrize(("build", "word"), [("cpu", "verified"), ("cu126", "neighbour")])
def test_whether_such_a_stack_was_seen_to_work_is_recorded(
    index: IndexServer, tmp_path: Path, build: str, word: str
) -> None:
    del index
    created = create(request(tmp_path, dry_run=True), Listener(), os.environ)
    stack, matrix = created.choice.solution.stack, created.choice.matrix
    assert stack.bitsandbytes is not None
    row = matrix.verified[0]._replace(
        torch=stack.torch.version, build=build, bitsandbytes=stack.bitsandbytes.version,
        os="linux", arch="x86_64", accelerator="cpu",
    )  # fmt: skip
    parts = {part: getattr(matrix, part) for part in PARTS if hasattr(matrix, part)}
    choice = replace(created.choice, matrix=Matrix(revision=matrix.revision, **{**parts, "verified": (row,)}))
    order = Order(request=created.request, choice=choice, lock=created.lock)
    assert realise._facts(order).evidence == word


def test_with_adds_to_the_lock(index: IndexServer, tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels", "bnbenv-test-extra", "1.0")
    del index
    created = create(request(tmp_path, dry_run=True, packages=("bnbenv-test-extra",)), Listener(), os.environ)
    assert created.lock.find("bnbenv-test-extra")


@pytest.mark.parametrize("where", ["packages", "requirements"])
@pytest.mark.parametrize(
    ("package", "culprit", "why"),
    [
        ("autoawq", "autoawq", "the profile qlora keeps it apart"),
        ("bnbenv-test-behind", "torchao", "peft raises when it finds a torchao below its floor"),
    ],
    ids=["autoawq", "torchao"],
)
def test_a_hazard_is_refused_before_anything_is_built_and_recorded_if_wanted_anyway(
    index: IndexServer, tmp_path: Path, package: str, culprit: str, why: str, where: str
) -> None:
    write_wheel(tmp_path / "wheels", "autoawq", "0.2.9")
    write_wheel(tmp_path / "wheels", "torchao", "0.15.0")
    write_wheel(tmp_path / "wheels", "bnbenv-test-behind", "1.0", requires=["torchao==0.15.0"])
    del index
    with pytest.raises(UnsolvableError) as caught:
        create(request(tmp_path, **{where: (package,)}), Listener(), os.environ)
    assert caught.value.code == "hazard"
    assert f"`{culprit}`" in caught.value.message
    assert why in caught.value.message
    assert "--anyway" in (caught.value.hint or "")
    assert not (Layout.find(os.environ).generations / "qlora").exists()
    asked = request(tmp_path, dry_run=True, **{where: (package,)})
    created = create(replace(asked, anyway=True), Listener(), os.environ)
    assert created.request.wanted.anyway == (culprit,)
    assert created.lock.provenance["request"]["anyway"] == [culprit]
    assert created.lock.find(culprit)


def test_here_too_a_hazard_is_refused(index: IndexServer, tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels", "autoawq", "0.2.9")
    del index
    notebook = a_venv(tmp_path / "notebook")
    put_torch(site_of(notebook))
    with pytest.raises(UnsolvableError) as caught:
        add_here(
            request(tmp_path, packages=("autoawq",)),
            Listener(),
            {**os.environ, "VIRTUAL_ENV": str(notebook)},
        )
    assert caught.value.code == "hazard"
    assert not site_of(notebook).joinpath("bitsandbytes").exists()


def test_here_what_does_not_compute_is_taken_back(index: IndexServer, tmp_path: Path) -> None:
    del index
    notebook = a_venv(tmp_path / "notebook")
    put_torch(site_of(notebook))
    write_wheel(tmp_path / "old", "peft", "0.10.0").rename(tmp_path / "peft.zip")
    with ZipFile(tmp_path / "peft.zip") as old:
        old.extractall(site_of(notebook))
    site_of(notebook).joinpath("of-the-user.txt").write_text("kept")
    before = contents(notebook)
    voice = Listener()
    with pytest.raises(SelfTestFailedError):
        add_here(request(tmp_path), voice, {**os.environ, "VIRTUAL_ENV": str(notebook)}, yes=True)
    assert any("peft 0.10.0 → 0.21.2" in line for line in voice.heard)
    assert contents(notebook) == before


def contents(directory: Path) -> dict[str, bytes]:
    """Every file of a directory, byte code apart: path → content."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_a_package_that_no_index_has(index: IndexServer, tmp_path: Path) -> None:
    del index
    with pytest.raises(ExternalError) as caught:
        create(request(tmp_path, packages=("bnbenv-no-such-package",)), Listener(), os.environ)
    assert caught.value.code == "package-unavailable"
    assert "bnbenv-no-such-package" in caught.value.message


def test_no_is_respected(index: IndexServer, tmp_path: Path) -> None:
    del index
    with pytest.raises(Interrupted):
        create(request(tmp_path), Listener(agrees=False), os.environ)
    assert not (Layout.find(os.environ).generations / "qlora").exists()


def test_an_environment_for_a_gpu_is_not_rebuilt_for_the_cpu(
    index: IndexServer, tmp_path: Path, make_environment: Callable[..., Generation]
) -> None:
    del index
    old = make_environment("qlora", target={"schema": 1, "accelerator": "cuda"})
    with pytest.raises(UnsolvableError) as caught:
        create(request(tmp_path, cpu=False), Listener(), {**os.environ, "PATH": "/usr/bin:/bin"})
    assert caught.value.code == "no-usable-gpu"
    found = current(Layout.find(os.environ).named("qlora"))
    assert found is not None
    assert found.directory == old.directory


def test_another_operating_system_cannot_be_built_for(index: IndexServer, tmp_path: Path) -> None:
    del index
    windows = target_from_dict({**LAPTOP, "os": "windows", "libc": None, "accelerator": "cpu", "gpus": []})
    with pytest.raises(BnbenvError) as caught:
        create(request(tmp_path, target=windows), Listener(), os.environ)
    assert isinstance(caught.value, (UsageError, ExternalError))


def test_a_gpu_that_no_reachable_index_serves_names_every_address(index: IndexServer, tmp_path: Path) -> None:
    dead = {"pytorch": "http://127.0.0.1:9/none/simple/"}
    asked = request(
        tmp_path, target=target_from_dict(LAPTOP), cpu=False, mirrors=dead, without_index=(), dry_run=True
    )
    with pytest.raises(ExternalError) as caught:
        create(asked, Listener(), os.environ)
    assert "127.0.0.1:9" in caught.value.message
    assert index.url("main").removesuffix("/") in caught.value.message


@pytest.mark.parametrize("text", ["banana", ">=2.8 <2.9 or so", "=="])
def test_a_specifier_that_is_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        create(request(tmp_path, torch=text), Listener(), os.environ)
    assert caught.value.code == "bad-request"


def test_an_index_that_nobody_knows(index: IndexServer, tmp_path: Path) -> None:
    del index
    with pytest.raises(UsageError, match="no index or family"):
        create(request(tmp_path, without_index=("conda-forge",)), Listener(), os.environ)
