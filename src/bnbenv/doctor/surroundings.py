"""What reaches into an environment from outside: variables, start-up files, other directories' packages."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.doctor.program import program_of
from bnbenv.doctor.stack import WATCHED, native_names
from bnbenv.env import durable
from bnbenv.judge.rules.rule import finding
from bnbenv.units import minor_release

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from bnbenv.env.installed import Installed
    from bnbenv.judge.stack import Finding, Severity

# Variables that decide what bitsandbytes, torch or the loader take.
OVERRIDES = (
    "BNB_CUDA_VERSION",
    "BNB_ROCM_VERSION",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "PYTHONPATH",
    "PYTHONHOME",
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "HSA_OVERRIDE_GFX_VERSION",
)
_IN_HOME = (
    ".bashrc", ".bash_profile", ".bash_login", ".profile", ".bash_aliases", ".zshrc", ".zshenv", ".zprofile",
    ".config/fish/config.fish", ".cshrc", ".tcshrc",
)  # fmt: skip
_OF_SYSTEM = ("/etc/environment", "/etc/profile", "/etc/bash.bashrc", "/etc/zsh/zshenv", "/etc/zsh/zshrc")
_IN_DIRECTORIES = ("/etc/profile.d",)
_LARGEST = 1 << 20  # bytes of a start-up file
_ASSIGNMENT = (
    r"(?m)^[ \t]*(?:(?:export|typeset -x|declare -x|set -gx|set -Ux|set -x|setenv)[ \t]+)?"
    rf"(?P<name>{'|'.join(OVERRIDES)})(?:=|[ \t]+)"
    r"(?P<quote>[\"']?)(?P<value>[^\n;#]*?)(?P=quote)[ \t]*(?:[;#].*)?$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A line of a start-up file that sets a variable.

    Attributes:
        value: as written, variables not expanded.
        line: ``None`` where conda keeps it, in a file that has only one.
    """

    name: str
    value: str
    file: Path
    line: int | None

    def __str__(self) -> str:
        place = str(self.file) if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.name}={self.value}"

    @property
    def removal(self) -> str:
        """The command that takes it away."""
        if self.line is None:
            prefix = self.file.parent.parent
            return shlex.join(("conda", "env", "config", "vars", "unset", self.name, "-p", str(prefix)))
        return shlex.join(("sed", "-i", f"{self.line}d", str(self.file)))


def read_assignments(
    environ: Mapping[str, str], prefix: Path, *, root: Path = Path("/")
) -> tuple[Assignment, ...]:
    """The lines of shells' start-up files, and of what activating the environment runs, that set a variable.

    Args:
        environ: names the home directory.
        prefix: the environment.
        root: stands for the root of the file system.
    """
    home = environ.get("HOME") or environ.get("USERPROFILE")
    files = [Path(home) / name for name in _IN_HOME] if home else []
    files += [root / name.lstrip("/") for name in _OF_SYSTEM]
    directories = [root / name.lstrip("/") for name in _IN_DIRECTORIES]
    directories += [prefix / "etc" / "conda" / "activate.d"]
    if home:
        directories += [Path(home) / ".config" / "environment.d", Path(home) / ".bashrc.d"]
    for directory in directories:
        files += [directory / name for name in durable.names_in(directory)]
    files += [prefix / "bin" / "activate", prefix / "bin" / "postactivate"]
    found: list[Assignment] = []
    for file in files:
        found.extend(_assignments(file))
    found.extend(_of_conda(prefix / "conda-meta" / "state"))
    return tuple(found)


def _assignments(file: Path) -> Iterator[Assignment]:
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST:
            return
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    if not any(name in text for name in OVERRIDES):
        return
    for match in re.finditer(_ASSIGNMENT, text):
        line = text.count("\n", 0, match.start("name")) + 1
        yield Assignment(name=match["name"], value=match["value"].strip(), file=file, line=line)


def _of_conda(file: Path) -> Iterator[Assignment]:
    """Variables that `conda env config vars set` keeps with an environment."""
    import json

    try:
        if not file.is_file() or file.stat().st_size > _LARGEST:
            return
        variables = json.loads(file.read_bytes()).get("env_vars", {})
    except (OSError, ValueError, RecursionError, AttributeError):
        return
    if isinstance(variables, dict):
        for name, value in variables.items():
            if name in OVERRIDES and isinstance(value, str):
                yield Assignment(name=name, value=value, file=file, line=None)


def check_variables(
    environ: Mapping[str, str],
    assignments: Iterable[Assignment],
    judged: Iterable[Finding],
    *,
    overridden_by: Mapping[str, Finding],
) -> Iterator[Finding]:
    """Override variables that the judge had nothing to say of here, and lines of start-up files that set one.

    Args:
        judged: the judge's findings for the variables as they are.
        overridden_by: variable → what the judge says were it set as a start-up file sets it.
    """
    told = {found.subject for found in judged}
    lines: dict[str, list[Assignment]] = {}
    for line in assignments:
        lines.setdefault(line.name, []).append(line)
    for name in ("BNB_CUDA_VERSION", "BNB_ROCM_VERSION"):
        where = tuple(str(line) for line in lines.get(name, ()))
        if name in environ:
            if name not in told:
                yield finding(
                    "bnb-cuda-override-wrong",
                    "info",
                    name,
                    f"`{name}={environ[name]}` is set; this build of torch does not heed it",
                    "beside a GPU build of torch it forces that library, and no other is tried",
                    *where,
                    remedy="Unset it, also where a start-up file sets it.",
                    commands=(f"unset {name}",),
                    source="bitsandbytes source, cextension.py at the tags",
                )
        elif where:
            worse = overridden_by.get(name)
            yield finding(
                "bnb-cuda-override-wrong",
                "warning" if worse is not None and worse.severity == "error" else "info",
                name,
                f"a start-up file sets `{name}`"
                + (f": then {worse.summary}" if worse is not None else ", which is not set here"),
                *where,
                *(worse.evidence if worse is not None else ()),
                remedy="Set it no more where it is set.",
                commands=tuple(line.removal for line in lines.get(name, ())[:1]),
                source="the shells' start-up files",
            )


def check_import_path(seen: Installed, environ: Mapping[str, str], cwd: Path | None) -> Iterator[Finding]:
    """Directories before site-packages on ``sys.path`` that hold a package of the same name.

    Args:
        seen: the environment with its base.
        cwd: where the process would start; ``None`` where it does not matter.
    """
    entries = [
        (Path(entry), "PYTHONPATH") for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry
    ]
    if cwd is not None and not environ.get("PYTHONSAFEPATH"):
        entries.insert(0, (cwd, "the working directory"))
    own = {os.path.realpath(site) for site in seen.site_packages}
    editable = {found.name for found in seen.distributions if found.editable}
    told: set[str] = set()
    for directory, where in entries:
        if os.path.realpath(directory) in own:
            continue
        # A whole site-packages is another environment; a few packages are a checkout.
        versions = _other_environment(directory, seen)
        if versions and where == "PYTHONPATH":
            yield finding(
                "environment-leak",
                "warning",
                "PYTHONPATH",
                f"`{directory}` on PYTHONPATH comes before the environment's own packages",
                *versions,
                remedy="Unset the variable, or start Python with `-E`.",
                commands=("unset PYTHONPATH",),
                source="Python's documentation of sys.path",
            )
            continue
        for name in WATCHED:
            if name in told or name.replace("-", "_") in editable:
                continue
            hiding = _hides(directory, name)
            if hiding is not None:
                told.add(name)
                yield _shadow(hiding, name, where, seen)


def _hides(directory: Path, name: str) -> Path | None:
    """What would be imported from there; a directory without `__init__.py` gives way to a real package."""
    try:
        if (directory / name / "__init__.py").is_file():
            return directory / name
        if (directory / f"{name}.py").is_file():
            return directory / f"{name}.py"
    except OSError:
        return None
    return None


_NATIVE_PART = {"torch": "_C", "tokenizers": "tokenizers", "numpy": "_core"}


def _shadow(hiding: Path, name: str, where: str, seen: Installed) -> Finding:
    installed = seen.find(name)
    lacks = (
        hiding.is_file()
        or (name == "bitsandbytes" and not native_names(hiding))
        or (
            name in _NATIVE_PART
            and not any(e.startswith(_NATIVE_PART[name]) for e in durable.names_in(hiding))
        )
    )
    source_tree = name == "bitsandbytes" and lacks and hiding.is_dir()
    severity: Severity = "error" if lacks else "warning"
    return finding(
        "source-build-no-native-lib" if source_tree and installed is None else "cwd-shadowing",
        severity,
        name,
        f"`{hiding}` hides the installed {name}",
        f"{where} comes before site-packages on sys.path",
        *((f"installed is {name} {installed.version}",) if installed is not None else ()),
        *(("it holds no native library: a checkout that was never built",) if source_tree else ()),
        remedy="Start from another directory." if where != "PYTHONPATH" else "Unset PYTHONPATH.",
        commands=("unset PYTHONPATH",) if where == "PYTHONPATH" else ("cd ~",),
        source="Python's documentation of sys.path",
    )


def _other_environment(directory: Path, seen: Installed) -> tuple[str, ...]:
    """The watched packages that another environment's site-packages would bring instead."""
    lines = []
    for entry in durable.names_in(directory):
        if not entry.endswith(".dist-info"):
            continue
        name, _, version = entry.removesuffix(".dist-info").partition("-")
        mine = seen.find(name)
        if name.lower() in WATCHED and mine is not None:
            lines.append(f"{name} {version} of it hides {mine.version}")
    return tuple(lines)


def user_site(installed: Installed, python: Path, environ: Mapping[str, str]) -> Path | None:
    """The user's own site-packages, where the environment's interpreter looks into it first."""
    isolated = installed.kind in {"venv", "bnbenv"} and not installed.system_site
    if isolated or environ.get("PYTHONNOUSERSITE") or not installed.python:
        return None
    site = _user_scheme(installed, python, minor_release(installed.python), environ)
    return site if site is not None and site.is_dir() else None


def _user_scheme(installed: Installed, python: Path, minor: str, environ: Mapping[str, str]) -> Path | None:
    """Where it would stand, by Python's schemes `nt_user`, `osx_framework_user` and `posix_user`."""
    home, told = environ.get("HOME"), environ.get("PYTHONUSERBASE")
    if python.suffix == ".exe":
        base = environ.get("APPDATA") or environ.get("USERPROFILE")
        below = f"Python{minor.replace('.', '')}{_windows_suffix(python)}"
        return _joined(told or (base and f"{base}/Python"), f"{below}/site-packages")
    if _is_of_framework(installed, python, minor):
        return _joined(told or (home and f"{home}/Library/Python/{minor}"), "lib/python/site-packages")
    return _joined(told or (home and f"{home}/.local"), f"lib/python{minor}/site-packages")


def _joined(base: str | None, below: str) -> Path | None:
    return Path(base) / below if base else None


def _windows_suffix(python: Path) -> str:
    """What `sys.winver` has behind the version; for 32 bits, which have no torch, it is not told."""
    program = program_of(python)
    return "-arm64" if program is not None and program.arch == "aarch64" else ""


def _is_of_framework(installed: Installed, python: Path, minor: str) -> bool:
    """Whether it is a framework build of macOS, as those of python.org, Homebrew and Xcode are."""
    at_home = (installed.base / f"python{minor}",) if installed.base is not None else ()  # a copy is no link
    real = (Path(os.path.realpath(path)) for path in (python, *at_home))
    return any(part.endswith(".framework") for path in real for part in path.parts)


def check_user_site(installed: Installed, site: Path) -> Iterator[Finding]:
    """Packages of the user's own site-packages that hide those of the environment."""
    hidden = _other_environment(site, installed)
    if hidden:
        yield finding(
            "environment-leak",
            "warning",
            str(site),
            "packages that were installed with `--user` hide those of the environment",
            *hidden,
            remedy="Remove them, or set `PYTHONNOUSERSITE=1`.",
            commands=("export PYTHONNOUSERSITE=1",),
            source="Python's documentation of the user site",
        )
