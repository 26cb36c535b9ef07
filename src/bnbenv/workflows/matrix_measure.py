"""Measure what a person has: a wheel, a library, a directory of libraries, an environment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass
from bnbenv.errors import UsageError
from bnbenv.home import expanded
from bnbenv.matrix.load import load

if TYPE_CHECKING:
    from collections.abc import Mapping

_NATIVE = frozenset({".so", ".dll", ".dylib", ".pyd"})
_HINT = "name a .whl, .so, .dll or .dylib file, a directory of libraries, or an environment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a file, a directory or an environment holds, as plain values.

    Attributes:
        kind: ``wheel``, ``library``, ``directory`` or ``environment``.
        same_as: the published wheel with these bytes, where there is one.
    """

    kind: str
    path: Path
    bitsandbytes: Mapping[str, Any] | None = None
    torch: Mapping[str, Any] | None = None
    libraries: tuple[Mapping[str, Any], ...] = ()
    same_as: str | None = None


def measure_path(text: str, environ: Mapping[str, str]) -> Measured:
    """Measure what a person names: a wheel, a library, a directory of libraries, or an environment.

    Raises:
        UsageError: it is none of these, or cannot be read.
        DamagedFileError: a file is damaged.
        EnvironmentProblem: there is no such environment.
    """
    try:
        measured = _files(expanded(text, "what is measured"))
    except OSError as error:
        raise UsageError(
            f"`{error.filename or text}` cannot be read: {error.strerror}", hint=_HINT
        ) from error
    return measured or _environment(text, environ)


def _files(path: Path) -> Measured | None:
    """The same for what is no environment; nothing where it may be one.

    Raises:
        OSError: it cannot be read.
    """
    if path.is_file() and path.suffix == ".whl":
        return _wheel(path)
    if path.is_file() and (path.suffix in _NATIVE or ".so." in path.name):
        return Measured(kind="library", path=path, libraries=(_library(path),))
    if path.is_file() and not path.name.startswith("python"):
        raise UsageError(f"`{path}` is neither a wheel nor a native library", hint=_HINT)
    if path.suffix in {".whl", *_NATIVE} and not path.exists():
        raise UsageError(f"there is no file `{path}`", hint=_HINT)
    if path.is_dir() and not _is_environment(path):
        return _directory(path)
    return None


def _is_environment(path: Path) -> bool:
    return any(
        (path / name).exists() for name in ("pyvenv.cfg", "conda-meta", "bin/python", "Scripts/python.exe")
    )


def _library(path: Path) -> dict[str, Any]:
    from bnbenv.matrix.export import library_data
    from bnbenv.matrix.measure import measure_library

    return library_data(measure_library(path.name, path.read_bytes(), where=str(path)))


def _wheel(path: Path) -> Measured:
    from bnbenv.matrix.export import library_data, torch_data, wheel_data
    from bnbenv.matrix.measure import measure_libraries, measure_wheel, split_name
    from bnbenv.matrix.news import Candidate, Group, measured_torch
    from bnbenv.matrix.remote import LocalFile
    from bnbenv.matrix.wheel import Wheel

    project = path.name.partition("-")[0].lower()
    if project == "bitsandbytes":
        row = measure_wheel(path)
        held = next((one for one in load("bitsandbytes").bitsandbytes if one.sha256 == row.sha256), None)
        data = wheel_data(row)
        return Measured(
            kind="wheel",
            path=path,
            bitsandbytes=data,
            libraries=tuple(data["libraries"]),
            same_as=held.wheel if held else None,
        )
    if project == "torch":
        version, platform = split_name(path.name)
        public, _, local = version.partition("+")
        chosen = Candidate(
            wheel=path.name,
            version=public,
            local=local or None,
            python=f"3.{path.name.split('-')[-3].removeprefix('cp3')}",
            platform=platform,
            build_tag=0,
            sha256="",
            size=path.stat().st_size,
            url="",
        )
        build = measured_torch(LocalFile(path), Group(chosen=chosen, pythons=(chosen.python,)), index="file")
        return Measured(kind="wheel", path=path, torch=torch_data(build))
    libraries = tuple(library_data(one) for one in measure_libraries(Wheel(LocalFile(path))))
    return Measured(kind="wheel", path=path, libraries=libraries)


def _directory(path: Path) -> Measured:
    found = sorted(
        file
        for file in path.rglob("*")
        if file.suffix in {".so", ".dll", ".dylib", ".pyd"} and file.is_file()
    )
    if not found:
        raise UsageError(
            f"`{path}` holds no native library, and is no environment",
            hint=_HINT,
        )
    return Measured(kind="directory", path=path, libraries=tuple(_library(file) for file in found))


def _environment(text: str, environ: Mapping[str, str]) -> Measured:
    from bnbenv.matrix.measure_torch import measure_torch_library
    from bnbenv.workflows.environment import locate

    located = locate(text, environ, Path.cwd())
    installed = located.read_installed()
    found = installed.find("bitsandbytes")
    libraries: tuple[Mapping[str, Any], ...] = ()
    bitsandbytes = None
    if found:
        package = found.location / "bitsandbytes"
        libraries = tuple(_library(file) for file in sorted(package.glob("lib*")) if file.suffix in _NATIVE)
        bitsandbytes = {"version": found.version, "directory": str(package)}
    torch = None
    if held := installed.find("torch"):
        images = measure_torch_library(held.location / "torch")
        torch = {
            "version": held.version,
            "directory": str(held.location / "torch"),
            "cubins": [str(one) for one in images.cubins],
            "ptx": [str(one) for one in images.ptx],
        }
    return Measured(
        kind="environment",
        path=located.directory,
        bitsandbytes=bitsandbytes,
        torch=torch,
        libraries=libraries,
    )
