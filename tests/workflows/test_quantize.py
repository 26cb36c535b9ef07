from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.errors import BnbenvError
from bnbenv.memory.checkpoint import read_checkpoint
from bnbenv.memory.storage import Quantisation
from bnbenv.selftest.child import Ended
from bnbenv.workflows.environment import Located
from bnbenv.workflows.quantize import JOURNAL, LOCK, Quantized, QuantizeRequest, quantize
from support.safetensors import LLAMA, write_model, write_safetensors
from support.voice import Listener

if TYPE_CHECKING:
    from collections.abc import Callable

# An environment with torch, transformers and bitsandbytes; .ci/run names the one it has built.
PYTHON = os.environ.get("BNBENV_TEST_ENV", "")
real = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="BNBENV_TEST_ENV names no environment with bitsandbytes"),
]

MAKE = """
import sys, torch
from transformers import LlamaConfig, AutoModelForCausalLM
torch.manual_seed(0)
config = LlamaConfig(hidden_size=128, intermediate_size=320, num_hidden_layers=4, num_attention_heads=4,
                     num_key_value_heads=2, vocab_size=1000)
model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
model.save_pretrained(sys.argv[1], max_shard_size="300KB")
"""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    subprocess.run([PYTHON, "-I", "-c", MAKE, str(directory)], check=True, capture_output=True, timeout=300)
    return directory


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Quantized]:
    def run(
        source: Path,
        *,
        scheme: Any = "nf4",
        double: bool = True,
        located: Located | None = None,
        **changes: Any,
    ) -> Quantized:
        request = QuantizeRequest(
            source=read_checkpoint(source),
            out=changes.pop("out", tmp_path / "out"),
            quantisation=Quantisation(scheme=scheme, double=double),
            dtype="bfloat16",
            **changes,
        )
        python = Path(PYTHON or sys.executable)
        located = located or Located(directory=python.parents[1], kind="venv", why="the test")
        return quantize(request, located, Listener(), os.environ, yes=True)

    return run


def refused(call: Callable[[], object]) -> BnbenvError:
    with pytest.raises(BnbenvError) as raised:
        call()
    return raised.value


def test_only_originals_are_quantised(tmp_path: Path, run: Callable[..., Quantized]) -> None:
    config = {**LLAMA, "quantization_config": {"quant_method": "gptq"}}
    source = write_model(tmp_path / "m", config, **{"a.weight": ("BF16", (2, 2))})
    assert "quantised already (gptq)" in refused(lambda: run(source)).message
    assert not (tmp_path / "out").exists()


def test_a_type_that_is_no_original_is_named(tmp_path: Path, run: Callable[..., Quantized]) -> None:
    source = write_model(tmp_path / "m", LLAMA, **{"a.weight": ("F8_E4M3", (2, 2))})
    assert "is of type F8_E4M3" in refused(lambda: run(source)).message


def test_an_environment_without_torch_is_told_apart_from_a_bad_model(
    tmp_path: Path, run: Callable[..., Quantized]
) -> None:
    source = write_model(tmp_path / "m", LLAMA, **{"a.weight": ("BF16", (2, 2))})
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    bare = Located(directory=tmp_path / "bare", kind="venv", why="the test")
    error = refused(lambda: run(source, located=bare))
    assert error.message == f"`{tmp_path / 'bare'}` has no torch, and quantising needs it"
    assert error.hint == "name an environment that has it: --env qlora"


def test_an_environment_whose_python_fails_is_named(
    tmp_path: Path, run: Callable[..., Quantized], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_model(tmp_path / "m", LLAMA, **{"a.weight": ("BF16", (2, 2))})
    ended = Ended(returncode=-11, hang=None, stderr="")
    monkeypatch.setattr("bnbenv.selftest.child.watch", lambda *_arguments, **_options: ended)
    broken = Located(directory=tmp_path / "my env", kind="venv", why="the test")
    assert refused(lambda: run(source, located=broken)).hint == f"bnbenv doctor '{tmp_path / 'my env'}'"


def test_a_model_of_which_nothing_would_be_quantised_is_named(
    tmp_path: Path, run: Callable[..., Quantized], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_model(tmp_path / "my model", LLAMA, **{"a.weight": ("BF16", (2, 2))})
    planned = [{"event": "planned", "layers": []}]
    monkeypatch.setattr("bnbenv.workflows.quantize._Runner.run", lambda *_arguments, **_options: planned)
    hint = refused(lambda: run(source)).hint
    assert hint == f"bnbenv memory '{source}' shows what stays as it is, and why"


@pytest.mark.parametrize("what", ["itself", "file", "full", "other"])
def test_an_output_that_is_not_ours_stays(tmp_path: Path, run: Callable[..., Quantized], what: str) -> None:
    source = write_model(tmp_path / "m", LLAMA, **{"a.weight": ("BF16", (2, 2))})
    out = source if what == "itself" else tmp_path / "out"
    if what == "file":
        out.write_text("mine", encoding="utf-8")
    if what in {"full", "other"}:
        out.mkdir()
        (out / "mine.txt").write_text("mine", encoding="utf-8")
    if what == "other":
        (out / JOURNAL).write_text('{"schema": 1, "type": "int8"}', encoding="utf-8")
    error = refused(lambda: run(source, out=out))
    assert error.code == "path-occupied"
    if what in {"full", "other"}:
        assert (out / "mine.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("scheme", "double"), [("nf4", True), ("nf4", False), ("fp4", True), ("int8", False)]
)
class TestReal:
    pytestmark = real

    def test_what_is_written_is_the_model_that_is_quantised_while_loading(
        self, model: Path, run: Callable[..., Quantized], scheme: str, double: bool, tmp_path: Path
    ) -> None:
        done = run(model, scheme=scheme, double=double)
        assert done.distance == 0
        assert done.worst is not None
        assert done.worst <= 1
        written = read_checkpoint(tmp_path / "out")
        assert written.config["quantization_config"]["quant_method"] == "bitsandbytes"
        tensors = [
            it for it in written.tensors if ".quant_state." not in it.name and "weight_format" not in it.name
        ]
        nested = sum(
            4 for it in written.tensors if it.name.endswith("nested_absmax")
        )  # the offset, kept as text
        assert sum(it.bytes for it in tensors) + nested == done.bytes
        assert not (tmp_path / "out" / JOURNAL).exists()


@pytest.mark.parametrize("alone", [False, True], ids=["its-group", "bnbenv-alone"])
class TestInterrupted:
    pytestmark = real

    def test_a_killed_run_goes_on_where_it_was(
        self, model: Path, run: Callable[..., Quantized], tmp_path: Path, alone: bool
    ) -> None:
        """Killed alone, it leaves a process that goes on writing: the next run waits for that one."""
        out = tmp_path / "out"
        words = [
            "quantize",
            str(model),
            str(out),
            "--env",
            str(Path(PYTHON).parents[1]),
            "--no-compare",
            "--yes",
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "bnbenv", *words, "--double-quant"],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 300
        while not list(out.glob("*.safetensors")) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.005)
        (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
        process.wait()
        assert not (out / "config.json").exists(), "half a model must not look like one"
        first = {path.name: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
        assert first, "the run was killed before it had written a file"
        if not alone:
            (out / "model-00001.safetensors.partial").write_bytes(b"half")
        done = run(model)
        every = {path.name for path in model.glob("*.safetensors")}
        assert set(done.kept) == (every if alone else set(first))
        assert {name: (out / name).stat().st_mtime_ns for name in first} == first
        assert done.distance == 0
        assert not list(out.glob("*.partial"))
        assert not (out / LOCK).exists()


class TestWrong:
    pytestmark = real

    def test_a_type_that_transformers_does_not_know_is_refused_in_a_line(
        self, model: Path, run: Callable[..., Quantized], tmp_path: Path
    ) -> None:
        strange = tmp_path / "strange"
        shutil.copytree(model, strange)
        config = json.loads((strange / "config.json").read_text(encoding="utf-8"))
        (strange / "config.json").write_text(
            json.dumps({**config, "model_type": "unheard"}), encoding="utf-8"
        )
        error = refused(lambda: run(strange))
        assert error.code == "bad-model"
        assert "unheard" in error.message
        assert "\n" not in error.message
        assert not (tmp_path / "out").exists()

    def test_weights_that_are_not_the_model_are_seen(
        self, model: Path, run: Callable[..., Quantized], tmp_path: Path
    ) -> None:
        """A journal that claims a finished file, and a file that is another one's: the comparison tells."""
        out = tmp_path / "out"
        run(model, logits=False)
        names = sorted(path.name for path in out.glob("*.safetensors"))
        index = json.loads((out / "model.safetensors.index.json").read_text(encoding="utf-8"))
        assert sorted(set(index["weight_map"].values())) == names
        # As an interrupted run would have left it, but for the codes of one layer.
        for name in ("config.json", "model.safetensors.index.json"):
            (out / name).unlink()
        request = QuantizeRequest(
            source=read_checkpoint(model), out=out, quantisation=Quantisation(scheme="nf4"), dtype="bfloat16"
        )
        from bnbenv.workflows import quantize as workflow

        (out / JOURNAL).write_text(json.dumps(workflow._journal(request)), encoding="utf-8")
        key = "model.layers.0.mlp.down_proj.weight"
        changed = out / index["weight_map"][key]
        raw = bytearray(changed.read_bytes())
        length = int.from_bytes(raw[:8], "little")
        begin, end = json.loads(raw[8 : 8 + length])[key]["data_offsets"]
        raw[8 + length + begin : 8 + length + end] = bytes(end - begin)
        changed.write_bytes(raw)
        assert refused(lambda: run(model)).code == "self-test-failed"
        assert not (out / "config.json").exists(), "a wrong model must not look like one"


def test_the_helper_writes_what_the_reader_reads(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "model.safetensors", {"a": ("I8", (3,))})
    assert path.stat().st_size > 3
