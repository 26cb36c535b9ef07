"""Releases that the shipped matrix does not hold: found on an index, measured, read by every command."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from binaries import elf, fatbin, wheel

from bnbenv.cli.main import main
from bnbenv.errors import DataError
from bnbenv.matrix.dump import dump_json
from bnbenv.matrix.load import added_directory, compat_directory, load
from support.index_server import IndexServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TARGET = ["--os", "linux", "--arch", "x86_64", "--gpu", "6.1", "--driver", "570"]
BITSANDBYTES = "bitsandbytes-0.99.0-py3-none-manylinux_2_24_x86_64.whl"
TORCH = "torch-2.98.0-cp312-cp312-manylinux_2_28_x86_64.whl"
CU126 = "torch-2.14.1+cu126-cp312-cp312-manylinux_2_28_x86_64.whl"
VERSION = "__version__ = '{}'\ncuda: str = '12.6'\nhip = None\n"


def bitsandbytes() -> bytes:
    library = elf(versions=("GLIBC_2.17",), sections={".nv_fatbin": fatbin(("cubin", 61), ("cubin", 86))})
    files = {
        "bitsandbytes/libbitsandbytes_cpu.so": elf(),
        "bitsandbytes/libbitsandbytes_cuda126.so": library,
    }
    return bytes(wheel(files, name="bitsandbytes-0.99.0", metadata="Requires-Dist: torch>=2.3\r\n"))


def torch(version: str) -> bytes:
    files = {
        "torch/version.py": VERSION.format(version).encode(),
        "torch/lib/libtorch_cuda.so": elf(sections={".nv_fatbin": fatbin(("cubin", 61))}),
    }
    return bytes(wheel(files, name=f"torch-{version}"))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexServer]:
    files = tmp_path / "files"
    files.mkdir()
    (files / BITSANDBYTES).write_bytes(bitsandbytes())
    (files / TORCH).write_bytes(torch("2.98.0"))
    with IndexServer() as running:
        monkeypatch.setenv("PIP_INDEX_URL", running.add("news", files, ranges=True))
        mirror = tmp_path / "cu126"
        mirror.mkdir()
        (mirror / CU126).write_bytes(torch("2.14.1"))
        running.add("cu126", mirror, ranges=True, as_json=False)
        yield running


def ask(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*words, "--json"]) == code
    data: dict[str, Any] = json.loads(capsys.readouterr().out)["data"]
    return data


@pytest.mark.usefixtures("server")
def test_what_would_be_measured_is_told_and_nothing_written(capsys: pytest.CaptureFixture[str]) -> None:
    data = ask(capsys, "matrix", "update", "--dry-run", *TARGET)
    assert [one["wheel"] for one in data["new"]] == [BITSANDBYTES, TORCH]
    assert (data["measured"], data["added"]) == ([], None)
    assert not added_directory().exists()


@pytest.mark.usefixtures("server")
def test_every_command_reads_what_was_added(capsys: pytest.CaptureFixture[str]) -> None:
    data = ask(capsys, "matrix", "update", "--yes", *TARGET)
    assert data["measured"] == [BITSANDBYTES, TORCH]
    shipped, added = data["shipped"], data["added"]
    both = f"{shipped}+{added}"
    [row] = ask(capsys, "matrix", "show", "bitsandbytes", "0.99.0")["rows"]
    assert [library["cubins"] for library in row["libraries"]] == [[], ["6.1", "8.6"]]
    judged = ask(capsys, "check", "--torch", "2.98.0", "--bitsandbytes", "0.99.0", *TARGET)
    assert (judged["works"], judged["library"], judged["matrix"]) == (
        True,
        "libbitsandbytes_cuda126.so",
        both,
    )
    assert "2.98.0" in [row["torch"] for row in ask(capsys, "matrix", "show", *TARGET)["rows"]]
    told = ask(capsys, "matrix", "check")
    assert (told["shipped"], told["added"], told["violations"]) == (shipped, added, [])
    again = ask(capsys, "matrix", "update", "--yes", *TARGET)
    assert (again["new"], again["measured"], again["added"]) == ([], [], added)


def test_a_published_build_becomes_a_measured_one(
    server: IndexServer, capsys: pytest.CaptureFixture[str]
) -> None:
    def row() -> Any:
        return next(
            one
            for one in load("torch").torch
            if (one.version, one.index, one.os, one.arch) == ("2.14.1", "pytorch-cu126", "linux", "x86_64")
        )

    assert row().provenance.how == "published"
    data = ask(capsys, "matrix", "measure", "--index", server.url("cu126"), "--yes", *TARGET)
    assert data["measured"] == [CU126]
    assert row().provenance.how == "measured"
    assert [str(cubin) for cubin in row().cubins] == ["6.1"]


def test_what_the_index_of_a_board_holds_is_not_doubted_once_it_is_measured(
    server: IndexServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    files = tmp_path / "board"
    files.mkdir()
    image = elf(sections={".nv_fatbin": fatbin(("cubin", 87))})
    library = {"bitsandbytes/libbitsandbytes_cuda126.so": image}
    torch_files = {"torch/version.py": VERSION.format("2.11.0").encode(), "torch/lib/libtorch_cuda.so": image}
    for name, version, held in (
        ("torch", "2.11.0", torch_files),
        ("torch", "2.12.0", torch_files),
        ("bitsandbytes", "0.47.0.dev0", library),
    ):
        file = files / f"{name}-{version}-cp310-cp310-linux_aarch64.whl"
        file.write_bytes(bytes(wheel(held, name=f"{name}-{version}", metadata="")))
    ask(capsys, "config", "set", "jetson-jp6-cu126", server.add("board", files, ranges=True))
    orin: dict[str, Any] = {
        "os": "linux",
        "arch": "aarch64",
        "accelerator": "cuda",
        "driver": "540.4.0",
        "pythons": ["3.10"],
    }
    orin |= {"gpus": [{"compute_capability": "8.7"}], "tegra": True, "l4t": "36.4.3"}
    target = tmp_path / "orin.json"
    target.write_text(json.dumps(orin), encoding="utf-8")
    pair = ["--torch", "2.11.0+jp6.cu126", "--bitsandbytes", "0.47.0.dev0"]
    assert ask(capsys, "check", *pair, "--target", str(target))["works"] is None

    data = ask(capsys, "matrix", "measure", "--index", "jetson-jp6-cu126", "--every-platform", "--yes")

    assert len(data["measured"]) == 3
    assert ask(capsys, "check", *pair, "--target", str(target))["works"] is True
    chosen = ask(capsys, "resolve", "qlora", "--target", str(target))
    assert (chosen["torch"]["version"], chosen["torch"]["index"]) == ("2.12.0", "jetson-jp6-cu126")
    assert "low-confidence" not in {found["code"] for found in chosen["findings"]}
    server_of_its_kind = ["--os", "linux", "--arch", "aarch64", "--gpu", "9.0", "--driver", "580.65.06"]
    assert ask(capsys, "check", *pair, *server_of_its_kind, code=1)["works"] is False


@pytest.mark.usefixtures("server")
def test_a_damaged_file_of_rows_names_itself_and_how_to_mend_it(capsys: pytest.CaptureFixture[str]) -> None:
    ask(capsys, "matrix", "update", "--yes", *TARGET)
    path = added_directory() / "bitsandbytes.json"
    path.write_text(path.read_text(encoding="utf-8")[:-30], encoding="utf-8")
    with pytest.raises(DataError, match=str(path)) as caught:
        load("bitsandbytes")
    assert caught.value.hint == f"delete {path}; `bnbenv matrix update` measures it anew"
    assert main(["check", "--torch", "2.9.1", "--bitsandbytes", "0.50.2", *TARGET]) == 6


@pytest.mark.usefixtures("server")
def test_what_a_newer_bnbenv_ships_is_dropped_from_the_added_rows(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(capsys, "matrix", "update", "--yes", *TARGET)
    compat = tmp_path / "compat"
    shutil.copytree(compat_directory(), compat)
    rows = load("bitsandbytes").bitsandbytes
    (compat / "bitsandbytes.json").write_text(
        dump_json("bitsandbytes", rows, revision="2027.01.01"), encoding="utf-8"
    )
    monkeypatch.setenv("BNBENV_COMPAT", str(compat))
    from bnbenv.workflows.matrix_news import save

    saved = save((), ())
    assert saved.rows == {"bitsandbytes": 0, "torch": 1}
    assert not (added_directory() / "bitsandbytes.json").exists()


def test_an_index_that_is_none_is_an_external_failure(
    server: IndexServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.indexes["news"].mode = "broken"
    ask(capsys, "matrix", "update", "--dry-run", *TARGET, code=5)


def test_an_index_that_refuses_access_says_so(
    server: IndexServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.indexes["news"].mode = "forbidden"
    capsys.readouterr()
    assert main(["matrix", "update", "--dry-run", *TARGET, "--json"]) == 5
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    assert problem["code"] == "index-forbidden"


@pytest.mark.network
def test_a_release_that_is_taken_out_comes_back_equal(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    network_environment: dict[str, str],
) -> None:
    for name, value in network_environment.items():
        monkeypatch.setenv(name, value)
    whole = load("bitsandbytes").bitsandbytes
    gone = next(
        row for row in whole if row.version == "0.50.2" and row.os == "linux" and row.arch == "aarch64"
    )
    compat = tmp_path / "compat"
    shutil.copytree(compat_directory(), compat)
    kept = [row for row in whole if row is not gone]
    document = dump_json("bitsandbytes", kept, revision="2026.01.01")
    (compat / "bitsandbytes.json").write_text(document, encoding="utf-8")
    monkeypatch.setenv("BNBENV_COMPAT", str(compat))
    data = ask(capsys, "matrix", "update", "--yes", "--os", "linux", "--arch", "aarch64")
    assert gone.wheel in data["measured"]
    back = next(row for row in load("bitsandbytes").bitsandbytes if row.wheel == gone.wheel)
    same_day = back.provenance._replace(checked=gone.provenance.checked)
    assert back._replace(provenance=same_day) == gone
