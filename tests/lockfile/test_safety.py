from __future__ import annotations

from typing import Any

import pytest

from bnbenv.errors import DataError
from bnbenv.lockfile import pylock
from bnbenv.lockfile.safety import refuse_unsafe

SHA = "ab" * 32


def lock(**changes: Any) -> pylock.Pylock:
    wheel = {
        "url": "https://mirror.example/torch-2.14.1-py3-none-any.whl",
        "hashes": {"sha256": SHA},
        **changes.pop("wheel", {}),
    }
    package = {
        "name": "torch",
        "version": "2.14.1",
        "index": "https://mirror.example/simple",
        "wheels": [wheel],
        **changes,
    }
    package = {key: value for key, value in package.items() if value is not None}
    return pylock.from_document(
        {"lock-version": "1.0", "created-by": "uv", "packages": [package]}, origin="pylock.cu126.toml"
    )


def test_a_sound_lock_passes() -> None:
    refuse_unsafe(lock())


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"wheel": {"hashes": {"md5": "ab" * 16}}}, "lock-invalid", "md5 alone: anybody could make"),
        ({"wheel": {"hashes": {"sha1": "ab" * 20}}}, "lock-invalid", "sha1 alone: anybody could make"),
        (
            {"wheel": {"url": "http://mirror.example/torch-2.14.1-py3-none-any.whl"}},
            "insecure-index",
            "an address without TLS",
        ),
        ({"index": "http://mirror.example/simple"}, "insecure-index", "an address without TLS"),
        ({"index": "ftp://mirror.example/simple"}, "insecure-index", "an address without TLS"),
        (
            {"wheel": {"url": "https://me:secret@mirror.example/torch-2.14.1-py3-none-any.whl"}},
            "lock-invalid",
            "holds a user name or a password",
        ),
        (
            {"index": "https://mirror.example/simple\n--index-url https://evil.example"},
            "lock-invalid",
            "holds blanks or control characters",
        ),
        ({"index": "https://token@mirror.example/simple"}, "lock-invalid", "holds a user name or a password"),
        (
            {"wheel": {"url": "file:///tmp/torch-2.14.1-py3-none-any.whl"}},
            "lock-invalid",
            "which only one machine has",
        ),
        (
            {"wheel": {"name": "torch-2.14.1-py3-none-any.whl", "url": "https://mirror.example/evil.whl"}},
            "lock-invalid",
            r"is to be fetched as `evil\.whl`",
        ),
        (
            {"wheels": None, "vcs": {"type": "git", "url": "https://x.example/t", "commit-id": "0" * 40}},
            "lock-invalid",
            "which no hash can pin",
        ),
    ],
)
def test_each_danger_has_its_own_words(changes: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        refuse_unsafe(lock(**changes))
    assert caught.value.code == code
    assert "secret" not in caught.value.message


def test_a_stronger_hash_is_enough() -> None:
    refuse_unsafe(lock(wheel={"hashes": {"sha512": "ab" * 64}}))


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "[::1]:80"])
def test_loopback_needs_no_tls(host: str) -> None:
    refuse_unsafe(lock(wheel={"url": f"http://{host}/torch-2.14.1-py3-none-any.whl"}))


def test_a_host_that_the_user_trusts_needs_no_tls() -> None:
    found = lock(wheel={"url": "http://mirror.example/torch-2.14.1-py3-none-any.whl"})
    refuse_unsafe(found, trusted=["mirror.example"])


def test_local_files_only_where_they_are_wanted() -> None:
    refuse_unsafe(lock(wheel={"url": "file:///tmp/torch-2.14.1-py3-none-any.whl"}), allow_local=True)


def test_a_package_from_two_indexes() -> None:
    one = dict(lock().document["packages"][0])
    document = {
        "lock-version": "1.0",
        "created-by": "uv",
        "packages": [
            {**one, "marker": "sys_platform == 'linux'"},
            {**one, "marker": "sys_platform == 'win32'", "index": "https://other.example/simple"},
        ],
    }
    with pytest.raises(DataError, match="stands there from two indexes"):
        refuse_unsafe(pylock.from_document(document))
