from __future__ import annotations

import base64
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.errors import ExternalError, UsageError
from bnbenv.install.compile import CompileRequest, compile_lock, platform_name
from bnbenv.install.sources import Sources, read_sources
from bnbenv.machine.target import Libc
from bnbenv.matrix.load import load
from bnbenv.matrix.rows import IndexRow, Provenance, TorchBuild
from bnbenv.toml import loads
from bnbenv.units import DottedVersion
from support.wheels import write_wheel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnbenv.install.compile import Compiled
    from bnbenv.install.uv import Uv
    from support.index_server import IndexServer

PROVENANCE = Provenance(how="published", source="a test", checked="2026-11-23")


def torch(
    index: str, *, version: str = "2.9.1", local: str | None = "cu126", triton: str | None = None
) -> TorchBuild:
    return TorchBuild(
        version=version,
        build=local or "cu128",
        index=index,
        local=local,
        os="linux",
        arch="x86_64",
        pythons=("3.11",),
        triton=triton,
        provenance=PROVENANCE,
    )


def row(name: str, url: str | None, companions: Sequence[str] = ("torchvision", "triton-rocm")) -> IndexRow:
    return IndexRow(
        name=name,
        family=name.partition("-")[0],
        url=url,
        companions=tuple(companions),
        provenance=PROVENANCE,
    )


class World:
    """An index of everything, an index of torch builds, and a user who has configured them."""

    def __init__(
        self, tmp_path: Path, server: IndexServer, uv: Uv, environ: dict[str, str], minor: str
    ) -> None:
        self.tmp_path, self.server, self.uv, self.minor = tmp_path, server, uv, minor
        self.environ = {**environ, "UV_DEFAULT_INDEX": server.add("main", tmp_path / "main")}
        server.add("cu126", tmp_path / "cu126")

    def sources(self, rows: Sequence[IndexRow] | None = None, **variables: str) -> Sources:
        rows = (
            rows if rows is not None else [row("pypi", None), row("pytorch-cu126", self.server.url("cu126"))]
        )
        return read_sources(
            environ={**self.environ, **variables},
            cwd=self.tmp_path,
            home=Path(self.environ["HOME"]),
            index_rows=rows,
            prefixes=(),
            root=self.tmp_path / "root",
        )

    def compile(self, sources: Sources, *requirements: str, **options: Any) -> Compiled:
        request = CompileRequest(python=self.minor, requirements=requirements, **options)
        return compile_lock(self.uv, request, sources, self.tmp_path / "pylock.toml", environ=self.environ)

    def lock(self) -> dict[str, dict[str, Any]]:
        document = loads((self.tmp_path / "pylock.toml").read_text(encoding="utf-8"))
        return {package["name"]: package for package in document["packages"]}

    def origin(self, name: str) -> str:
        """The index of the server that a package's file comes from."""
        url = self.lock()[name]["wheels"][0]["url"]
        return str(url).split("/")[3]


@pytest.fixture
def world(tmp_path: Path, server: IndexServer, uv: Uv, environ: dict[str, str], minor: str) -> World:
    return World(tmp_path, server, uv, environ, minor)


def test_each_package_comes_from_its_own_index_though_the_other_has_a_newer_decoy(world: World) -> None:
    main, cu126 = world.tmp_path / "main", world.tmp_path / "cu126"
    write_wheel(cu126, "torch", "2.9.1+cu126", requires=["numpy"])
    write_wheel(cu126, "torchvision", "0.24.1+cu126", requires=["torch"])
    write_wheel(cu126, "numpy", "9.9.9")  # the decoys: newer, and on the wrong index
    write_wheel(cu126, "transformers", "99.0")
    write_wheel(main, "torch", "2.99.0")
    write_wheel(main, "torchvision", "0.99.0")
    write_wheel(main, "numpy", "2.1.0")
    write_wheel(main, "transformers", "5.23.0", requires=["numpy", "torchvision"])

    world.compile(world.sources(), "transformers>=5", torch=torch("pytorch-cu126"))

    lock = world.lock()
    assert {name: package["version"] for name, package in lock.items()} == {
        "torch": "2.9.1+cu126",
        "torchvision": "0.24.1+cu126",
        "numpy": "2.1.0",
        "transformers": "5.23.0",
    }
    assert {name: world.origin(name) for name in lock} == {
        "torch": "cu126",
        "torchvision": "cu126",
        "numpy": "main",
        "transformers": "main",
    }


def test_torch_of_the_default_index_is_not_taken_from_an_extra_one(world: World) -> None:
    write_wheel(world.tmp_path / "main", "torch", "2.9.1")
    write_wheel(world.tmp_path / "extra", "torch", "2.9.1+cpu")  # satisfies `torch==2.9.1`, and sorts higher
    sources = world.sources(PIP_EXTRA_INDEX_URL=world.server.add("extra", world.tmp_path / "extra"))
    world.compile(sources, torch=torch("pypi", local=None))
    assert world.lock()["torch"]["version"] == "2.9.1"
    assert world.origin("torch") == "main"


def test_a_companion_that_only_torchs_index_has_is_found(world: World) -> None:
    write_wheel(world.tmp_path / "cu126", "torch", "2.9.1+cu126")
    write_wheel(world.tmp_path / "cu126", "torchvision", "0.24.1+cu126")
    world.compile(world.sources(), "torchvision>=0.24", torch=torch("pytorch-cu126"))
    assert world.origin("torchvision") == "cu126"


def test_a_board_gets_bitsandbytes_from_where_its_torch_comes(world: World) -> None:
    (known,) = (row for row in load("indexes").indexes if row.name == "jetson-jp6-cu126")
    board = known._replace(url=world.server.add("board", world.tmp_path / "board"))
    for place, version in (("board", "2.11.0"), ("main", "2.11.0")):
        write_wheel(world.tmp_path / place, "torch", version)
    for place in ("board", "main"):
        write_wheel(world.tmp_path / place, "bitsandbytes", "0.47.0.dev0")
    write_wheel(world.tmp_path / "main", "bitsandbytes", "0.50.2")
    write_wheel(world.tmp_path / "board", "transformers", "99.0")
    write_wheel(world.tmp_path / "main", "transformers", "5.20.2")
    sources = world.sources([row("pypi", None), board])
    build = torch(board.name, version="2.11.0", local=None)
    world.compile(sources, "bitsandbytes==0.47.0.dev0", "transformers>=5", torch=build)
    origins = {name: world.origin(name) for name in world.lock()}
    assert origins == {"torch": "board", "bitsandbytes": "board", "transformers": "main"}
    assert world.lock()["bitsandbytes"]["version"] == "0.47.0.dev0"


def test_a_triton_that_only_torchs_index_has_is_found(world: World) -> None:
    write_wheel(world.tmp_path / "cu126", "torch", "2.9.1+cu126", requires=["triton-rocm==3.5.1"])
    write_wheel(world.tmp_path / "cu126", "triton-rocm", "3.5.1")
    world.compile(world.sources(), torch=torch("pytorch-cu126", triton="triton-rocm==3.5.1"))
    assert world.origin("triton-rocm") == "cu126"


def test_a_wheelhouse_is_an_index_like_any_other(world: World) -> None:
    house = world.tmp_path / "house"
    write_wheel(house, "torch", "2.9.1+cpu")
    write_wheel(house, "torchvision", "0.24.1+cpu")
    write_wheel(world.tmp_path / "main", "torch", "2.9.1")
    write_wheel(world.tmp_path / "main", "torchvision", "0.99.0")
    sources = world.sources(PIP_FIND_LINKS=str(house))
    (wheelhouse,) = sources.with_role("flat")
    compiled = world.compile(sources, "torchvision", torch=torch(wheelhouse.name, local="cpu"))
    lock = world.lock()
    assert {name: package["version"] for name, package in lock.items()} == {
        "torch": "2.9.1+cpu",
        "torchvision": "0.24.1+cpu",
    }
    assert compiled.local == ("torch", "torchvision")
    assert all(file["hashes"]["sha256"] for package in lock.values() for file in package["wheels"])


def test_a_tree_of_pages_on_disk_is_an_extra_index_as_pip_reads_it(world: World) -> None:
    tree = world.tmp_path / "tree"
    wheel = write_wheel(tree / "files", "numpy", "2.2.0")
    page = tree / "simple" / "numpy" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(
        f'<html><body><a href="../../files/{wheel.name}">{wheel.name}</a></body></html>', encoding="utf-8"
    )
    write_wheel(world.tmp_path / "main", "numpy", "2.1.0")
    write_wheel(world.tmp_path / "main", "torch", "2.9.1")
    sources = world.sources(PIP_EXTRA_INDEX_URL=(tree / "simple").as_uri())
    world.compile(sources, "numpy", torch=torch("pypi", local=None))
    numpy = world.lock()["numpy"]
    assert numpy["version"] == "2.2.0"
    assert numpy["index"] == (tree / "simple").as_uri()
    assert numpy["wheels"][0]["hashes"]["sha256"]


def test_pip_takes_the_best_version_of_all_its_indexes_and_so_do_we(world: World) -> None:
    # uv alone stops at the first index that has the name: the stale copy would win.
    write_wheel(world.tmp_path / "stale", "numpy", "1.0")
    write_wheel(world.tmp_path / "main", "numpy", "2.1.0")
    url = world.server.add("stale", world.tmp_path / "stale")
    world.compile(world.sources(PIP_EXTRA_INDEX_URL=url), "numpy")
    assert world.lock()["numpy"]["version"] == "2.1.0"


def test_uvs_own_extra_index_keeps_uvs_rule(world: World) -> None:
    write_wheel(world.tmp_path / "first", "numpy", "1.0")
    write_wheel(world.tmp_path / "main", "numpy", "2.1.0")
    url = world.server.add("first", world.tmp_path / "first")
    world.compile(world.sources(UV_INDEX=f"first={url}"), "numpy")
    assert world.lock()["numpy"]["version"] == "1.0"


def test_every_package_names_its_index_also_where_several_could_have_had_it(world: World) -> None:
    write_wheel(world.tmp_path / "extra", "beta", "1.0")
    write_wheel(world.tmp_path / "main", "alpha", "1.0")
    url = world.server.add("extra", world.tmp_path / "extra")
    world.compile(world.sources(UV_INDEX=f"extra={url}"), "alpha", "beta")
    assert {name: package["index"].split("/")[3] for name, package in world.lock().items()} == {
        "alpha": "main",
        "beta": "extra",
    }


def test_a_credential_reaches_the_index_and_no_file(world: World) -> None:
    write_wheel(world.tmp_path / "private", "alpha", "1.0")
    world.server.add("private", world.tmp_path / "private", credential="joe:s3cret")
    sources = world.sources(PIP_EXTRA_INDEX_URL=world.server.url("private", credential="joe:s3cret"))
    assert "s3cret" not in repr(sources)
    ran: list[str] = []
    from dataclasses import replace

    uv = replace(world.uv, log=lambda done: ran.append(repr(done)))
    compile_lock(
        uv,
        CompileRequest(python=world.minor, requirements=("alpha",)),
        sources,
        world.tmp_path / "pylock.toml",
        environ=world.environ,
    )
    assert world.origin("alpha") == "private"
    assert "s3cret" not in (world.tmp_path / "pylock.toml").read_text(encoding="utf-8")
    assert ran
    assert "s3cret" not in "".join(ran)


def test_pips_proxy_is_used_by_uv_with_its_password_and_shows_it_nowhere(world: World) -> None:
    write_wheel(world.tmp_path / "far", "alpha", "1")
    world.server.add("far.example", world.tmp_path / "far")
    proxy = world.server.url("x", credential="joe:s3cret").removesuffix("/x/simple/")
    sources = world.sources(
        UV_DEFAULT_INDEX="http://far.example/simple/", PIP_TRUSTED_HOST="far.example", PIP_PROXY=proxy
    )
    world.compile(sources, "alpha")
    assert world.lock()["alpha"]["wheels"][0]["url"] == "http://far.example/files/alpha-1-py3-none-any.whl"
    basic = "Basic " + base64.b64encode(b"joe:s3cret").decode()
    assert {seen.proxy_authorization for seen in world.server.seen} == {basic}
    assert "s3cret" not in repr(sources)


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        ({"mode": "forbidden"}, "index-forbidden"),
        ({"credential": "joe:s3cret"}, "index-forbidden"),
        ({"mode": "broken"}, "index-unreachable"),
        ({"mode": "reset"}, "index-unreachable"),
        ({"mode": "login-page"}, "index-not-an-index"),
        ({"mode": "loop"}, "index-not-an-index"),
    ],
    ids=["403", "401", "503", "cut connection", "login page", "endless redirection"],
)
def test_a_failing_index_is_called_by_its_failure(
    world: World, behaviour: Mapping[str, Any], code: str
) -> None:
    write_wheel(world.tmp_path / "cu126", "torch", "2.9.1+cu126")
    world.server.add("cu126", world.tmp_path / "cu126", **behaviour)
    world.environ["UV_HTTP_RETRIES"] = "0"
    with pytest.raises(ExternalError) as caught:
        world.compile(world.sources(), torch=torch("pytorch-cu126"))
    assert caught.value.code == code, caught.value.message


def test_requirements_that_exclude_each_other_are_a_conflict_in_uvs_words(world: World) -> None:
    for version in ("1", "2"):
        write_wheel(world.tmp_path / "main", "gamma", version)
    write_wheel(world.tmp_path / "main", "alpha", "1", requires=["gamma==1"])
    write_wheel(world.tmp_path / "main", "beta", "1", requires=["gamma==2"])
    with pytest.raises(ExternalError, match="gamma==1") as caught:
        world.compile(world.sources(), "alpha", "beta")
    assert caught.value.code == "conflict", caught.value.message


@pytest.mark.parametrize("requirement", ["nonsuch", "alpha>=2"], ids=["no such package", "no such version"])
def test_what_no_index_has_is_unavailable(world: World, requirement: str) -> None:
    write_wheel(world.tmp_path / "main", "alpha", "1")
    with pytest.raises(ExternalError) as caught:
        world.compile(world.sources(), requirement)
    assert caught.value.code == "package-unavailable", caught.value.message
    assert f"asked were `pypi` at {world.server.url('main')}" in (caught.value.hint or "")


def test_offline_uses_a_wheelhouse_and_nothing_else(world: World) -> None:
    house = world.tmp_path / "house"
    write_wheel(house, "torch", "2.9.1+cpu")
    write_wheel(world.tmp_path / "main", "alpha", "1")
    sources = world.sources(PIP_FIND_LINKS=str(house)).going_offline()
    world.compile(sources, torch=torch(sources.with_role("flat")[0].name, local="cpu"))
    assert set(world.lock()) == {"torch"}
    with pytest.raises(ExternalError) as caught:
        world.compile(sources, "alpha")
    assert caught.value.code == "offline"
    assert world.server.seen == []


def test_without_indexes_each_package_comes_from_a_wheelhouse_torch_too(world: World) -> None:
    first, second = world.tmp_path / "first", world.tmp_path / "second"
    write_wheel(world.tmp_path / "main", "alpha", "9")
    write_wheel(first, "torch", "2.9.1+cpu")
    write_wheel(first, "alpha", "1")
    write_wheel(second, "alpha", "2")
    sources = world.sources(PIP_NO_INDEX="1", PIP_FIND_LINKS=f"{first} {second}")
    world.compile(sources, "alpha", torch=torch(sources.with_role("flat")[0].name, local="cpu"))
    assert {name: it["version"] for name, it in world.lock().items()} == {"alpha": "2", "torch": "2.9.1+cpu"}
    assert world.server.seen == []


def test_a_torch_of_an_index_without_dates_is_not_too_new(world: World) -> None:
    write_wheel(world.tmp_path / "cu126", "torch", "2.9.1+cu126")
    world.compile(world.sources(), torch=torch("pytorch-cu126"), exclude_newer="2026-11-01")
    assert world.lock()["torch"]["version"] == "2.9.1+cu126"


def test_a_users_limit_on_torch_is_not_forgotten(world: World) -> None:
    write_wheel(world.tmp_path / "cu126", "torch", "2.9.1+cu126")
    world.compile(world.sources(), "torch<2.10", torch=torch("pytorch-cu126"))
    with pytest.raises(ExternalError, match=r"torch<2\.9") as caught:
        world.compile(world.sources(), "torch<2.9", torch=torch("pytorch-cu126"))
    assert caught.value.code == "conflict"


def test_what_a_base_provides_stays_out_of_the_lock(world: World) -> None:
    write_wheel(world.tmp_path / "main", "torch", "2.9.1")
    write_wheel(world.tmp_path / "main", "alpha", "1", requires=["torch", "numpy"])
    write_wheel(world.tmp_path / "main", "numpy", "2.1.0")
    write_wheel(world.tmp_path / "main", "numpy", "2.2.0")
    world.compile(world.sources(), "alpha", provided=frozenset({"torch"}), constraints=("numpy==2.1.0",))
    lock = world.lock()
    assert set(lock) == {"alpha", "numpy"}
    assert lock["numpy"]["version"] == "2.1.0"


def test_a_file_that_its_index_gives_no_hash_for_is_hashed(world: World) -> None:
    wheel = write_wheel(world.tmp_path / "main", "alpha", "1")
    world.server.add("main", world.tmp_path / "main", mode="no-hashes")
    world.compile(world.sources(), "alpha")
    (file,) = world.lock()["alpha"]["wheels"]
    assert file["hashes"] == {"sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()}


def test_requirement_files_and_unreadable_requirements_go_to_uv(world: World) -> None:
    write_wheel(world.tmp_path / "main", "alpha", "1")
    write_wheel(world.tmp_path / "main", "beta", "1")
    wheel = write_wheel(world.tmp_path / "elsewhere", "gamma", "1")
    file = world.tmp_path / "extra.txt"
    file.write_text("beta\n", encoding="utf-8")
    world.compile(world.sources(), "alpha", str(wheel), requirement_files=(file,))
    assert set(world.lock()) == {"alpha", "beta", "gamma"}


def test_a_missing_requirement_file_is_a_usage_error(world: World) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        world.compile(world.sources(), requirement_files=(world.tmp_path / "nowhere.txt",))


def test_another_machine_gets_its_own_wheels(world: World) -> None:
    for tag in ("manylinux_2_28_x86_64", "win_amd64", "manylinux_2_28_aarch64"):
        write_wheel(world.tmp_path / "main", "alpha", "1", tag=f"py3-none-{tag}")
    world.compile(world.sources(), "alpha", platform=platform_name(os="windows", arch="x86_64", libc=None))
    files = [file["url"] for file in world.lock()["alpha"]["wheels"]]
    assert any("win_amd64" in url for url in files)
    assert not any("linux" in url for url in files)


@pytest.mark.parametrize(
    ("os", "arch", "glibc", "expected"),
    [
        ("linux", "x86_64", "2.35", "x86_64-manylinux_2_35"),
        ("linux", "x86_64", "2.30", "x86_64-manylinux_2_28"),
        ("linux", "aarch64", "2.99", "aarch64-manylinux_2_40"),
        ("linux", "x86_64", None, "x86_64-manylinux_2_28"),
        ("windows", "x86_64", None, "x86_64-pc-windows-msvc"),
        ("macos", "aarch64", None, "aarch64-apple-darwin"),
    ],
)
def test_platforms_have_uvs_names(os: Any, arch: Any, glibc: str | None, expected: str) -> None:
    libc = Libc(family="glibc", version=DottedVersion.parse(glibc)) if glibc else None
    assert platform_name(os=os, arch=arch, libc=libc) == expected


def test_every_platform_name_is_one_that_uv_knows(uv: Uv, environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "empty.in").write_text("", encoding="utf-8")
    for level in (17, 28, 31, 35, 40):
        libc = Libc(family="glibc", version=DottedVersion.parse(f"2.{level}"))
        for arch in ("x86_64", "aarch64"):
            name = platform_name(os="linux", arch=arch, libc=libc)
            uv.run(
                [
                    "pip",
                    "compile",
                    str(tmp_path / "empty.in"),
                    "--python-platform",
                    name,
                    "--no-config",
                    "--python",
                    sys.executable,
                ],
                environ=environ,
            )


def test_a_glibc_that_no_platform_has_is_refused() -> None:
    with pytest.raises(UsageError, match="older than every manylinux"):
        platform_name(
            os="linux", arch="x86_64", libc=Libc(family="glibc", version=DottedVersion.parse("2.5"))
        )
