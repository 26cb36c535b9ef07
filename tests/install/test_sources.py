from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bnbenv.dataclass import replace
from bnbenv.errors import UsageError
from bnbenv.install.pip_config import read_pip
from bnbenv.install.redact import Credential
from bnbenv.install.sources import Sources, read_sources
from bnbenv.install.uv_files import pinned_table, uv_table, uv_variables, uv_workspace
from bnbenv.matrix.rows import IndexRow, Provenance
from bnbenv.toml import loads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PROVENANCE = Provenance(how="published", source="a test", checked="2026-11-23")
CU126 = IndexRow(
    name="pytorch-cu126",
    family="pytorch",
    url="https://pytorch.example/whl/cu126",
    companions=("torchvision",),
    provenance=PROVENANCE,
)
CU130 = CU126._replace(name="pytorch-cu130", url="https://pytorch.example/whl/cu130")
PYPI = CU126._replace(name="pypi", family="pypi", url=None)


class User:
    """A home and a working directory, and what is configured in them."""

    def __init__(self, tmp_path: Path) -> None:
        self.home, self.cwd, self.prefix = tmp_path / "home", tmp_path / "work", tmp_path / "venv"
        for directory in (self.home, self.cwd, self.prefix):
            directory.mkdir()
        self.environ: dict[str, str] = {}
        # The configuration of the machine that runs the tests must not show through.
        self.root = tmp_path / "root"

    def write(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def pip(self, text: str) -> Path:
        return self.write(self.home / ".config" / "pip" / "pip.conf", text)

    def uv(self, text: str) -> Path:
        return self.write(self.home / ".config" / "uv" / "uv.toml", text)

    def set(self, name: str, value: str) -> User:
        self.environ[name] = value
        return self

    def read(
        self,
        *,
        rows: Sequence[IndexRow] = (),
        mirrors: Mapping[str, str] | None = None,
        **variables: str,
    ) -> Sources:
        return read_sources(
            environ={**self.environ, **variables},
            cwd=self.cwd,
            home=self.home,
            index_rows=rows,
            mirrors=mirrors,
            prefixes=[self.prefix],
            platform="linux",
            root=self.root,
        )


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def urls(sources: Sources, role: str) -> list[str | None]:
    return [index.url for index in sources.indexes if index.role == role]


def test_without_configuration_there_is_the_default_alone(user: User) -> None:
    sources = user.read()
    (index,) = sources.indexes
    assert (index.name, index.url, index.role) == ("pypi", None, "default")
    assert uv_table(sources) == {"index-strategy": "first-index", "python-downloads": "never"}


class TestPip:
    def test_every_setting_of_a_file_is_read_with_its_origin(self, user: User) -> None:
        house = user.home / "wheels"
        house.mkdir()
        cert = user.write(user.home / "ca.pem", "")
        path = user.pip(
            "[global]\n"
            "index-url = https://main.example/simple\n"
            "extra-index-url =\n    https://one.example/simple\n    https://two.example/simple\n"
            f"find-links = {house}\n"
            "trusted-host = old.example\n"
            f"cert = {cert}\n"
            f"client-cert = {cert}\n"
            "proxy = http://joe:s3cret@proxy.example:3128\n"
            "timeout = 180\n"
        )
        sources = user.read()
        assert urls(sources, "default") == ["https://main.example/simple"]
        assert urls(sources, "extra") == ["https://one.example/simple", "https://two.example/simple"]
        assert urls(sources, "flat") == [house.as_uri()]
        assert sources.trusted_hosts == ("old.example",)
        assert sources.cert == sources.client_cert == cert
        assert sources.strategy == "unsafe-best-match"
        assert {index.origin for index in sources.indexes} == {f"{path} [global]"}
        assert "s3cret" not in repr(sources)
        assert uv_variables(sources, {})["HTTPS_PROXY"] == "http://joe:s3cret@proxy.example:3128"

    def test_a_weaker_place_gives_way_key_by_key(self, user: User) -> None:
        user.write(
            user.root / "etc" / "pip.conf",
            "[global]\nindex-url=https://a/\nproxy=p:1",
        )
        user.write(
            user.home / ".pip" / "pip.conf", "[global]\nindex-url=https://b/\nextra-index-url=https://x/"
        )
        user.pip("[global]\nindex-url=https://c/")
        assert urls(user.read(), "default") == ["https://c/"]
        user.write(user.prefix / "pip.conf", "[global]\nindex-url=https://d/")
        assert urls(user.read(), "default") == ["https://d/"]
        named = user.write(user.cwd / "named.conf", "[global]\nindex-url=https://e/")
        assert urls(user.read(PIP_CONFIG_FILE=str(named)), "default") == ["https://e/"]
        last = user.read(PIP_CONFIG_FILE=str(named), PIP_INDEX_URL="https://f/")
        assert urls(last, "default") == ["https://f/"]
        assert last.default
        assert last.default.origin == "variable PIP_INDEX_URL"
        assert last.proxy == "p:1"
        # A named file replaces the user's own files, and so their extra index.
        assert urls(last, "extra") == []
        assert urls(user.read(), "extra") == ["https://x/"]

    def test_a_commands_section_beats_global_of_a_stronger_file(self, user: User) -> None:
        user.write(user.home / ".pip" / "pip.conf", "[install]\nindex-url=https://install/")
        user.pip("[global]\nindex-url=https://global/")
        assert urls(user.read(), "default") == ["https://install/"]

    def test_the_null_device_switches_all_files_off(self, user: User) -> None:
        user.pip("[global]\nindex-url=https://c/")
        assert urls(user.read(PIP_CONFIG_FILE=os.devnull), "default") == [None]

    @pytest.mark.parametrize(
        ("platform", "place"),
        [
            ("linux", ".config/pip/pip.conf"),
            ("linux", ".pip/pip.conf"),
            ("linux", "../root/etc/pip.conf"),
            ("linux", "../root/etc/xdg/pip/pip.conf"),
            ("darwin", "../root/Library/Application Support/pip/pip.conf"),
            ("darwin", ".config/pip/pip.conf"),
            ("darwin", "Library/Application Support/pip/pip.conf"),
            ("win32", "AppData/Roaming/pip/pip.ini"),
            ("win32", "pip/pip.ini"),
        ],
    )
    def test_each_platform_has_its_places(self, user: User, platform: str, place: str) -> None:
        user.write(user.home / place, "[global]\nindex-url=https://here/")
        environ = {**user.environ, "PROGRAMDATA": str(user.cwd)}
        found = read_pip(environ=environ, home=user.home, prefixes=(), platform=platform, root=user.root)
        assert found["index-url"].value == "https://here/"

    def test_it_is_read_in_the_encoding_in_which_pip_writes_it(
        self, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("locale.getpreferredencoding", lambda **_: "cp1252")
        file = user.home / "pip" / "pip.ini"
        file.parent.mkdir()
        file.write_bytes(b"[global]\r\nfind-links = C:\\Users\\J\xf6rg\\wheels\r\n")
        found = read_pip(environ={}, home=user.home, prefixes=(), platform="win32", root=user.root)
        assert found["find-links"].value == r"C:\Users\Jörg\wheels"

    def test_no_index_leaves_the_wheelhouse_alone(self, user: User) -> None:
        house = user.home / "wheels"
        house.mkdir()
        sources = user.read(
            rows=[PYPI, CU126],
            PIP_NO_INDEX="1",
            PIP_EXTRA_INDEX_URL="https://one.example/simple",
            PIP_FIND_LINKS=str(house),
        )
        assert [index.role for index in sources.indexes] == ["flat"]
        assert sources.no_index_origin == "variable PIP_NO_INDEX"
        (entry,) = uv_table(sources)["index"]
        assert (entry["url"], entry["format"], entry["default"]) == (house.as_uri(), "flat", True)
        assert uv_table(user.read(rows=[PYPI], PIP_NO_INDEX="1"))["no-index"] is True

    def test_relative_and_missing_directories(self, user: User) -> None:
        (user.cwd / "house").mkdir()
        sources = user.read(PIP_FIND_LINKS="house nowhere")
        assert urls(sources, "flat") == [(user.cwd / "house").as_uri()]
        assert any("nowhere" in note for note in sources.notes)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("index-url = https://joe:s3cret@a/", "cannot be parsed"),
            ("[global]\nno-index = perhaps", "neither yes nor no"),
            ("[global]\ncert = /nowhere/ca.pem", "does not exist"),
            ("[global]\nindex-url = gopher://a/", "no address of an index"),
        ],
    )
    def test_what_cannot_be_read_names_its_place(self, user: User, text: str, message: str) -> None:
        path = user.pip(text)
        with pytest.raises(UsageError, match=message) as caught:
            user.read()
        assert str(path) in caught.value.message
        assert "s3cret" not in caught.value.message


class TestUv:
    def test_variables_beat_files(self, user: User) -> None:
        user.uv(
            'index-url = "https://file.example/simple"\nextra-index-url = ["https://extra.example/simple"]'
        )
        assert urls(user.read(), "default") == ["https://file.example/simple"]
        sources = user.read(UV_DEFAULT_INDEX="https://variable.example/simple", UV_OFFLINE="1")
        assert urls(sources, "default") == ["https://variable.example/simple"]
        assert urls(sources, "extra") == ["https://extra.example/simple"]
        assert sources.offline

    def test_uvs_default_beats_pips(self, user: User) -> None:
        user.pip("[global]\nindex-url = https://pip.example/simple")
        user.uv('[[index]]\nname = "company"\nurl = "https://uv.example/simple"\ndefault = true')
        assert urls(user.read(), "default") == ["https://uv.example/simple"]

    @pytest.mark.parametrize("how", ["file", "variable"])
    def test_the_credential_of_uvs_default_is_found_under_the_name_it_has_there(
        self, user: User, how: str
    ) -> None:
        user.set("UV_INDEX_MY_COMPANY_USERNAME", "joe").set("UV_INDEX_MY_COMPANY_PASSWORD", "s3cret")
        if how == "file":
            user.uv('[[index]]\nname = "my-company"\nurl = "https://uv.example/simple"\ndefault = true')
        else:
            user.set("UV_DEFAULT_INDEX", "my-company=https://uv.example/simple")
        sources = user.read()
        assert sources.default
        assert sources.default.credential == Credential(username="joe", password="s3cret")
        assert uv_variables(sources, user.environ)["UV_INDEX_PYPI_PASSWORD"] == "s3cret"
        user.environ.clear()
        if how == "file":
            assert user.read().default == replace(sources.default, credential=None)

    @pytest.mark.parametrize(
        "text",
        [
            '[[index]]\nname = "nowhere"\n',
            'index-url = "https://a.example/simple"\n[[index]]\nname = "nowhere"\n',
            'index-url = "https://a.example/simple"\n[[index]]\nurl = 3\nexplicit = true\n',
            'index-url = "https://a.example/simple"\nindex = ["https://b.example/simple"]\n',
        ],
        ids=["alone", "behind a default", "a number", "no table"],
    )
    def test_an_index_without_address_names_its_place(self, user: User, text: str) -> None:
        path = user.uv(text)
        with pytest.raises(UsageError, match="has no address") as caught:
            user.read()
        assert str(path) in caught.value.message

    def test_named_indexes_keep_their_names_so_that_their_credentials_are_found(self, user: User) -> None:
        sources = user.read(UV_INDEX="company=https://a.example/simple https://b.example/simple")
        assert [index.name for index in sources.with_role("extra")] == ["company", "index-b-example-simple"]
        assert sources.strategy == "first-index"

    def test_a_projects_settings_count_where_it_stands(self, user: User) -> None:
        user.write(user.cwd / "pyproject.toml", '[tool.uv]\nindex-strategy = "unsafe-first-match"\n')
        user.uv('index-strategy = "unsafe-best-match"')
        assert user.read().strategy == "unsafe-first-match"

    def test_how_uv_works_is_handed_on_and_what_else_it_may_do_is_not(self, user: User) -> None:
        user.uv(
            'system-certs = true\nconcurrent-downloads = 2\nhttps-proxy = "http://joe:s3cret@p.example:1"\n'
            'constraint-dependencies = ["numpy<2"]\nprerelease = "allow"'
        )
        sources = user.read()
        assert uv_table(sources) == {
            "index-strategy": "first-index",
            "python-downloads": "never",
            "system-certs": True,
            "concurrent-downloads": 2,
            "https-proxy": "http://joe:s3cret@p.example:1",
        }
        assert "s3cret" not in repr(sources)

    def test_a_named_file_replaces_all_others(self, user: User) -> None:
        user.uv('index-url = "https://user.example/simple"')
        named = user.write(user.cwd / "other.toml", 'find-links = ["https://links.example/"]')
        sources = user.read(UV_CONFIG_FILE=str(named))
        assert urls(sources, "default") == [None]
        assert urls(sources, "flat") == ["https://links.example/"]

    def test_an_explicit_index_of_a_known_name_is_a_mirror(self, user: User) -> None:
        user.uv('[[index]]\nname = "pytorch-cu126"\nurl = "https://mirror.example/cu126"\nexplicit = true')
        sources = user.read(rows=[PYPI, CU126, CU130])
        assert sources.find("pytorch-cu126").url == "https://mirror.example/cu126"
        assert sources.find("pytorch-cu130").url == CU130.url
        assert urls(sources, "extra") == []

    @pytest.mark.parametrize("text", ["index = 3 =", 'index-strategy = "best"', "[[index]]\nname = 'x'"])
    def test_what_cannot_be_read_names_its_place(self, user: User, text: str) -> None:
        path = user.uv(text)
        with pytest.raises(UsageError) as caught:
            user.read()
        assert str(path) in caught.value.message


class TestMirrors:
    def test_one_by_one(self, user: User) -> None:
        sources = user.read(rows=[PYPI, CU126, CU130], mirrors={"pytorch-cu126": "https://m.example/cu126"})
        found = sources.find("pytorch-cu126")
        assert (found.url, found.shared, found.companions) == (
            "https://m.example/cu126",
            False,
            ("torchvision",),
        )
        assert sources.find("pytorch-cu130").url == CU130.url

    def test_one_address_for_all_builds(self, user: User) -> None:
        sources = user.read(rows=[PYPI, CU126, CU130], mirrors={"pytorch": "https://m.example/all"})
        assert {sources.find(row.name).url for row in (CU126, CU130)} == {"https://m.example/all"}
        assert all(sources.find(row.name).shared for row in (CU126, CU130))

    def test_a_directory_of_wheels(self, user: User) -> None:
        user.write(user.cwd / "cu126" / "torch-2.9.1+cu126-cp311-cp311-linux_x86_64.whl", "")
        index = user.read(rows=[CU126], mirrors={"pytorch-cu126": str(user.cwd / "cu126")}).find(
            "pytorch-cu126"
        )
        assert pinned_table(index) == {
            "name": "pytorch-cu126",
            "url": (user.cwd / "cu126").as_uri(),
            "explicit": True,
            "format": "flat",
        }

    def test_a_mirror_of_nothing_is_refused(self, user: User) -> None:
        with pytest.raises(UsageError, match="cu999") as caught:
            user.read(rows=[PYPI, CU126], mirrors={"pytorch-cu999": "https://m.example/"})
        assert "pytorch-cu126" in (caught.value.hint or "")


class TestPlainHttp:
    @pytest.mark.parametrize("host", ["example.org", "10.0.0.7:8080", "127.0.0.1.example.org"])
    @pytest.mark.parametrize("key", ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "UV_INDEX"])
    def test_is_refused(self, user: User, host: str, key: str) -> None:
        with pytest.raises(UsageError) as caught:
            user.set(key, f"http://joe:s3cret@{host}/simple").read()
        assert caught.value.code == "insecure-index"
        assert key in caught.value.message
        assert "s3cret" not in caught.value.message

    @pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "[::1]:3141", "127.3.2.1"])
    def test_is_taken_from_this_machine(self, user: User, host: str) -> None:
        assert urls(user.read(PIP_INDEX_URL=f"http://{host}/simple"), "default") == [f"http://{host}/simple"]

    @pytest.mark.parametrize(
        "trusted", ["devpi.example", "devpi.example:3141", "other.example devpi.example"]
    )
    def test_is_taken_from_a_trusted_host(self, user: User, trusted: str) -> None:
        url = "http://devpi.example:3141/simple"
        sources = user.read(PIP_INDEX_URL=url, PIP_TRUSTED_HOST=trusted)
        assert urls(sources, "default") == [url]
        assert uv_table(sources)["allow-insecure-host"] == trusted.split()

    def test_is_refused_of_a_mirror(self, user: User) -> None:
        with pytest.raises(UsageError, match="plain http"):
            user.read(rows=[CU126], mirrors={"pytorch": "http://m.example/"})


def test_credentials_leave_the_address_and_travel_by_variable(user: User) -> None:
    sources = user.read(PIP_EXTRA_INDEX_URL="https://joe%40x:s3%2Fcret@a.example/simple")
    (index,) = sources.with_role("extra")
    assert index.url == "https://a.example/simple"
    assert index.credential == Credential(username="joe@x", password="s3/cret")
    stem = "UV_INDEX_INDEX_A_EXAMPLE_SIMPLE"
    assert uv_variables(sources, {}) == {f"{stem}_USERNAME": "joe@x", f"{stem}_PASSWORD": "s3/cret"}
    with uv_workspace(sources) as directory:
        text = (directory / "uv.toml").read_text(encoding="utf-8")
        if os.name == "posix":
            assert (directory / "uv.toml").stat().st_mode & 0o077 == 0
    assert "cret" not in text
    assert not directory.exists()
    assert loads(text)["index"][0] == {"name": index.name, "url": index.url}


def test_the_same_address_counts_once(user: User) -> None:
    sources = user.read(
        PIP_INDEX_URL="https://a.example/simple",
        PIP_EXTRA_INDEX_URL="https://a.example/simple https://b.example/",
    )
    assert urls(sources, "extra") == ["https://b.example/"]
    assert urls(sources, "default") == ["https://a.example/simple"]


def test_names_are_unique(user: User) -> None:
    sources = user.read(PIP_EXTRA_INDEX_URL="https://a.example/x https://a.example/x/ https://a.example/x?y")
    names = [index.name for index in sources.indexes]
    assert len(set(names)) == len(names) == 4


def test_an_index_that_nobody_configured_is_unknown(user: User) -> None:
    with pytest.raises(UsageError, match="pytorch-cu126"):
        user.read().find("pytorch-cu126")


@pytest.mark.parametrize("variable", ["PIP_FIND_LINKS", "PIP_CERT", "PIP_EXTRA_INDEX_URL"])
def test_the_home_of_a_user_who_is_none_is_told(user: User, variable: str) -> None:
    with pytest.raises(UsageError, match="~nobody-of-this-name/x") as caught:
        user.read(**{variable: "~nobody-of-this-name/x"})  # type: ignore[arg-type]
    assert caught.value.hint


def test_an_address_that_is_no_text_is_told(user: User) -> None:
    with pytest.raises(UsageError, match="not valid text"):
        user.read(PIP_EXTRA_INDEX_URL="https://x\udcff.example/simple")
