"""Small safetensors files and models, written by hand from the format's description."""

from __future__ import annotations

import json
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WIDTHS = {"F32": 4, "BF16": 2, "F16": 2, "U8": 1, "I8": 1, "F8_E4M3": 1}
LLAMA: Mapping[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}


def header_of(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, Any]:
    """The header of a file that holds `tensors`, one behind the other."""
    place, header = 0, {}
    for name, (dtype, shape) in tensors.items():
        size = prod(shape) * WIDTHS[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    return header


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]], **changes: Any) -> Path:
    """Write a file full of zeros; `changes` replace entries of its header."""
    header = header_of(tensors)
    data = sum(prod(shape) * WIDTHS[dtype] for dtype, shape in tensors.values())
    return write_raw(path, json.dumps({**header, **changes}).encode(), data)


def write_raw(path: Path, header: bytes, data: int, *, length: int | None = None) -> Path:
    """Write any header, with any claim of its length, and so many bytes of data."""
    claimed = len(header) if length is None else length
    path.write_bytes(claimed.to_bytes(8, "little") + header + bytes(data))
    return path


def write_model(
    directory: Path, config: Mapping[str, Any] = LLAMA, **tensors: tuple[str, tuple[int, ...]]
) -> Path:
    """A directory with a configuration, and one file of weights if there are `tensors`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if tensors:
        write_safetensors(directory / "model.safetensors", tensors)
    return directory
