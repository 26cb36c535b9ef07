"""Locks of the standard format: what is wrong is named, what is equal has one digest and one text."""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import hashlib
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnbenv import toml
from bnbenv.errors import DataError, ExternalError
from bnbenv.install.size import measure
from bnbenv.lockfile import pylock
from bnbenv.lockfile.safety import refuse_unsafe
from support import faults

_SHA = {
    name: hashlib.sha256(name.encode()).hexdigest() for name in ("torch", "torch-win", "idna", "idna-sdist")
}


def _wheel(name: str, key: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "url": f"https://example.org/{name}", "hashes": {"sha256": _SHA[key]}, **more}


def _document() -> dict[str, Any]:
    return {
        "lock-version": "1.0",
        "requires-python": ">=3.10",
        "created-by": "uv",
        "packages": [
            {
                "name": "torch",
                "version": "2.9.1+cpu",
                "index": "https://example.org/simple",
                "wheels": [
                    _wheel("torch-2.9.1+cpu-cp312-cp312-manylinux_2_28_x86_64.whl", "torch", size=12),
                    _wheel("torch-2.9.1+cpu-cp312-cp312-win_amd64.whl", "torch-win"),
                ],
            },
            {
                "name": "idna",
                "version": "3.20",
                "marker": "sys_platform != 'win32'",
                "sdist": {
                    "url": "https://example.org/idna-3.20.tar.gz",
                    "hashes": {"sha256": _SHA["idna-sdist"]},
                    "upload-time": dt.datetime(2026, 11, 1, tzinfo=dt.timezone.utc),
                },
                "wheels": [_wheel("idna-3.20-py3-none-any.whl", "idna")],
            },
        ],
    }


@pytest.fixture
def lock() -> pylock.Pylock:
    return pylock.from_document(_document())


def test_what_a_lock_tells(lock: pylock.Pylock) -> None:
    torch, idna = lock.packages
    assert (torch.name, torch.version, torch.index) == ("torch", "2.9.1+cpu", "https://example.org/simple")
    assert [file.kind for file in idna.artefacts] == ["wheel", "sdist"]
    first = torch.artefacts[0]
    assert (first.name, first.size, first.sha256) == (
        "torch-2.9.1+cpu-cp312-cp312-manylinux_2_28_x86_64.whl",
        12,
        _SHA["torch"],
    )
    assert lock.find("idna") == (idna,)
    assert lock.versions == {"torch": "2.9.1+cpu", "idna": idna.version}
    assert lock.requires_python == ">=3.10"
    assert lock.provenance == {}
    assert len(lock.digest) == 64


def test_a_lock_survives_its_file_and_the_text_is_settled(lock: pylock.Pylock, tmp_path: Path) -> None:
    path = tmp_path / "pylock.toml"
    pylock.write(path, lock)
    back = pylock.read(path)
    assert back.digest == lock.digest == pylock.digest(path)
    assert pylock.dump(back) == path.read_text() == pylock.dump(lock)
    assert {package.name for package in back.packages} == {"torch", "idna"}


def test_the_order_of_a_lock_does_not_matter(lock: pylock.Pylock) -> None:
    document = dict(reversed(_document().items()))
    document["packages"] = [dict(reversed(package.items())) for package in reversed(document["packages"])]
    for package in document["packages"]:
        package["wheels"] = package["wheels"][::-1]
    other = pylock.from_document(document)
    assert other.digest == lock.digest
    assert pylock.dump(other) == pylock.dump(lock)


def _mirrored(document: dict[str, Any]) -> None:
    document["packages"][0]["wheels"][0]["url"] = (
        "https://mirror.example/torch-2.9.1+cpu-cp312-cp312-manylinux_2_28_x86_64.whl"
    )
    document["packages"][0]["index"] = "https://mirror.example"


def _tool(document: dict[str, Any]) -> None:
    document["tool"] = {"bnbenv": {"matrix": "2026.11.23"}}


def _upper(document: dict[str, Any]) -> None:
    hashes = document["packages"][0]["wheels"][0]["hashes"]
    hashes["sha256"] = hashes["sha256"].upper()


def _creator(document: dict[str, Any]) -> None:
    document["created-by"] = "pip"


@pytest.mark.parametrize("change", [_mirrored, _tool, _upper, _creator])
def test_what_installs_the_same_has_the_same_digest(lock: pylock.Pylock, change: Any) -> None:
    document = _document()
    change(document)
    assert pylock.from_document(document).digest == lock.digest


def _other_hash(document: dict[str, Any]) -> None:
    document["packages"][0]["wheels"][0]["hashes"]["sha256"] = "0" * 64


def _fewer(document: dict[str, Any]) -> None:
    del document["packages"][0]["wheels"][1]


def _other_marker(document: dict[str, Any]) -> None:
    document["packages"][1]["marker"] = "sys_platform == 'win32'"


def _no_marker(document: dict[str, Any]) -> None:
    del document["packages"][1]["marker"]


def _other_python(document: dict[str, Any]) -> None:
    document["requires-python"] = ">=3.11"


def _no_sdist(document: dict[str, Any]) -> None:
    del document["packages"][1]["sdist"]


def _moved_hash(document: dict[str, Any]) -> None:
    """The same hashes under another package must not look alike."""
    one, two = document["packages"][0]["wheels"][0], document["packages"][1]["wheels"][0]
    one["hashes"], two["hashes"] = two["hashes"], one["hashes"]


@pytest.mark.parametrize(
    "change", [_other_hash, _fewer, _other_marker, _no_marker, _other_python, _no_sdist, _moved_hash]
)
def test_what_installs_something_else_has_another_digest(lock: pylock.Pylock, change: Any) -> None:
    document = _document()
    change(document)
    assert pylock.from_document(document).digest != lock.digest


def test_provenance_is_added_and_changes_nothing_else(lock: pylock.Pylock, tmp_path: Path) -> None:
    document = {**_document(), "tool": {"other": {"kept": True}}}
    table = {"matrix": "2026.11.23", "request": {"torch": None, "with": ["scipy", None]}}
    made = pylock.with_provenance(pylock.from_document(document), table)
    pylock.write(tmp_path / "pylock.toml", made)
    back = pylock.read(tmp_path / "pylock.toml")
    assert back.provenance == {"matrix": "2026.11.23", "request": {"with": ["scipy"]}}
    assert back.document["tool"]["other"] == {"kept": True}
    assert back.digest == lock.digest


def test_selection_takes_what_the_platform_can_install(lock: pylock.Pylock) -> None:
    from packaging.markers import default_environment
    from packaging.tags import Tag

    environment = default_environment()
    environment.update({"python_version": "3.12", "python_full_version": "3.12.4", "sys_platform": "linux"})
    tags = [Tag("cp312", "cp312", "manylinux_2_28_x86_64"), Tag("py3", "none", "any")]
    chosen = lock.select(environment=environment, tags=tags)
    assert [one.artefact.name for one in chosen] == [
        "torch-2.9.1+cpu-cp312-cp312-manylinux_2_28_x86_64.whl",
        "idna-3.20-py3-none-any.whl",
    ]
    environment["sys_platform"] = "win32"
    chosen = lock.select(environment=environment, tags=[Tag("cp312", "cp312", "win_amd64")])
    assert [one.artefact.sha256 for one in chosen] == [_SHA["torch-win"]]
    with pytest.raises(DataError, match="torch"):
        lock.select(environment=environment, tags=[Tag("cp311", "cp311", "win_amd64")])
    environment["python_full_version"] = "3.9.1"
    with pytest.raises(DataError, match="does not serve"):
        lock.select(environment=environment, tags=tags)


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"url": "file:///srv/idna-3.20-py3-none-any.whl", "hashes": {"sha256": "0" * 64}}, True),
        ({"path": "./idna-3.20-py3-none-any.whl", "hashes": {"sha256": "0" * 64}}, True),
        ({"url": "https://example.org/idna-3.20-py3-none-any.whl", "hashes": {"sha256": "0" * 64}}, False),
    ],
    ids=["file url", "path", "https"],
)
def test_what_only_this_machine_can_install_is_told(entry: dict[str, Any], *, found: bool) -> None:
    document = _document()
    document["packages"][1]["wheels"] = [entry]
    assert bool(pylock.from_document(document).not_portable()) == found


def _at(document: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    here: Any = document
    for part in parents:
        here = here[int(part)] if part.isdigit() else here[part]
    if value is KeyError:
        del here[last]
    else:
        here[int(last) if last.isdigit() else last] = value


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("lock-version", KeyError, "lock-version"),
        ("lock-version", "2.0", "2.0"),
        ("lock-version", 1.0, "lock-version"),
        ("created-by", KeyError, "created-by"),
        ("packages", KeyError, "packages"),
        ("packages", {}, "packages"),
        ("packages.0", "torch", "packages[0]"),
        ("packages.0.name", KeyError, "packages[0]"),
        ("packages.0.name", "Torch", "packages[0]"),
        ("packages.0.version", "two", "packages[0].version"),
        ("packages.0.wheels", [], "packages[0]"),
        ("packages.0.wheels.1.hashes", KeyError, "packages[0].wheels[1].hashes"),
        ("packages.0.wheels.1.hashes", {}, "packages[0].wheels[1]"),
        ("packages.0.wheels.1.hashes", {"sha256": 3}, "packages[0].wheels[1].hashes"),
        ("packages.0.wheels.1.hashes", {"sha256": "zz"}, "packages[0].wheels[1].hashes.sha256"),
        ("packages.0.wheels.1.hashes", {"sha256": "0" * 63}, "packages[0].wheels[1].hashes.sha256"),
        ("packages.0.wheels.1.size", "big", "packages[0].wheels[1].size"),
        ("packages.0.wheels.1.name", "../../evil-1.0-py3-none-any.whl", "packages[0]"),
        ("packages.0.wheels.1.name", "idna-3.20-py3-none-any.whl", "packages[0].wheels[1]"),
        ("packages.1.marker", "sys_platform ===", "packages[1].marker"),
        ("packages.1.sdist.url", 3, "packages[1].sdist"),
        ("requires-python", "three", "requires-python"),
        ("tool", [], "tool"),
    ],
)
def test_what_is_wrong_is_named_with_its_key(path: str, value: Any, named: str) -> None:
    document = _document()
    _at(document, path, value)
    with pytest.raises(DataError) as caught:
        pylock.from_document(document, origin="pylock.toml")
    assert caught.value.code == "lock-invalid"
    assert named in caught.value.message
    assert "pylock.toml" in caught.value.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        b"\xff\xfe",
        b"a = " + b"[" * 100_000,
        b"a" + b".a" * 50_000 + b" = 1",
        b"[a" + b" . 'a'" * 50_000 + b"]",
        b"x = {a" + b'."a"' * 50_000 + b" = 1}",
        b"lock-version = '1.0'\nlock-version = '1.0'",
        b"\0",
        b"x = 1979-99-99",
    ],
    ids=[
        "empty",
        "no toml",
        "no text",
        "deep list",
        "deep key",
        "deep header",
        "deep inline",
        "twice",
        "nul",
        "no date",
    ],
)
def test_hostile_files_are_told(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "pylock.toml"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        pylock.read(path)
    assert caught.value.code == "lock-invalid"
    assert len(caught.value.message) < 2000
    if data.count(b"a") > 50_000 - 1:
        assert "64 parts" in caught.value.message  # told before Python's reader is asked, which takes minutes


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ExternalError):
            pylock.read(path)


def test_a_huge_file_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "pylock.toml"
    with path.open("wb") as stream:
        stream.truncate(1 << 33)
    with pytest.raises(DataError, match="larger"):
        pylock.read(path)


def test_every_prefix_of_a_lock_is_an_error_or_a_lock(lock: pylock.Pylock) -> None:
    text = pylock.dump(lock)
    for size in range(0, len(text), 37):
        with contextlib.suppress(DataError):
            assert pylock.parse(text[:size]).packages


_SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("torch") | st.just("1.0")
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
)
_PLACES = ["lock-version", "requires-python", "packages", "packages.0", "tool", "extras", "environments"] + [
    f"packages.{place}"
    for place in (
        "0.name", "0.version", "0.marker", "0.wheels", "0.wheels.0", "0.wheels.0.hashes", "0.wheels.0.name",
        "0.wheels.0.url", "0.wheels.0.path", "1.sdist", "1.sdist.url", "1.vcs", "1.directory", "1.archive",
        "0.tool", "0.attestation-identities", "0.dependencies", "0.index", "0.wheels.0.size",
        "0.wheels.0.hashes.sha256", "1.sdist.hashes", "1.wheels",
    )
]  # fmt: skip


@given(place=st.sampled_from(_PLACES), value=_VALUES)
def test_any_value_anywhere_is_an_error_or_a_lock(place: str, value: Any) -> None:
    document = _document()
    _at(document, place, copy.deepcopy(value))
    with contextlib.suppress(DataError):
        assert len(pylock.from_document(document).digest) == 64


@given(place=st.sampled_from(_PLACES), value=_VALUES)
def test_an_outline_is_an_error_or_can_be_decided_by(place: str, value: Any) -> None:
    document = _document()
    _at(document, place, copy.deepcopy(value))
    with contextlib.suppress(DataError):
        outline = pylock.outlined(document)
        refuse_unsafe(outline, allow_local=True)
        assert measure(outline, cache=Path("missing")).unpacked >= 0
        pylock.check(outline)
        assert outline == pylock.from_document(document)


@pytest.mark.parametrize("path", ["lock-version", "packages.1.marker", "requires-python"])
def test_an_outline_leaves_the_standards_own_rules_to_the_check(path: str) -> None:
    document = _document()
    _at(document, path, "sys_platform ===")
    outline = pylock.outlined(document, origin="pylock.toml")
    with pytest.raises(DataError, match=path.rpartition(".")[2]):
        pylock.check(outline)


@pytest.mark.parametrize(
    "wheel",
    [
        {"url": "https://example.org/a/torch-2.9.1%2Bcpu-py3-none-any.whl#sha256=0"},
        {"url": "https://example.org/a", "name": "torch-2.9.1+cpu-py3-none-any.whl"},
        {"path": "below/torch-2.9.1+cpu-py3-none-any.whl"},
        {"path": r"below\torch-2.9.1+cpu-py3-none-any.whl"},
    ],
)
def test_files_are_called_as_the_standards_reader_calls_them(wheel: dict[str, Any]) -> None:
    import packaging.pylock

    document = _document()
    document["packages"][0]["wheels"] = [{**wheel, "hashes": {"sha256": "0" * 64}}]
    theirs = packaging.pylock.Pylock.from_dict(document).packages[0]
    assert theirs.wheels is not None
    assert pylock.from_document(document).packages[0].artefacts[0].name == theirs.wheels[0].filename


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("packages.1.wheels", 0),
        ("packages.1.wheels", False),
        ("packages.0.wheels.0.size", int("9" * 400)),
        ("packages.0.wheels.0.size", -1),
        ("packages.0.wheels.0.url", "https://example.org/%00/torch-2.9.1-py3-none-any.whl"),
        ("packages.0.wheels.0.url", "https://["),
        ("packages.0.index", "https://["),
        ("packages.0.version", "two"),
    ],
)
def test_nothing_that_an_outline_is_decided_by_can_crash(path: str, value: Any) -> None:
    document = _document()
    _at(document, path, value)
    with pytest.raises(DataError) as caught:
        outline = pylock.outlined(document)
        refuse_unsafe(outline, allow_local=True)
        measure(outline, cache=Path("missing"))
    assert caught.value.code == "lock-invalid"


def test_versions_are_spelt_as_the_standard_spells_them() -> None:
    document = _document()
    document["packages"][0]["version"] = "v2.9.1+CPU"
    assert pylock.from_document(document).packages[0].version == "2.9.1+cpu"


def test_a_name_that_is_a_path_once_it_is_decoded_is_refused() -> None:
    document = _document()
    document["packages"][0]["wheels"] = [
        {"url": "https://example.org/..%2Ftorch-2.9.1-py3-none-any.whl", "hashes": {"sha256": "0" * 64}}
    ]
    with pytest.raises(DataError, match="is a path"):
        pylock.outlined(document)


def test_the_largest_can_be_written_first(lock: pylock.Pylock) -> None:
    document = toml.loads(pylock.dump(lock, largest_first=True))
    assert [entry["name"] for entry in document["packages"]] == ["torch", "idna"]
    assert pylock.from_document(document).digest == lock.digest


@given(seed=st.integers(0, 2**32))
def test_shuffling_never_changes_the_text(seed: int) -> None:
    document = _document()
    shuffled = random.Random(seed)
    shuffled.shuffle(document["packages"])
    for package in document["packages"]:
        shuffled.shuffle(package["wheels"])
    made = pylock.from_document(document)
    assert pylock.dump(made) == pylock.dump(pylock.from_document(_document()))
    assert toml.loads(pylock.dump(made))["packages"][0]["name"] == "idna"


def test_a_kill_at_every_step_of_writing_leaves_the_old_lock_or_the_new_one(
    lock: pylock.Pylock, tmp_path: Path
) -> None:
    below = tmp_path / "env"
    below.mkdir()
    path, new = below / "pylock.toml", tmp_path / "new.toml"
    pylock.write(path, lock)
    pylock.write(new, pylock.with_provenance(lock, {"matrix": "new"}))
    code = """
import sys
from pathlib import Path
from bnbenv.lockfile import pylock
pylock.write(Path(sys.argv[1]), pylock.read(Path(sys.argv[2])))
"""
    seen = [
        pylock.read(path).provenance.get("matrix")
        for _ in faults.killed_at_every_step(code, below, path, new)
    ]
    assert seen == [None, None, "new"]


def test_uv_takes_what_we_write(tmp_path: Path) -> None:
    """The real installer reads the text: a wheel of our own is installed from it, a wrong hash refused."""
    import uv

    from support.wheels import write_wheel

    wheel = write_wheel(tmp_path / "wheels", "witness", "1.0")
    entry = {
        "name": "witness",
        "version": "1.0",
        "wheels": [
            {"url": wheel.as_uri(), "hashes": {"sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()}},
        ],
    }
    document = {**_document(), "packages": [entry]}
    made = pylock.with_provenance(pylock.from_document(document), {"matrix": "2026.11.23"})
    environ = {**os.environ, "UV_CACHE_DIR": str(tmp_path / "cache"), "UV_OFFLINE": "1"}

    def install() -> subprocess.CompletedProcess[str]:
        pylock.write(tmp_path / "pylock.toml", made)
        command = [uv.find_uv_bin(), "pip", "install", "--target", str(tmp_path / "t"), "-r", "pylock.toml"]
        return subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=120
        )

    done = install()
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "t").glob("witness*"))
    entry["wheels"][0]["hashes"] = {"sha256": "0" * 64}  # type: ignore[index]
    made = pylock.from_document(document)
    environ["UV_CACHE_DIR"] = str(tmp_path / "other-cache")
    (tmp_path / "t").rename(tmp_path / "old")
    assert install().returncode != 0
