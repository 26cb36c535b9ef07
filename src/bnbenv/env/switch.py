"""Which generation is current: one atomic step from the old one to the new one."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.env import durable
from bnbenv.env import generation as generations
from bnbenv.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Callable

    from bnbenv.env.generation import Generation
    from bnbenv.env.layout import Place


def switch(place: Place, generation: Generation) -> None:
    """Make `generation` the current one. At every moment the link leads to the old or to the new one.

    Raises:
        EnvironmentProblem: the generation is not ready.
        ExternalError: codes ``permission``, ``disk-full``.
    """
    if not generation.ready:
        raise EnvironmentProblem(f"`{generation.directory}` was never finished", code="state-broken")
    if place.form == "plain":
        return
    if sys.platform == "win32":
        switch_by_note(place, generation, make_junction)
    else:
        _switch_by_link(place, generation)


def current(place: Place) -> Generation | None:
    """The generation that is current, by its real path; ``None`` where none is, or it is not finished."""
    if place.form == "plain":
        only = generations.plain(place)
        return only if only.ready else None
    return current_by_note(place) if sys.platform == "win32" else _current_by_link(place)


def require_current(place: Place) -> Generation:
    """The generation that is current.

    Raises:
        EnvironmentProblem: codes ``no-environment``, ``state-broken``.
    """
    found = current(place)
    if found is not None:
        return found
    if not place.exists:
        raise EnvironmentProblem(
            f"there is no environment `{place.name}`",
            hint="`bnbenv list` shows those there are; `bnbenv create` makes one",
        )
    if place.form == "plain":
        raise EnvironmentProblem(
            f"`{place.link}` was begun and never finished: it cannot be used",
            hint=f"`bnbenv create PROFILE {place.options}` makes it anew",
            code="state-broken",
        )
    raise EnvironmentProblem(
        f"`{place.link}` does not lead to a finished generation",
        hint=f"`bnbenv rollback {place.name}` returns to an older one, `bnbenv create` builds it anew",
        code="state-broken",
    )


def previous(place: Place, current_generation: Generation | None) -> Generation | None:
    """The newest finished generation that is older than the current one; any newest where none is current."""
    ready = generations.list_generations(place)
    if current_generation is None:
        return ready[-1] if ready else None
    directories = [found.directory for found in ready]
    if current_generation.directory not in directories:
        return None
    position = directories.index(current_generation.directory)
    return ready[position - 1] if position else None


def _switch_by_link(place: Place, generation: Generation) -> None:
    temporary = durable.temporary_beside(place.link)
    target = os.path.relpath(generation.directory, place.link.parent)
    # A relative link survives a move of both; where a link among the parents makes it lead astray, not.
    if os.path.realpath(place.link.parent / target) != os.path.realpath(generation.directory):
        target = str(generation.directory)
    with durable.told(place.link, "switch"):
        try:
            temporary.symlink_to(target)
            if place.link.is_dir() and not place.link.is_symlink():
                place.link.rmdir()  # an empty directory given with `--path`; fails, rightly, on any other
            temporary.replace(place.link)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        durable.sync_directory(place.link.parent)


def _current_by_link(place: Place) -> Generation | None:
    if not place.link.is_symlink():
        return None
    real = Path(os.path.realpath(place.link))
    if real.parent != generations.directory_of(place):
        return None
    found = generations.parse(real)
    return found if found is not None and found.ready else None


def switch_by_note(place: Place, generation: Generation, make_link: Callable[[Path, Path], None]) -> None:
    """The way of Windows, where a junction cannot be replaced atomically: `current.json` is the truth.

    The junction follows; if it cannot (a program holds it open), `mend` lets it follow later.

    Raises:
        ExternalError: codes ``permission``, ``disk-full``.
    """
    note = {"schema": 1, "generation": generation.directory.name}
    durable.write_whole(place.current_file, (json.dumps(note) + "\n").encode())
    with contextlib.suppress(OSError):
        mend_link(place, make_link)


def current_by_note(place: Place) -> Generation | None:
    """What `current.json` says, whatever the junction says."""
    try:
        name = json.loads(place.current_file.read_bytes())["generation"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(name, str):
        return None
    found = generations.parse(generations.directory_of(place) / name)
    return found if found is not None and found.directory.name == name and found.ready else None


def mend_link(place: Place, make_link: Callable[[Path, Path], None]) -> bool:
    """Let the junction follow `current.json`; whether it had to be changed.

    Raises:
        OSError: the junction cannot be changed now.
    """
    truth = current_by_note(place)
    if truth is None:
        return False
    if os.path.realpath(place.link) == os.path.realpath(truth.directory):
        return False
    if os.path.lexists(place.link):
        if place.link.is_symlink():
            place.link.unlink()
        else:
            place.link.rmdir()  # removes a junction alone; fails, rightly, on a directory with files
    make_link(truth.directory, place.link)
    return True


def mend(place: Place) -> None:
    """On Windows, let a junction follow that could not before; whoever sweeps the place does this too.

    The environment's lock must be held.
    """
    if sys.platform == "win32" and place.form != "plain":
        with contextlib.suppress(OSError):
            mend_link(place, make_junction)


def make_junction(target: Path, link: Path) -> None:
    """Make a junction, which needs no privilege. Windows only; not run on a real Windows yet."""
    if sys.platform == "win32":
        import _winapi

        _winapi.CreateJunction(str(target), str(link))
    else:
        raise OSError("junctions exist on Windows only")
