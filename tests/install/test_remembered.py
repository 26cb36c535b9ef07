from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.install import availability
from bnbenv.install.availability import probe, recalled
from bnbenv.install.listing import Answer, IndexProblem, ask
from bnbenv.install.redact import Credential
from bnbenv.install.remembered import MAX_AGE, anything_kept, recall, remember
from bnbenv.install.sources import Index, Sources
from support.wheels import write_wheel

if TYPE_CHECKING:
    from pathlib import Path

    from support.index_server import IndexServer

NOW = 1_800_000_000.0
SOURCES = Sources(
    indexes=(
        Index(name="pypi", url=None, role="default", origin="a test"),
        Index(name="pytorch-cu126", url="https://p.example/cu126", role="explicit", origin="a test"),
    )
)
ANSWERS = (
    Answer(index="pypi", files=(("torch-2.9.1-cp311-cp311-win_amd64.whl", 123), ("torch-2.9.0-x.whl", None))),
    Answer(
        index="pytorch-cu126",
        problem=IndexProblem(
            index="pytorch-cu126", url="https://p.example/", code="index-forbidden", message="no", hint="ask"
        ),
    ),
)


def test_nothing_is_kept_where_nobody_may_look(tmp_path: Path) -> None:
    assert not anything_kept(tmp_path / ("x" * 300))


def test_answers_come_back_as_they_were_for_a_day(tmp_path: Path) -> None:
    remember(ANSWERS, SOURCES, tmp_path / "new", environ={}, now=NOW)
    assert recall(SOURCES, tmp_path / "new", environ={}, now=NOW + MAX_AGE - 1) == ANSWERS
    assert recall(SOURCES, tmp_path / "new", environ={}, now=NOW + MAX_AGE) is None
    assert recall(SOURCES, tmp_path / "new", environ={}, now=NOW - 1) is None


@pytest.mark.parametrize(
    "other",
    [
        replace(SOURCES, indexes=SOURCES.indexes[:1]),
        replace(SOURCES, proxy="http://proxy.example"),
        replace(SOURCES, indexes=(replace(SOURCES.indexes[0], url="https://m.example/"), SOURCES.indexes[1])),
    ],
    ids=["an index less", "another proxy", "another address"],
)
def test_other_sources_do_not_share_them(tmp_path: Path, other: Sources) -> None:
    remember(ANSWERS, SOURCES, tmp_path, environ={}, now=NOW)
    assert recall(other, tmp_path, environ={}, now=NOW) is None


@pytest.mark.parametrize("kept_in", ["address", "variables", "netrc"])
def test_another_password_is_another_source_and_none_is_written(
    kept_in: str, environ: dict[str, str], tmp_path: Path
) -> None:
    """What was refused for a wrong one is asked again with the right one."""

    def given(password: str) -> tuple[Sources, dict[str, str]]:
        netrc = tmp_path / "netrc"
        netrc.write_text("")
        credential, variables = None, {**environ, "NETRC": str(netrc)}
        match kept_in:
            case "address":
                credential = Credential(username="joe", password=password)
            case "variables":
                variables["UV_INDEX_PYTORCH_CU126_PASSWORD"] = password
            case _:
                netrc.write_text(f"machine p.example login joe password {password}\n")
        indexes = (SOURCES.indexes[0], replace(SOURCES.indexes[1], credential=credential))
        return replace(SOURCES, indexes=indexes), variables

    memory = tmp_path / "memory"
    sources, variables = given("wrong")
    remember(ANSWERS, sources, memory, environ=variables, now=NOW)
    assert recall(sources, memory, environ=variables, now=NOW) == ANSWERS
    sources, variables = given("right")
    assert recall(sources, memory, environ=variables, now=NOW) is None
    [file] = memory.iterdir()
    assert "wrong" not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"schema": 99}', "null"])
def test_a_damaged_memory_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "availability.json").write_text(text, encoding="utf-8")
    assert recall(SOURCES, tmp_path, environ={}, now=NOW) is None


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    remember(ANSWERS, SOURCES, tmp_path / "file" / "below", environ={}, now=NOW)
    assert recall(SOURCES, tmp_path / "file" / "below", environ={}, now=NOW) is None


def test_offline_guesses_are_not_remembered(tmp_path: Path) -> None:
    remember(ANSWERS, SOURCES.going_offline(), tmp_path, environ={}, now=NOW)
    assert recall(SOURCES, tmp_path, environ={}, now=NOW) is None


def test_a_page_on_disk_is_read_again_only_when_it_has_changed(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "simple" / "torch" / "index.html"
    page.parent.mkdir(parents=True)
    text = '<!DOCTYPE html><html><body><a href="{0}">{0}</a></body></html>'
    wheel = "torch-2.9.{}+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"
    page.write_text(text.format(wheel.format(0)), encoding="utf-8")
    index = Index(name="mine", url=(tmp_path / "simple").as_uri(), role="extra", origin="a test")
    sources = Sources(indexes=(index,))
    probe(sources, environ=environ, memory=tmp_path)
    asked: list[str] = []

    def counted(index: Index, *rest: Sources, **more: Any) -> Answer:
        asked.append(index.name)
        return ask(index, *rest, **more)

    monkeypatch.setattr(availability, "ask", counted)
    found = recalled(sources, memory=tmp_path, environ=environ)
    assert found is not None
    assert [build.version for build in found.builds] == ["2.9.0"]
    assert asked == []
    page.write_text(text.format(wheel.format(11)), encoding="utf-8")
    found = recalled(sources, memory=tmp_path, environ=environ)
    assert found is not None
    assert [build.version for build in found.builds] == ["2.9.11"]
    page.unlink()
    found = recalled(sources, memory=tmp_path, environ=environ)
    assert found is not None
    assert found.builds == ()
    assert asked == ["mine", "mine"]


def test_a_probe_is_recalled_without_the_network_and_with_todays_wheelhouse(
    tmp_path: Path, server: IndexServer, environ: dict[str, str]
) -> None:
    url = server.add("cu126", tmp_path / "cu126", mode="forbidden")
    house = tmp_path / "house"
    house.mkdir()
    sources = Sources(
        indexes=(
            Index(name="house", url=house.as_uri(), role="flat", origin="a test", flat=True),
            Index(name="pytorch-cu126", url=url, role="explicit", origin="a test"),
        )
    )
    memory = tmp_path / "memory"
    assert recalled(sources, memory=memory, environ=environ) is None
    probe(sources, environ=environ, memory=memory)
    server.seen.clear()
    write_wheel(house, "torch", "2.9.1+cpu", tag="cp311-cp311-manylinux_2_28_x86_64")
    found = recalled(sources, memory=memory, environ=environ)
    assert found is not None
    assert server.seen == []
    assert "pytorch-cu126" in found.unavailable
    assert [build.index for build in found.builds] == ["house"]
