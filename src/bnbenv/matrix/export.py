"""The rows as plain values for other programs: nested for JSON, flat for tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bnbenv.matrix.codec import CODECS
from bnbenv.matrix.matrix import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import BitsandbytesWheel, NativeLibrary, TorchBuild

FLAT = ("bitsandbytes", "torch")
"""The parts that make tables; a wheel of bitsandbytes is a line for each of its libraries."""


def torch_data(row: TorchBuild) -> dict[str, Any]:
    """A torch build."""
    return {
        "version": row.version,
        "build": row.build,
        "index": row.index,
        "os": row.os,
        "arch": row.arch,
        "pythons": list(row.pythons),
        "cuda": str(row.cuda) if row.cuda else None,
        "rocm": row.rocm,
        "cubins": [str(cubin) for cubin in row.cubins],
        "ptx": [str(ptx) for ptx in row.ptx],
        "gfx": list(row.gfx),
        "glibc": str(row.oldest_glibc) if row.oldest_glibc else None,
        "triton": row.triton,
        "how": row.provenance.how,
        "confidence": row.provenance.confidence,
        "source": row.provenance.source,
    }


def wheel_data(row: BitsandbytesWheel) -> dict[str, Any]:
    """A wheel of bitsandbytes with its libraries."""
    return {
        "version": row.version,
        "wheel": row.wheel,
        "sha256": row.sha256,
        "os": row.os,
        "arch": row.arch,
        "uploaded": row.uploaded,
        "requires_python": row.requires_python,
        "requires_torch": row.requires_torch,
        "broken": row.broken,
        "libraries": [library_data(library) for library in row.libraries],
    }


def library_data(row: NativeLibrary) -> dict[str, Any]:
    """A native library."""
    return {
        "name": row.name,
        "backend": row.backend,
        "toolkit": row.toolkit,
        "cubins": [str(cubin) for cubin in row.cubins],
        "ptx": [str(ptx) for ptx in row.ptx],
        "ptx_linkage": row.ptx_linkage,
        "gfx": list(row.gfx),
        "needed": list(row.needed),
        "run_paths": list(row.run_paths),
        "symbol_versions": {name: str(version) for name, version in row.symbol_versions.items()},
    }


def matrix_data(matrix: Matrix) -> dict[str, Any]:
    """The whole matrix; the parts beside wheels and builds are written as `compat/` has them."""
    whole: dict[str, Any] = {
        "revision": matrix.revision,
        "bitsandbytes": [wheel_data(row) for row in matrix.bitsandbytes],
        "torch": [torch_data(row) for row in matrix.torch],
    }
    for part in PARTS:
        if part not in whole:
            whole[part] = [CODECS[part].write(row) for row in getattr(matrix, part)]
    return whole


def flat_rows(part: str, rows: Sequence[Any]) -> Iterator[dict[str, str]]:
    """The lines of a table, every value a text; lists are joined by blanks."""
    for row in rows:
        if part == "torch":
            yield {name: _text(value) for name, value in torch_data(row).items()}
            continue
        data = wheel_data(row)
        libraries = data.pop("libraries") or [{}]
        for library in libraries:
            line = {**data, **{f"library_{name}": value for name, value in library.items()}}
            yield {name: _text(value) for name, value in line.items()}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return " ".join(f"{name}_{entry}" for name, entry in value.items())
    return " ".join(value) if isinstance(value, list) else str(value)
