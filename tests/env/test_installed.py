"""What is installed is told from files alone, for every way in which it may have come there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bnbenv.env.installed import Installed, is_externally_managed, read_installed, with_base
from bnbenv.errors import EnvironmentProblem
from bnbenv.names import normalized

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A venv as uv writes it, without the interpreter, which is not looked at."""
    prefix = tmp_path / "venv"
    (prefix / "lib/python3.12/site-packages").mkdir(parents=True)
    (prefix / "pyvenv.cfg").write_text("home = /usr/bin\nversion_info = 3.12.4\n")
    (prefix / "lib64").symlink_to("lib")
    return prefix


def _site(prefix: Path) -> Path:
    return prefix / "lib/python3.12/site-packages"


def _package(
    site: Path,
    name: str,
    version: str,
    *,
    metadata: str | None = None,
    directory: str | None = None,
    **files: str,
) -> Path:
    made = site / (directory or f"{name}-{version}.dist-info")
    made.mkdir(parents=True)
    text = (
        metadata
        if metadata is not None
        else f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nText\n"
    )
    (made / "METADATA").write_bytes(text.encode())
    for file, content in files.items():
        (made / file.replace("__", ".")).write_text(content)
    return made


def test_a_venv_and_its_packages(venv: Path) -> None:
    _package(_site(venv), "torch", "2.9.1+cu128", INSTALLER="uv\n", RECORD="x,,\n")
    _package(_site(venv), "nvidia_cublas_cu12", "12.8.4.1", INSTALLER="pip")
    found = read_installed(venv)
    assert (found.kind, found.python, found.system_site) == ("venv", "3.12.4", False)
    assert str(found.base) == "/usr/bin"
    assert found.versions == {"nvidia-cublas-cu12": "12.8.4.1", "torch": "2.9.1+cu128"}
    torch = found.find("Torch")
    assert torch is not None
    assert (torch.installer, torch.has_record, torch.location) == ("uv", True, _site(venv))
    cublas = found.find("nvidia.cublas-cu12")
    assert cublas is not None
    assert not cublas.has_record
    assert found.find("missing") is None


@pytest.mark.parametrize(
    "metadata",
    [
        "Metadata-Version: 2.1\r\nName: bitsandbytes\r\nVersion: 0.50.2\r\n\r\nText",
        "Version: 0.50.2\nName: bitsandbytes\n",
        "name: bitsandbytes\nVERSION:0.50.2 \n\nName: other\nVersion: 9\n",
        f"License: {'x' * 9000}\nName: bitsandbytes\nVersion: 0.50.2\n\nText",
        "",
        "\0\0\0\0",
    ],
    ids=["crlf", "other order", "other case", "long licence first", "empty", "zeroed"],
)
def test_metadata_in_every_shape(venv: Path, metadata: str) -> None:
    _package(_site(venv), "bitsandbytes", "0.50.2", metadata=metadata)
    assert read_installed(venv).versions == {"bitsandbytes": "0.50.2"}


def test_without_metadata_the_directory_tells(venv: Path) -> None:
    (
        _package(_site(venv), "bits_and-bytes", "1.0", directory="bits_and_bytes-1.0.dist-info") / "METADATA"
    ).unlink()
    assert read_installed(venv).versions == {"bits-and-bytes": "1.0"}


@pytest.mark.parametrize(
    ("text", "url", "editable"),
    [
        ('{"url": "file:///src", "dir_info": {"editable": true}}', "file:///src", True),
        ('{"url": "https://example.org/x.whl", "archive_info": {}}', "https://example.org/x.whl", False),
        ('{"url": 3, "dir_info": 4}', None, False),
        ("[]", None, False),
        ("{", None, False),
        ("[" * 100_000, None, False),
    ],
    ids=["editable", "url", "wrong types", "list", "cut", "deep"],
)
def test_where_a_package_came_from(venv: Path, text: str, url: str | None, *, editable: bool) -> None:
    _package(_site(venv), "x", "1", direct_url__json=text)
    found = read_installed(venv).find("x")
    assert found is not None
    assert (found.direct_url, found.editable) == (url, editable)


def test_two_copies_are_both_told_and_leftovers_of_pip_are_not(venv: Path) -> None:
    _package(_site(venv), "torch", "2.9.1")
    _package(_site(venv), "torch", "2.8.0")
    _package(_site(venv), "~orch", "2.7.0")
    found = read_installed(venv)
    assert [copy.version for copy in found.copies("torch")] == ["2.8.0", "2.9.1"]
    assert set(found.versions) == {"torch"}


def test_packages_behind_pth_files_are_seen_and_their_code_is_not_run(venv: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    _package(tmp_path / "far", "far", "1")
    lines = [
        "# comment",
        "import os; os.abort()",
        str(tmp_path / "far"),
        str(tmp_path / "missing"),
        "\0",
        ".",
    ]
    (_site(venv) / "extra.pth").write_text("\n".join(lines))
    found = read_installed(venv)
    assert found.versions == {"far": "1"}
    assert found.site_packages == (_site(venv), tmp_path / "far")


def test_old_egg_info_counts(venv: Path) -> None:
    (_site(venv) / "old-1.0-py3.12.egg-info").write_text("Name: Old\nVersion: 1.0\n")
    (_site(venv) / "older-2.0.egg-info").mkdir()
    assert read_installed(venv).versions == {"old": "1.0", "older": "2.0"}


def test_our_own_environments_are_known(venv: Path) -> None:
    (venv / ".bnbenv").mkdir()
    (venv / ".bnbenv/state.json").write_text("{}")
    assert read_installed(venv).kind == "bnbenv"


def test_a_conda_environment(tmp_path: Path) -> None:
    (tmp_path / "lib/python3.11/site-packages").mkdir(parents=True)
    (tmp_path / "conda-meta").mkdir()
    (tmp_path / "conda-meta/python-3.11.9-h955ad1f_0.json").write_text("{}")
    (tmp_path / "conda-meta/python-dateutil-2.9.0-py_0.json").write_text("{}")
    found = read_installed(tmp_path)
    assert (found.kind, found.python) == ("conda", "3.11.9")


def test_a_debian_system_python(tmp_path: Path) -> None:
    for site in ("lib/python3/dist-packages", "local/lib/python3.11/dist-packages", "lib/python3.11"):
        (tmp_path / site).mkdir(parents=True, exist_ok=True)
    _package(tmp_path / "lib/python3/dist-packages", "numpy", "1.24")
    _package(tmp_path / "local/lib/python3.11/dist-packages", "numpy", "2.0")
    found = read_installed(tmp_path)
    assert (found.kind, found.python) == ("system", "3.11")
    assert found.versions == {"numpy": "2.0"}  # local/ comes first


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A prefix with two Pythons, as Homebrew's and that of a Debian with a second Python have them."""
    prefix = tmp_path / "usr"
    (prefix / "bin").mkdir(parents=True)
    for minor, version in (("3.11", "0.50.2"), ("3.12", "0.45.0")):
        (prefix / "bin" / f"python{minor}").write_bytes(b"\x7fELF")
        (prefix / "lib" / f"python{minor}").mkdir(parents=True)
        (prefix / "lib" / f"python{minor}" / "os.py").touch()
        _package(prefix / f"local/lib/python{minor}/dist-packages", "bitsandbytes", version)
    _package(prefix / "lib/python3/dist-packages", "pyyaml", "6.0")
    (prefix / "bin" / "python3").symlink_to("python3.11")
    return prefix


@pytest.mark.parametrize(
    ("named", "python", "version"),
    [
        ("", "3.11", "0.50.2"),
        ("bin/python3", "3.11", "0.50.2"),
        ("bin/python3.11", "3.11", "0.50.2"),
        ("bin/python3.12", "3.12", "0.45.0"),
    ],
)
def test_of_two_pythons_in_one_prefix_the_named_one_is_read(
    shared: Path, named: str, python: str, version: str
) -> None:
    found = read_installed(shared / named)
    assert (found.python, found.versions) == (python, {"bitsandbytes": version, "pyyaml": "6.0"})


def test_a_link_from_elsewhere_tells_which_python_is_meant(shared: Path, tmp_path: Path) -> None:
    link = tmp_path / "home" / "bin" / "python"
    link.parent.mkdir(parents=True)
    link.symlink_to(shared / "bin" / "python3.12")
    found = read_installed(shared, interpreter=link)
    assert (found.prefix, found.python, found.find("bitsandbytes")) == (
        shared,
        "3.12",
        read_installed(shared / "bin" / "python3.12").find("bitsandbytes"),
    )


def test_a_python_without_packages_of_its_own_has_not_those_of_another(shared: Path) -> None:
    shutil.rmtree(shared / "local/lib/python3.12")
    found = read_installed(shared / "bin" / "python3.12")
    assert (found.python, found.versions) == ("3.12", {"pyyaml": "6.0"})


def test_a_venv_sees_the_packages_of_its_own_python_in_a_shared_base(venv: Path, shared: Path) -> None:
    (venv / "lib/python3.12").rename(venv / "lib/python3.11")
    config = f"home = {shared}/bin\nversion_info = 3.11.7\ninclude-system-site-packages = true\n"
    (venv / "pyvenv.cfg").write_text(config)
    assert with_base(read_installed(venv)).versions == {"bitsandbytes": "0.50.2", "pyyaml": "6.0"}


def test_a_venv_whose_base_was_upgraded_keeps_its_packages(venv: Path, tmp_path: Path) -> None:
    _package(_site(venv), "torch", "2.9.1")
    (tmp_path / "python3.13").write_bytes(b"\x7fELF")
    (venv / "bin").mkdir()
    (venv / "bin" / "python3").symlink_to(tmp_path / "python3.13")
    found = read_installed(venv)
    assert (found.python, found.versions) == ("3.12.4", {"torch": "2.9.1"})


def test_a_windows_venv(tmp_path: Path) -> None:
    (tmp_path / "Lib/site-packages").mkdir(parents=True)
    (tmp_path / "pyvenv.cfg").write_text("home = C:\\Python312\nversion = 3.12.1\n")
    _package(tmp_path / "Lib/site-packages", "torch", "2.9.1")
    found = read_installed(tmp_path)
    assert (found.python, found.versions) == ("3.12.1", {"torch": "2.9.1"})


def test_a_python_of_windows_is_known_by_its_library(tmp_path: Path) -> None:
    (tmp_path / "Lib/site-packages").mkdir(parents=True)
    for name in ("python3.dll", "Python312.dll", "python312_d.dll"):
        (tmp_path / name).touch()
    found = read_installed(tmp_path)
    assert (found.kind, found.python) == ("system", "3.12")


@pytest.mark.parametrize("by", ["prefix", "link", "interpreter", "site"])
def test_an_environment_can_be_named_in_four_ways(venv: Path, tmp_path: Path, by: str) -> None:
    (venv / "bin").mkdir()
    (venv / "bin/python").symlink_to(sys.executable)
    (tmp_path / "link").symlink_to("venv")
    _package(_site(venv), "x", "1")
    given = {
        "prefix": venv,
        "link": tmp_path / "link",
        "interpreter": venv / "bin/python",
        "site": _site(venv),
    }
    found = read_installed(given[by])
    assert found.versions == {"x": "1"}
    assert (found.kind, found.python) == ("venv", "3.12.4")


@pytest.mark.parametrize("what", ["missing", "empty", "file"])
def test_no_environment_is_told(tmp_path: Path, what: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnvironmentProblem) as caught:
        read_installed(tmp_path / what)
    assert caught.value.code == "no-environment"


def test_it_agrees_with_pythons_own_reader() -> None:
    """The interpreter that runs the tests has a real environment; importlib.metadata reads the same there."""
    code = """
import importlib.metadata, json
print(json.dumps([[found.name, found.version] for found in importlib.metadata.distributions()]))
"""
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=environ,
    )
    expected: dict[str, str] = {}
    for name, version in json.loads(done.stdout):
        expected.setdefault(normalized(name), version)
    assert read_installed_of(sys.prefix).versions == expected


def read_installed_of(prefix: str) -> Installed:
    from pathlib import Path as _Path

    return read_installed(_Path(prefix))


def test_no_process_is_started(venv: Path) -> None:
    code = """
import sys
from pathlib import Path
events = []
sys.addaudithook(lambda event, _: events.append(event))
from bnbenv.env.installed import read_installed
from bnbenv.env.record import check_record
check_record(read_installed(Path(sys.argv[1])))
starts = ("subprocess", "os.exec", "os.posix_spawn", "os.fork", "os.system")
assert not [event for event in events if event.startswith(starts)]
assert "importlib.metadata" not in sys.modules and "packaging" not in sys.modules
"""
    from support import faults

    _package(_site(venv), "x", "1", RECORD="x.py,,\n")
    done = faults.child(code, venv)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["plain", "o'brien", 'o\'brien "2"', "back\\slash", "\u00e9", "\udcff"])
def test_a_base_that_was_joined_is_seen_however_its_directory_is_called(
    venv: Path, tmp_path: Path, name: str
) -> None:
    base = tmp_path / name
    _package(base, "torch", "2.9.1")
    line = f"import site; site.addsitedir({str(base)!r})\n"
    (_site(venv) / "_bnbenv_base.pth").write_text(line, encoding="utf-8")
    assert with_base(read_installed(venv)).versions == {"torch": "2.9.1"}


@pytest.mark.parametrize("text", ["'\\x00'", "'\\N{no such}'", "'a' + 'b'", "open('/etc/passwd')", "'"])
def test_a_line_that_bnbenv_did_not_write_joins_nothing(venv: Path, text: str) -> None:
    (_site(venv) / "other.pth").write_text(f"import site; site.addsitedir({text})\n", encoding="utf-8")
    installed = read_installed(venv)
    assert with_base(installed) == installed


@pytest.mark.parametrize("directory", ["lib/python3.12", "lib64/python3.12", "Lib"])
def test_the_mark_of_the_systems_package_manager_is_seen(tmp_path: Path, directory: str) -> None:
    (tmp_path / directory).mkdir(parents=True)
    assert not is_externally_managed(tmp_path)
    (tmp_path / directory / "EXTERNALLY-MANAGED").touch()
    assert is_externally_managed(tmp_path)
    (tmp_path / "pyvenv.cfg").touch()
    assert not is_externally_managed(tmp_path)
