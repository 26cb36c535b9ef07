"""Find Python interpreters by looking at files: names, links, `pyvenv.cfg`, headers. None is run."""

# pathlib would double the time of a probe that touches some hundred files.
# ruff: noqa: PTH110, PTH118, PTH119, PTH120, PTH123, PTH208

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from bnbenv.machine.host import Python
from bnbenv.machine.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import PurePath

    from bnbenv.machine.target import OsName

_EXECUTABLE = re.compile(r"python(?:3(?:\.(\d{1,2}))?)?(?:\.exe)?")
_VERSION_NAME = re.compile(r"3\.\d{1,2}(?:\.\d{1,3})?")
_LIBRARY = re.compile(r"python3(\d{1,2})\.dll", re.IGNORECASE)  # that of a free-threaded build ends in `t`
_UV_NAME = re.compile(r"cpython-(3\.\d{1,2}(?:\.\d{1,3})?)-")  # `+freethreaded` and pre-releases do not match
_CONDA_RECORD = re.compile(r"python-(3\.\d{1,2}\.\d{1,3})-[^-]+\.json")
_SYSTEM_PLACES = ("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin", "/opt/local/bin")
_CONDA_PLACES = ("miniconda3", "miniforge3", "mambaforge", "anaconda3", "micromamba")
_FRAMEWORKS = "/Library/Frameworks/Python.framework/Versions"


def find_pythons(
    environ: Mapping[str, str], root: PurePath | str = os.sep, *, os_name: OsName = "linux"
) -> tuple[Python, ...]:
    """List the CPython 3 interpreters at hand, oldest minor version first.

    Each real file is listed once, under the first source that led to it. Shims (scripts, launchers) are
    left out unless they are links to an interpreter; what their version manager has installed is listed. So
    are free-threaded builds and PyPy left out, for which no wheel of bitsandbytes' world is made.

    Args:
        environ: gives ``PATH``, ``HOME``, ``PYENV_ROOT``, ``CONDA_PREFIX``, ``VIRTUAL_ENV`` and the like.
        root: the file tree; directories named by `environ` are taken as they stand.
        os_name: whose layout to expect.
    """
    tree = Tree(root=str(root))
    found: dict[str, Python] = {}
    for path, version, source in _candidates(tree, environ, os_name):
        real = os.path.realpath(path)
        resolved = _resolve(real, version)
        if resolved is None or real in found:
            continue
        found[real] = Python(path=real, version=resolved, source=source)
    return tuple(sorted(found.values(), key=lambda python: (_numbers(python.version)[:2], python.path)))


def scripts_on_path(environ: Mapping[str, str], minor: str) -> tuple[str, ...]:
    """The scripts on ``PATH`` that may start a Python of that minor version: only to run them would tell.

    What is installed behind a version manager's shims is known.
    """
    paths = (
        os.path.join(directory, name)
        for directory in environ.get("PATH", "").split(os.pathsep)
        if directory and not any(_behind_shims(directory))
        for name in (f"python{minor}", "python3", "python")
    )
    return tuple(dict.fromkeys(path for path in paths if os.access(path, os.X_OK) and _start(path) == b"#!"))


def minor_versions(pythons: Sequence[Python]) -> tuple[str, ...]:
    """The distinct minor versions, oldest first."""
    numbers = {_numbers(python.version)[:2] for python in pythons}
    return tuple(f"{major}.{minor}" for major, minor in sorted(numbers))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _candidates(
    tree: Tree, environ: Mapping[str, str], os_name: OsName
) -> Iterator[tuple[str, str | None, str]]:
    """Paths with the version that their surroundings tell, and the source."""
    if tree.real:
        base = getattr(sys, "_base_executable", None) or sys.executable
        if base and sys.implementation.name == "cpython" and not _is_free_threaded():
            yield base, ".".join(map(str, sys.version_info[:3])), "running"
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if directory := environ.get(variable):
            yield from _environment(directory, variable, os_name)
    for directory in environ.get("PATH", "").split(os.pathsep):
        if directory:
            yield from _directory(directory, "PATH")
            yield from _behind_shims(directory)
    if os_name == "windows":
        yield from _windows(environ)
    else:
        yield from _posix(tree, environ, os_name)


def _behind_shims(directory: str) -> Iterator[tuple[str, str | None, str]]:
    """What the version manager that a directory of shims is of has installed: pyenv, asdf or mise."""
    parent, name = os.path.split(directory.rstrip("/"))
    if name == "shims":
        yield from _versions(f"{parent}/versions", "pyenv")
        yield from _versions(f"{parent}/installs/python", "shims")


def _posix(tree: Tree, environ: Mapping[str, str], os_name: OsName) -> Iterator[tuple[str, str | None, str]]:
    """The places of version managers below the home directory, then the system's."""
    home = environ.get("HOME", "")
    if root := environ.get("PYENV_ROOT") or (home and f"{home}/.pyenv"):
        yield from _versions(f"{root}/versions", "pyenv")
    data = environ.get("XDG_DATA_HOME") or (home and f"{home}/.local/share")
    yield from _uv(environ.get("UV_PYTHON_INSTALL_DIR") or (data and f"{data}/uv/python"), os_name)
    if home:
        yield from _conda(home, os_name)
    for place in _SYSTEM_PLACES:
        yield from _directory(tree.path(place), "system")
    if os_name == "macos":
        for entry in tree.names(_FRAMEWORKS):
            if _VERSION_NAME.fullmatch(entry):
                yield tree.path(f"{_FRAMEWORKS}/{entry}/bin/python{entry}"), entry, "framework"


def _conda(home: str, os_name: OsName) -> Iterator[tuple[str, str | None, str]]:
    for name in _CONDA_PLACES:
        yield from _environment(f"{home}/{name}", "conda", os_name)
        for entry in _names(f"{home}/{name}/envs"):
            yield from _environment(f"{home}/{name}/envs/{entry}", "conda", os_name)


def _is_free_threaded() -> bool:
    return "t" in getattr(sys, "abiflags", "")


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _directory(directory: str, source: str) -> Iterator[tuple[str, str | None, str]]:
    for name in _names(directory):
        if _EXECUTABLE.fullmatch(name):
            yield os.path.join(directory, name), None, source


def _environment(directory: str, source: str, os_name: OsName) -> Iterator[tuple[str, str | None, str]]:
    """A virtual environment stands for the interpreter it was made from; a conda environment for its own."""
    executable = f"{directory}/python.exe" if os_name == "windows" else f"{directory}/bin/python"
    configuration = _text(f"{directory}/pyvenv.cfg")
    if configuration is not None:
        values: dict[str, str] = {}
        for line in configuration.splitlines():
            key, _, value = line.partition("=")
            values[key.strip()] = value.strip()
        version = values.get("version") or values.get("version_info")
        home = values.get("home", "")
        if os_name == "windows" and home:
            executable = f"{home}/python.exe"
        yield executable, version, source
        return
    for name in _names(f"{directory}/conda-meta"):
        if match := _CONDA_RECORD.fullmatch(name):
            yield executable, match[1], source if source == "conda" else "conda"
            return


def _versions(directory: str, source: str) -> Iterator[tuple[str, str | None, str]]:
    for name in _names(directory):
        if _VERSION_NAME.fullmatch(name):
            yield f"{directory}/{name}/bin/python3", name, source


def _uv(directory: str, os_name: OsName) -> Iterator[tuple[str, str | None, str]]:
    for name in _names(directory) if directory else []:
        if match := _UV_NAME.match(name):
            executable = "python.exe" if os_name == "windows" else "bin/python3"
            yield f"{directory}/{name}/{executable}", match[1], "uv"


def _windows(environ: Mapping[str, str]) -> Iterator[tuple[str, str | None, str]]:
    """The installer's two places, for one user and for all, uv's, and conda's."""
    for parent in (
        f"{environ.get('LOCALAPPDATA', '')}\\Programs\\Python",
        environ.get("ProgramFiles", r"C:\Program Files"),
    ):
        for name in _names(parent):
            if match := re.fullmatch(r"Python3(\d{1,2})", name):
                yield os.path.join(parent, name, "python.exe"), f"3.{match[1]}", "installer"
    if appdata := environ.get("APPDATA"):
        yield from _uv(environ.get("UV_PYTHON_INSTALL_DIR") or f"{appdata}\\uv\\python", "windows")
    if home := environ.get("USERPROFILE"):
        yield from _conda(home, "windows")


def _resolve(path: str, version: str | None) -> str | None:
    """The version of an interpreter by its real path; ``None`` if it is none, or cannot be known."""
    name = os.path.basename(path)
    match = _EXECUTABLE.fullmatch(name)
    if match is None or not _is_program(path):
        return None
    prefix = os.path.dirname(os.path.dirname(path))
    minor = f"3.{match[1]}" if match[1] else None
    told = version and re.match(r"3\.\d{1,2}(?:\.\d{1,3})?", version)
    if told and (minor is None or _numbers(told[0])[:2] == _numbers(minor)):
        return _patch(prefix, told[0])
    if minor is None:
        minor = _minor_of_prefix(prefix) or _minor_of_library(os.path.dirname(path))
    return _patch(prefix, minor) if minor else None


def _patch(prefix: str, version: str) -> str:
    """Complete a minor version from the interpreter's own header, where it is installed."""
    if version.count(".") == 2:
        return version
    header = _text(f"{prefix}/include/python{version}/patchlevel.h") or ""
    match = re.search(r'#define\s+PY_VERSION\s+"(3\.\d{1,2}\.\d{1,3})"', header)
    return match[1] if match and match[1].startswith(f"{version}.") else version


def _minor_of_prefix(prefix: str) -> str | None:
    """A prefix with one standard library belongs to one version."""
    names = {
        match[1]
        for name in _names(f"{prefix}/lib")
        if (match := re.fullmatch(r"python(3\.\d{1,2})", name))
        and os.path.exists(f"{prefix}/lib/{name}/os.py")
    }
    return names.pop() if len(names) == 1 else None


def _minor_of_library(directory: str) -> str | None:
    """On Windows the interpreter's own library stands beside it, and is named after its version."""
    names = {f"3.{match[1]}" for name in _names(directory) if (match := _LIBRARY.fullmatch(name))}
    return names.pop() if len(names) == 1 else None


def _is_program(path: str) -> bool:
    """Whether this is a real executable: not a script, not the empty alias of the Windows Store."""
    return os.access(path, os.X_OK) and len(start := _start(path)) == 2 and start != b"#!"


def _start(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(2)
    except OSError:
        return b""


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(65536)
    except OSError:
        return None
