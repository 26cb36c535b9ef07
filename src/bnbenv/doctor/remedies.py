"""The commands that mend a cause in one environment: bnbenv's own, or the installer's by hand."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from bnbenv.dataclass import replace
from bnbenv.judge.stack import Remedy

if TYPE_CHECKING:
    from pathlib import Path

    from bnbenv.judge.stack import Finding
    from bnbenv.matrix.rows import Cause

_SUMMARY = "Let bnbenv mend it."
_OWN = "This Python belongs to the system's package manager: make an environment of its own."


def with_commands(
    found: Finding,
    cause: Cause,
    *,
    name: str,
    ours: bool,
    managed: bool,
    apart: bool,
    python: Path,
    version: str | None,
    described: tuple[str, ...] = (),
) -> Finding:
    """The finding with commands for this environment, where it brings none and something can be done.

    Args:
        cause: that of its code.
        name: how the user calls the environment on the command line.
        ours: bnbenv made it.
        managed: it belongs to the system's package manager, and no installer changes it.
        apart: `split` gives the package that the finding is about an environment of its own.
        python: its interpreter.
        version: of the package that the finding is about, where it is installed.
        described: the options that name the machine it was judged for, where that is another.
    """
    if found.severity == "info" or (found.remedy is not None and found.remedy.commands):
        return found
    if "uninstall" in cause.typed:  # no repair takes away what the user installed
        commands = _removal(found.subject, name=name, apart=apart, python=python)
    elif "rollback" in cause.typed:
        commands = (shlex.join(["bnbenv", "rollback", name]),)
    elif {"outside", "stop"}.issuperset(cause.repair):
        return found
    else:
        repair = shlex.join(["bnbenv", "repair", name, *described])
        commands = (repair,) if ours else (repair, *_by_hand(found.subject, cause, python, version))
    if managed:
        return replace(
            found, remedy=Remedy(summary=_OWN, commands=(shlex.join(["bnbenv", "create", *described]),))
        )
    summary = found.remedy.summary if found.remedy is not None else _SUMMARY
    return replace(found, remedy=Remedy(summary=summary, commands=commands))


def _removal(package: str, *, name: str, apart: bool, python: Path) -> tuple[str, ...]:
    uninstall = shlex.join(["uv", "pip", "uninstall", "--python", str(python), package])
    return (uninstall, shlex.join(["bnbenv", "split", name])) if apart else (uninstall,)


def _by_hand(subject: str, cause: Cause, python: Path, version: str | None) -> tuple[str, ...]:
    install = ["uv", "pip", "install", "--python", str(python)]
    if "reinstall" in cause.repair and version:
        options = ["--reinstall-package", subject, "--no-deps", f"{subject}=={version}"]
    elif "bitsandbytes" in cause.repair and {"install", "upgrade"}.intersection(cause.typed):
        options = ["--upgrade", "--no-deps", "bitsandbytes"]
    else:
        return ()
    return (shlex.join([*install, *options]),)
