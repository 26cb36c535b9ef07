from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.errors import ExternalError
from bnbenv.install.size import Room, measure, refuse_too_small, rooms, shown
from support.wheels import write_wheel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LINUX = "cp311-cp311-manylinux_2_28_x86_64"


@dataclass
class Lock:
    document: Mapping[str, Any]


def package(name: str, file: str, size: int | None, **more: Any) -> dict[str, Any]:
    wheel = {"url": f"https://files.example/{file}", **({"size": size} if size else {})}
    return {"name": name, "version": "1", "wheels": [wheel], **more}


def unpack_into(cache: Path, bucket: str, name: str, entry: str) -> None:
    """What uv 0.13 leaves in its cache after an installation."""
    directory = cache / "wheels-v8" / bucket / name
    (directory / entry).mkdir(parents=True)
    (directory / f"{entry}.http").touch()


def test_what_the_cache_has_is_not_fetched_again(tmp_path: Path) -> None:
    unpack_into(tmp_path, "pypi", "alpha", f"1-{LINUX}")
    unpack_into(tmp_path, "index/0123456789abcdef", "beta-x", "1-516d0c2242d49034")
    (tmp_path / "wheels-v8" / "pypi" / "gamma").mkdir()
    (tmp_path / "wheels-v8" / "pypi" / "gamma" / f"1-{LINUX}.http").touch()  # fetched once, cleaned since
    lock = Lock(
        {
            "packages": [
                package("alpha", f"alpha-1-{LINUX}.whl", 1000),
                package("beta-x", f"beta_x-1-{LINUX}.whl", 1000),
                package("gamma", f"gamma-1-{LINUX}.whl", 1000),
                package("alpha", f"alpha-2-{LINUX}.whl", 1000),
            ]
        }
    )
    found = measure(lock, cache=tmp_path)
    assert [entry.cached for entry in found.packages] == [True, True, False, False]
    assert found.download == 2000
    assert found.into_cache == 8000
    assert found.unpacked == 16000
    assert measure(lock, cache=tmp_path, environ={"UV_NO_CACHE": "1"}).download == 4000


def test_a_wheel_is_taken_before_the_source_release(tmp_path: Path) -> None:
    entry = package(
        "alpha", f"alpha-1-{LINUX}.whl", 1000, sdist={"url": "https://files.example/a.tar.gz", "size": 9000}
    )
    assert measure(Lock({"packages": [entry]}), cache=tmp_path).download == 1000


def test_a_local_wheel_is_no_download_and_its_size_is_looked_up(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "house", "alpha", "1")
    lock = Lock({"packages": [{"name": "alpha", "version": "1", "wheels": [{"url": wheel.as_uri()}]}]})
    (found,) = measure(lock, cache=tmp_path / "cache").packages
    assert (found.download, found.local) == (0, True)
    assert found.unpacked == 4 * wheel.stat().st_size


def test_an_unknown_size_is_said_not_guessed(tmp_path: Path) -> None:
    found = measure(Lock({"packages": [package("alpha", f"alpha-1-{LINUX}.whl", None)]}), cache=tmp_path)
    assert found.unknown == ("alpha",)
    assert found.sentence.endswith(": of unknown size")
    (room, *_) = rooms(found, cache=tmp_path, target=tmp_path)
    assert "at least 20 MB needed" in room.sentence
    packages = [
        package("alpha", f"alpha-1-{LINUX}.whl", None),
        package("beta", f"beta-1-{LINUX}.whl", 5_000_000),
    ]
    found = measure(Lock({"packages": packages}), cache=tmp_path)
    assert "at most 5.0 MB to fetch" in found.sentence
    assert found.sentence.endswith("and what is of unknown size: alpha")


def test_large_cuda_files_pack_worse(tmp_path: Path) -> None:
    lock = Lock({"packages": [package("nvidia-cublas", "nvidia_cublas-13-py3-none-any.whl", 500_000_000)]})
    assert measure(lock, cache=tmp_path).unpacked == 1_100_000_000


class TestRoom:
    def footprint(self, tmp_path: Path) -> Any:
        lock = Lock({"packages": [package("alpha", f"alpha-1-{LINUX}.whl", 100_000_000)]})
        return measure(lock, cache=tmp_path / "cache")

    def test_what_shares_a_file_system_is_added_up(self, tmp_path: Path) -> None:
        (room,) = rooms(
            self.footprint(tmp_path),
            cache=tmp_path / "cache",
            target=tmp_path / "x" / "y",
            temporary=tmp_path,
        )
        assert room.purposes == ("uv's cache", "the environment", "temporary files")
        assert room.needed == 400_000_000 + 8_000_000 + 20_000_000
        copied = rooms(
            self.footprint(tmp_path), cache=tmp_path, target=tmp_path, temporary=tmp_path, link_mode="copy"
        )
        assert copied[0].needed == 820_000_000

    def test_too_little_space_is_refused_with_the_numbers(self, tmp_path: Path) -> None:
        def found(free: int) -> tuple[Room, ...]:
            return rooms(
                self.footprint(tmp_path),
                cache=tmp_path,
                target=tmp_path,
                temporary=tmp_path,
                free=lambda _: free,
            )

        with pytest.raises(ExternalError) as caught:
            refuse_too_small(found(428_000_000 - 1))
        assert caught.value.code == "disk-full"
        assert caught.value.exit_code == 5
        assert str(tmp_path) in caught.value.message
        assert "about 428 MB needed, 428 MB free, which is too little" in caught.value.message
        assert "too little" not in found(428_000_000)[0].sentence
        refuse_too_small(found(428_000_000))

    def test_the_file_systems_own_number_is_used(self, tmp_path: Path) -> None:
        import shutil

        (room, *_) = rooms(self.footprint(tmp_path), cache=tmp_path, target=tmp_path)
        assert 0 < room.free <= shutil.disk_usage(tmp_path).total


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (2_540_000, "2.5 MB"),
        (41_000_000, "41 MB"),
        (3_000_000_000, "3.0 GB"),
    ],
)
def test_sizes_are_shown_as_people_read_them(size: int, text: str) -> None:
    assert shown(size) == text
