from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.errors import UsageError
from bnbenv.machine.target import Gpu, Target
from bnbenv.workflows.memory import Weighed, devices_of, use_for, weigh
from support.safetensors import LLAMA, write_model

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30


def target(*gpus: Gpu, accelerator: Any = "cuda") -> Target:
    return Target(name="lab", os="linux", arch="x86_64", accelerator=accelerator, gpus=gpus)


def ask(model: Path, memory: float, *, gpus: int = 1, transformers: str = "5.23", **settings: Any) -> Weighed:
    use = use_for("qlora", quantisation=None, double=True, **settings)
    devices = devices_of(target(*[Gpu(name="GPU")] * gpus), {}, here=False, memory=memory)
    return weigh(str(model), use, devices, {}, transformers=transformers)


def test_a_small_model_fits(tmp_path: Path) -> None:
    weighed = ask(write_model(tmp_path), 8)
    assert (weighed.fit, weighed.remedies, weighed.smallest_card) == ("fits", (), 8)


def test_a_model_that_does_not_fit_is_told_what_would_help(tmp_path: Path) -> None:
    large = {
        **LLAMA,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "vocab_size": 32000,
    }
    weighed = ask(write_model(tmp_path, large), 8, sequence=8192, batch=4)
    assert weighed.fit == "does-not-fit"
    assert weighed.remedies[0].name == "smaller-batch"


def test_experts_that_stay_unquantised_are_told_of(tmp_path: Path) -> None:
    model = write_model(tmp_path, {**LLAMA, "model_type": "mixtral", "num_local_experts": 4})
    [note] = ask(model, 8).notes
    assert "does not quantise" in note
    assert ask(model, 8, transformers="4.57.6").notes == ()


def test_parameters_that_the_text_model_does_not_have_are_told_of(tmp_path: Path) -> None:
    model = write_model(tmp_path, vision=("BF16", (1000, 1000)))
    assert "is not counted" in ask(model, 8).notes[0]


def test_pickles_are_told_of_and_not_opened(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    [note] = ask(model, 8).notes
    assert "never opened" in note


def test_memory_that_nobody_knows_decides_nothing(tmp_path: Path) -> None:
    use = use_for("inference", quantisation=None, double=True)
    devices = devices_of(target(Gpu(name="GPU")), {}, here=False, memory=None)
    assert weigh(str(write_model(tmp_path)), use, devices, {}, transformers="5.23").fit is None


def test_the_whole_memory_of_another_machine_is_taken_for_free() -> None:
    [device] = devices_of(target(Gpu(name="GPU", memory_mib=24564, index=0)), {}, here=False, memory=None)
    assert (device.free, device.live) == (24564 * 2**20, False)


def test_the_processor_of_this_machine_is_read_live() -> None:
    [device] = devices_of(target(accelerator="cpu"), {}, here=True, memory=None)
    assert device.live is (device.free is not None)


def test_a_checkpoint_of_bitsandbytes_is_weighed_as_it_is(tmp_path: Path) -> None:
    stored = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    weighed = ask(write_model(tmp_path, {**LLAMA, "quantization_config": stored}), 8)
    assert weighed.estimate.use.quantisation.scheme == "int8"
    assert "load-buffer" not in {part.name for part in weighed.estimate.parts}


@pytest.mark.parametrize(
    ("stored", "why"),
    [({"quant_method": "gptq"}, "by 'gptq'"), ({"bnb_4bit_quant_type": ["nf4"]}, "is not known")],
)
def test_a_checkpoint_of_another_quantisation_is_refused(
    tmp_path: Path, stored: dict[str, Any], why: str
) -> None:
    model = write_model(tmp_path, {**LLAMA, "quantization_config": stored})
    with pytest.raises(UsageError, match=why):
        ask(model, 8)


@pytest.mark.parametrize("memory", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_memory_that_makes_no_sense_is_refused(memory: float) -> None:
    with pytest.raises(UsageError, match="makes no sense"):
        devices_of(target(Gpu(name="GPU")), {}, here=False, memory=memory)


@pytest.mark.parametrize(
    "settings",
    [{"sequence": 0}, {"batch": -1}, {"rank": 0}, {"sequence": 10**400}],
    ids=lambda settings: next(iter(settings)),
)
def test_numbers_that_make_no_sense_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="makes no sense"):
        use_for("qlora", quantisation=None, double=True, **settings)


def test_a_profile_without_bitsandbytes_is_refused() -> None:
    with pytest.raises(UsageError, match="knows the profiles"):
        use_for("gptq", quantisation=None, double=True)
