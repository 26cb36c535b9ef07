"""What is no longer as it was when an environment of bnbenv's own was made: torch, packages, base, guard."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from bnbenv.env.base import changes_since
from bnbenv.env.guard import missing_parts
from bnbenv.judge.rules.rule import finding
from bnbenv.torch_family import is_torch_family

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bnbenv.doctor.stack import Reading
    from bnbenv.env.installed import Installed
    from bnbenv.env.state import State
    from bnbenv.judge.stack import Finding

_SHOWN = 8
_LARGEST_LOCK = 32 << 20  # bytes
_STATE = "the state of the environment"


def check_changes(
    reading: Reading, installed: Installed, state: State, locked: Mapping[str, str]
) -> Iterator[Finding]:
    """Compare what is installed with the state and the lock.

    Args:
        reading: the torch that is imported.
        installed: the environment, without its base.
        state: what was decided.
        locked: name → version of the lock; empty where it cannot be read.
    """
    yield from check_base(state)
    yield from _torch(reading, state, locked)
    yield from _packages(installed, locked)
    yield from _guard(installed)


def check_base(state: State) -> Iterator[Finding]:
    """Whether the torch that an environment was built upon is still the one that was judged and proven."""
    if state.base is None:
        return
    if changes := changes_since(state.base):
        words = ["bnbenv", "create", state.profile, "--name", state.name, "--base", state.base.python]
        yield finding(
            "base-changed",
            "error",
            "torch",
            f"the torch it was built upon has changed: {changes[0]}",
            *changes,
            f"built upon: {state.base.python}",
            remedy="build it anew upon the base as it is now",
            commands=(shlex.join(words),),
            source=_STATE,
        )


def read_lock(file: Path) -> dict[str, str]:
    """Name → version of a lock, as far as it can be read; not checked, which the lock's own reader does."""
    from bnbenv import toml
    from bnbenv.names import normalized

    try:
        if not file.is_file() or file.stat().st_size > _LARGEST_LOCK:
            return {}
        entries = toml.loads(file.read_text(encoding="utf-8")).get("packages")
    except (OSError, ValueError, RecursionError):
        return {}
    return {
        normalized(entry["name"]): entry["version"]
        for entry in entries or ()
        if isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and isinstance(entry.get("version"), str)
        and "marker" not in entry
    }


def _torch(reading: Reading, state: State, locked: Mapping[str, str]) -> Iterator[Finding]:
    torch, made = reading.torch, state.torch or {}
    if torch is None or not torch.version or state.base is not None or not made.get("version"):
        return
    was, is_now = (str(made["version"]), str(made.get("build"))), (torch.version, torch.build)
    if is_now == was or (is_now[0] == was[0] and was[1] == "mps"):
        return
    yield finding(
        "installer-replaced-torch",
        "warning",
        "torch",
        f"torch was {was[0]} ({was[1]}) when the environment was made, "
        f"and is {torch.version} ({torch.build}) now",
        f"`{torch.directory / 'version.py'}` says {torch.full_version}",
        f"the lock holds torch {locked['torch']}" if "torch" in locked else "the state holds it",
        "what was proven by the self-test is not what is installed",
        remedy="Go back to the torch that was proven, or keep this one and let the others follow it.",
        source=_STATE,
    )


def _packages(installed: Installed, locked: Mapping[str, str]) -> Iterator[Finding]:
    from bnbenv.env.installed import equal_versions

    own = installed.versions
    missing = sorted(name for name in locked if name not in own)
    if missing:
        yield finding(
            "environment-changed",
            "error",
            missing[0] if len(missing) == 1 else "packages",
            f"{len(missing)} packages of the lock are not installed"
            if len(missing) > 1
            else f"{missing[0]} is in the lock and is not installed",
            *(f"{name} {locked[name]} is missing" for name in missing[:_SHOWN]),
            *((f"and {len(missing) - _SHOWN} more",) if len(missing) > _SHOWN else ()),
            remedy="Bring the environment back to its lock.",
            source=_STATE,
        )
    # Torch has a finding of its own, and what belongs to it follows it.
    other = sorted(
        name
        for name, version in locked.items()
        if name in own and not is_torch_family(name) and not equal_versions(own[name], version)
    )
    if other:
        yield finding(
            "environment-changed",
            "warning",
            other[0] if len(other) == 1 else "packages",
            f"{len(other)} packages are not as locked"
            if len(other) > 1
            else f"{other[0]} is {own[other[0]]}, and the lock says {locked[other[0]]}",
            *(f"{name}: locked {locked[name]}, installed {own[name]}" for name in other[:_SHOWN]),
            *((f"and {len(other) - _SHOWN} more",) if len(other) > _SHOWN else ()),
            "what was proven by the self-test is not what is installed",
            remedy="Bring the environment back to its lock, or keep what fits.",
            source=_STATE,
        )


def _guard(installed: Installed) -> Iterator[Finding]:
    if lost := missing_parts(installed.prefix):
        yield finding(
            "environment-changed",
            "warning",
            "guard",
            "what holds installs to the lock is gone or was replaced: pip may now change torch unasked",
            *(f"{part} is not bnbenv's" for part in lost),
            remedy="Bring the environment back to its lock.",
            source=_STATE,
        )
