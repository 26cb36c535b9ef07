from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.errors import DataError, ExternalError, UsageError
from bnbenv.install.sources import read_sources
from bnbenv.install.uv_files import default_address
from bnbenv.lockfile import pylock
from bnbenv.lockfile.homes import canonical, reachable
from bnbenv.matrix.load import load
from support.index_server import IndexServer
from support.wheels import write_wheel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bnbenv.install.sources import Sources

ROWS = load("indexes").indexes
CU126 = next(row.url for row in ROWS if row.name == "pytorch-cu126")


@pytest.fixture
def server() -> Iterator[IndexServer]:
    with IndexServer() as running:
        yield running


def sources(tmp_path: Path, environ: dict[str, str], **mirrors: str) -> Sources:
    found = {**environ, "PIP_CONFIG_FILE": os.devnull, "NO_PROXY": "127.0.0.1"}
    named = {name.replace("_", "-"): url for name, url in mirrors.items()}
    return read_sources(
        environ=found, cwd=tmp_path, home=tmp_path, index_rows=ROWS, mirrors=named, prefixes=[]
    )


def lock(wheel: Path, index: str, url: str, name: str = "torch") -> pylock.Pylock:
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    package: dict[str, Any] = {
        "name": name,
        "version": wheel.name.split("-")[1],
        "index": index,
        "wheels": [{"url": url, "hashes": {"sha256": sha256}}],
    }
    return pylock.from_document({"lock-version": "1.0", "created-by": "uv", "packages": [package]})


def url_of(found: pylock.Pylock) -> str:
    return str(found.packages[0].artefacts[0].url)


def test_a_mirror_leaves_no_trace_and_is_found_again(server: IndexServer, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "w", "torch", "1+cu126", tag="cp312-cp312-manylinux_2_28_x86_64")
    one, two = server.add("one", wheel.parent), server.add("two", wheel.parent)
    here = sources(tmp_path, {}, pytorch_cu126=one)
    made = lock(wheel, one.rstrip("/"), f"{server.url('one').removesuffix('simple/')}files/{wheel.name}")
    shared = canonical(made, here, ROWS)
    assert shared.packages[0].index == CU126
    assert url_of(shared).startswith(str(CU126))
    assert url_of(shared).endswith("torch-1%2Bcu126-cp312-cp312-manylinux_2_28_x86_64.whl")
    assert shared.digest == made.digest
    there = reachable(shared, sources(tmp_path, {}, pytorch_cu126=two), ROWS, environ={})
    assert "/two/" in url_of(there)
    assert there.digest == made.digest


def test_the_default_index_has_a_name_of_its_own(server: IndexServer, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "w", "einops", "1")
    one, two = server.add("one", wheel.parent), server.add("two", wheel.parent)
    here = sources(tmp_path, {"PIP_INDEX_URL": one})
    made = lock(wheel, one.rstrip("/"), f"{one}x/{wheel.name}", name="einops")
    shared = canonical(made, here, ROWS)
    assert shared.packages[0].index == default_address()
    assert "127.0.0.1" not in url_of(shared)
    there = reachable(shared, sources(tmp_path, {"PIP_INDEX_URL": two}), ROWS, environ={})
    assert "/two/" in url_of(there)


def test_an_index_of_the_users_own_keeps_its_address_without_the_credential(
    server: IndexServer, tmp_path: Path
) -> None:
    wheel = write_wheel(tmp_path / "w", "inhouse", "1")
    bare = server.add("own", wheel.parent, credential="me:secret")
    here = sources(tmp_path, {"PIP_EXTRA_INDEX_URL": server.url("own", credential="me:secret")})
    made = lock(wheel, bare.rstrip("/"), server.url("own", credential="me:secret") + wheel.name, "inhouse")
    shared = canonical(made, here, ROWS)
    assert shared.packages[0].index is not None
    assert shared.packages[0].index.rstrip("/") == bare.rstrip("/")
    assert "secret" not in pylock.dump(shared)


def test_a_mirror_with_another_file_under_the_name_is_refused(server: IndexServer, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "w", "torch", "1+cu126")
    made = lock(wheel, str(CU126), f"{CU126}/torch-1%2Bcu126-py3-none-any.whl")
    other = write_wheel(tmp_path / "evil", "torch", "1+cu126", members={"torch/__init__.py": b"evil"})
    mirror = server.add("evil", other.parent)
    with pytest.raises(DataError, match="has another `torch-1") as caught:
        reachable(made, sources(tmp_path, {}, pytorch_cu126=mirror), ROWS, environ={})
    assert caught.value.code == "hash-mismatch"


def test_a_mirror_without_the_file_is_named(server: IndexServer, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "w", "torch", "1+cu126")
    made = lock(wheel, str(CU126), f"{CU126}/torch-1%2Bcu126-py3-none-any.whl")
    mirror = server.add("empty", tmp_path / "empty")
    with pytest.raises(ExternalError, match="has no file that the lock names of torch") as caught:
        reachable(made, sources(tmp_path, {}, pytorch_cu126=mirror), ROWS, environ={})
    assert caught.value.code == "package-unavailable"


def test_a_mirror_that_wants_a_password(server: IndexServer, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "w", "torch", "1+cu126")
    made = lock(wheel, str(CU126), f"{CU126}/torch-1%2Bcu126-py3-none-any.whl")
    mirror = server.add("own", wheel.parent, credential="me:secret")
    with pytest.raises(ExternalError) as caught:
        reachable(made, sources(tmp_path, {}, pytorch_cu126=mirror), ROWS, environ={})
    assert caught.value.code == "index-forbidden"
    allowed = sources(tmp_path, {}, pytorch_cu126=server.url("own", credential="me:secret"))
    there = reachable(made, allowed, ROWS, environ={})
    assert "secret" not in pylock.dump(there)


def test_without_a_mirror_nothing_is_asked(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "w", "torch", "1+cu126")
    made = lock(wheel, str(CU126), f"{CU126}/torch-1%2Bcu126-py3-none-any.whl")
    assert reachable(made, sources(tmp_path, {}), ROWS, environ={}) is made


def test_everything_from_a_wheelhouse(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "house" / "wheels", "torch", "1+cu126")
    made = lock(wheel, str(CU126), f"{CU126}/torch-1%2Bcu126-py3-none-any.whl")
    there = reachable(made, sources(tmp_path, {}), ROWS, environ={}, wheelhouse=tmp_path / "house")
    assert url_of(there) == wheel.as_uri()
    assert there.digest == made.digest
    with pytest.raises(ExternalError, match="has no file of torch"):
        reachable(made, sources(tmp_path, {}), ROWS, environ={}, wheelhouse=tmp_path)
    with pytest.raises(UsageError, match="is no directory"):
        reachable(made, sources(tmp_path, {}), ROWS, environ={}, wheelhouse=tmp_path / "none")


def test_a_wheel_that_was_changed_on_the_way_is_named_before_anything_is_built(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "house" / "wheels", "torch", "1+cu126")
    made = lock(wheel, str(CU126), f"{CU126}/torch-1%2Bcu126-py3-none-any.whl")
    wheel.write_bytes(wheel.read_bytes() + b"and more")
    with pytest.raises(DataError, match="is not the file that") as caught:
        reachable(made, sources(tmp_path, {}), ROWS, environ={}, wheelhouse=tmp_path / "house")
    assert caught.value.code == "hash-mismatch"
    assert wheel.name in caught.value.message
