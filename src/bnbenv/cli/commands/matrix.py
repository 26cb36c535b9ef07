"""`matrix`: what the releases hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bnbenv.cli.outcome import Outcome
from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from bnbenv.cli.ui import Ui
    from bnbenv.matrix.rows import BitsandbytesWheel, NativeLibrary, TorchBuild

EPILOG = """\
Examples:
  bnbenv matrix show                        what is known, and of which revision
  bnbenv matrix show bitsandbytes 0.46.1    the libraries of each wheel, and their kernels
  bnbenv matrix show torch 2.9.1            the builds of a release
  bnbenv matrix gpu "RTX 4090"              what a GPU is
  bnbenv matrix check                       read every row and say whether it is sound
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "action", metavar="ACTION", choices=("show", "gpu", "check"), help="show, gpu or check"
    )
    parser.add_argument(
        "words", metavar="WORD", nargs="*", help="a package and a release, or the name of a GPU"
    )


def run(args: Namespace, ui: Ui) -> Outcome:
    """Answer."""
    args.schema = f"matrix-{args.action}"
    match args.action:
        case "gpu":
            return _gpu(args.words)
        case "check":
            return _check()
        case _:
            return _show(args.words, ui)


def _show(words: Sequence[str], ui: Ui) -> Outcome:
    from bnbenv.matrix.load import load

    if not words:
        matrix = load("bitsandbytes", "torch", "gpus", "profiles")
        wheels = sorted({row.version for row in matrix.bitsandbytes}, key=_numbers)
        builds = sorted({row.version for row in matrix.torch}, key=_numbers)
        profiles = {row.name: row.summary for row in matrix.profiles}
        data = {
            "revision": matrix.revision,
            "bitsandbytes": wheels,
            "torch": builds,
            "gpus": len(matrix.gpus),
            "profiles": profiles,
            "rows": [],
        }
        lines = [
            f"revision {matrix.revision}",
            f"bitsandbytes {wheels[0]} to {wheels[-1]}: {len(matrix.bitsandbytes)} wheels",
            f"torch {builds[0]} to {builds[-1]}: {len(matrix.torch)} builds",
            f"{len(matrix.gpus)} GPUs",
            ui.table(list(profiles.items())),
        ]
        return Outcome(data=data, text="\n".join(lines))
    package, version = words[0].lower(), words[1] if len(words) > 1 else None
    if package not in {"torch", "bitsandbytes"} or len(words) > 2:
        raise UsageError(
            "`matrix show` takes `torch` or `bitsandbytes`, and a release",
            hint="bnbenv matrix show torch 2.9.1",
        )
    matrix = load("torch" if package == "torch" else "bitsandbytes")
    rows: Sequence[Any] = matrix.torch if package == "torch" else matrix.bitsandbytes
    known = sorted({row.version for row in rows}, key=_numbers)
    if version is not None and version not in known:
        raise UsageError(
            f"the matrix of {matrix.revision} holds no {package} {version}; its newest is {known[-1]}",
            hint=f"bnbenv matrix show {package} {known[-1]}",
        )
    chosen = [row for row in rows if version is None or row.version == version]
    told = [_torch(row) if package == "torch" else _wheel(row) for row in chosen]
    return Outcome(
        data={"revision": matrix.revision, "package": package, "version": version, "rows": told},
        text=_torch_table(chosen, ui) if package == "torch" else _wheel_table(chosen, ui),
    )


def _gpu(words: Sequence[str]) -> Outcome:
    from bnbenv.matrix.gpus import find_gpu
    from bnbenv.matrix.load import load

    if not words:
        raise UsageError("`matrix gpu` takes the name of a GPU", hint='bnbenv matrix gpu "RTX 4090"')
    gpu = find_gpu(load("gpus").gpus, " ".join(words))
    capability = str(gpu.compute_capability) if gpu.compute_capability else None
    data = {"name": gpu.name, "compute_capability": capability, "gfx": gpu.gfx}
    return Outcome(
        data=data, text=f"{gpu.name}: " + (f"compute capability {capability}" if capability else str(gpu.gfx))
    )


def _check() -> Outcome:
    from bnbenv.matrix.load import compat_directory, load
    from bnbenv.matrix.matrix import PARTS

    matrix = load()
    counts = {part: len(getattr(matrix, part)) for part in PARTS}
    data = {"revision": matrix.revision, "directory": str(compat_directory()), "rows": counts}
    lines = [f"revision {matrix.revision} in {data['directory']}: {sum(counts.values())} rows, all readable"]
    return Outcome(data=data, text="\n".join(lines))


def _torch(row: TorchBuild) -> dict[str, Any]:
    return {
        "version": row.version,
        "build": row.build,
        "index": row.index,
        "os": row.os,
        "arch": row.arch,
        "pythons": list(row.pythons),
        "cuda": str(row.cuda) if row.cuda else None,
        "cubins": [str(cubin) for cubin in row.cubins],
        "ptx": [str(ptx) for ptx in row.ptx],
        "how": row.provenance.how,
        "source": row.provenance.source,
    }


def _wheel(row: BitsandbytesWheel) -> dict[str, Any]:
    return {
        "version": row.version,
        "wheel": row.wheel,
        "sha256": row.sha256,
        "os": row.os,
        "arch": row.arch,
        "requires_python": row.requires_python,
        "requires_torch": row.requires_torch,
        "broken": row.broken,
        "libraries": [_library(library) for library in row.libraries],
    }


def _library(row: NativeLibrary) -> dict[str, Any]:
    return {
        "name": row.name,
        "backend": row.backend,
        "toolkit": row.toolkit,
        "cubins": [str(cubin) for cubin in row.cubins],
        "ptx": [str(ptx) for ptx in row.ptx],
        "ptx_linkage": row.ptx_linkage,
        "gfx": list(row.gfx),
        "needed": list(row.needed),
        "symbol_versions": {name: str(version) for name, version in row.symbol_versions.items()},
    }


def _torch_table(rows: Sequence[TorchBuild], ui: Ui) -> str:
    cells = [
        (
            row.version,
            row.build,
            row.index,
            f"{row.os} {row.arch}",
            " ".join(row.pythons),
            " ".join(str(cubin) for cubin in row.cubins) or "-",
        )
        for row in rows
    ]
    return ui.table(cells, header=("torch", "build", "index", "platform", "pythons", "cubins"))


def _wheel_table(rows: Sequence[BitsandbytesWheel], ui: Ui) -> str:
    cells = [
        (
            row.version,
            f"{row.os} {row.arch}",
            library.name,
            " ".join([*map(str, library.cubins), *library.gfx]) or "-",
            " ".join(f"{ptx} ({library.ptx_linkage})" for ptx in library.ptx) or "-",
        )
        for row in rows
        for library in row.libraries
    ]
    return ui.table(cells, header=("bitsandbytes", "platform", "library", "kernels for", "PTX"))


def _numbers(version: str) -> tuple[int, ...]:
    import re

    return tuple(int(part) for part in re.findall(r"\d+", version))
