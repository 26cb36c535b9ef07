from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from bnbenv.cli.commands.lock import _notices, _text
from bnbenv.cli.main import main
from bnbenv.cli.ui import Ui
from bnbenv.errors import EXIT_INTERRUPTED, Interrupted
from bnbenv.lockfile.index import TeamLock
from support.variants import CPU

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bnbenv.workflows.lock import LockRequest

CI = {"schema": 1, "name": "ci", "os": "linux", "arch": "x86_64", "accelerator": "cpu"}


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, str]:
    """The one problem of a `lock` whose line is wrong."""
    capsys.readouterr()
    assert main(["lock", "qlora", "--offline", *words, "--json"]) == 2
    problem: dict[str, str]
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    return problem


@pytest.mark.parametrize("text", ["9" * 30, "soon", "²", "9" * 5000])
def test_a_date_that_is_none_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    assert "SOURCE_DATE_EPOCH" in refused(capsys, "--dir", str(tmp_path))["message"]


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff")


def half_a_character(path: Path) -> None:
    path.write_bytes(json.dumps(CI).encode("utf-16")[:-1])


def no_mark(path: Path) -> None:
    path.write_bytes(json.dumps(CI).encode("utf-16-le"))


def empty(path: Path) -> None:
    path.write_text("\n")


def directory(path: Path) -> None:
    path.mkdir()


def dangling(path: Path) -> None:
    path.symlink_to(path.with_name("none"))


@pytest.mark.parametrize("make", [no_text, half_a_character, no_mark, empty, directory, dangling])
@pytest.mark.parametrize("name", ["lab.json", "lab.jsonl"])
def test_a_target_file_that_cannot_be_read_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, make: Callable[[Path], None], name: str
) -> None:
    make(tmp_path / name)
    problem = refused(capsys, "--dir", str(tmp_path), "--targets", str(tmp_path))
    assert problem["code"] == "bad-target"
    assert name in problem["message"]


def test_files_and_directories_of_machines_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my machines").mkdir()
    (tmp_path / "ci.json").write_text(json.dumps(CI))
    directory = refused(capsys, "--target", "my machines")
    assert directory["hint"] == "--targets 'my machines', for every target file in it"
    file = refused(capsys, "--targets", "ci.json")
    assert file["hint"].startswith("--target ci.json; ")
    assert refused(capsys, "--target", "none.json")["message"].endswith(": No such file or directory")
    assert main(["lock", "ci.json", "--offline", "--json"]) == 2
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    assert problem["hint"].startswith("--target ci.json; ")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_target_file_is_read_as_powershell_writes_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str
) -> None:
    lines = [json.dumps({**CI, "name": name}) for name in ("Zürich", "日本")]
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "labs.jsonl").write_text("\r\n".join(lines), encoding=encoding, newline="")
    (tmp_path / "m" / "lab.json").write_text(lines[0], encoding=encoding)
    written = (tmp_path / "m" / "lab.json").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(written), encoding="ascii"))
    found = names(monkeypatch, "--target", "-", "--targets", str(tmp_path / "m"))
    assert found == ["Zürich", "Zürich", "Zürich", "日本"]


def names(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """What the machines of a line are called."""
    found: list[str] = []

    def read(request: LockRequest, *_: Any) -> NoReturn:
        found.extend(given.target.name for given in request.targets)
        raise Interrupted("read")

    monkeypatch.setattr("bnbenv.workflows.lock.lock", read)
    assert main(["lock", *words]) == EXIT_INTERRUPTED
    return found


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("--gpu", "H100", "--driver", "580", "--glibc", "2.28"), "H100, driver 580, glibc 2.28"),
        (("--gpu", "9.0", "--gpu", "8.9", "--os", "linux", "--arch", "x86_64"), "9.0, 8.9, linux, x86_64"),
        (("--os", "linux", "--glibc", "2.31"), "linux, glibc 2.31"),
        (("--glibc", "2.31"), "glibc 2.31"),
    ],
)
def test_a_machine_of_options_is_called_by_all_that_they_say(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], name: str
) -> None:
    assert names(monkeypatch, *words) == [name]


def test_what_to_type_after_locking_is_spelt_for_the_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    lock = TeamLock(request={"profile": "qlora"}, matrix="2026.11.23", variants=(CPU,))
    found: Any = SimpleNamespace(lock=lock, changes=(), changed=True, written=True, local=())
    assert _text(found, tmp_path / "my locks", Ui()).endswith(f'then `bnbenv sync "{tmp_path}/my locks"`')


def test_a_machine_that_lost_its_gpu_is_named_in_what_forgets_it(tmp_path: Path) -> None:
    found: Any = SimpleNamespace(linked={}, local=(), left_out=(), lost=("desk", "lab a"))
    [notice] = _notices(found, tmp_path)
    assert notice.hint == (
        f"bnbenv lock --forget desk --forget 'lab a' --dir {tmp_path}, if that is gone for good"
    )
