"""The commands that mend a cause in one environment: bnbenv's own, or the installer's by hand."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from bnbenv.dataclass import replace
from bnbenv.judge.stack import Remedy

if TYPE_CHECKING:
    from pathlib import Path

    from bnbenv.judge.stack import Finding

# A reinstallation of the same release mends these.
_REINSTALL = frozenset({"file-damaged", "record-missing", "stale-library", "duplicate-package"})
# Another release of bitsandbytes mends these, where torch may stay.
_NEWER = frozenset(
    {
        "bnb-not-installed",
        "bnb-too-old",
        "bnb-torch-requirement",
        "broken-release",
        "cuda-runtime-not-found",
        "legacy-cuda-setup",
        "missing-cuda-binary",
        "no-kernel-image",
        "rocm-broken-preview",
        "rocm-unsupported-bnb",
        "source-build-no-native-lib",
        "triton-ops-removed",
        "windows-no-binary",
        "xpu-library-missing",
    }
)
# `repair` chooses what fits.
_CHOSEN = frozenset(
    {
        "base-changed",
        "cuda-fallback-warning",
        "cuda-too-old-for-bnb",
        "driver-drops-gpu",
        "driver-too-old",
        "environment-changed",
        "environment-moved",
        "gpu-cc-too-low-int8",
        "hf-stack-version-mismatch",
        "installer-replaced-torch",
        "interpreter-broken",
        "missing-python-dep",
        "numpy-abi",
        "relocatable-ptx-only",
        "rocm-fallback-abi",
        "rocm-hip-version-skew",
        "torch-arch-unsupported",
        "torch-cpu-build",
        "torch-cuda-unavailable",
        "torch-not-installed",
        "torch-triton-mismatch",
        "windows-cpu-torch",
    }
)
# No repair takes away what the user installed.
_REMOVED = frozenset({"quant-lib-presence"})
_SUMMARY = "Let bnbenv mend it."
_OWN = "This Python belongs to the system's package manager: make an environment of its own."


def with_commands(
    found: Finding,
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
    if found.code in _REMOVED:
        commands = _removal(found.subject, name=name, apart=apart, python=python)
    else:
        commands = _commands(found, name=name, ours=ours, python=python, version=version, described=described)
    if not commands:
        return found
    if managed:
        return replace(
            found, remedy=Remedy(summary=_OWN, commands=(shlex.join(["bnbenv", "create", *described]),))
        )
    summary = found.remedy.summary if found.remedy is not None else _SUMMARY
    return replace(found, remedy=Remedy(summary=summary, commands=commands))


def _removal(package: str, *, name: str, apart: bool, python: Path) -> tuple[str, ...]:
    uninstall = shlex.join(["uv", "pip", "uninstall", "--python", str(python), package])
    return (uninstall, shlex.join(["bnbenv", "split", name])) if apart else (uninstall,)


def _commands(
    found: Finding, *, name: str, ours: bool, python: Path, version: str | None, described: tuple[str, ...]
) -> tuple[str, ...]:
    if found.code == "state-broken":
        return (shlex.join(["bnbenv", "rollback", name]),)
    if found.code not in _REINSTALL | _NEWER | _CHOSEN:
        return ()
    repair = shlex.join(["bnbenv", "repair", name, *described])
    if ours:
        return (repair,)
    by_hand = ["uv", "pip", "install", "--python", str(python)]
    if found.code in _REINSTALL and version:
        pin = f"{found.subject}=={version}"
        return repair, shlex.join([*by_hand, "--reinstall-package", found.subject, "--no-deps", pin])
    if found.code in _NEWER:
        return repair, shlex.join([*by_hand, "--upgrade", "--no-deps", "bitsandbytes"])
    return (repair,)
