"""The references stand on identities of their own, and the script keeps its contract with the runner."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnbenv.matrix.load import load
from bnbenv.selftest.block import read_blocks
from bnbenv.selftest.decide import CORE
from bnbenv.selftest.export import export_script, script_sha256
from bnbenv.selftest.runner import SCRIPT, run

# Read before the fixture that clears the environment: an interpreter with torch and bitsandbytes.
TEST_ENV = os.environ.get("BNBENV_TEST_ENV")
needs_environment = pytest.mark.skipif(
    TEST_ENV is None, reason="BNBENV_TEST_ENV names no interpreter with torch and bitsandbytes"
)


def script_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("selftest_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = script_module()


class Number(float):
    """A float that knows the two methods of a tensor which the update rules use."""

    def sqrt(self) -> Number:
        return Number(math.sqrt(self))

    def __add__(self, other: float) -> Number:
        return Number(float(self) + float(other))

    def __mul__(self, other: float) -> Number:
        return Number(float(self) * float(other))

    def __truediv__(self, other: float) -> Number:
        return Number(float(self) / float(other))

    __radd__ = __add__
    __rmul__ = __mul__


SCALARS = SimpleNamespace(
    torch=SimpleNamespace(sign=lambda value: Number(math.copysign(1.0, value)), stack=tuple)
)


def steps(family: str, slope: float, count: int) -> list[tuple[float, Any, Any]]:
    """What `count` steps with a constant gradient do to a parameter that starts at one."""
    zero = Number(0.0)
    p, first, second = Number(1.0), (zero, zero) if family == "AdEMAMix" else zero, zero
    seen = []
    for step in range(1, count + 1):
        p, first, second = script.update_rule(SCALARS, family, p, Number(slope), first, second, step)
        seen.append((float(p), first, second))
    return seen


def test_the_printed_levels_are_the_quantiles() -> None:
    assert max(abs(a - b) for a, b in zip(script.nf4_levels(), script.NF4, strict=True)) < 1e-6
    assert list(script.NF4) == sorted(script.NF4)
    assert (script.NF4[0], script.NF4[7], script.NF4[15]) == (-1.0, 0.0, 1.0)


def test_fp4_is_two_bits_of_exponent_and_one_of_mantissa() -> None:
    """Its magnitudes are powers of two and three halves of them, twelve the largest, and one subnormal."""
    assert {abs(v) * 12 for v in script.FP4} == {0.0, 0.0625, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0}
    assert all(script.FP4[i + 8] == -script.FP4[i] for i in range(8))


@pytest.mark.parametrize(("signed", "low"), [(True, -0.993), (False, 0.0)])
def test_the_dynamic_map(signed: bool, low: float) -> None:
    levels = script.dynamic_map(signed)
    assert len(set(levels)) == 256
    assert list(levels) == sorted(levels)
    assert levels[-1] == 1.0
    assert levels[0] == pytest.approx(low, abs=1e-3)
    positive = [v for v in levels if 0 < v < 1]
    for decade in range(7):
        inside = [v for v in positive if 10.0 ** (decade - 7) < v < 10.0 ** (decade - 6)]
        steps_of_decade = 2**decade if signed else 2 ** (decade + 1)
        assert len(inside) == steps_of_decade
        # The middles of equal steps: their mean is the middle of the decade.
        assert sum(inside) / len(inside) == pytest.approx(0.55 * 10.0 ** (decade - 6))
    if signed:
        assert sorted(-v for v in levels if v < 0) == positive


@given(slope=st.floats(0.1, 1e3), negative=st.booleans(), count=st.integers(1, 20))
def test_a_constant_gradient_moves_adam_by_the_learning_rate(
    slope: float, negative: bool, count: int
) -> None:
    """Bias correction makes both moments of a constant gradient exact, so every step is the same."""
    slope = -slope if negative else slope
    end, first, second = steps("Adam", slope, count)[-1]
    assert end == pytest.approx(1.0 - math.copysign(script.LR * count, slope), abs=1e-6)
    assert first == pytest.approx(slope * (1 - 0.9**count))
    assert second == pytest.approx(slope**2 * (1 - 0.995**count))


@given(slope=st.floats(1e-3, 1e3), count=st.integers(1, 20))
def test_the_other_rules_on_a_constant_gradient(slope: float, count: int) -> None:
    rate = script.LR
    momenta = [slope * (1 - 0.9**k) / (1 - 0.9) for k in range(1, count + 1)]
    assert steps("SGD", slope, count)[-1][0] == pytest.approx(1 - rate * sum(momenta), rel=1e-6)
    assert steps("Lion", slope, count)[-1][0] == pytest.approx(1 - rate * count)
    adagrad = sum(1 / math.sqrt(k) for k in range(1, count + 1))
    assert steps("Adagrad", slope, count)[-1][0] == pytest.approx(1 - rate * adagrad, rel=1e-4)
    rms = sum(1 / math.sqrt(1 - 0.95**k) for k in range(1, count + 1))
    assert steps("RMSprop", slope, count)[-1][0] == pytest.approx(1 - rate * rms, rel=1e-3)


@given(slope=st.floats(1e-2, 1e2), count=st.integers(1, 10))
def test_ademamix_adds_its_slow_average_and_decays(slope: float, count: int) -> None:
    before = 1.0 if count == 1 else steps("AdEMAMix", slope, count - 1)[-1][0]
    after, (fast, slow), _ = steps("AdEMAMix", slope, count)[-1]
    assert slow == pytest.approx(slope * (1 - 0.999**count))
    assert fast == pytest.approx(slope * (1 - 0.9**count))
    move = 1 + 5.0 * (1 - 0.999**count) + 1e-2 * before
    assert after == pytest.approx(before - script.LR * move, rel=1e-5)


def test_adamw_decays_what_adam_leaves() -> None:
    (adam, *_), (adamw, *_) = steps("Adam", 1.0, 1)[0], steps("AdamW", 1.0, 1)[0]
    assert adam - adamw == pytest.approx(script.LR * 1e-2 * 1.0)


def raised(error: Exception) -> Exception:
    try:
        raise error  # noqa: TRY301 - for its traceback
    except Exception as caught:  # noqa: BLE001
        return caught


@pytest.mark.parametrize(
    ("error", "device", "offered"),
    [
        (NotImplementedError("Could not run 'bitsandbytes::gemv_4bit' with arguments"), "mps", False),
        (ValueError("invalid blocksize 32"), "cuda:0", False),
        (RuntimeError("quant_type must be nf4 on cpu, got fp4"), "cpu", False),
        (RuntimeError("quant_type must be nf4 on cpu, got fp4"), "cuda:0", True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "cuda:0", True),
        (RuntimeError("the same GPU"), "cpu", True),
        (AttributeError("'NoneType' object has no attribute 'shape'"), "cpu", True),
        (ValueError("something else"), "cpu", True),
        (OSError("libcudart.so.12: cannot open shared object file"), "cuda:0", True),
    ],
    ids=lambda value: str(value)[:30],
)
def test_only_the_listed_refusals_mean_not_offered(error: Exception, device: str, offered: bool) -> None:
    assert (script.refusal(raised(error), device) is None) is offered


def test_a_lost_context_is_recognised() -> None:
    assert script.poisoned(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not script.poisoned(ValueError("invalid blocksize 32"))


def test_the_core_functions_have_checks() -> None:
    text = SCRIPT.read_text("utf-8")
    for name in CORE:
        assert f'"{name.partition("/")[0]}/' in text or f'f"{name.partition("/")[0]}/' in text


def test_the_script_runs_on_older_pythons() -> None:
    compile(SCRIPT.read_text("utf-8"), str(SCRIPT), "exec", dont_inherit=True)
    import ast

    ast.parse(SCRIPT.read_text("utf-8"), feature_version=(3, 9))


def test_a_missing_torch_is_a_failed_import(tmp_path: Path) -> None:
    """The interpreter of the tests has no torch: the script says so instead of ending without a word."""
    if importlib.util.find_spec("torch") is not None:
        pytest.skip("this interpreter has torch")
    events = tmp_path / "events.jsonl"
    ran = subprocess.run([sys.executable, "-I", "-B", SCRIPT, "--events", events], check=False)
    assert ran.returncode == 1
    told = [json.loads(line) for line in events.read_text("utf-8").splitlines()]
    (end,) = (event for event in told if event["event"] == "end")
    assert (end["name"], end["state"]) == ("import", "failed")
    assert "No module named 'torch'" in end["detail"]


def test_the_exported_file_is_one_program_that_prints_a_block(tmp_path: Path) -> None:
    if importlib.util.find_spec("torch") is not None:
        pytest.skip("this interpreter has torch")
    program = tmp_path / "exported.py"
    program.write_text(export_script(), encoding="utf-8")
    command = [sys.executable, str(program), "--device", "cpu", "--level", "quick"]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    (facts,) = read_blocks(f"Hello,\n\n{ran.stdout}\nbye")
    assert ran.returncode == 1
    assert facts["devices"][0]["failures"][0]["name"] == "import"
    assert facts["script"] == script_sha256()
    assert f'paste("{facts["script"]}")' in program.read_text("utf-8")


@pytest.mark.slow
@needs_environment
def test_a_real_environment_is_judged(tmp_path: Path) -> None:
    """A sound release passes, or is degraded by listed faults alone."""
    assert TEST_ENV is not None
    verdict = run(
        Path(TEST_ENV),
        level="quick",
        accelerator="cpu",
        environ=dict(os.environ),
        cwd=tmp_path,
        known_faults=load("known_faults").known_faults,
    )
    (cpu,) = verdict.devices
    assert [c for c in cpu.checks if c.state in {"failed", "crashed"}] == []
    assert verdict.verdict == ("degraded" if verdict.faults else "passed")
    assert {"torch", "bitsandbytes"} <= verdict.versions.keys()
    passed = {check.name for check in cpu.checks if check.state == "passed"}
    for name in CORE:
        assert any(check.startswith(name) for check in passed)


@pytest.mark.slow
@needs_environment
def test_a_module_in_the_current_directory_shadows_torch(tmp_path: Path) -> None:
    assert TEST_ENV is not None
    (tmp_path / "sympy.py").write_text("symbols = 1", encoding="utf-8")
    verdict = run(
        Path(TEST_ENV),
        level="quick",
        accelerator="cpu",
        environ=dict(os.environ),
        cwd=tmp_path,
        known_faults=load("known_faults").known_faults,
    )
    assert any("sympy" in note for note in verdict.notes)
