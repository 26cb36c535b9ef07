"""What a model's directory holds: its configuration, and the tensors of its safetensors files."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass
from bnbenv.errors import UsageError
from bnbenv.memory.safetensors import StoredTensor, read_header
from bnbenv.memory.strict import json_object, shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# Python's pickle runs whatever its author wrote: such files are never opened.
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_LONGEST_CONFIG = 4_000_000
_LONGEST_INDEX = 50_000_000  # a hundred times the longest there is

_MOST_FILES = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model on disk.

    Attributes:
        directory: ``None`` where only a configuration is known.
        config: config.json as it stands.
        tensors: by file and place; empty where there are no weights.
        pickles: names of files that may hold weights and are never opened.
    """

    directory: Path | None
    config: Mapping[str, Any]
    tensors: tuple[StoredTensor, ...] = ()
    pickles: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the weight files."""
        return tuple(dict.fromkeys(tensor.file for tensor in self.tensors))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a model's directory, or a config.json alone.

    Raises:
        UsageError: code ``bad-model``; what is missing or damaged is named.
    """
    try:
        return _read(path)
    except OSError as error:
        raise _bad(
            f"there is no model at `{path}` that can be read: {error.strerror}",
            "look at its name and its permissions",
        ) from error


def _read(path: Path) -> Checkpoint:
    if path.is_file():
        return Checkpoint(directory=None, config=read_config(path))
    if not path.is_dir():
        raise _bad(
            f"there is no model at `{path}`", "name a directory with a config.json, or a config.json itself"
        )
    config = path / CONFIG
    if not config.is_file():
        raise _bad(f"`{path}` holds no {CONFIG}", "name the directory that holds config.json and the weights")
    pickles = tuple(sorted(found.name for pattern in _PICKLES for found in path.glob(pattern)))
    return Checkpoint(directory=path, config=read_config(config), tensors=_tensors(path), pickles=pickles)


def require_weights(checkpoint: Checkpoint) -> None:
    """Refuse a model without safetensors weights.

    Raises:
        UsageError: code ``bad-model``.
    """
    if checkpoint.tensors:
        return
    if checkpoint.pickles:
        raise _bad(
            f"`{checkpoint.directory}` has its weights as pickles (`{checkpoint.pickles[0]}`), which run "
            "code when they are loaded, and are never opened",
            "convert them where you trust them: in Python, "
            "`AutoModelForCausalLM.from_pretrained(…).save_pretrained(…)` writes safetensors",
        )
    raise _bad(
        f"`{checkpoint.directory}` holds no weights", f"put `{SINGLE}` or `{INDEX}` and its files there"
    )


def read_config(path: Path) -> Mapping[str, Any]:
    """A config.json as plain values.

    Raises:
        UsageError: code ``bad-model``.
    """
    return _json_object(path, longest=_LONGEST_CONFIG)


def _tensors(directory: Path) -> tuple[StoredTensor, ...]:
    index, single = directory / INDEX, directory / SINGLE
    if index.is_file():
        return _sharded(directory, index)
    if single.is_file():
        return read_header(single)
    # Without an index, every safetensors file of the directory is a part of the model.
    parts = sorted(path for path in directory.glob("*.safetensors") if path.is_file())
    return tuple(tensor for path in parts for tensor in read_header(path))


def _sharded(directory: Path, index: Path) -> tuple[StoredTensor, ...]:
    places = _json_object(index, longest=_LONGEST_INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise _bad(f"`{index}` has no `weight_map` of texts", "fetch the file again")
    names = sorted(set(places.values()))
    if len(names) > _MOST_FILES:
        raise _bad(f"`{index}` names {len(names)} files, more than any real one", "fetch the file again")
    for name in names:
        plain = PurePath(name).name == name and "\\" not in name and len(name.encode(errors="replace")) < 256
        if not plain or not name.endswith(".safetensors"):
            raise _bad(
                f"`{index}` names `{shown(name)}`, which is no file of this directory",
                "such an index is not to be trusted: fetch the model again from its author",
            )
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
        raise _bad(
            f"{len(missing)} of {len(names)} weight files are missing that `{index}` names: "
            + ", ".join(f"`{shown(name)}`" for name in missing[:5]),
            "fetch them, then type the command again",
        )
    tensors = tuple(tensor for name in names for tensor in read_header(directory / name))
    stored = {tensor.name: tensor.file for tensor in tensors}
    if len(stored) != len(tensors):
        raise _bad(
            f"files of `{index}` hold a tensor twice, and which counts is not told", "fetch them again"
        )
    for name, place in places.items():
        if stored.get(name) != place:
            raise _bad(
                f"`{index}` places `{shown(name)}` in `{shown(place)}`, which does not hold it",
                "fetch both again",
            )
    return tensors


def _json_object(path: Path, *, longest: int) -> dict[str, Any]:
    try:
        if (size := path.stat().st_size) > longest:
            raise _bad(f"`{path}` has {size} bytes, more than any real one", "fetch the file again")
        return json_object(path.read_bytes())
    except OSError as error:
        raise _bad(f"`{path}` cannot be read: {error.strerror}", "look at its permissions") from error
    except ValueError as error:
        raise _bad(f"`{path}` is not a JSON object: {error}", "fetch the file again") from error


def _bad(message: str, hint: str) -> UsageError:
    return UsageError(message, hint=hint, code="bad-model")
