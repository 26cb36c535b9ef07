"""What the actions of `matrix` say to people, and what they leave behind."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import pytest
from binaries import elf, fatbin, wheel

from bnbenv.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

MIXED = ["--gpu", "RTX 5090", "--gpu", "Tesla P40", "--driver", "570", "--os", "linux", "--arch", "x86_64"]


def say(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["matrix", *words]) == code
    return capsys.readouterr().out


def test_nothing_serves_blackwell_beside_pascal(capsys: pytest.CaptureFixture[str]) -> None:
    out = say(capsys, "show", *MIXED)
    assert "✓" not in out.split("✓ works")[0]
    assert "torch's cu126 holds no kernel for GPU 0 (12.0)" in out
    assert "driver 570 is too old for CUDA 13.2" in out


def test_a_red_cell_has_one_reason(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["matrix", "show", *MIXED, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["data"]["rows"]
    assert all(
        cell["works"] is False and cell["reason"] and cell["code"] for row in rows for cell in row["cells"]
    )


def test_a_board_sees_the_wheels_made_for_it_and_a_server_does_not(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    described = {"os": "linux", "arch": "aarch64", "accelerator": "cuda", "pythons": ["3.10"]}
    board = {**described, "gpus": [{"compute_capability": "8.7"}], "driver": "540.4.0", "l4t": "36.4.3"}
    server = {**described, "gpus": [{"compute_capability": "9.0"}], "driver": "580.65.06"}
    tables = []
    for number, target in enumerate((board, server)):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(target), encoding="utf-8")
        tables.append(say(capsys, "show", "--target", str(file)))
    on_board, on_server = tables
    assert "0.47.0.dev0" in on_board
    assert "?" in next(line for line in on_board.splitlines() if line.startswith("2.11.0"))
    assert "0.47.0.dev0" not in on_server


def test_a_hidden_gpu_is_not_told_as_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    machine = tmp_path / "machine.json"
    card = {"name": "NVIDIA GeForce RTX 4090", "compute_capability": "8.9", "visible": False}
    facts = {"schema": 1, "name": "desk", "os": "linux", "arch": "x86_64", "accelerator": "cuda"}
    machine.write_text(json.dumps({**facts, "gpus": [card]}))
    assert "desk: linux x86_64, 1 GPU, hidden from this process" in say(
        capsys, "show", "--target", str(machine)
    )


def test_every_release_is_more_than_the_newest_of_each_minor(capsys: pytest.CaptureFixture[str]) -> None:
    few, every = say(capsys, "show", *MIXED), say(capsys, "show", "--all", *MIXED)
    assert "0.46.0" not in few.splitlines()[2]
    assert "0.46.0" in every.splitlines()[2]


def test_a_machine_without_any_wheel_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    out = say(capsys, "show", "--os", "macos", "--arch", "x86_64")
    assert "no release of bitsandbytes has a wheel for macos x86_64" in out


def test_volta_came_back_in_0_47(capsys: pytest.CaptureFixture[str]) -> None:
    out = say(capsys, "diff", "0.46.1", "0.47.0")
    assert "~ linux x86_64 libbitsandbytes_cuda128.so\n    cubins + 7.0" in out
    assert "    cubins - 5.2 6.1" in out


def test_tables_are_written_for_spreadsheets_and_for_pages(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "torch.csv"
    out = say(capsys, "export", "--csv", "torch", "-o", str(file))
    with file.open(encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    assert out.strip() == f"{file}: {len(rows)} rows"
    assert {"version", "cubins", "how", "source"} <= rows[0].keys()
    head, rule, *_ = say(capsys, "export", "--markdown").splitlines()
    assert head.startswith("| version | wheel | sha256 |")
    assert set(rule) == {"|", "-"}


def test_the_whole_matrix_is_one_document(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "matrix.json"
    say(capsys, "export", "-o", str(file))
    whole = json.loads(file.read_text(encoding="utf-8"))
    assert whole["bitsandbytes"][0]["libraries"][0]["symbol_versions"]
    assert whole["driver_floors"]
    assert whole["claims"]
    assert any("gfx1100" in row["gfx"] for row in whole["torch"] if row["rocm"])


@pytest.mark.parametrize(
    "words",
    [
        ["measure", ""],
        ["measure", "--index", " "],
        ["measure", "--index", "pypi", "--release", ""],
        ["export", "-o", ""],
        ["html", "-o", " "],
        ["gpu", ""],
        ["show", ""],
    ],
    ids=" ".join,
)
def test_an_empty_word_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["matrix", *words]) == 2
    said = capsys.readouterr()
    assert "is an empty word" in said.err
    assert said.out == ""
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["bitsandbytes-9-py3-none-any.whl", "libbitsandbytes_cpu.so"])
def test_a_file_that_is_not_there_is_no_environment(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["matrix", "measure", str(tmp_path / name)]) == 2
    assert f"there is no file `{tmp_path / name}`" in capsys.readouterr().err


def test_a_library_is_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    library = tmp_path / "libbitsandbytes_cuda126.so"
    library.write_bytes(elf(versions=("GLIBC_2.34",), sections={".nv_fatbin": fatbin(("cubin", 87))}))
    out = say(capsys, "measure", str(library))
    assert "libbitsandbytes_cuda126.so  cuda     12.6     8.7          GLIBC 2.34" in out
    assert "libbitsandbytes_cuda126.so" in say(capsys, "measure", str(tmp_path))


def test_a_fork_is_measured_and_not_taken_for_the_published_wheel(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "bitsandbytes-0.50.2-py3-none-manylinux_2_24_x86_64.whl"
    files = {"bitsandbytes/libbitsandbytes_cuda128.so": elf(sections={".nv_fatbin": fatbin(("cubin", 61))})}
    path.write_bytes(wheel(files, name="bitsandbytes-0.50.2"))
    out = say(capsys, "measure", str(path))
    assert "6.1" in out
    assert "published" not in out


def test_a_damaged_file_is_an_error_with_its_offset(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    library = tmp_path / "lib.so"
    library.write_bytes(elf()[:90])
    capsys.readouterr()
    assert main(["matrix", "measure", str(library)]) == 6
    assert f"{library}: at offset" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["notes.txt", "empty"])
def test_what_is_no_binary_is_refused(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / name
    path.mkdir() if name == "empty" else path.write_text("hello", encoding="utf-8")
    capsys.readouterr()
    assert main(["matrix", "measure", str(path)]) == 2
    assert "native library" in capsys.readouterr().err


def test_what_cannot_be_read_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    capsys.readouterr()
    assert main(["matrix", "measure", str(tmp_path / ("x" * 300))]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_torch_whose_name_is_no_wheels_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "torch-2.whl"
    path.write_bytes(wheel({}, name="torch-2"))
    capsys.readouterr()
    assert main(["matrix", "measure", str(path)]) == 6
    assert "not the name of a wheel" in capsys.readouterr().err


def test_a_wheel_without_a_library_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "pure-1-py3-none-any.whl"
    path.write_bytes(wheel({}, name="pure-1"))
    assert "no native library" in say(capsys, "measure", str(path))


def test_a_release_may_be_spelt_short(capsys: pytest.CaptureFixture[str]) -> None:
    assert say(capsys, "show", "bitsandbytes", "v0.46") == say(capsys, "show", "bitsandbytes", "0.46.0")
    assert say(capsys, "diff", "0.46", "0.47") == say(capsys, "diff", "0.46.0", "0.47.0")


@pytest.mark.parametrize("words", [[], ["check", "compat"]])
def test_a_word_too_few_or_too_many_is_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["matrix", *words]) == 2
    told = capsys.readouterr().err
    assert "takes no word" in told if words else "required: ACTION\n" in told


def test_a_file_that_was_changed_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = {"torch.json": "0" * 64}
    monkeypatch.setattr("bnbenv.matrix.invariants.shipped_hashes", lambda _directory: hashes)
    assert "torch.json: is not the file that bnbenv shipped" in say(capsys, "check", code=6)
