"""Wheels measured anew over the network must give the committed rows, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bnbenv.matrix.codec import CODECS
from bnbenv.matrix.load import load
from bnbenv.matrix.measure import Published, measure_bitsandbytes
from bnbenv.matrix.measure_torch import measure_torch
from bnbenv.matrix.remote import RemoteFile

COMPAT = Path(__file__).resolve().parents[2] / "compat"
WHEELS = (
    "bitsandbytes-0.50.2-py3-none-manylinux_2_24_x86_64.whl",
    "bitsandbytes-0.49.0-py3-none-win_amd64.whl",
    "bitsandbytes-0.48.2-py3-none-manylinux_2_24_aarch64.whl",
    "bitsandbytes-0.50.2-py3-none-win_arm64.whl",
    "bitsandbytes-0.50.2-py3-none-macosx_14_0_arm64.whl",
)


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("name", WHEELS)
def test_a_bitsandbytes_wheel_measures_as_committed(name: str) -> None:
    import requests
    from pypi_simple import PyPISimple

    with requests.Session() as session, PyPISimple(session=session) as index:
        [package] = [p for p in index.get_project_page("bitsandbytes").packages if p.filename == name]
        uploaded = package.upload_time.date().isoformat() if package.upload_time else ""
        [held] = [row for row in load("bitsandbytes", directory=COMPAT).bitsandbytes if row.wheel == name]
        file = RemoteFile(session, package.url, name=name)
        row = measure_bitsandbytes(
            file,
            Published(package.digests["sha256"], uploaded, held.broken),
            checked=held.provenance.checked,
        )
    line = json.dumps(CODECS["bitsandbytes"].write(row), ensure_ascii=False)
    assert (
        line in (COMPAT / "bitsandbytes.json").read_text(encoding="utf-8").splitlines()
        or f"{line}," in (COMPAT / "bitsandbytes.json").read_text(encoding="utf-8").splitlines()
    )


@pytest.mark.network
@pytest.mark.slow
def test_a_torch_wheel_measures_as_committed() -> None:
    import requests
    from pypi_simple import PyPISimple

    [held] = [
        row
        for row in load("torch", directory=COMPAT).torch
        if (row.version, row.index, row.os, row.arch) == ("2.7.1", "pypi", "linux", "x86_64")
    ]
    name = held.provenance.source.partition(" ")[0]
    with requests.Session() as session, PyPISimple(session=session) as index:
        [package] = [p for p in index.get_project_page("torch").packages if p.filename == name]
        facts = measure_torch(
            RemoteFile(session, package.url, name=name), os="linux", arch="x86_64", python="3.11"
        )
    assert (facts.cuda, facts.cubins, facts.ptx) == (held.cuda, held.cubins, held.ptx)
    assert (facts.triton, facts.nvidia) == (held.triton, held.nvidia)
