"""What `resolve` adds to the judge: what is lost by indexes that do not answer, and a Python to fetch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bnbenv.env.layout import Layout
from bnbenv.errors import UnsolvableError
from bnbenv.install.availability import probe
from bnbenv.install.sources import read_sources
from bnbenv.judge.stack import Offers
from bnbenv.machine.target import Libc, Target
from bnbenv.matrix.load import load
from bnbenv.units import DottedVersion
from bnbenv.workflows.choose import JUDGED
from bnbenv.workflows.request import Wanted
from bnbenv.workflows.resolve import Known, known_indexes, resolve

if TYPE_CHECKING:
    from pathlib import Path

MATRIX = load(*JUDGED, platform=("linux", "x86_64"))
HOST = Target(
    name="host",
    os="linux",
    arch="x86_64",
    accelerator="cpu",
    libc=Libc(family="glibc", version=DottedVersion.parse("2.39")),
    pythons=("3.12",),
)
QLORA = Wanted(profile="qlora")
SHUT = Offers(unavailable=frozenset({"pytorch-cpu"}))


def test_what_an_index_that_did_not_answer_costs_is_told() -> None:
    data = resolve(QLORA, HOST, MATRIX, Known(offers=SHUT, how="remembered", without=()))
    assert data["torch"]["build"] != "cpu"
    [sentence] = data["given_up"]
    assert "(cpu, index `pytorch-cpu`) would be the first choice" in sentence
    assert f"torch {data['torch']['version']} ({data['torch']['build']}, `pypi`) is taken instead" in sentence


def test_what_was_left_out_on_request_is_not_lost() -> None:
    known = Known(offers=SHUT, how="remembered", without=("pytorch-cpu",))
    assert resolve(QLORA, HOST, MATRIX, known)["given_up"] == []
    assert resolve(QLORA, HOST, MATRIX, replace(known, offers=Offers(), without=()))["given_up"] == []


def test_an_index_that_the_configuration_shuts_off_is_not_counted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`resolve` remembers a probe, and answers as `create` would."""
    environ = {
        "HOME": str(tmp_path),
        "BNBENV_HOME": str(tmp_path / "home"),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path),
    }
    monkeypatch.chdir(tmp_path)
    sources = read_sources(environ=environ, cwd=tmp_path, home=tmp_path, index_rows=MATRIX.indexes)
    probe(sources, environ=environ, memory=Layout.find(environ).cache)
    known = known_indexes(QLORA, MATRIX, {}, environ)
    assert known.how == "remembered"
    assert {"pypi", "pytorch-cpu", "pytorch-cu126"} <= known.offers.unavailable


def test_a_python_that_uv_would_fetch_is_taken_where_those_at_hand_serve_nothing() -> None:
    known = Known(offers=Offers(), how="assumed", without=())
    assert resolve(QLORA, HOST, MATRIX, known)["python_at_hand"] is True
    old = replace(HOST, pythons=("3.8",))
    data = resolve(QLORA, old, MATRIX, known)
    assert data["python"] != "3.8"
    assert data["python_at_hand"] is False
    with pytest.raises(UnsolvableError):
        resolve(replace(QLORA, python="3.8"), old, MATRIX, known)
