"""Damage to installed files is found and named, and nothing else is called damage."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from bnbenv.env.record import RecordFault, check_record

_LIBRARY = "bitsandbytes/libbitsandbytes_cpu.so"


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


class _Wheel:
    """An installed package with a RECORD as uv and pip write it."""

    def __init__(
        self, site: Path, name: str = "bitsandbytes", version: str = "0.50.2", installer: str = "uv"
    ) -> None:
        self.site = site
        self.own = f"{name}-{version}.dist-info"
        self.rows: list[str] = []
        (site / self.own).mkdir(parents=True)
        self.add(f"{self.own}/METADATA", f"Name: {name}\nVersion: {version}\n".encode())
        self.add(f"{self.own}/INSTALLER", installer.encode())

    def add(self, path: str, data: bytes, row: str | None = None) -> Path:
        file = self.site / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        self.rows.append(row if row is not None else f"{path},sha256={_hash(data)},{len(data)}")
        return file

    def record(self, text: str | None = None) -> Path:
        file = self.site / self.own / "RECORD"
        file.write_text(text if text is not None else "\n".join([*self.rows, f"{self.own}/RECORD,,", ""]))
        return file


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    (tmp_path / "lib/python3.12/site-packages").mkdir(parents=True)
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\nversion_info = 3.12.4\n")
    return tmp_path


@pytest.fixture
def wheel(venv: Path) -> _Wheel:
    made = _Wheel(venv / "lib/python3.12/site-packages")
    made.add("bitsandbytes/__init__.py", b"import os\n")
    made.add(_LIBRARY, bytes(range(256)) * 600)
    return made


def _kinds(faults: tuple[RecordFault, ...]) -> list[tuple[str, str, bool]]:
    return [(fault.path, fault.kind, fault.native) for fault in faults]


def test_an_intact_package_has_no_fault(venv: Path, wheel: _Wheel) -> None:
    wheel.record()
    assert check_record(venv) == ()


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1024])


def _zero(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[1000:1004] = b"\0\0\0\0"
    file.write_bytes(data)


def _grow(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (_truncate, "truncated"),
        (_zero, "altered"),
        (_grow, "altered"),
        (_empty, "truncated"),
        (Path.unlink, "missing"),
    ],
)
def test_damage_is_named(venv: Path, wheel: _Wheel, damage: object, kind: str) -> None:
    wheel.record()
    damage(wheel.site / _LIBRARY)  # type: ignore[operator]
    found = check_record(venv)
    assert _kinds(found) == [(_LIBRARY, kind, True)]
    assert found[0].package == "bitsandbytes"
    assert found[0].detail


def test_a_directory_in_the_place_of_a_file(venv: Path, wheel: _Wheel) -> None:
    wheel.record()
    _directory(wheel.site / _LIBRARY)
    assert len(check_record(venv)) == 1


def test_a_dangling_link_is_a_missing_file(venv: Path, wheel: _Wheel) -> None:
    wheel.record()
    (wheel.site / _LIBRARY).unlink()
    (wheel.site / _LIBRARY).symlink_to("cache/that/is/gone")
    assert _kinds(check_record(venv)) == [(_LIBRARY, "missing", True)]


def test_what_installers_write_themselves_is_no_damage(venv: Path, wheel: _Wheel) -> None:
    own = wheel.own
    wheel.add("../../../bin/tool", b"#!/new/python\n", f"../../../bin/tool,sha256={_hash(b'#!python')},8")
    for name in ("INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"):
        wheel.add(f"{own}/{name}", b"changed", f"{own}/{name},sha256={_hash(b'other')},5")
    wheel.rows.append("bitsandbytes/__pycache__/__init__.cpython-312.pyc,,")
    wheel.rows.append(f"bitsandbytes/old.pyc,sha256={_hash(b'')},0")
    wheel.add("bitsandbytes/generated.py", b"anything", "bitsandbytes/generated.py,,")
    wheel.add("bitsandbytes/weak.py", b"anything", "bitsandbytes/weak.py,md5=AAAA,")
    wheel.record()
    assert check_record(venv) == ()


def test_a_lost_script_is_missing(venv: Path, wheel: _Wheel) -> None:
    wheel.add("../../../bin/tool", b"#!x").unlink()
    wheel.record()
    assert _kinds(check_record(venv)) == [("../../../bin/tool", "missing", False)]


@pytest.mark.parametrize(
    "row",
    [
        'bitsandbytes/"quoted",name.py,sha256={hash},1',
        '"bitsandbytes/a,b.py",sha256={hash},4',
        "bitsandbytes\\windows.py,sha256={hash},4",
        "bitsandbytes/padded.py,sha256={hash}=,4",
        "bitsandbytes/hex.py,sha256={hex},4",
        "bitsandbytes/nosize.py,sha256={hash},",
        "bitsandbytes/größe.py,sha256={hash},4",
    ],
)
def test_unusual_but_right_rows(venv: Path, wheel: _Wheel, row: str) -> None:
    data = b"data"
    path = {'"': "bitsandbytes/a,b.py"}.get(row[0], row.partition(",")[0].replace("\\", "/"))
    full = row.format(hash=_hash(data), hex=hashlib.sha256(data).hexdigest())
    if 'quoted"' in full:
        wheel.record("\n".join([*wheel.rows, full]))
        assert check_record(venv)[0].kind == "bad-record"  # a row of four fields with a bad size
        return
    wheel.add(path, data, full)
    wheel.record()
    assert check_record(venv) == ()
    (wheel.site / path).write_bytes(b"DATA")
    assert _kinds(check_record(venv)) == [(path, "altered", False)]


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "\n\n",
        "garbage",
        "a,b",
        "x.py,sha256=A,many",
        "x\0y,sha256=A,1",
        "x.py,sha256=A,-1",
        'x"\n"y,,\n"',
    ],
)
def test_garbage_in_record_is_one_fault_not_a_crash(venv: Path, wheel: _Wheel, garbage: str) -> None:
    wheel.record(garbage)
    assert [fault.kind for fault in check_record(venv)] == ["bad-record"]


def test_bytes_that_are_no_text(venv: Path, wheel: _Wheel) -> None:
    wheel.record().write_bytes(b"\xff\xfe\x00")
    assert [fault.kind for fault in check_record(venv)] == ["bad-record"]


def test_a_lost_record_is_told(venv: Path, wheel: _Wheel) -> None:
    assert wheel.rows
    assert [fault.kind for fault in check_record(venv)] == ["no-record"]


def test_only_what_is_asked_for_is_compared(venv: Path, wheel: _Wheel) -> None:
    wheel.record()
    torch = _Wheel(wheel.site, "torch", "2.9.1")
    torch.add("torch/__init__.py", b"x")
    torch.add("torch/lib/libtorch.so.2", b"library")
    torch.record()
    (wheel.site / "torch/__init__.py").write_bytes(b"y")
    (wheel.site / "torch/lib/libtorch.so.2").write_bytes(b"LIBRARY")
    assert check_record(venv, ["bitsandbytes"]) == ()
    native = check_record(venv, ["Bits_And-Bytes".replace("_And-", "and")], natives_of_others=True)
    assert _kinds(native) == [("torch/lib/libtorch.so.2", "altered", True)]
    assert len(check_record(venv, ["TORCH"])) == 2
    assert len(check_record(venv)) == 2


@pytest.mark.parametrize("installer", ["conda", "debian", "rpm"])
def test_installers_that_change_files_are_not_blamed(venv: Path, installer: str) -> None:
    made = _Wheel(venv / "lib/python3.12/site-packages", "x", "1", installer)
    made.add("x/__init__.py", b"prefix=/old").write_bytes(b"prefix=/new/longer")
    made.add("x/lib.so", b"not stripped").write_bytes(b"stripped")
    made.rows.append("../scripts/x,,")
    made.record()
    assert check_record(venv) == ()
    (made.site / "x/lib.so").unlink()
    assert _kinds(check_record(venv)) == [("x/lib.so", "missing", True)]


def test_a_damaged_hardlink_is_found_wherever_it_was_damaged(
    venv: Path, wheel: _Wheel, tmp_path: Path
) -> None:
    """Files shared with uv's cache change in every environment at once; RECORD tells it in each."""
    wheel.record()
    cache = tmp_path / "cache.so"
    cache.hardlink_to(wheel.site / _LIBRARY)
    with cache.open("r+b") as stream:
        stream.write(b"XXXX")
    assert _kinds(check_record(venv)) == [(_LIBRARY, "altered", True)]
