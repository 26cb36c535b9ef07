"""Compares what the self-test loaded in isolation with what a plain import loads in the user's directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Run without -I: the first entry of the path is the working directory, as in a user's own session.
# The arguments are those of `launcher.py`, behind its own path.
BOOTSTRAP = (
    "import sys; path = sys.argv.pop(1); scope = {'__name__': 'launcher', '__file__': path}; "
    "exec(compile(open(path, encoding='utf-8').read(), path, 'exec'), scope); scope['main']()"
)


def differences(
    isolated: Mapping[str, str],
    plain: Mapping[str, str],
    isolated_libraries: Sequence[str],
    plain_libraries: Sequence[str],
) -> tuple[str, ...]:
    """What a plain import takes from elsewhere, one sentence each.

    Args:
        isolated: module → file as the self-test imported it, outside the standard library.
        plain: the same without ``-I``, in the caller's directory.
        isolated_libraries: native libraries mapped into the self-test.
        plain_libraries: those mapped into the plain import.
    """
    notes = []
    for name in sorted(plain):
        before, now = isolated.get(name), plain[name]
        if before is None:
            notes.append(f"outside the self-test `{name}` is also imported, from {now}")
        elif os.path.normpath(before) != os.path.normpath(now):
            notes.append(f"outside the self-test `{name}` is imported from {now}, not {before}")
    known = {os.path.normpath(path) for path in isolated_libraries}
    notes.extend(
        f"outside the self-test the native library {path} is loaded"
        for path in sorted(plain_libraries)
        if os.path.normpath(path) not in known
    )
    return tuple(notes)
