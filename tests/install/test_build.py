from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.errors import EnvironmentProblem, ExternalError
from bnbenv.install.build import create_venv, sync, venv_python
from bnbenv.install.compile import CompileRequest, compile_lock
from bnbenv.install.sources import read_sources
from support.wheels import write_wheel

if TYPE_CHECKING:
    from bnbenv.install.link_mode import Mode
    from bnbenv.install.sources import Sources
    from bnbenv.install.uv import Uv
    from support.index_server import IndexServer

NATIVE = b"\x7fELF, as far as this test is concerned" * 100


class Site:
    """An index with two packages, a lock of them and an empty environment."""

    def __init__(
        self, tmp_path: Path, server: IndexServer, uv: Uv, environ: dict[str, str], minor: str
    ) -> None:
        self.tmp_path, self.server, self.uv, self.minor = tmp_path, server, uv, minor
        self.environ = {
            **environ,
            "UV_DEFAULT_INDEX": server.add("main", tmp_path / "main"),
            "UV_HTTP_RETRIES": "0",
        }
        write_wheel(tmp_path / "main", "alpha", "1", requires=["beta"])
        write_wheel(tmp_path / "main", "beta", "1", members={"beta/lib.so": NATIVE, "beta/__init__.py": b""})
        self.lock = tmp_path / "pylock.toml"
        self.venv = tmp_path / "venv"

    def sources(self) -> Sources:
        return read_sources(
            environ=self.environ,
            cwd=self.tmp_path,
            home=Path(self.environ["HOME"]),
            prefixes=(),
            root=self.tmp_path / "root",
        )

    def compile(self) -> None:
        request = CompileRequest(python=self.minor, requirements=("alpha",))
        compile_lock(self.uv, request, self.sources(), self.lock, environ=self.environ)

    def make(self, name: str = "venv") -> Path:
        venv = self.tmp_path / name
        create_venv(self.uv, venv, Path(sys.executable), environ=self.environ)
        return venv

    def sync(self, venv: Path, *, mode: Mode = "hardlink", offline: bool = False, **options: Any) -> None:
        sources = self.sources().going_offline() if offline else self.sources()
        sync(self.uv, self.lock, venv, sources, mode, environ=self.environ, **options)

    def library(self, venv: Path) -> Path:
        (found,) = venv.rglob("beta/lib.so")
        return found


@pytest.fixture
def site(tmp_path: Path, server: IndexServer, uv: Uv, environ: dict[str, str], minor: str) -> Site:
    made = Site(tmp_path, server, uv, environ, minor)
    made.compile()
    return made


def test_an_environment_holds_what_the_lock_says_and_its_python_runs(site: Site) -> None:
    venv = site.make()
    site.sync(venv)
    code = "import alpha, beta, sys; print(alpha.__version__, sys.prefix)"
    said = subprocess.run(
        [venv_python(venv), "-I", "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert said.split() == ["1", str(venv)]


def test_a_second_environment_asks_the_index_for_nothing(site: Site) -> None:
    site.sync(site.make("first"))
    site.server.seen.clear()
    site.sync(site.make("second"))
    assert site.server.seen == []


def test_offline_after_one_build_works_and_before_it_says_so(site: Site) -> None:
    with pytest.raises(ExternalError) as caught:
        site.sync(site.make("first"), offline=True)
    assert caught.value.code == "offline", caught.value.message
    site.sync(site.make("second"))
    site.sync(site.make("third"), offline=True)


def test_what_the_lock_does_not_name_is_removed(site: Site) -> None:
    venv = site.make()
    site.sync(venv)
    document = site.lock.read_text(encoding="utf-8").split("[[packages]]")
    site.lock.write_text(
        "[[packages]]".join(part for part in document if 'name = "alpha"' not in part), encoding="utf-8"
    )
    site.sync(venv)
    assert not list(venv.rglob("alpha-1.dist-info"))
    assert site.library(venv).exists()


def test_a_file_of_another_size_is_refused(site: Site) -> None:
    write_wheel(site.tmp_path / "main", "beta", "1", members={"beta/lib.so": b"", "beta/__init__.py": b""})
    with pytest.raises(ExternalError, match="mismatch") as caught:
        site.sync(site.make())
    assert caught.value.code == "hash-mismatch", caught.value.message


def test_a_file_of_the_same_size_and_another_content_is_refused(site: Site) -> None:
    wheel = site.tmp_path / "main" / "beta-1-py3-none-any.whl"
    data = wheel.read_bytes()
    # The date of the first member: the archive stays sound, and only its hash tells.
    wheel.write_bytes(data[:10] + bytes([data[10] ^ 1]) + data[11:])
    with pytest.raises(ExternalError, match="mismatch") as caught:
        site.sync(site.make())
    assert caught.value.code == "hash-mismatch", caught.value.message


def test_a_download_that_breaks_off_leaves_nothing_and_succeeds_later(site: Site) -> None:
    site.server.indexes["main"].cut_files = 200
    venv = site.make()
    with pytest.raises(ExternalError) as caught:
        site.sync(venv)
    assert caught.value.code == "index-unreachable", caught.value.message
    assert not list(venv.rglob("*.dist-info"))
    site.server.indexes["main"].cut_files = None
    site.sync(venv)
    assert site.library(venv).read_bytes() == NATIVE


@pytest.mark.parametrize("mode", ["hardlink", "copy"])
def test_a_poisoned_cache_reaches_an_environment_until_it_is_refreshed(site: Site, mode: Mode) -> None:
    """Why RECORD is compared after each build: uv hashes a download once, and its unpacked cache never."""
    site.sync(site.make("first"), mode=mode)
    (cached,) = [
        path for path in Path(site.environ["UV_CACHE_DIR"]).rglob("beta/lib.so") if not path.is_symlink()
    ]
    poison = bytearray(NATIVE)
    poison[7] ^= 1
    cached.unlink()  # a new file in its place: the environments that exist keep their own
    cached.write_bytes(poison)

    second = site.make("second")
    site.sync(second, mode=mode)
    assert site.library(second).read_bytes() == poison

    site.sync(second, mode=mode, refresh=["beta"])
    assert site.library(second).read_bytes() == NATIVE
    third = site.make("third")
    site.sync(third, mode=mode)
    assert site.library(third).read_bytes() == NATIVE


def test_a_refresh_cures_a_wheel_from_a_wheelhouse_too(site: Site) -> None:
    house = site.tmp_path / "house"
    write_wheel(house, "gamma", "1", members={"beta/lib.so": NATIVE})
    site.environ["PIP_FIND_LINKS"] = str(house)
    request = CompileRequest(python=site.minor, requirements=("gamma",))
    compile_lock(site.uv, request, site.sources(), site.lock, environ=site.environ)
    site.sync(site.make("first"))
    (cached,) = [
        path for path in Path(site.environ["UV_CACHE_DIR"]).rglob("beta/lib.so") if not path.is_symlink()
    ]
    cached.unlink()
    cached.write_bytes(b"poison")
    second = site.make("second")
    site.sync(second)
    assert site.library(second).read_bytes() == b"poison"
    site.sync(second, refresh=["gamma"])
    assert site.library(second).read_bytes() == NATIVE


def test_a_copy_shares_no_content_with_the_cache_and_a_hardlink_does(site: Site) -> None:
    copied, linked = site.make("copied"), site.make("linked")
    site.sync(copied, mode="copy")
    site.sync(linked, mode="hardlink")
    assert site.library(copied).stat().st_nlink == 1
    assert site.library(linked).stat().st_nlink > 1


def test_an_existing_directory_keeps_its_other_files(site: Site) -> None:
    site.venv.mkdir()
    (site.venv / ".bnbenv").mkdir()
    create_venv(
        site.uv, site.venv, Path(sys.executable), environ=site.environ, allow_existing=True, prompt="qlora"
    )
    assert (site.venv / ".bnbenv").is_dir()
    assert "qlora" in (site.venv / "pyvenv.cfg").read_text(encoding="utf-8")


def test_an_environment_is_not_made_over_another(site: Site) -> None:
    site.make()
    with pytest.raises(ExternalError):
        site.make()


def test_a_missing_interpreter_is_called_by_its_path(site: Site) -> None:
    with pytest.raises(EnvironmentProblem, match="nowhere") as caught:
        create_venv(site.uv, site.venv, site.tmp_path / "nowhere" / "python", environ=site.environ)
    assert caught.value.code == "python-missing"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_is_a_matter_of_permission(site: Site) -> None:
    closed = site.tmp_path / "closed"
    closed.mkdir(mode=0o500)
    site.environ["UV_CACHE_DIR"] = str(closed / "cache")
    with pytest.raises(ExternalError) as caught:
        site.sync(site.make())
    assert caught.value.code == "permission", caught.value.message


def test_a_file_in_place_of_the_cache_is_an_error_with_uvs_words(site: Site) -> None:
    blocked = site.tmp_path / "blocked"
    blocked.write_bytes(b"")
    site.environ["UV_CACHE_DIR"] = str(blocked)
    with pytest.raises(ExternalError, match="blocked"):
        site.make()


def test_the_lock_records_the_hash_that_the_index_serves(site: Site) -> None:
    wheel = site.tmp_path / "main" / "beta-1-py3-none-any.whl"
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() in site.lock.read_text(encoding="utf-8")
