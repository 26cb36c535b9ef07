from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bnbenv.env import state
from bnbenv.env.layout import Layout
from bnbenv.env.locking import hold
from bnbenv.errors import UnsolvableError, UsageError
from bnbenv.machine.host import Host
from bnbenv.workflows.environment import Located, holding
from bnbenv.workflows.verify import keep, verify
from support import faults
from support.judge_facts import gpu, target
from support.voice import Listener

if TYPE_CHECKING:
    from collections.abc import Callable

    from bnbenv.env.generation import Generation


def verified(
    made: Generation,
    tmp_path: Path,
    *,
    cpu: bool = False,
    require_accelerator: bool = False,
    voice: Listener | None = None,
) -> str:
    located = Located(directory=made.directory, kind="bnbenv", why="a test")
    voice, environ = voice or Listener(), {**os.environ, "PATH": "/nowhere"}
    answer = verify(
        located,
        level="quick",
        cpu=cpu,
        cwd=tmp_path,
        voice=voice,
        environ=environ,
        require_accelerator=require_accelerator,
    )
    keep(answer, voice, environ)
    return answer.verdict.verdict


def test_a_gpu_environment_is_not_judged_by_the_processor(
    make_environment: Callable[..., Generation], tmp_path: Path
) -> None:
    made = make_environment(target={"schema": 1, "accelerator": "xpu"}, verdict="not-run")
    assert verified(made, tmp_path) == "not-run"
    assert state.read(made.state_file).verdict == "not-run"
    assert not made.verdict_file.exists()


def test_nothing_is_computed_where_every_gpu_is_hidden(
    make_environment: Callable[..., Generation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(target=target(gpu("8.9", visible=False)), driver_state="ok", facts=())
    monkeypatch.setattr("bnbenv.machine.probe.probe", lambda **_: host)
    made = make_environment(target={"schema": 1, "accelerator": "cuda"}, verdict="passed")
    assert verified(made, tmp_path) == "not-run"
    assert state.read(made.state_file).verdict == "passed"


def test_an_accelerator_that_is_required_has_to_be_visible(
    make_environment: Callable[..., Generation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def required(*, visible: bool, cpu: bool = False) -> str:
        host = Host(target=target(gpu("8.9", visible=visible)), driver_state="ok", facts=())
        monkeypatch.setattr("bnbenv.machine.probe.probe", lambda **_: host)
        return verified(made, tmp_path, cpu=cpu, require_accelerator=True)

    made = make_environment(target={"schema": 1, "accelerator": "cuda"}, verdict="not-run")
    with pytest.raises(UnsolvableError, match="made for cuda, and no such accelerator is visible") as caught:
        required(visible=False)
    assert caught.value.code == "no-usable-gpu"
    assert required(visible=False, cpu=True) == "failed"  # its interpreter has no bitsandbytes
    assert required(visible=True) == "failed"


@pytest.mark.parametrize(("accelerator", "asked"), [("cpu", {}), ("xpu", {"cpu": True})])
def test_no_accelerator_is_required_of_what_is_made_for_the_processor(
    accelerator: str, asked: dict[str, bool], make_environment: Callable[..., Generation], tmp_path: Path
) -> None:
    request = {"profile": "qlora", **asked}  # `--cpu` on a machine that has a GPU
    made = make_environment(
        target={"schema": 1, "accelerator": accelerator}, request=request, verdict="passed"
    )
    assert verified(made, tmp_path, require_accelerator=True) == "failed"


def test_what_an_unknown_environment_requires_is_not_guessed(
    make_environment: Callable[..., Generation], tmp_path: Path
) -> None:
    made = make_environment(target={"schema": 1, "accelerator": "cuda"}, verdict="passed")
    made.state_file.unlink()
    with pytest.raises(UsageError, match="was made for is not known"):
        verified(made, tmp_path, require_accelerator=True)
    assert verified(made, tmp_path, cpu=True, require_accelerator=True) == "failed"


def test_a_look_at_the_processor_does_not_become_the_verdict_of_a_gpu_environment(
    make_environment: Callable[..., Generation], tmp_path: Path
) -> None:
    made = make_environment(target={"schema": 1, "accelerator": "xpu"}, verdict="not-run")
    assert verified(made, tmp_path, cpu=True) == "failed"  # its interpreter has no bitsandbytes
    assert state.read(made.state_file).verdict == "not-run"


def test_the_verdict_is_kept_where_list_looks_for_it(
    make_environment: Callable[..., Generation], tmp_path: Path
) -> None:
    made = make_environment(target={"schema": 1, "accelerator": "cpu"}, verdict="passed")
    assert verified(made, tmp_path) == "failed"
    assert state.read(made.state_file).verdict == "failed"
    assert made.verdict_file.is_file()


def test_a_verdict_that_cannot_be_kept_is_answered_all_the_same(
    make_environment: Callable[..., Generation], tmp_path: Path
) -> None:
    made = make_environment(target={"schema": 1, "accelerator": "cpu"}, verdict="passed")
    for directory in (made.directory, Layout.find(os.environ).home):
        voice = Listener()
        with faults.read_only(directory):
            assert verified(made, tmp_path, voice=voice) == "failed"
        assert voice.heard[-1].startswith("the verdict is not kept with the environment: cannot ")
        assert state.read(made.state_file).verdict == "passed"


def test_the_verdict_is_written_under_the_lock(
    make_environment: Callable[..., Generation], tmp_path: Path
) -> None:
    made = make_environment(target={"schema": 1, "accelerator": "cpu"}, verdict="passed")

    class Waits(Listener):
        def progress(self, text: str) -> None:
            super().progress(text)
            if text.startswith("waiting for"):
                assert state.read(made.state_file).verdict == "passed"
                other.close()

    with contextlib.ExitStack() as other:
        other.enter_context(hold(Layout.find(os.environ).lock_of(made.directory)))
        voice = Waits()
        assert verified(made, tmp_path, voice=voice) == "failed"
    assert any(text.startswith("waiting for") for text in voice.heard)
    assert state.read(made.state_file).verdict == "failed"


def test_who_holds_the_lock_does_not_wait_for_itself(
    make_environment: Callable[..., Generation], tmp_path: Path
) -> None:
    """A repair in place proves what it has mended before it gives the lock up."""
    made = make_environment(target={"schema": 1, "accelerator": "cpu"}, verdict="not-run")
    located = Located(directory=made.directory, kind="bnbenv", why="a test")

    class Refuses(Listener):
        def progress(self, text: str) -> None:
            assert not text.startswith("waiting for")

    with holding(located, "repair", Listener(), os.environ) as held:
        assert verified(made, tmp_path, voice=Refuses()) == "failed"
        with holding(located, "verify", Listener(), os.environ) as again:
            assert again is held
    assert state.read(made.state_file).verdict == "failed"
    with holding(located, "verify", Listener(), os.environ) as again:
        assert again is not held


def test_nothing_is_written_before_it_is_kept(
    make_environment: Callable[..., Generation], tmp_path: Path
) -> None:
    """A repair keeps what it has proven only where it is not taken back."""
    made = make_environment(target={"schema": 1, "accelerator": "cpu"}, verdict="not-run")
    located = Located(directory=made.directory, kind="bnbenv", why="a test")
    before = {path: path.read_bytes() for path in made.directory.rglob("*") if path.is_file()}
    answer = verify(
        located, level="quick", cpu=False, cwd=tmp_path, voice=Listener(), environ={"PATH": "/nowhere"}
    )
    assert answer.verdict.verdict == "failed"
    assert {path: path.read_bytes() for path in made.directory.rglob("*") if path.is_file()} == before
    keep(answer, Listener(), os.environ)
    assert state.read(made.state_file).verdict == "failed"
    assert made.verdict_file.exists()


def test_an_environment_whose_profile_has_no_bitsandbytes_is_only_imported(
    make_environment: Callable[..., Generation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_environment(
        profile="gptq", request={"profile": "gptq"}, target={"schema": 1, "accelerator": "cuda"}
    )
    home = Path(sys.executable).resolve().parent
    (made.directory / "pyvenv.cfg").write_text(f"home = {home}\n", encoding="utf-8")
    site = made.directory / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    site.mkdir(parents=True)
    (site / "torch.py").touch()
    assert verified(made, tmp_path) == "failed"  # gptqmodel is not there
    assert "gptqmodel" in made.verdict_file.read_text(encoding="utf-8")
    assert state.read(made.state_file).verdict == "failed"
    (site / "gptqmodel.py").touch()
    assert verified(made, tmp_path) == "not-run"
    with pytest.raises(UnsolvableError):  # PATH has no nvidia-smi
        verified(made, tmp_path, require_accelerator=True)
    host = Host(target=target(gpu("8.9")), driver_state="ok", facts=())
    monkeypatch.setattr("bnbenv.machine.probe.probe", lambda **_: host)
    assert verified(made, tmp_path, require_accelerator=True) == "not-run"
    assert "does not have" in made.verdict_file.read_text(encoding="utf-8")
