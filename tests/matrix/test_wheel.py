from __future__ import annotations

import http.server
import io
import re
import struct
import threading
import zipfile
from typing import TYPE_CHECKING

import pytest
import requests
from binaries import elf, fatbin, wheel
from hypothesis import given
from hypothesis import strategies as st

from bnbenv.errors import BnbenvError, ExternalError
from bnbenv.matrix.binary import DamagedFileError
from bnbenv.matrix.measure import Published, measure_bitsandbytes, measure_wheel
from bnbenv.matrix.remote import LocalFile, RemoteFile
from bnbenv.matrix.wheel import Wheel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "bitsandbytes-9.9.9-py3-none-manylinux_2_24_x86_64.whl"
METADATA = (
    "Requires-Python: >=3.10\r\nRequires-Dist: torch<3,>=2.4\r\n"
    'Requires-Dist: numpy>=1.17\r\nRequires-Dist: pytest; extra == "test"\r\n'
)
CONTENT = wheel(
    {
        "bitsandbytes/libbitsandbytes_cpu.so": elf(needed=("libgomp.so.1",)),
        "bitsandbytes/libbitsandbytes_cuda128.so": elf(
            sections={
                ".nv_fatbin": fatbin(("cubin", 75), ("cubin", 120)),
                "__nv_relfatbin": fatbin(("ptx", 120)),
            }
        ),
        "bitsandbytes/__init__.py": b"x = 1\n" * 50_000,
    },
    metadata=METADATA,
)


class Memory:
    """A file held in memory."""

    def __init__(self, data: bytes, name: str = NAME) -> None:
        self.name, self.size, self._data = name, len(data), data

    def stream(self, offset: int, length: int) -> Iterator[bytes]:
        for at in range(offset, min(offset + length, len(self._data)), 777):
            yield self._data[at : min(at + 777, offset + length)]


class RangeHandler(http.server.BaseHTTPRequestHandler):
    """Serves one wheel by ranges; the path chooses how it misbehaves."""

    broken_off: set[str] = set()  # noqa: RUF012 - one server a test
    hung_up: set[int] = set()  # noqa: RUF012

    def do_GET(self) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if self.path == "/forbidden":
            self.send_error(403)
            return
        if self.path == "/whole" or match is None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            return
        start, end = int(match[1]), min(int(match[2]), len(CONTENT) - 1)
        if self.path == "/silent" or (self.path == "/late" and end > 1 and start not in self.hung_up):
            self.hung_up.add(start)
            self.close_connection = True  # without a word
            return
        body = CONTENT[start : end + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/shaky" and len(body) > 1 and (key := f"{start}") not in self.broken_off:
            self.broken_off.add(key)
            body = body[: len(body) // 2]
            self.close_connection = True
        if self.path == "/dead":
            body = b""
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RangeHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
    RangeHandler.broken_off.clear()
    RangeHandler.hung_up.clear()


def test_a_wheel_is_measured_from_disk(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(CONTENT)
    row = measure_wheel(path)
    assert (row.version, row.os, row.arch) == ("9.9.9", "linux", "x86_64")
    assert row.requires_python == ">=3.10"
    assert row.requires_torch == ">=2.4,<3"
    assert row.requires == ("numpy>=1.17", "torch<3,>=2.4")
    assert [library.name for library in row.libraries] == [
        "libbitsandbytes_cpu.so",
        "libbitsandbytes_cuda128.so",
    ]
    assert [str(cubin) for cubin in row.libraries[1].cubins] == ["7.5", "12.0"]
    assert row.provenance.source == f"{NAME} sha256:{row.sha256}"


@pytest.mark.parametrize("path", ["/good", "/shaky", "/late"], ids=["steady", "breaks off", "hangs up first"])
def test_a_wheel_is_measured_by_ranges_as_from_disk(address: str, path: str, tmp_path: Path) -> None:
    local = tmp_path / NAME
    local.write_bytes(CONTENT)
    here = measure_wheel(local)
    with requests.Session() as session:
        file = RemoteFile(session, address + path, name=NAME)
        there = measure_bitsandbytes(file, Published(here.sha256, ""), checked=here.provenance.checked)
    assert there == here


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/forbidden", "index-forbidden"),
        ("/whole", "index-not-an-index"),
        ("/dead", "index-unreachable"),
        ("/silent", "index-unreachable"),
    ],
)
def test_a_server_that_refuses_is_an_error_without_its_address(address: str, path: str, code: str) -> None:
    with requests.Session() as session, pytest.raises(ExternalError) as caught:
        Wheel(RemoteFile(session, address + path, name=NAME, size=len(CONTENT)))
    assert caught.value.code == code
    assert "127.0.0.1" not in caught.value.message


def test_metadata_with_carriage_returns_is_stripped() -> None:
    assert Wheel(Memory(CONTENT)).metadata().get_all("Requires-Dist") == [
        "torch<3,>=2.4",
        "numpy>=1.17",
        'pytest; extra == "test"',
    ]


def test_a_bomb_stops_at_the_limit() -> None:
    bomb = wheel({"bitsandbytes/bomb.so": b"\0" * 20_000_000})
    with pytest.raises(
        DamagedFileError, match=r"bomb\.so: at offset 0: declares 20000000 bytes, more than 1000"
    ):
        Wheel(Memory(bomb)).read("bitsandbytes/bomb.so", limit=1000)


def test_an_archive_that_declares_far_more_than_it_is_is_refused_at_once() -> None:
    bomb = wheel({f"bitsandbytes/{number}.so": b"\0" * 20_000_000 for number in range(5)})
    with pytest.raises(DamagedFileError, match=r"declares 100000\d{3} bytes of members"):
        Wheel(Memory(bomb))


def test_members_that_share_their_bytes_are_refused() -> None:
    data = bytearray(wheel({"a.so": b"x" * 4096, "b.so": b"y" * 4096}))
    at = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 20, len(data))
    with pytest.raises(DamagedFileError, match="its members overlap"):
        Wheel(Memory(bytes(data)))


def test_a_member_that_holds_more_than_it_declares_is_refused() -> None:
    data = bytearray(wheel({"a.so": b"\0" * 5_000_000}))
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"PK\x01\x02"))  # the directory's entry of a.so
    struct.pack_into("<I", data, at + 24, 1000)
    with pytest.raises(DamagedFileError, match=r"a\.so: at offset 1000: holds more than it declares"):
        Wheel(Memory(bytes(data))).read("a.so")


def test_a_changed_byte_is_found_by_the_checksum() -> None:
    data = bytearray(CONTENT)
    with zipfile.ZipFile(io.BytesIO(CONTENT)) as archive:
        info = archive.getinfo("bitsandbytes/libbitsandbytes_cpu.so")
    data[info.header_offset + 30 + len(info.filename) + 40] ^= 0xFF
    with pytest.raises(DamagedFileError, match=r"libbitsandbytes_cpu\.so"):
        Wheel(Memory(bytes(data))).read("bitsandbytes/libbitsandbytes_cpu.so")


@pytest.mark.parametrize("length", [0, 1, 21, 22, 100, len(CONTENT) - 1], ids=lambda n: f"{n} bytes")
def test_a_wheel_that_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(DamagedFileError, match=re.escape(NAME)):
        Wheel(Memory(CONTENT[:length]))


@pytest.mark.parametrize(
    "name", ["bitsandbytes.whl", "notes.txt", "bitsandbytes-9.9.9.whl", "bitsandbytes-x-py3-none-any.whl"]
)
def test_a_name_that_is_no_wheels_name_is_refused(name: str) -> None:
    with pytest.raises(DamagedFileError, match="not the name of a wheel"):
        measure_bitsandbytes(Memory(CONTENT, name), Published("0", ""))


@given(st.data())
def test_no_damage_ends_in_anything_but_an_error_that_names_the_file(data: st.DataObject) -> None:
    damaged = bytearray(CONTENT)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    file = Memory(bytes(damaged[: cut if data.draw(st.booleans()) else len(damaged)]))
    words = NAME
    try:
        measure_bitsandbytes(file, Published("0", ""))
    except BnbenvError as error:
        words = error.message
    assert "bitsandbytes-9.9.9" in words


def test_a_local_file_ends_where_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    assert b"".join(LocalFile(path).stream(4, 100)) == b"456789"
