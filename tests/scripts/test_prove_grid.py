# ruff: noqa: E501 - rows of tables stand in one line
"""The oracles of the grid agree with the judge, and see each of these faults in it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import _grid_amd_intel
import prove_grid
from _grid_amd_intel import Card, OtherHost
from bnbenv.judge import candidates, coverage, lookup
from bnbenv.judge.rules import library
from bnbenv.judge.rules.rule import Rule
from prove_grid import Host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AMD = OtherHost(
    accelerator="rocm",
    os="linux",
    arch="x86_64",
    glibc="2.39",
    glibcxx=None,
    cards=(Card(gfx="gfx1100"),),
    rocm=None,
    pythons=("3.12",),
    env=(),
    pins=(None, None),
    reach="all",
)
INTEL = replace(AMD, accelerator="xpu", cards=(Card(),))
WITH_GRAPHICS = (Card(gfx="gfx1100"), Card(gfx="gfx1036", integrated=True))
NVIDIA = Host("linux", "x86_64", False, "2.35", "580.95.05", ("8.9",), ("3.12",))
ON_WINDOWS = replace(NVIDIA, os="windows", glibc=None)


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any, str, Callable[..., object]], None]]:
    """Replaces something in the judge; a rule is frozen, and gets its check back afterwards."""
    changed: list[tuple[Rule, Any]] = []

    def change(where: Any, name: str, broken: Callable[..., object]) -> None:
        if isinstance(where, Rule):
            changed.append((where, where.check))
            object.__setattr__(where, name, broken)
        else:
            monkeypatch.setattr(where, name, broken)

    yield change
    for rule, check in changed:
        object.__setattr__(rule, "check", check)


def misses(host: Host | OtherHost) -> list[str]:
    """What the oracle finds; a matrix of its own, as what the judge finds is kept with the matrix."""
    prove_grid._matrix.cache_clear()
    judged = (
        prove_grid.judge_others([host]) if isinstance(host, OtherHost) else prove_grid.judge_chunk([host])
    )
    return list(judged["misses"])


@pytest.mark.parametrize("number", range(4))
def test_judge_and_oracle_agree(number: int) -> None:
    assert prove_grid.judge_others(_grid_amd_intel.hosts(6, number))["misses"] == []
    assert prove_grid.judge_chunk(prove_grid.hosts()[number * 10 : number * 10 + 10])["misses"] == []


@pytest.mark.parametrize(
    ("host", "where", "name", "broken"),
    [
        (replace(INTEL, pins=(None, "==0.49.0")), lookup, "sycl_runtimes", lambda _: {}),
        (replace(AMD, cards=WITH_GRAPHICS), coverage, "beside_discrete", lambda *_: False),
        (
            replace(AMD, cards=(Card(gfx="gfx1032"),), env=(("HSA_OVERRIDE_GFX_VERSION", "10.3.0"),)),
            coverage,
            "effective_gfx",
            lambda gpu, _: gpu.gfx,
        ),
        (
            replace(AMD, env=(("HSA_OVERRIDE_GFX_VERSION", "11.0.0"),)),
            library.gfx_is_not_overridden,
            "check",
            lambda *_: (),
        ),
        (replace(AMD, reach="pypi pytorch-rocm6.3"), library, "_neighbour", lambda *_: ()),
        (replace(AMD, pins=("==2.13.0", None)), candidates, "index_tie", lambda row, _: row.index),
        (replace(AMD, cards=(Card(gfx="gfx906"),)), library.library_serves_gpus, "check", lambda *_: ()),
        (
            replace(AMD, cards=(Card(gfx="gfx906"), Card(gfx="gfx1100")), env=(("HIP_VISIBLE_DEVICES", "1"),)),
            coverage,
            "hip_visible",
            lambda uuids, _: (True,) * len(uuids),
        ),
        (NVIDIA, coverage, "best_cubin", lambda cubins, capability: capability if capability in cubins else None),
        (replace(NVIDIA, gpus=("6.1",)), coverage, "best_cubin", lambda cubins, _: max(cubins, default=None)),
        (replace(ON_WINDOWS, driver="527.41"), lookup, "oldest_driver", lambda row, _: row.linux),
        (replace(ON_WINDOWS, driver="582.28", gpus=("6.1",)), lookup, "release_branch", lambda _, number: number),
    ],
    ids=[
        "sycl-runtime", "graphics-beside-a-card", "override", "override-is-uncertain", "newer-library", "newest-rocm",
        "gfx", "visibility", "minor-below", "same-major", "windows-floor", "windows-branch",
    ],
)  # fmt: skip
def test_a_fault_in_the_judge_is_seen(
    host: Host | OtherHost,
    where: Any,
    name: str,
    broken: Callable[..., object],
    breaks: Callable[[Any, str, Callable[..., object]], None],
) -> None:
    assert misses(host) == []
    breaks(where, name, broken)
    assert len(misses(host)) == 1
