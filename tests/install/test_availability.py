from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.redact import redact
from bnbenv.dataclass import replace
from bnbenv.errors import ExternalError, UsageError
from bnbenv.install.availability import probe
from bnbenv.install.sources import Sources, read_sources
from bnbenv.install.torch_wheels import candidate_builds, listed_builds, newer_release, read_wheel_name
from bnbenv.judge.stack import Offers
from bnbenv.matrix.rows import IndexRow, Provenance, TorchBuild
from bnbenv.units import ComputeCapability, CudaVersion, DottedVersion
from support.wheels import write_wheel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bnbenv.install.availability import Availability
    from support.index_server import IndexServer

PROVENANCE = Provenance(how="published", source="a test", checked="2026-11-23")
CUBINS = (ComputeCapability(8, 0), ComputeCapability(9, 0))
CU126 = TorchBuild(
    version="2.9.1",
    build="cu126",
    index="pytorch-cu126",
    local="cu126",
    os="linux",
    arch="x86_64",
    pythons=("3.10", "3.11"),
    cuda=CudaVersion(12, 6),
    cubins=CUBINS,
    provenance=PROVENANCE,
)
ON_PYPI = TorchBuild(
    version="2.9.1",
    build="cu128",
    index="pypi",
    local=None,
    os="linux",
    arch="x86_64",
    pythons=("3.11",),
    cuda=CudaVersion(12, 8),
    cubins=CUBINS,
    provenance=PROVENANCE,
)
KNOWN = (CU126, ON_PYPI)
LINUX = "cp311-cp311-manylinux_2_28_x86_64"


def row(name: str, url: str | None) -> IndexRow:
    return IndexRow(name=name, family=name.partition("-")[0], url=url, companions=(), provenance=PROVENANCE)


class Site:
    """The user's configuration around an index server."""

    def __init__(self, tmp_path: Path, environ: dict[str, str], default: str) -> None:
        self.tmp_path = tmp_path
        self.environ = {**environ, "UV_DEFAULT_INDEX": default}

    def sources(self, *rows: IndexRow, mirrors: Mapping[str, str] | None = None, **variables: str) -> Sources:
        return read_sources(
            environ={**self.environ, **variables},
            cwd=self.tmp_path,
            home=Path(self.environ["HOME"]),
            index_rows=[row("pypi", None), *rows],
            mirrors=mirrors,
            prefixes=(),
            root=self.tmp_path / "root",
        )

    def probe(
        self, sources: Sources, names: Sequence[str] | None = None, *, timeout: float = 10.0, **variables: str
    ) -> Availability:
        return probe(sources, names, known=KNOWN, environ={**self.environ, **variables}, timeout=timeout)


@pytest.fixture
def site(tmp_path: Path, server: IndexServer, environ: dict[str, str]) -> Site:
    write_wheel(tmp_path / "main", "torch", "2.9.1", tag=LINUX)
    return Site(tmp_path, environ, server.add("main", tmp_path / "main"))


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "html"])
def test_an_index_that_answers_lists_its_builds(site: Site, server: IndexServer, as_json: bool) -> None:
    for python in ("cp310-cp310", "cp311-cp311", "cp313-cp313t"):
        write_wheel(site.tmp_path / "cu126", "torch", "2.9.1+cu126", tag=f"{python}-manylinux_2_28_x86_64")
    url = server.add("cu126", site.tmp_path / "cu126", as_json=as_json)
    found = site.probe(site.sources(row("pytorch-cu126", url)))
    assert found.problems == ()
    assert found.offers() == Offers(
        listed={
            "pypi": frozenset({("2.9.1", "cu128", "3.11")}),
            "pytorch-cu126": frozenset({("2.9.1", "cu126", "3.10"), ("2.9.1", "cu126", "3.11")}),
        }
    )


@pytest.mark.parametrize(
    ("behaviour", "code", "words"),
    [
        ({"credential": "joe:pw"}, "index-forbidden", "wants credentials (HTTP 401)"),
        ({"mode": "forbidden"}, "index-forbidden", "refuses access (HTTP 403)"),
        ({"mode": "login-page"}, "index-not-an-index", "not as a package index"),
        ({"mode": "missing"}, "index-missing", "does not exist (HTTP 404)"),
        ({"mode": "broken"}, "index-unreachable", "out of order (HTTP 503)"),
        ({"mode": "reset"}, "index-unreachable", "closed without an answer"),
        ({"mode": "cut"}, "index-unreachable", "the answer breaks off"),
        ({"mode": "loop"}, "index-not-an-index", "from one address to the next without end"),
    ],
    ids=["401", "403", "login page", "404", "503", "cut connection", "cut answer", "endless redirection"],
)
def test_each_way_of_failing_has_its_own_message(
    site: Site, server: IndexServer, behaviour: Mapping[str, object], code: str, words: str
) -> None:
    write_wheel(site.tmp_path / "cu126", "torch", "2.9.1+cu126", tag=LINUX)
    url = server.add("cu126", site.tmp_path / "cu126", **behaviour)
    found = site.probe(site.sources(row("pytorch-cu126", url)))
    (problem,) = found.problems
    assert (problem.index, problem.code) == ("pytorch-cu126", code)
    assert words in problem.message
    assert url in problem.message
    assert problem.hint
    assert found.unavailable == {"pytorch-cu126"}
    assert found.listed["pypi"]


def test_no_connection_and_no_such_host_are_told_apart(site: Site) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: whoever connects is refused
        port = held.getsockname()[1]
        found = site.probe(
            site.sources(
                row("pytorch-cu126", f"http://127.0.0.1:{port}/simple"),
                # A name that the standard keeps free of addresses (RFC 2606).
                row("pytorch-cu130", "https://pytorch.invalid/simple"),
            )
        )
    words = {problem.index: problem.message for problem in found.problems}
    assert "the connection is refused" in words["pytorch-cu126"]
    assert "its name has no address" in words["pytorch-cu130"]


@pytest.mark.parametrize("mode", ["hang", "drip"])
def test_a_silent_or_slow_index_costs_no_more_than_the_time_allowed(
    site: Site, server: IndexServer, mode: str
) -> None:
    url = server.add("cu126", site.tmp_path / "cu126", mode=mode)
    found = site.probe(site.sources(row("pytorch-cu126", url)), timeout=0.4)
    (problem,) = found.problems
    assert problem.code == "index-unreachable"
    assert "does not answer within 0.4 s" in problem.message


@pytest.fixture
def tls_port(tmp_path: Path) -> Iterator[int]:
    """A TLS server whose certificate nobody has signed."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    try:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=x",
             "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
            check=True, capture_output=True,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("openssl makes the certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            try:
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        try:
                            with context.wrap_socket(connection, server_side=True) as secured:
                                secured.recv(4096)
                                secured.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                        except OSError:
                            continue
            except OSError:
                return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_an_untrusted_certificate_is_told_and_the_sites_own_is_used(site: Site, tls_port: int) -> None:
    sources = site.sources(row("pytorch-cu126", f"https://127.0.0.1:{tls_port}/simple"))
    (problem,) = site.probe(sources).problems
    assert "certificate that is not trusted" in problem.message
    cert = str(site.tmp_path / "cert.pem")
    (problem,) = site.probe(sources, SSL_CERT_FILE=cert).problems
    assert problem.code == "index-missing"
    with_pip = site.sources(row("pytorch-cu126", f"https://127.0.0.1:{tls_port}/simple"), PIP_CERT=cert)
    (problem,) = site.probe(with_pip).problems
    assert problem.code == "index-missing"


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "SSL_CLIENT_CERT"])
def test_certificates_that_are_not_there_are_named(site: Site, tls_port: int, variable: str) -> None:
    sources = site.sources(row("pytorch-cu126", f"https://127.0.0.1:{tls_port}/simple"))
    site.environ[variable] = str(site.tmp_path / "gone.pem")
    with pytest.raises(UsageError, match=f"`{variable}` names .*gone.pem, which does not exist"):
        site.probe(sources)


def test_the_systems_certificates_are_used_where_uv_is_told_to(
    site: Site, tls_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # OpenSSL's own variable stands for a certificate that an administrator has installed.
    monkeypatch.setenv("SSL_CERT_FILE", str(site.tmp_path / "cert.pem"))
    sources = site.sources(row("pytorch-cu126", f"https://127.0.0.1:{tls_port}/simple"))
    (problem,) = site.probe(sources).problems
    assert "certificate that is not trusted" in problem.message
    site.environ["UV_SYSTEM_CERTS"] = "1"
    (problem,) = site.probe(sources).problems
    assert problem.code == "index-missing"


class TestCredentials:
    def ask(self, site: Site, server: IndexServer, *, in_url: str | None) -> Availability:
        write_wheel(site.tmp_path / "cu126", "torch", "2.9.1+cu126", tag=LINUX)
        server.add("cu126", site.tmp_path / "cu126", credential="joe:s3cret")
        sources = site.sources(row("pytorch-cu126", server.url("cu126", credential=in_url)))
        return site.probe(sources)

    def test_of_the_address(self, site: Site, server: IndexServer) -> None:
        assert self.ask(site, server, in_url="joe:s3cret").listed["pytorch-cu126"]

    def test_of_uvs_variables(self, site: Site, server: IndexServer) -> None:
        stem = "UV_INDEX_PYTORCH_CU126"
        site.environ.update({f"{stem}_USERNAME": "joe", f"{stem}_PASSWORD": "s3cret"})
        found = self.ask(site, server, in_url=None)
        assert found.listed["pytorch-cu126"]

    def test_of_netrc(self, site: Site, server: IndexServer) -> None:
        netrc = Path(site.environ["HOME"]) / ".netrc"
        netrc.write_text("machine 127.0.0.1 login joe password s3cret\n", encoding="utf-8")
        netrc.chmod(0o600)
        assert self.ask(site, server, in_url=None).listed["pytorch-cu126"]

    def test_wrong_ones_are_not_shown(self, site: Site, server: IndexServer) -> None:
        found = self.ask(site, server, in_url="joe:wr0ng")
        assert found.problems[0].code == "index-forbidden"
        # The variables that could hold them are named, and not taken for secrets.
        assert "`UV_INDEX_PYTORCH_CU126_USERNAME` and `UV_INDEX_PYTORCH_CU126_PASSWORD`" in redact(
            found.problems[0].hint
        )
        assert "wr0ng" not in repr(found)


@contextlib.contextmanager
def _refusing_proxy() -> Iterator[str]:
    """A proxy that lets nobody through without credentials."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(4096)
                        connection.sendall(
                            b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n"
                            b"Connection: close\r\n\r\n"
                        )

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


class TestProxy:
    @pytest.mark.parametrize("how", ["pip", "environment"])
    def test_is_used(self, site: Site, server: IndexServer, how: str) -> None:
        write_wheel(site.tmp_path / "far", "torch", "2.9.1+cu126", tag=LINUX)
        server.add("far.example", site.tmp_path / "far")
        proxy = server.url("x").removesuffix("/x/simple/")
        site.environ["PIP_PROXY" if how == "pip" else "HTTP_PROXY"] = proxy
        sources = site.sources(
            row("pytorch-cu126", "http://far.example/simple"), PIP_TRUSTED_HOST="far.example"
        )
        assert site.probe(sources).listed["pytorch-cu126"] == {("2.9.1", "cu126", "3.11")}

    @pytest.mark.parametrize(
        ("proxy", "code", "words"),
        [
            ("http://joe:s3cr#t@127.0.0.1:9", "index-unreachable", "has an address that cannot be read"),
            ("joe:s3cr@t@127.0.0.1:9", "index-unreachable", "has an address that cannot be read"),
            ("http://joe:s3cr/t@127.0.0.1:9", "index-unreachable", ""),
            ("http://joe:s3cr@127.0.0.1:1", "index-unreachable", "does not work: the connection is refused"),
            ("socks5://joe:s3cr@127.0.0.1:1", "index-unreachable", "PySocks"),
        ],
    )
    def test_that_does_not_work_is_told_by_its_variable_and_without_its_password(
        self, site: Site, proxy: str, code: str, words: str
    ) -> None:
        if "PySocks" in words and find_spec("socks"):
            pytest.skip("PySocks is there")
        site.environ.update({"NO_PROXY": "", "ALL_PROXY": proxy})
        found = site.probe(site.sources())
        (problem,) = found.problems
        assert problem.code == code
        assert "the proxy (`ALL_PROXY`) before `pypi`" in problem.message
        assert words in problem.message
        assert "s3cr" not in problem.message
        assert found.nothing_serves().hint == problem.hint  # not that a mirror is wanted

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_that_wants_credentials_is_told_how_to_give_them(self, site: Site, scheme: str) -> None:
        with _refusing_proxy() as proxy:
            site.environ.update({"NO_PROXY": "", "HTTP_PROXY": proxy, "HTTPS_PROXY": proxy})
            sources = site.sources(
                row("pytorch-cu126", f"{scheme}://far.example/simple"), PIP_TRUSTED_HOST="far.example"
            )
            problem = site.probe(sources, ["pytorch-cu126"]).problems[-1]
        assert problem.code == "index-forbidden"
        assert "wants credentials" in problem.message
        assert "`USER:PASSWORD@HOST:PORT`" in problem.hint

    def test_is_passed_by_where_no_proxy_says_so(self, site: Site) -> None:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            site.environ["HTTP_PROXY"] = f"http://127.0.0.1:{held.getsockname()[1]}"
            assert site.probe(site.sources()).listed["pypi"]  # NO_PROXY holds 127.0.0.1
            site.environ["NO_PROXY"] = ""
            (problem,) = site.probe(site.sources()).problems
        assert "the proxy (`HTTP_PROXY`) before" in problem.message


def test_only_the_indexes_needed_are_asked_and_each_address_once(site: Site, server: IndexServer) -> None:
    url = server.add("all", site.tmp_path / "all")
    rows = [row(f"pytorch-{build}", url) for build in ("cu126", "cu128", "cpu")]
    sources = site.sources(
        *rows, row("nvidia-x", server.add("other", site.tmp_path / "other")), mirrors={"pytorch": url}
    )
    found = site.probe(sources, ["pytorch-cu126", "pytorch-cu128"])
    assert server.asked("all") == ["torch"]
    assert server.asked("other") == []
    assert {index.name for index in found.tried} == {"pypi", "pytorch-cu126", "pytorch-cu128"}


def test_a_mirror_of_all_builds_gives_each_name_its_own(site: Site, server: IndexServer) -> None:
    for local in ("cu126", "cpu"):
        write_wheel(site.tmp_path / "all", "torch", f"2.9.1+{local}", tag=LINUX)
    url = server.add("all", site.tmp_path / "all")
    sources = site.sources(
        row("pytorch-cu126", "https://x.invalid"),
        row("pytorch-cpu", "https://x.invalid"),
        mirrors={"pytorch": url},
    )
    listed = site.probe(sources).listed
    assert listed["pytorch-cu126"] == {("2.9.1", "cu126", "3.11")}
    assert listed["pytorch-cpu"] == {("2.9.1", "cpu", "3.11")}


def test_a_general_index_without_torch_is_no_problem(site: Site, server: IndexServer) -> None:
    extra = server.add("extra", site.tmp_path / "extra")
    found = site.probe(site.sources(PIP_EXTRA_INDEX_URL=extra))
    assert found.problems == ()
    assert found.builds == ()


class TestWheelhouse:
    def test_its_known_build_has_the_facts_of_the_matrix(self, site: Site) -> None:
        house = site.tmp_path / "house"
        write_wheel(house, "torch", "2.9.1+cu126", tag=LINUX)
        write_wheel(house, "numpy", "2.0")
        (build,) = site.probe(site.sources(PIP_FIND_LINKS=str(house))).builds
        assert (build.build, build.local, build.cubins, build.pythons) == (
            "cu126",
            "cu126",
            CUBINS,
            ("3.11",),
        )
        assert build.index == "wheelhouse-" + "-".join(house.parts[-2:]).lower().replace("_", "-")
        assert build.pin == "torch==2.9.1+cu126"
        assert build.glibc == DottedVersion((2, 28))
        assert build.size

    def test_a_cpu_build_needs_no_row(self, site: Site) -> None:
        house = site.tmp_path / "house"
        write_wheel(house, "torch", "2.13.0+cpu", tag=LINUX)
        (build,) = site.probe(site.sources(PIP_FIND_LINKS=str(house))).builds
        assert (build.version, build.build, build.cuda, build.cubins) == ("2.13.0", "cpu", None, ())

    def test_a_copy_of_pypis_wheel_is_pypis_build(self, site: Site) -> None:
        house = site.tmp_path / "house"
        write_wheel(house, "torch", "2.9.1", tag=LINUX)
        (build,) = site.probe(site.sources(PIP_FIND_LINKS=str(house))).builds
        assert (build.build, build.local, build.pin) == ("cu128", None, "torch==2.9.1")

    def test_a_gpu_build_that_the_matrix_does_not_know_is_left_out(self, site: Site) -> None:
        house = site.tmp_path / "house"
        write_wheel(house, "torch", "3.0.0+cu150", tag=LINUX)
        assert site.probe(site.sources(PIP_FIND_LINKS=str(house))).builds == ()

    def test_a_tree_of_pages_on_disk(self, site: Site) -> None:
        page = site.tmp_path / "tree" / "simple" / "torch" / "index.html"
        page.parent.mkdir(parents=True)
        name = f"torch-2.9.1+cpu-{LINUX}.whl"
        page.write_text(f'<html><body><a href="../../{name}">{name}</a></body></html>', encoding="utf-8")
        url = (site.tmp_path / "tree" / "simple").as_uri()
        (build,) = site.probe(site.sources(PIP_EXTRA_INDEX_URL=url)).builds
        assert (build.build, build.version) == ("cpu", "2.9.1")

    def test_a_page_of_links_on_the_network(self, site: Site, server: IndexServer) -> None:
        # A find-links page has no level for the project: the page of torch serves as one.
        write_wheel(site.tmp_path / "links", "torch", "2.9.1+cpu", tag=LINUX)
        url = server.add("links", site.tmp_path / "links")
        (build,) = site.probe(site.sources(PIP_FIND_LINKS=f"{url}torch/")).builds
        assert build.build == "cpu"


class TestOffline:
    def test_nothing_is_asked_and_directories_answer(self, site: Site, server: IndexServer) -> None:
        house = site.tmp_path / "house"
        write_wheel(house, "torch", "2.9.1+cpu", tag=LINUX)
        sources = site.sources(
            row("pytorch-cu126", server.url("main")), PIP_FIND_LINKS=str(house)
        ).going_offline()
        found = site.probe(sources)
        assert server.seen == []
        assert [build.build for build in found.builds] == ["cpu"]
        assert found.problems == ()
        assert found.listed == {"pypi": frozenset(), "pytorch-cu126": frozenset()}

    def test_indexes_have_what_uvs_cache_has(self, site: Site) -> None:
        # The layout of uv 0.13: a link to the unpacked wheel beside its bookkeeping.
        entry = Path(site.environ["UV_CACHE_DIR"]) / "wheels-v8" / "index" / "0123456789abcdef" / "torch"
        (entry / f"2.9.1+cu126-{LINUX}").mkdir(parents=True)
        (entry / f"2.9.1+cu126-{LINUX}.http").touch()
        sources = site.sources(
            row("pytorch-cu126", "https://x.invalid"), row("pytorch-cu130", "https://y.invalid")
        )
        listed = site.probe(sources.going_offline()).listed
        assert listed["pytorch-cu126"] == {("2.9.1", "cu126", "3.11")}
        assert listed["pytorch-cu130"] == frozenset()


def test_no_index_makes_the_default_unavailable(site: Site) -> None:
    found = site.probe(site.sources(PIP_NO_INDEX="yes"))
    assert found.unavailable == {"pypi"}


def test_when_nothing_serves_every_address_tried_is_named(site: Site, server: IndexServer) -> None:
    forbidden = server.add("cu126", site.tmp_path / "cu126", mode="forbidden")
    extra = server.add("extra", site.tmp_path / "extra")
    server.add("main", site.tmp_path / "empty")
    found = site.probe(site.sources(row("pytorch-cu126", forbidden), PIP_EXTRA_INDEX_URL=extra))
    problem = found.nothing_serves()
    assert isinstance(problem, ExternalError)
    assert problem.exit_code == 5
    for url in (forbidden, extra, server.url("main")):
        assert url in problem.message
    assert problem.code == "index-forbidden"
    # A repair may go back to its lock where what answers has no such build; else it should be tried again.
    assert found.nothing_serves(cpu=True).code == "package-unavailable"
    alone = replace(found, tried=tuple(index for index in found.tried if index.name == "pytorch-cu126"))
    assert alone.nothing_serves(cpu=True).code == "index-forbidden"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "torch-2.9.1+cu126-cp312-cp312-manylinux_2_28_x86_64.whl",
            ("2.9.1", "cu126", "3.12", "linux", "x86_64"),
        ),
        ("torch-2.9.1+cpu-cp310-cp310-win_amd64.whl", ("2.9.1", "cpu", "3.10", "windows", "x86_64")),
        ("torch-2.9.1+cpu-cp311-cp311-win_arm64.whl", ("2.9.1", "cpu", "3.11", "windows", "aarch64")),
        ("torch-2.9.1-cp312-none-macosx_11_0_arm64.whl", ("2.9.1", None, "3.12", "macos", "aarch64")),
        ("torch-2.4.0-cp39-cp39-manylinux1_x86_64.whl", ("2.4.0", None, "3.9", "linux", "x86_64")),
        ("torch-2.6.0+cu126-cp312-cp312-linux_aarch64.whl", ("2.6.0", "cu126", "3.12", "linux", "aarch64")),
        (
            "torch-2.9.1-2-cp312-cp312-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
            ("2.9.1", None, "3.12", "linux", "aarch64"),
        ),
        (
            "torch-2.9.1+rocm6.4-cp312-cp312-manylinux_2_28_x86_64.whl",
            ("2.9.1", "rocm6.4", "3.12", "linux", "x86_64"),
        ),
        ("torch-2.9.1-cp313-cp313t-manylinux_2_28_x86_64.whl", None),
        ("torch-2.9.1-cp312-cp312-manylinux_2_28_s390x.whl", None),
        ("torchvision-0.24.1+cu126-cp312-cp312-manylinux_2_28_x86_64.whl", None),
        ("torch-nonsense.whl", None),
    ],
)
def test_wheel_names_are_read(name: str, expected: tuple[str | None, ...] | None) -> None:
    wheel = read_wheel_name(name)
    assert (wheel and (wheel.version, wheel.local, wheel.python, wheel.os, wheel.arch)) == expected


@pytest.mark.parametrize(
    ("listed", "newest"),
    [
        (["torch-2.9.1-cp312-cp312-manylinux_2_28_x86_64.whl"], None),
        (["torch-99.0.0-cp312-cp312-manylinux_2_28_x86_64.whl"], "99.0.0"),
        (["torch-99.0.0rc1-cp312-cp312-manylinux_2_28_x86_64.whl"], None),
        ([], None),
    ],
)
def test_a_release_newer_than_the_matrix_is_noticed(listed: list[str], newest: str | None) -> None:
    wheels = [wheel for name in listed if (wheel := read_wheel_name(name, 1))]
    assert newer_release(wheels, [CU126, ON_PYPI]) == newest
    assert newer_release(wheels, []) is None


def test_a_wheel_without_a_local_version_is_what_the_matrix_says_of_its_platform() -> None:
    windows = read_wheel_name("torch-2.9.1-cp311-cp311-win_amd64.whl")
    linux = read_wheel_name(f"torch-2.9.1-{LINUX}.whl")
    assert windows
    assert linux
    assert listed_builds([windows, linux], "pypi", KNOWN) == {("2.9.1", "cu128", "3.11")}
    assert [build.os for build in candidate_builds([windows, linux], "house", KNOWN)] == ["linux"]
