"""Judge what a file asks for, or what an environment holds, without running or installing anything."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bnbenv.errors import UsageError
from bnbenv.judge.check import Checked, Combination, checked_stack
from bnbenv.judge.ranges import version, within

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.workflows.environment import Located
    from bnbenv.workflows.voice import Voice

# The build in the address of an index of PyTorch's or of a mirror that keeps its paths.
_BUILD_IN_ADDRESS = re.compile(r"/(cu\d{3}|rocm\d+\.\d+(?:\.\d+)?|cpu|xpu)(?:/|\s|$)")


def of_environment(
    located: Located,
    target: Target,
    matrix: Matrix,
    environ: Mapping[str, str],
    voice: Voice,
    *,
    profile: str,
) -> Checked:
    """What the judge says of the stack that stands in an environment.

    Raises:
        UsageError: there is no torch in it.
        EnvironmentProblem: there is no environment.
    """
    from bnbenv.doctor.stack import read_stack
    from bnbenv.env.installed import read_installed, with_base

    installed = read_installed(located.directory)
    reading = read_stack(
        with_base(installed), target, matrix, profile=profile, environ=environ, report=voice.progress
    )
    if reading.stack is None:
        raise UsageError(
            f"`{located.directory}` holds no torch that can be judged",
            hint=f"bnbenv doctor {located.directory}",
        )
    return checked_stack(reading.stack, target, matrix)


def of_file(
    file: Path,
    target: Target,
    matrix: Matrix,
    *,
    profile: str,
    python: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Combination:
    """What a requirements file or a PEP 751 lock would install on a machine.

    A torch or bitsandbytes that is not pinned stands for the newest release in its range that has a build or
    wheel for the machine; torch comes from PyPI, unless an index in the file names another build.

    Raises:
        UsageError: the file cannot be read, or names no torch.
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
    rows = [
        row.version
        for row in matrix.torch
        if (row.os, row.arch) == (target.os, target.arch)
        and (row.build == build if build else row.index == "pypi")
    ]
    wheels = [row.version for row in matrix.bitsandbytes if (row.os, row.arch) == (target.os, target.arch)]
    pinned = _pinned(torch) or _newest(torch, rows, "torch", file)
    return Combination(
        torch=pinned if "+" in pinned or build is None else f"{pinned}+{build}",
        bitsandbytes=None
        if wheel is None
        else _pinned(wheel) or _newest(wheel, wheels, "bitsandbytes", file),
        python=python,
        env=env or {},
        packages={name: _pinned(text) or text for name, text in ranges.items()},
        profile=profile,
    )


def _of_requirements(file: Path, target: Target, python: str | None) -> tuple[dict[str, str], str]:
    """Names with their ranges, and the lines that name an index."""
    from packaging.requirements import InvalidRequirement, Requirement

    from bnbenv.env.installed import normalized
    from bnbenv.install.requirement_files import read_requirement_files

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
            continue  # a path or an address: whatever it is, no release of the matrix
        name = normalized(asked.name)
        if asked.marker is not None and not asked.marker.evaluate(_marked(target, python)):
            continue
        if asked.url:
            options.append(asked.url)
        if name in ranges or line in lines.requirements:
            ranges[name] = ",".join(filter(None, (ranges.get(name, ""), str(asked.specifier))))
    return ranges, "\n".join(options)


def _of_lock(file: Path, target: Target, python: str | None) -> tuple[dict[str, str], str]:
    from packaging.markers import Marker

    from bnbenv.env.installed import normalized
    from bnbenv.lockfile import pylock

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
    system = {"linux": "Linux", "windows": "Windows", "macos": "Darwin"}[target.os]
    machine = "AMD64" if target.os == "windows" else "x86_64"
    if target.arch == "aarch64":
        machine = {"linux": "aarch64", "windows": "ARM64", "macos": "arm64"}[target.os]
    found = {
        "platform_system": system,
        "platform_machine": machine,
        "sys_platform": {"Linux": "linux", "Windows": "win32", "Darwin": "darwin"}[system],
        "os_name": "nt" if target.os == "windows" else "posix",
    }
    known = python or (target.pythons[-1] if target.pythons else None)
    if known:
        found["python_version"] = ".".join(known.split(".")[:2])
    return found


def _pinned(text: str) -> str | None:
    """``2.9.1+cu128`` of ``==2.9.1+cu128``."""
    found = re.fullmatch(r"={2,3}\s*([^,*\s]+)", text)
    return found[1] if found else None


def _newest(text: str, releases: Iterable[str], name: str, file: Path) -> str:
    fitting = [release for release in releases if within(release, text)]
    if not fitting:
        raise UsageError(
            f"`{file}` asks for {name} {text or '(any)'}, and the matrix has none such for the machine",
            hint=f"bnbenv matrix show {name}",
        )
    return max(fitting, key=version)
