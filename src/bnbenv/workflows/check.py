"""Judge what a file asks for, what an environment holds, or one question after another."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from bnbenv.errors import UsageError
from bnbenv.judge.check import Checked, Combination, checked_stack, find_wheel
from bnbenv.judge.ranges import samples, version, within
from bnbenv.workflows.choose import JUDGED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.workflows.environment import Located
    from bnbenv.workflows.voice import Voice

# The build in the address of an index of PyTorch's or of a mirror that keeps its paths.
_BUILD_IN_ADDRESS = re.compile(r"/(cu\d{3}|rocm\d+\.\d+(?:\.\d+)?|cpu|xpu)(?:/|\s|$)")


# Nothing is chosen: where a stack comes from, and whether it was verified anywhere, is not asked.
PARTS = tuple(part for part in JUDGED if part not in ("indexes", "verified"))


def load_matrix(target: Target | None = None, *, release: str | None = None) -> Matrix:
    """The parts that judge a stack which somebody names, without what nothing would choose.

    Args:
        target: only the rows by which it is judged; those for every platform by default.
        release: and those of this bitsandbytes release, for whatever platform.
    """
    from bnbenv.matrix.load import load

    return load(*PARTS, platform=(target.os, target.arch) if target else "every", release=release or "")


class Matrices:
    """The matrix for one question after another: what can be chosen anywhere, the rest once it is named."""

    __slots__ = ("_every", "_whole")

    def __init__(self) -> None:
        self._every = load_matrix()
        self._whole: Matrix | None = None

    def naming(self, release: str, target: Target) -> Matrix:
        """A matrix with the wheels of that bitsandbytes release, whatever platform they are for.

        Raises:
            UsageError: that is no version.
        """
        if find_wheel(release, target, self._every).wheel:
            return self._every
        if self._whole is None:
            self._whole = _load_whole()
        return self._whole


def of_environment(
    located: Located, target: Target, environ: Mapping[str, str], voice: Voice, *, profile: str
) -> tuple[Checked, Matrix]:
    """What the judge says of the stack that stands in an environment, and by which rows.

    Raises:
        UsageError: there is no torch in it.
        EnvironmentProblem: there is no environment.
    """
    from bnbenv.doctor.stack import read_bitsandbytes, read_stack
    from bnbenv.env.installed import with_base

    installed = with_base(located.read_installed())
    matrix = load_matrix(target, release=read_bitsandbytes(installed)[0])
    reading = read_stack(installed, target, matrix, profile=profile, environ=environ, report=voice.progress)
    if reading.stack is None:
        raise UsageError(
            f"`{located.directory}` holds no torch that can be judged",
            hint=f"bnbenv doctor {shlex.quote(located.name)}",
        )
    return checked_stack(reading.stack, target, matrix), matrix


def of_file(
    file: Path,
    target: Target,
    *,
    profile: str,
    python: str | None = None,
    env: Mapping[str, str] | None = None,
) -> tuple[Combination, Matrix]:
    """What a requirements file or a PEP 751 lock would install on a machine, and the rows to judge it by.

    A torch or bitsandbytes that is not pinned stands for the newest release in its range that has a build or
    wheel for the machine; torch comes from PyPI, unless an index in the file names another build.

    Raises:
        UsageError: the file cannot be read, names no torch, or names a release in no way that can be judged.
        DataError: the lock is invalid.
    """
    if file.suffix == ".toml":
        ranges, address = _of_lock(file, target, python)
    else:
        ranges, address = _of_requirements(file, target, python)
    torch, wheel = ranges.pop("torch", None), ranges.pop("bitsandbytes", None)
    if torch is None:
        raise UsageError(f"`{file}` names no torch", hint="bnbenv check --torch 2.9.1 --bitsandbytes 0.50.2")
    found = _BUILD_IN_ADDRESS.search(address)
    build = found[1] if found else None
    release = None if wheel is None else _pinned(wheel)
    matrix = load_matrix(target, release=release)
    if wheel is not None and release is None and not _fitting(wheel, _wheels(matrix, target)):
        matrix = _load_whole()
    rows = [
        row.version
        for row in matrix.torch
        if (row.os, row.arch) == (target.os, target.arch)
        and (row.build == build if build else row.index == "pypi")
    ]
    pinned = _pinned(torch) or _newest(torch, rows, "torch", file)
    packages = {name: _pinned(text) or text for name, text in ranges.items()}
    check_packages(packages)
    combination = Combination(
        torch=pinned if "+" in pinned or build is None else f"{pinned}+{build}",
        bitsandbytes=None
        if wheel is None
        else release or _newest(wheel, _wheels(matrix, target), "bitsandbytes", file),
        python=python,
        env=env or {},
        packages=packages,
        profile=profile,
    )
    return combination, matrix


def check_packages(packages: Mapping[str, str]) -> None:
    """Refuse further packages that cannot be judged.

    Raises:
        UsageError: a version or specifier cannot be read, or it is one of the two that are named apart.
    """
    from packaging.specifiers import InvalidSpecifier
    from packaging.version import InvalidVersion

    from bnbenv.names import normalized

    for name, text in packages.items():
        if normalized(name) in ("torch", "bitsandbytes"):
            raise UsageError(
                f"{name} is no further package: it is named apart",
                hint="bnbenv check --torch 2.9.1 --bitsandbytes 0.50.2",
            )
        try:
            samples(text)
        except (InvalidSpecifier, InvalidVersion):
            raise UsageError(
                f"`{text}` is neither a version of {name} nor a range", hint="such as `5.23.0`"
            ) from None


def _load_whole() -> Matrix:
    """Also the releases that nothing chooses: up to 0.42.0 every wheel was tagged ``any``."""
    from bnbenv.matrix.load import load

    return load(*PARTS)


def _wheels(matrix: Matrix, target: Target) -> list[str]:
    return [row.version for row in matrix.bitsandbytes if (row.os, row.arch) == (target.os, target.arch)]


def _of_requirements(file: Path, target: Target, python: str | None) -> tuple[dict[str, str], str]:
    """Names with their ranges, and the lines that name an index."""
    from packaging.requirements import InvalidRequirement, Requirement

    from bnbenv.install.requirement_files import read_requirement_files
    from bnbenv.names import normalized

    lines = read_requirement_files([file])
    ranges: dict[str, str] = {}
    options = []
    for line in (*lines.requirements, *lines.constraints):
        if line.startswith("-"):
            options.append(line)
            continue
        try:
            asked = Requirement(line.split(" --", maxsplit=1)[0])
        except InvalidRequirement:
            if wheel := _named_by_wheel(line):  # else a path or an address of what nothing here tells
                ranges[wheel[0]] = f"=={wheel[1]}"
            continue
        name = normalized(asked.name)
        if asked.marker is not None and not asked.marker.evaluate(_marked(target, python)):
            continue
        text = str(asked.specifier)
        if asked.url:
            options.append(asked.url)
            if wheel := _named_by_wheel(asked.url):
                text = f"=={wheel[1]}"
            elif name in ("torch", "bitsandbytes"):
                raise UsageError(
                    f"`{line}` does not tell which release of {name} it is",
                    hint="bnbenv check --environment ENV, where it is installed",
                )
        if name in ranges or line in lines.requirements:
            ranges[name] = ",".join(filter(None, (ranges.get(name, ""), text)))
    return ranges, "\n".join(options)


def _named_by_wheel(address: str) -> tuple[str, str] | None:
    """Name and version that the file name of a wheel tells, at the end of a path or an address."""
    from urllib.parse import unquote

    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    words = address.split(maxsplit=1)
    path = unquote(words[0].partition("#")[0].partition("?")[0]) if words else ""
    try:
        name, release, _, _ = parse_wheel_filename(path.replace("\\", "/").rpartition("/")[2])
    except InvalidWheelFilename:
        return None
    return str(name), str(release)


def _of_lock(file: Path, target: Target, python: str | None) -> tuple[dict[str, str], str]:
    from packaging.markers import Marker

    from bnbenv.lockfile import pylock
    from bnbenv.names import normalized

    ranges: dict[str, str] = {}
    address = ""
    for package in pylock.read(file).packages:
        if package.marker and not Marker(package.marker).evaluate(
            _marked(target, python), context="lock_file"
        ):
            continue
        if package.version is not None:
            ranges[normalized(package.name)] = f"=={package.version}"
        if normalized(package.name) == "torch":
            address = package.index or ""
    return ranges, address


def _marked(target: Target, python: str | None) -> dict[str, str]:
    """The variables of markers that tell a machine; the others are this interpreter's."""
    from bnbenv.markers import of_platform, of_python

    known = python or (target.pythons[-1] if target.pythons else None)
    return {**of_platform(target.os, target.arch), **of_python(known)}


def _pinned(text: str) -> str | None:
    """``2.9.1+cu128`` of ``==2.9.1+cu128``."""
    found = re.fullmatch(r"={2,3}\s*([^,*\s]+)", text)
    return found[1] if found else None


def _newest(text: str, releases: Iterable[str], name: str, file: Path) -> str:
    fitting = _fitting(text, releases)
    if not fitting:
        raise UsageError(
            f"`{file}` asks for {name} {text or '(any)'}, and the matrix has none such for the machine",
            hint=f"bnbenv matrix show {name}",
        )
    return max(fitting, key=version)


def _fitting(text: str, releases: Iterable[str]) -> list[str]:
    return [release for release in releases if within(release, text)]
