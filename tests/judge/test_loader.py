from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bnbenv.judge.loader import choose_library
from bnbenv.judge.ranges import within
from support.judge_facts import LOADERS, capabilities, library, torch, wheel

if TYPE_CHECKING:
    from bnbenv.judge.loader import LoaderChoice
    from bnbenv.matrix.rows import BitsandbytesWheel


def choose(release: str, kinds: tuple[str, ...], build: str, gpus: str = "8.9", **env: str) -> LoaderChoice:
    rule = next(row for row in LOADERS if within(release, row.versions))
    given: BitsandbytesWheel = wheel(release, tuple(library(kind) for kind in ("cpu", *kinds)))
    return choose_library(given, rule, torch("2.9.0", build), capabilities(gpus), env)


def name(kind: str) -> str:
    return f"libbitsandbytes_{kind}.so"


OLD = ("cuda118", "cuda118_nocublaslt", "cuda121", "cuda121_nocublaslt", "cuda124", "cuda124_nocublaslt")
EXACT = ("cuda118", "cuda124", "cuda126", "cuda128", "cuda129")
NEAREST = ("cuda118", "cuda121", "cuda124", "cuda126", "cuda128", "cuda130", "cuda132")


@pytest.mark.parametrize(
    ("release", "kinds", "build", "gpus", "expected", "how", "consequence"),
    [
        pytest.param("0.42.0", OLD, "cu121", "8.9", "cuda121", "exact", "fine", id="0.42-exact"),
        pytest.param("0.42.0", OLD, "cu126", "8.9", None, "missing", "raise", id="0.42-raises"),
        pytest.param("0.43.3", OLD, "cu121", "8.9", "cuda121", "exact", "fine", id="0.43-exact"),
        pytest.param("0.43.3", OLD, "cu121", "6.1", "cuda121_nocublaslt", "exact", "fine", id="0.43-pascal"),
        pytest.param(
            "0.43.3", OLD, "cu121", "6.1 8.6", "cuda121", "exact", "fine", id="0.43-highest-gpu-decides"
        ),
        pytest.param("0.44.1", OLD, "cu126", "8.9", None, "missing", "cpu", id="0.44-silently-cpu"),
        pytest.param("0.45.5", EXACT, "cu124", "6.1", "cuda124", "exact", "fine", id="0.45-no-variant"),
        pytest.param("0.45.5", EXACT, "cu130", "8.9", None, "missing", "cpu", id="0.45-silently-cpu"),
        pytest.param("0.46.1", EXACT, "cu130", "8.9", None, "missing", "mock", id="0.46-mock"),
        pytest.param("0.49.2", EXACT, "cu132", "8.9", None, "missing", "mock", id="0.49-no-neighbour"),
        pytest.param("0.49.2", EXACT, "cu129", "8.9", "cuda129", "exact", "fine", id="0.49-exact-129"),
        pytest.param("0.50.2", NEAREST, "cu126", "8.9", "cuda126", "exact", "fine", id="0.50-exact"),
        pytest.param("0.50.2", NEAREST, "cu129", "8.9", "cuda128", "nearest", "fine", id="0.50-below"),
        pytest.param("0.50.2", NEAREST, "cu134", "8.9", "cuda132", "nearest", "fine", id="0.50-newest-below"),
        pytest.param("0.50.2", NEAREST, "cu117", "8.9", "cuda118", "nearest", "fine", id="0.50-oldest-above"),
        pytest.param("0.50.2", ("cuda118",), "cu126", "8.9", None, "missing", "mock", id="0.50-never-across"),
    ],
)
def test_choice_without_override(
    release: str, kinds: tuple[str, ...], build: str, gpus: str, expected: str | None, how: str,
    consequence: str,
) -> None:  # fmt: skip
    choice = choose(release, kinds, build, gpus)
    assert choice.name == (name(expected) if expected else None)
    assert (choice.how, choice.consequence) == (how, consequence)


@pytest.mark.parametrize(
    ("release", "value", "gpus", "expected", "how", "wanted"),
    [
        pytest.param("0.43.3", "118", "8.9", "cuda118", "override", "cuda118", id="0.43-held"),
        pytest.param("0.43.3", "123", "8.9", None, "missing", "cuda123", id="0.43-not-held"),
        pytest.param(
            "0.43.3", "123", "7.0", None, "missing", "cuda121_nocublaslt123", id="0.43-volta-mangles-the-name"
        ),
        pytest.param("0.43.3", "", "8.9", "cuda121", "exact", "cuda121", id="0.43-empty-is-unset"),
        pytest.param("0.43.3", "XXX", "8.9", None, "missing", "cudaXXX", id="0.43-malformed-enters-the-name"),
        pytest.param("0.49.2", "", "8.9", "cuda121", "exact", "cuda121", id="0.49-empty-is-unset"),
        pytest.param("0.50.2", "118", "8.9", "cuda118", "override", "cuda118", id="0.50-held"),
        pytest.param("0.50.2", "125", "8.9", None, "missing", "cuda125", id="0.50-no-fallback"),
        pytest.param("0.50.2", "", "8.9", None, "malformed", "cuda", id="0.50-empty-is-an-error"),
        pytest.param("0.50.2", "12.4", "8.9", None, "malformed", "cuda12.4", id="0.50-only-digits"),
    ],
)
def test_choice_with_override(
    release: str, value: str, gpus: str, expected: str | None, how: str, wanted: str
) -> None:
    choice = choose(release, OLD, "cu121", gpus, BNB_CUDA_VERSION=value)
    assert choice.name == (name(expected) if expected else None)
    assert (choice.how, choice.wanted) == (how, name(wanted))


@pytest.mark.parametrize(
    ("release", "build", "env", "expected", "how"),
    [
        pytest.param("0.49.2", "rocm6.4", {}, "rocm64", "exact", id="exact"),
        pytest.param("0.49.2", "rocm6.2.4", {}, "rocm62", "exact", id="three-numbers"),
        pytest.param("0.49.2", "rocm7.1", {}, None, "missing", id="0.49-no-neighbour"),
        pytest.param("0.50.2", "rocm7.1", {}, "rocm70", "nearest", id="0.50-below"),
        pytest.param("0.50.2", "rocm6.1", {}, "rocm62", "nearest", id="0.50-above"),
        pytest.param("0.50.2", "rocm10.0", {}, None, "unreadable-version", id="two-digit-major"),
        pytest.param(
            "0.49.2", "rocm6.4", {"BNB_CUDA_VERSION": "64"}, None, "malformed", id="0.49-cuda-variable"
        ),
        pytest.param("0.50.2", "rocm6.4", {"BNB_ROCM_VERSION": "70"}, "rocm70", "override", id="override"),
        pytest.param(
            "0.50.2", "rocm6.4", {"BNB_ROCM_VERSION": "71"}, None, "missing", id="override-no-fallback"
        ),
        pytest.param("0.50.2", "rocm6.4", {"BNB_ROCM_VERSION": ""}, None, "malformed", id="override-empty"),
    ],
)
def test_rocm(release: str, build: str, env: dict[str, str], expected: str | None, how: str) -> None:
    choice = choose(release, ("rocm62", "rocm64", "rocm70"), build, "8.9", **env)
    assert (choice.name, choice.how) == (name(expected) if expected else None, how)


def test_cpu_build_takes_the_cpu_library_whatever_the_variable_says() -> None:
    choice = choose("0.50.2", NEAREST, "cpu", "8.9", BNB_CUDA_VERSION="999")
    assert (choice.name, choice.how) == (name("cpu"), "only")


def test_missing_xpu_library() -> None:
    assert choose("0.47.0", NEAREST, "xpu").name is None
    assert choose("0.50.2", ("xpu",), "xpu").name == name("xpu")
