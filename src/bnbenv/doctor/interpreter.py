"""Whether an environment's interpreter starts, sees its packages, and is the one that its commands run."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.env.installed import read_pyvenv
from bnbenv.env.scripts import start_of
from bnbenv.judge.rules.rule import finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnbenv.env.installed import Installed
    from bnbenv.judge.stack import Finding

# Commands whose interpreter is looked at: those that install, and those that start training.
_COMMANDS = ("pip", "pip3", "accelerate", "torchrun", "transformers", "hf", "jupyter", "ipython")
_SOURCE = "pyvenv.cfg, the links in `bin` and the first lines of its commands"


def is_of_windows(prefix: Path) -> bool:
    """Whether a Linux process looks at an environment of Windows, such as one below `/mnt/c`."""
    if sys.platform == "win32":
        return False
    there = (prefix / "Scripts" / "python.exe").is_file() or (prefix / "python.exe").is_file()
    return there and not (prefix / "bin" / "python").exists()


def tell_windows(prefix: Path) -> Finding:
    """The finding for such an environment; nothing else of it can be judged from here."""
    return finding(
        "windows-environment",
        "error",
        str(prefix),
        "this is an environment of Windows, and cannot be used from Linux",
        f"`{prefix}` has `Scripts` and `Lib`, and its libraries are DLLs",
        remedy="Make an environment inside Linux; in WSL2 not below `/mnt`, which is slow.",
        commands=("bnbenv create qlora",),
        source=_SOURCE,
    )


def check_interpreter(installed: Installed, python: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look at the interpreter.

    Args:
        installed: the environment.
        python: its interpreter, which need not exist.
        environ: the variables of the process that would run in it.
    """
    broken = list(_broken(installed, python)) if installed.kind in {"venv", "bnbenv", "system"} else []
    yield from broken
    if not broken and installed.kind != "system":
        yield from _commands(installed, python)
    if value := environ.get("PYTHONHOME"):
        yield finding(
            "environment-leak",
            "error",
            "PYTHONHOME",
            f"`PYTHONHOME={value}` makes every interpreter look for its libraries there",
            "an environment's interpreter does not find its own packages then",
            remedy="Unset the variable.",
            commands=("unset PYTHONHOME",),
            source="Python's documentation of PYTHONHOME",
        )


def _broken(installed: Installed, python: Path) -> Iterator[Finding]:
    config, prefix, real = read_pyvenv(installed.prefix), installed.prefix, Path(os.path.realpath(python))
    if config is None and installed.kind == "system" and not _lost_its_config(installed):
        return
    if not python.exists():
        what = "is a link to nothing" if python.is_symlink() else "is missing"
        target = f"it leads to `{python.readlink()}`" if python.is_symlink() else ""
        yield _finding(
            "error",
            f"the environment's interpreter {what}: its base was removed, or the environment was copied",
            str(python),
            *([target] if target else []),
        )
    elif config is None:
        yield _finding(
            "error",
            "`pyvenv.cfg` is missing: the interpreter starts as its base, and sees none of the packages",
            str(prefix / "pyvenv.cfg"),
        )
    elif "home" not in config:
        yield _finding(
            "error",
            "`pyvenv.cfg` is damaged: it does not say which Python the environment is based on",
            str(prefix / "pyvenv.cfg"),
            "the interpreter sees its base's packages too, and installers refuse the environment",
        )
    elif not Path(config["home"]).is_dir() and Path(os.path.realpath(prefix)) in real.parents:
        # `venv --copies` copies no standard library, and a launcher of Windows starts the Python at `home`.
        yield _finding(
            "error",
            f"the interpreter cannot start: the Python at `{config['home']}` that it is a copy of is gone",
            f"`{python}` is a copy or a launcher, no link: the standard library was there",
        )
    elif not Path(config["home"]).is_dir():
        yield _finding(
            "warning",
            f"the Python that the environment was made with is no longer at `{config['home']}`",
            f"`{python}` leads to `{real}` now",
            "a Python that was built to be moved does not start so: it looks for its library there",
        )
    elif other := _other_minor(installed, python):
        yield _finding(
            "error",
            f"the interpreter is Python {other} now, and the packages are for {installed.python}",
            f"`{python}` leads to `{real}`",
            "the base was upgraded beneath the environment",
        )


def _finding(severity: str, summary: str, *evidence: str) -> Finding:
    return finding(
        "interpreter-broken",
        "error" if severity == "error" else "warning",
        "python",
        summary,
        *evidence,
        remedy="Make the environment anew with a Python that is there.",
        source=_SOURCE,
    )


def _lost_its_config(installed: Installed) -> bool:
    """Whether a directory without `pyvenv.cfg` was a venv: it has packages, and no standard library."""
    prefix = installed.prefix
    if not installed.site_packages or not (prefix / "bin" / "activate").is_file():
        return False
    return not any((site.parent / "os.py").is_file() for site in installed.site_packages)


def _other_minor(installed: Installed, python: Path) -> str | None:
    """The minor version that the interpreter's real name tells, where it is not the packages'."""
    told = re.fullmatch(r"python(3\.\d+)t?", Path(os.path.realpath(python)).name)
    if told is None:
        return None
    sites = {
        match[1]
        for site in installed.site_packages
        if installed.prefix in site.parents and (match := re.fullmatch(r"python(3\.\d+)t?", site.parent.name))
    }
    return told[1] if sites and told[1] not in sites else None


def _commands(installed: Installed, python: Path) -> Iterator[Finding]:
    """Commands in `bin` that name another interpreter than the environment's, or cannot start it."""
    directory = python.parent
    own = {os.path.realpath(directory), str(directory)}
    gone: list[str] = []
    other: list[str] = []
    unstartable: list[str] = []
    for name in _COMMANDS:
        start = start_of(directory / name)
        if start is None:
            continue
        interpreter = Path(start.interpreter)
        if {str(interpreter.parent), os.path.realpath(interpreter.parent)} & own:
            if not start.runs:
                unstartable.append(f"{name}: {interpreter}")
        elif not interpreter.exists():
            gone.append(f"{name}: {interpreter}")
        elif os.path.realpath(interpreter) != os.path.realpath(python) or (
            read_pyvenv(interpreter.parent.parent) is not None
        ):
            other.append(f"{name}: {interpreter}")
    if gone:
        yield finding(
            "environment-moved",
            "warning",
            str(installed.prefix),
            "the environment was moved or copied: its commands name an interpreter that is not there",
            *gone,
            "`python -m` works where a command does not",
            remedy="Move it back, or make it anew at its place.",
            source=_SOURCE,
        )
    if unstartable:
        yield finding(
            "environment-moved",
            "warning",
            str(installed.prefix),
            "its commands cannot start: the path in their first line has a blank in it, or is too long",
            *unstartable,
            "`python -m` works where a command does not",
            remedy="Move it back, or make it anew at its place.",
            source=_SOURCE,
        )
    if other:
        yield finding(
            "wrong-env-install",
            "warning",
            other[0].partition(":")[0],
            "commands of this environment run another environment's interpreter",
            *other,
            "what such a `pip` installs goes there",
            remedy="Call `python -m pip` of this environment, or make the environment anew.",
            commands=(shlex.join([str(python), "-m", "pip", "--version"]),),
            source=_SOURCE,
        )


def installs_elsewhere(installed: Installed, python: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Bitsandbytes is not here, but where the `pip` on ``PATH`` installs."""
    from bnbenv.env.installed import read_installed
    from bnbenv.errors import EnvironmentProblem

    own = {os.path.realpath(site) for site in installed.site_packages}
    for directory in environ.get("PATH", "").split(os.pathsep):
        script = Path(directory) / "pip"
        if not directory or not os.path.isfile(script):  # noqa: PTH113 - it may lie where nobody may look
            continue
        start = start_of(script)
        if start is None:
            return
        interpreter = Path(start.interpreter)
        try:
            other = read_installed(interpreter.parent.parent, interpreter=interpreter)
        except EnvironmentProblem:
            return
        there = other.find("bitsandbytes")
        if there is not None and os.path.realpath(there.location) not in own:
            yield finding(
                "wrong-env-install",
                "error",
                "bitsandbytes",
                "bitsandbytes was installed into another environment than this one",
                f"this one: {python}",
                f"`pip` on PATH is `{script}`, which installs for {interpreter}",
                f"bitsandbytes {there.version} is there: {there.location}",
                remedy="Install with the interpreter that runs.",
                commands=(shlex.join(["uv", "pip", "install", "--python", str(python), "bitsandbytes"]),),
                source="PATH and the first line of `pip`",
            )
        return
