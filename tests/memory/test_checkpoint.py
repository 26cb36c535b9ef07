from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from bnbenv.errors import UsageError
from bnbenv.memory.checkpoint import read_checkpoint, require_weights
from support.safetensors import write_model, write_safetensors

if TYPE_CHECKING:
    from pathlib import Path


def shard(directory: Path, places: dict[str, str]) -> None:
    for name in sorted(set(places.values())):
        tensors = {key: ("BF16", (2, 2)) for key, place in places.items() if place == name}
        write_safetensors(directory / name, tensors)
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": places}), encoding="utf-8"
    )


def test_a_directory_with_one_file(tmp_path: Path) -> None:
    found = read_checkpoint(write_model(tmp_path / "m", w=("BF16", (2, 3))))
    assert (found.files, found.config["model_type"]) == (("model.safetensors",), "llama")
    require_weights(found)


def test_a_directory_with_an_index(tmp_path: Path) -> None:
    directory = write_model(tmp_path)
    shard(directory, {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"})
    found = read_checkpoint(directory)
    assert found.files == ("one.safetensors", "two.safetensors")


def test_a_configuration_alone(tmp_path: Path) -> None:
    directory = write_model(tmp_path)
    assert read_checkpoint(directory / "config.json").directory is None


@pytest.mark.parametrize(
    "place", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "a\\b.safetensors", "x.bin"]
)
def test_an_index_that_points_elsewhere_is_refused(tmp_path: Path, place: str) -> None:
    directory = write_model(tmp_path)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": place}}), encoding="utf-8")
    with pytest.raises(UsageError, match="no file of this directory"):
        read_checkpoint(directory)


def test_missing_files_are_named(tmp_path: Path) -> None:
    directory = write_model(tmp_path)
    shard(directory, {"a": "one.safetensors", "b": "two.safetensors"})
    (directory / "two.safetensors").unlink()
    with pytest.raises(UsageError, match=r"1 of 2 weight files are missing.*two\.safetensors"):
        read_checkpoint(directory)


def test_an_index_that_lies_is_refused(tmp_path: Path) -> None:
    directory = write_model(tmp_path)
    shard(directory, {"a": "one.safetensors", "b": "two.safetensors"})
    index = directory / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {"a": "two.safetensors", "b": "two.safetensors"}}), encoding="utf-8"
    )
    with pytest.raises(UsageError, match="does not hold it"):
        read_checkpoint(directory)


def test_pickles_are_never_weights(tmp_path: Path) -> None:
    directory = write_model(tmp_path)
    (directory / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UsageError, match="pickles") as raised:
        require_weights(read_checkpoint(directory))
    assert "save_pretrained" in str(raised.value.hint)


def test_no_weights_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no weights"):
        require_weights(read_checkpoint(write_model(tmp_path)))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, "\ud800".encode("utf-16", "surrogatepass").hex()]
)
def test_a_broken_configuration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"config\.json"):
        read_checkpoint(tmp_path)


def test_a_configuration_of_many_megabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(10**9)  # a hole: no byte is written
    with pytest.raises(UsageError, match="more than any real one"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_what_is_no_model(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"there is no model|holds no config\.json"):
        read_checkpoint(tmp_path / name)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    directory = write_model(tmp_path)
    shard(directory, {"a": "one.safetensors", "b": "two.safetensors"})
    write_safetensors(directory / "two.safetensors", {"b": ("U8", (3,)), "a": ("U8", (3,))})
    with pytest.raises(UsageError, match="hold a tensor twice"):
        read_checkpoint(directory)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such file on this system")
def test_what_would_wait_forever_is_not_opened(tmp_path: Path) -> None:
    directory = write_model(tmp_path)
    os.mkfifo(directory / "model.safetensors")
    assert read_checkpoint(directory).tensors == ()


@pytest.mark.parametrize("name", ["a" * 300, "\x00", "\udcff"], ids=["long", "nul", "no-utf8"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="there is no model"):
        read_checkpoint(tmp_path / name)
    directory = write_model(tmp_path)
    index = {"weight_map": {"a": f"{name}.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(UsageError, match=r"no file of this directory|are missing"):
        read_checkpoint(directory)
