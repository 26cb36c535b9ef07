"""Each release's own loader, run over the whole grid, against the rules and the judge's reading of them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.specifiers import SpecifierSet

from bnbenv.judge.loader import choose_library
from bnbenv.matrix.load import load
from bnbenv.matrix.remote import RemoteFile
from bnbenv.matrix.rows import Provenance, TorchBuild
from bnbenv.matrix.wheel import Wheel
from bnbenv.units import ComputeCapability, CudaVersion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnbenv.matrix.rows import BitsandbytesWheel

MATRIX = load("bitsandbytes", "loaders", directory=Path(__file__).resolve().parents[2] / "compat")
DRIVER = Path(__file__).with_name("loader_driver.py")
# What only another index carries has no row that was read from the wheel.
WHEELS = [row for row in MATRIX.bitsandbytes if row.os in ("linux", "windows") and row.l4t is None]

CUDA = ("11.1", "11.7", "11.8", "12.0", "12.1", "12.4", "12.6", "12.8", "12.9", "13.0", "13.2", "13.4")
ROCM = ("6.1.40091", "6.2.41133", "6.4.43482", "7.0.51831", "7.2.26015", "7.14.60850", "10.0.1")
CAPABILITIES = (((6, 1),), ((7, 0),), ((7, 5),), ((8, 9),), ((12, 0),), ((6, 1), (8, 6)))
OVERRIDES: tuple[dict[str, str], ...] = (
    {},
    *({"BNB_CUDA_VERSION": value} for value in ("", "118", "124", "129", "12.4", "cu124", "abc")),
    *({"BNB_ROCM_VERSION": value} for value in ("", "64", "72", "6.4")),
    {"CUDA_VERSION": "12.4.1"},
)
NO_CPU = ("0.35.0", "0.35.2", "0.35.3", "0.35.4", "0.40.1")
"""Without a GPU these depend on what lies on search paths or fail by a slip; their rows are `broken`."""
PROVENANCE = Provenance(how="published", source="a case of the grid", checked="2026-11-23")


def cases(wheel: BitsandbytesWheel) -> Iterator[dict[str, Any]]:
    """The grid for one wheel; ROCm where the wheel has libraries for it."""
    for cuda, found, environ in itertools.product(CUDA, CAPABILITIES, OVERRIDES):
        yield {"cuda": cuda, "hip": None, "capabilities": found, "environ": environ}
    if any(library.backend == "rocm" for library in wheel.libraries):
        for hip, environ in itertools.product(ROCM, OVERRIDES):
            yield {"cuda": None, "hip": hip, "capabilities": ((9, 0),), "environ": environ}
    for environ in OVERRIDES if wheel.version not in NO_CPU else ():
        yield {"cuda": None, "hip": None, "capabilities": (), "environ": environ}


def expected(wheel: BitsandbytesWheel, case: dict[str, Any]) -> tuple[str | None, str]:
    """What the judge says."""
    [rule] = [rule for rule in MATRIX.loaders if wheel.version in SpecifierSet(rule.versions)]
    cuda = CudaVersion.parse(case["cuda"]) if case["cuda"] else None
    build = TorchBuild(
        version="2.9.0",
        build=cuda.tag if cuda else ("rocm" if case["hip"] else "cpu"),
        index="pypi",
        local=None,
        os=wheel.os,
        arch=wheel.arch,
        pythons=("3.12",),
        provenance=PROVENANCE,
        cuda=cuda,
        rocm=case["hip"],
    )
    capabilities = [ComputeCapability(*capability) for capability in case["capabilities"]]
    choice = choose_library(wheel, rule, build, capabilities if cuda else [], case["environ"])
    return choice.name, choice.consequence


@pytest.fixture(scope="module")
def addresses() -> dict[str, str]:
    from pypi_simple import PyPISimple

    with PyPISimple() as index:
        return {package.filename: package.url for package in index.get_project_page("bitsandbytes").packages}


@pytest.mark.network
@pytest.mark.parametrize("wheel", WHEELS, ids=lambda row: f"{row.version}-{row.platform}")
def test_the_releases_own_loader_agrees_with_the_judge(
    wheel: BitsandbytesWheel, addresses: dict[str, str], tmp_path: Path
) -> None:
    import requests

    package = tmp_path / "bitsandbytes"
    with requests.Session() as session:
        archive = Wheel(RemoteFile(session, addresses[wheel.wheel], name=wheel.wheel, size=wheel.size))
        for name in archive.names:
            folders = name.split("/")
            if (
                name.endswith(".py")
                and folders[0] == "bitsandbytes"
                and (len(folders) == 2 or folders[1] == "cuda_setup")
            ):
                target = tmp_path / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
    for library in wheel.libraries:
        (package / library.name).touch()
    grid = list(cases(wheel))
    job = {
        "package": str(package),
        "system": {"linux": "Linux", "windows": "Windows"}[wheel.os],
        "cases": grid,
    }
    done = subprocess.run(
        [sys.executable, "-I", str(DRIVER)],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = json.loads(done.stdout)
    assert len(outcomes) == len(grid)
    wrong = []
    for case, outcome in zip(grid, outcomes, strict=True):
        want = expected(wheel, case)
        if (outcome["library"], outcome["consequence"]) != want:
            wrong.append((case, outcome, want))
    assert not wrong, f"{len(wrong)} of {len(grid)}: {wrong[:4]}"
