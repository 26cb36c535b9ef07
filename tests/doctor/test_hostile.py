"""Environments that somebody, or some accident, has spoilt: doctor tells what it can and never fails."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnbenv.machine.host import Host
from bnbenv.matrix.load import load
from bnbenv.workflows.doctor import Examined, examine
from support.judge_facts import target
from support.sites import PYTHON, located, make_site, site_of
from support.voice import Listener

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bnbenv.matrix.matrix import Matrix


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(target=target("8.9", pythons=(PYTHON,)), driver_state="ok", facts=())
    monkeypatch.setattr("bnbenv.machine.probe.probe", lambda **_: host)
    monkeypatch.setattr("bnbenv.matrix.load.load", _loaded)  # two hundred environments, one matrix


@cache
def _loaded(*parts: str, **narrow: Any) -> Matrix:
    return load(*parts, **narrow)


def look(environment: Path, **environ: str) -> Examined:
    home = environment.parent
    variables = {"HOME": str(home), "PATH": str(environment / "bin"), **environ}
    return examine(located(environment), Listener(), variables, cwd=environment, deep=False)


def _replace(file: Path, make: Callable[[Path], object]) -> None:
    file.unlink(missing_ok=True)
    make(file)


def _loop(file: Path) -> None:
    file.symlink_to(file.name)


def _large(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(1 << 33)  # sparse


def _forbidden(file: Path) -> None:
    file.write_bytes(b"x")
    file.chmod(0)


WAYS: dict[str, Callable[[Path], object]] = {
    "empty": lambda f: f.write_bytes(b""),
    "garbage": lambda f: f.write_bytes(os.urandom(4096)),
    "not-utf-8": lambda f: f.write_bytes(b"Name: \xff\xfe\nVersion: \xff\n\n\xff"),
    "nul": lambda f: f.write_bytes(b"a\x00b,sha256=x,1\n\x00,,\n"),
    "deep-json": lambda f: f.write_bytes(b"[" * 100_000),
    "long-line": lambda f: f.write_bytes(b"Name: " + b"a" * 3_000_000),
    "code": lambda f: f.write_bytes(b"(" * 5000),
    "csv": lambda f: f.write_bytes(b'"a,b\n"c,,"\n'),
    "huge-number": lambda f: f.write_bytes(b"torch/__init__.py,sha256=x," + b"9" * 5000 + b"\n"),
    "outside": lambda f: f.write_bytes(b"../../../../../etc/passwd,sha256=x,1\n/etc/shadow,sha256=x,1\n"),
    "directory": lambda f: f.mkdir(),
    "loop": _loop,
    "dangling": lambda f: f.symlink_to("/nowhere/at/all"),
    "pipe": os.mkfifo,
    "device": lambda f: f.symlink_to("/dev/zero"),
    "large": _large,
    "forbidden": _forbidden,
}
FILES = (
    "METADATA",
    "RECORD",
    "INSTALLER",
    "direct_url.json",
    "torch/version.py",
    "bitsandbytes/__init__.py",
    "bitsandbytes/libbitsandbytes_cpu.so",
    "bitsandbytes/libbitsandbytes_cuda999.so",
    "pyvenv.cfg",
    "evil.pth",
    ".bashrc",
    "bin/pip",
    "bin/activate",
    "conda-meta/state",
)


def _file(environment: Path, name: str) -> Path:
    site = site_of(environment)
    if name in {"METADATA", "RECORD", "INSTALLER", "direct_url.json"}:
        return next(site.glob("bitsandbytes-*.dist-info")) / name
    if name.endswith(".pth") or name.startswith(("torch/", "bitsandbytes/")):
        return site / name
    return environment.parent / name if name == ".bashrc" else environment / name


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FILES)
def test_a_spoilt_file(name: str, way: str, tmp_path: Path) -> None:
    environment = make_site(tmp_path / "env")
    file = _file(environment, name)
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    WAYS[way](file)
    examined = look(environment)
    assert all(found.code and found.summary for found in examined.findings)


DIRECTORIES = (
    "torch",
    "bitsandbytes",
    "bitsandbytes-0.50.2.dist-info",
    "nvidia",
    "numpy-.dist-info",
    "-.dist-info",
)


@pytest.mark.parametrize("name", DIRECTORIES)
@pytest.mark.parametrize("way", ["empty", "loop", "pipe", "dangling", "forbidden"])
def test_a_file_where_a_directory_should_be(name: str, way: str, tmp_path: Path) -> None:
    import shutil

    environment = make_site(tmp_path / "env")
    place = site_of(environment) / name
    if place.is_dir():
        shutil.rmtree(place)
    WAYS[way](place)
    assert isinstance(look(environment), Examined)


def test_an_endless_directory(tmp_path: Path) -> None:
    environment = make_site(tmp_path / "env")
    (site_of(environment) / "bitsandbytes" / "again").symlink_to(site_of(environment))
    (site_of(environment) / "again.pth").write_text(f"{site_of(environment)}/bitsandbytes/again\n.\n..\n")
    assert isinstance(look(environment), Examined)


def test_variables_that_hold_anything(tmp_path: Path) -> None:
    environment = make_site(tmp_path / "env", torch="2.13.0+cu130", cuda="13.0")
    odd = "\n\t::/nowhere:" + "x" * 5000 + ":\udcff"
    names = (
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "PYTHONHOME",
        "BNB_CUDA_VERSION",
        "HSA_OVERRIDE_GFX_VERSION",
        "PATH",
    )
    assert isinstance(look(environment, **dict.fromkeys(names, odd)), Examined)


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entries=st.lists(
        st.tuples(NAMES, st.sampled_from([".dist-info", ".egg-info", ".pth", ".egg-link", ""])), max_size=6
    ),
    data=st.binary(max_size=400),
    metadata=st.text(max_size=200),
)
def test_names_and_bytes_of_any_kind(
    entries: list[tuple[str, str]], data: bytes, metadata: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment = make_site(tmp_path_factory.mktemp("hostile") / "env", bitsandbytes=None, packages={})
    site = site_of(environment)
    for name, suffix in entries:
        place = site / f"{name[:60]}{suffix}"
        try:
            if suffix == ".dist-info":
                place.mkdir(exist_ok=True)
                (place / "METADATA").write_text(
                    f"Name: {metadata}\nRequires-Dist: {metadata}\n", errors="replace"
                )
                (place / "RECORD").write_bytes(data)
            elif not place.exists():
                place.write_bytes(data)
        except (OSError, ValueError):
            continue
    assert isinstance(look(environment), Examined)


def test_what_bnbenv_wrote_is_spoilt(make_environment: Callable[..., Any], tmp_path: Path) -> None:
    from bnbenv.workflows.environment import Located

    for way in ("empty", "garbage", "deep-json", "not-utf-8"):
        made = make_environment(f"env-{way}")
        for part in ("lock.toml", "state.json", "verdict.json", "READY"):
            _replace(made.facts / part, WAYS[way])
        place = Located(directory=made.directory, kind="bnbenv", why="a test")
        assert isinstance(examine(place, Listener(), {"HOME": str(tmp_path), "PATH": ""}), Examined)
