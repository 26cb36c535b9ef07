"""The runner names the check a process dies in, goes on behind it, and judges what it was told.

The script under test stands in for the real one: it writes the same events, without torch.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.errors import EnvironmentProblem
from bnbenv.matrix.rows import KnownFault, Provenance
from bnbenv.selftest.runner import run

if TYPE_CHECKING:
    from bnbenv.selftest.verdict import Verdict

HEAD = """
import json, os, signal, sys, time
words = [word for word in sys.argv[1:] if word != "--imports"]
arguments = dict(zip(words[::2], words[1::2]))
NAMES = ["quantize_4bit/nf4/b64", "dequantize_4bit/nf4/b64", "matmul_4bit/nf4", "linear4bit/nf4/train"]

def tell(**event):
    with open(arguments["--events"], "a") as file:
        file.write(json.dumps(event) + "\\n")

def check(index, name, state="passed", before=None, **more):
    if index <= int(arguments.get("--first", 0)):
        return
    case = {"index": index, "name": name, "dtype": "float32", "shape": {"rows": 2}}
    tell(event="begin", **case)
    if before:
        before()
    tell(event="end", state=state, error=None, tolerance=None, ms=1.0, detail=None, **{**case, **more})

def loaded(**more):
    facts = {"name": "a device", "library": "libbitsandbytes_cpu.so", "device_count": 1, "modules": {},
             "mapped": [], "cpu_flags": ["avx512f"], "versions": {"bitsandbytes": "0.50.2"}}
    tell(event="loaded", **{**facts, **more})

def main():
    tell(event="end", name="import", dtype="", shape={}, state="passed")
    loaded()
    if "--imports" not in sys.argv:
        story()
    tell(event="done")
"""
TAIL = """
if __name__ == "__main__":
    sys.exit(main())
"""
FAULT = KnownFault(
    id="listed",
    package="bitsandbytes",
    versions=">=0.50",
    device="cpu",
    cpu_flags=("avx512f",),
    checks=("extra",),
    dtypes=(),
    shapes={"rows": "> 1"},
    summary="",
    workaround="",
    reproduction="",
    provenance=Provenance(how="measured", source="test", checked="2026-11-23"),
)


def verdict_of(
    tmp_path: Path, story: str, *, environ: dict[str, str] | None = None, **more: Any
) -> tuple[Verdict, list[str]]:
    body = "\n".join("    " + line for line in story.strip().splitlines())
    script = tmp_path / "fake_script.py"
    script.write_text(HEAD + "\ndef story():\n" + body + "\n" + TAIL, encoding="utf-8")
    told: list[str] = []
    settings: dict[str, Any] = {
        "level": "quick",
        "accelerator": "cpu",
        "known_faults": [FAULT],
        "stall": 30.0,
        "report": told.append,
        **more,
    }
    verdict = run(
        Path(sys.executable),
        environ={"PATH": os.environ["PATH"], **(environ or {})},
        cwd=tmp_path,
        script=script,
        train_script=script,
        **settings,
    )
    return verdict, told


SOUND = "for i, name in enumerate(NAMES, 1): check(i, name)"


def states(verdict: Verdict, device: int = 0) -> dict[str, str]:
    return {check.name: check.state for check in verdict.devices[device].checks}


def test_sound_is_passed(tmp_path: Path) -> None:
    verdict, _ = verdict_of(tmp_path, SOUND)
    assert verdict.verdict == "passed"
    assert verdict.library == "libbitsandbytes_cpu.so"
    assert verdict.versions == {"bitsandbytes": "0.50.2"}
    assert verdict.notes == ()


def test_one_wrong_result_is_failed(tmp_path: Path) -> None:
    verdict, _ = verdict_of(tmp_path, SOUND + "\ncheck(5, 'int8', 'failed')")
    assert verdict.verdict == "failed"


def test_a_listed_fault_is_degraded(tmp_path: Path) -> None:
    verdict, _ = verdict_of(tmp_path, SOUND + "\ncheck(5, 'extra', 'failed')")
    assert verdict.verdict == "degraded"
    assert verdict.faults == ("listed",)
    assert states(verdict)["extra"] == "known-fault"


def test_a_listed_fault_outside_its_shapes_is_failed(tmp_path: Path) -> None:
    verdict, _ = verdict_of(tmp_path, SOUND + "\ncheck(5, 'extra', 'failed', shape={'rows': 1})")
    assert verdict.verdict == "failed"
    assert verdict.faults == ()


def test_slow_is_degraded(tmp_path: Path) -> None:
    assert verdict_of(tmp_path, SOUND + "\ncheck(5, 'speed', 'degraded')")[0].verdict == "degraded"


def test_what_is_not_offered_has_not_passed(tmp_path: Path) -> None:
    verdict, _ = verdict_of(tmp_path, "for i, name in enumerate(NAMES, 1): check(i, name, 'not-offered')")
    assert verdict.verdict == "failed"
    assert any("no check of `matmul_4bit/nf4` passed" in note for note in verdict.notes)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("name", ["SIGBUS", "SIGSEGV", "SIGABRT", "SIGKILL"])
def test_a_crash_names_its_check_and_the_rest_still_runs(tmp_path: Path, name: str) -> None:
    story = f"""
check(1, NAMES[0])
check(2, "guilty", before=lambda: os.kill(os.getpid(), signal.{name}))
for i, name in enumerate(NAMES[1:], 3): check(i, name)
"""
    verdict, _ = verdict_of(tmp_path, story)
    (guilty,) = (check for check in verdict.devices[0].checks if check.state == "crashed")
    assert (guilty.name, guilty.dtype, guilty.detail) == ("guilty", "float32", f"killed by {name}")
    assert verdict.verdict == "failed"
    assert [check.name for check in verdict.devices[0].checks].count("import") == 1
    assert states(verdict)["linear4bit/nf4/train"] == "passed"


def test_a_process_that_always_dies_is_not_started_for_ever(tmp_path: Path) -> None:
    story = "for i in range(1, 50): check(i, f'check-{i}', before=lambda: os._exit(7))"
    verdict, _ = verdict_of(tmp_path, story)
    seen = [check for check in verdict.devices[0].checks if check.state == "crashed"]
    assert [check.name for check in seen] == ["check-1", "check-2", "check-3", "check-4"]
    assert seen[0].detail == "ended with exit code 7"


def test_a_hang_is_a_crash(tmp_path: Path) -> None:
    story = "check(1, NAMES[0])\ncheck(2, 'hanging', before=lambda: time.sleep(3600))"
    verdict, _ = verdict_of(tmp_path, story, stall=15.0)  # a busy machine takes seconds to the first event
    assert states(verdict)["hanging"] == "crashed"
    assert verdict.verdict == "failed"


@pytest.mark.parametrize("own", [True, False])
def test_what_cannot_be_told_to_be_ours_is_not_kept(
    own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else all would be compiled and written anew each time, by every process."""
    monkeypatch.setattr("bnbenv.selftest.runner.is_own", lambda _: own)
    store = tmp_path / "store"
    verdict, _ = verdict_of(tmp_path, SOUND, bytecode=store)
    assert verdict.verdict == "passed"
    assert bool(list(store.iterdir())) is own


def test_whoever_stops_it_waits_for_no_other_device(tmp_path: Path) -> None:
    story = """
if arguments["--device"] == "cpu":
    open("started", "a").write("once ")
    check(1, "hanging", before=lambda: time.sleep(3600))
while not os.path.exists("started"):
    time.sleep(0.01)
"""
    told = "tell(event='loaded', device_count=2, name='a device', versions={})\n" + story

    def stop(text: str) -> None:
        if text.endswith("cuda:1"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verdict_of(tmp_path, told, accelerator="cuda", stall=15.0, report=stop)
    assert (tmp_path / "started").read_text() == "once "  # after a hang it would have gone on


def test_a_lost_context_is_no_second_crash(tmp_path: Path) -> None:
    story = """
check(1, NAMES[0])
if int(arguments.get("--first", 0)) < 2:
    check(2, "poison", "failed")
    sys.exit(3)
for i, name in enumerate(NAMES[1:], 3): check(i, name)
"""
    verdict, _ = verdict_of(tmp_path, story)
    assert states(verdict)["poison"] == "failed"
    assert "crashed" not in states(verdict).values()
    assert states(verdict)["linear4bit/nf4/train"] == "passed"


def test_a_variable_that_breaks_it_is_named(tmp_path: Path) -> None:
    story = SOUND + "\ncheck(5, 'int8', 'failed' if 'BNB_CUDA_VERSION' in os.environ else 'passed')"
    verdict, _ = verdict_of(tmp_path, story, environ={"BNB_CUDA_VERSION": "999"})
    assert verdict.verdict == "failed"
    assert "it does not fail without `BNB_CUDA_VERSION`: unset it" in verdict.notes


def test_a_variable_that_is_innocent_is_said_to_be(tmp_path: Path) -> None:
    verdict, _ = verdict_of(
        tmp_path, SOUND + "\ncheck(5, 'int8', 'failed')", environ={"LD_LIBRARY_PATH": "/nowhere"}
    )
    assert "it fails without `LD_LIBRARY_PATH` too" in verdict.notes


def test_a_variable_is_judged_on_the_devices_that_failed(tmp_path: Path) -> None:
    story = """
tell(event="loaded", device_count=2, versions={}, name="two of them")
for i, name in enumerate(NAMES, 1): check(i, name)
check(5, "int8", "failed" if arguments["--device"] == "cuda:1" else "passed")
"""
    verdict, _ = verdict_of(tmp_path, story, accelerator="cuda", environ={"LD_LIBRARY_PATH": "/nowhere"})
    assert "it fails without `LD_LIBRARY_PATH` too" in verdict.notes


def test_the_environment_is_handed_on(tmp_path: Path) -> None:
    story = SOUND + "\ncheck(5, os.environ['BNB_X'] + os.environ['HF_HUB_OFFLINE'])"
    verdict, _ = verdict_of(tmp_path, story, environ={"BNB_X": "seen"})
    assert states(verdict)["seen1"] == "passed"


def test_on_a_gpu_the_processor_is_told_not_judged(tmp_path: Path) -> None:
    story = """
for i, name in enumerate(NAMES, 1): check(i, name)
check(5, "int8", "failed" if arguments["--device"] == "cpu" else "passed")
"""
    verdict, _ = verdict_of(tmp_path, story, accelerator="cuda")
    assert verdict.verdict == "passed"
    assert [(device.device, device.judged) for device in verdict.devices] == [
        ("cuda:0", True),
        ("cpu", False),
    ]
    assert any("cpu computes wrongly in places" in note for note in verdict.notes)


def test_a_missing_native_library_is_told(tmp_path: Path) -> None:
    verdict, _ = verdict_of(tmp_path, SOUND.replace("for", "tell(event='loaded')\nfor"))
    assert verdict.library is None
    assert any("no native library is loaded" in note for note in verdict.notes)


def test_every_gpu_is_judged(tmp_path: Path) -> None:
    story = """
tell(event="loaded", device_count=2, versions={}, name="two of them")
for i, name in enumerate(NAMES, 1): check(i, name)
check(5, "int8", "failed" if arguments["--device"] == "cuda:1" else "passed")
"""
    verdict, _ = verdict_of(tmp_path, story, accelerator="rocm")
    assert [device.device for device in verdict.devices] == ["cuda:0", "cuda:1", "cpu"]
    assert verdict.verdict == "failed"


def test_training_runs_a_second_script(tmp_path: Path) -> None:
    story = SOUND + "\ncheck(5, 'trained' if '--level' not in arguments else 'not trained')"
    verdict, _ = verdict_of(tmp_path, story, level="train")
    assert states(verdict)["trained"] == "passed"
    assert states(verdict)["not trained"] == "passed"


def test_a_module_in_the_current_directory_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise ImportError('the wrong json')", encoding="utf-8")
    verdict, _ = verdict_of(tmp_path, SOUND)
    assert verdict.verdict == "passed"
    (note,) = verdict.notes
    assert "a plain import from the current directory fails" in note
    assert "the wrong json" in note


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors are inherited by number on POSIX")
def test_every_process_inherits_the_lock(tmp_path: Path) -> None:
    """So that a self-test whose bnbenv was killed still keeps others out."""
    with (tmp_path / "lock").open("w") as lock:
        number = lock.fileno()
        story = SOUND + f"\ncheck(5, 'inherited', 'passed' if os.fstat({number}) else '')"
        verdict, _ = verdict_of(tmp_path, story, pass_fds=(number,))
        assert states(verdict)["inherited"] == "passed"
        without, _ = verdict_of(tmp_path, story)
    assert states(without)["linear4bit/nf4/train"] == "passed"
    assert without.verdict == "failed"


def test_nothing_is_written_beside_the_sources(tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "helper.py").write_text("VALUE = 1", encoding="utf-8")
    story = SOUND + f"\nsys.path.insert(0, {str(library)!r})\nimport helper"
    verdict, _ = verdict_of(tmp_path, story, bytecode=tmp_path / "store")
    assert verdict.verdict == "passed"
    assert [path.name for path in library.iterdir()] == ["helper.py"]
    assert any((tmp_path / "store").iterdir())


def test_an_interpreter_that_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="cannot be started"):
        run(
            tmp_path / "no-python",
            level="quick",
            accelerator="cpu",
            environ={},
            cwd=tmp_path,
            known_faults=[],
        )
