"""Change which environments there are: roll back, remove, prune, clean."""

from __future__ import annotations

import os
import shlex
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.env import durable, lease, switch
from bnbenv.env import generation as generations
from bnbenv.env.kernel import kernels_of, remove_kernel
from bnbenv.errors import EnvironmentProblem, ExternalError
from bnbenv.workflows import belongings
from bnbenv.workflows.environment import all_places, locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from bnbenv.env.generation import Generation, Pruned
    from bnbenv.env.layout import Layout, Place


def rollback(
    place: Place, report: Callable[[str], None], *, to: str | None = None, dry_run: bool = False
) -> tuple[Generation | None, Generation]:
    """Switch to another generation; returns both, the old and the new current one.

    Args:
        to: the name of its directory; ``None`` for the one before the current one.

    Raises:
        EnvironmentProblem: there is none.
    """
    with locked(place, "rollback", report):
        current = switch.current(place)
        target = switch.previous(place, current) if to is None else _generation(place, to)
        if target is None:
            raise EnvironmentProblem(
                f"`{place.name}` has no older generation to go back to", hint=_instead(place, current)
            )
        if not dry_run:
            switch.switch(place, target)
    return current, target


def command_to(place: Place, generation: Generation) -> str:
    """The command that switches to a generation, older or newer than the current one."""
    return shlex.join(["bnbenv", "rollback", place.name, "--to", generation.directory.name])


def _generation(place: Place, name: str) -> Generation:
    ready = generations.list_generations(place)
    for found in ready:
        if found.directory.name == name:
            return found
    raise EnvironmentProblem(
        f"`{place.name}` has no generation `{name}`; it has "
        f"{', '.join(found.directory.name for found in ready) or 'none'}",
        hint=f"bnbenv info {shlex.quote(place.name)}",
    )


def _instead(place: Place, current: Generation | None) -> str:
    """What serves where nothing older is there: the newest generation, or a new environment."""
    newest = generations.list_generations(place)[-1] if current is not None else None
    if newest is not None and newest != current:
        return command_to(place, newest)
    return f"bnbenv create {_profile_of(current) or 'PROFILE'} {place.options}"


def _profile_of(generation: Generation | None) -> str | None:
    """What a generation was made for, as far as its state tells."""
    from bnbenv.env import state

    if generation is None:
        return None
    try:
        return state.read(generation.state_file).profile
    except EnvironmentProblem:
        return None


def users_of(place: Place) -> tuple[int, ...]:
    """The processes that use any generation of an environment."""
    found: set[int] = set()
    for generation in generations.list_generations(place):
        found.update(lease.users(generation.directory))
    return tuple(sorted(found))


def remove(place: Place, layout: Layout, report: Callable[[str], None], *, force: bool = False) -> None:
    """Delete an environment with all its generations, and the Jupyter kernels that started it.

    What a user put in the place of its link stays.

    Raises:
        EnvironmentProblem: processes use it, and `force` is not given; nothing was deleted.
    """
    with locked(place, "remove", report):
        users = users_of(place)
        if users and not force:
            raise EnvironmentProblem(
                f"`{place.name}` is in use by process {', '.join(map(str, users))}; nothing was deleted",
                hint="end them, or " + shlex.join(["bnbenv", "remove", "--force", place.name]),
                code="locked",
            )
        generations.remove(place)
        if place.exists:
            report(f"`{place.link}` is not bnbenv's and stays: something else was put in the link's place")
        layout.forget(place)
    for kernel in kernels_of(place.link, os.environ):
        report(f"deleting the Jupyter kernel `{kernel.name}`")
        remove_kernel(kernel)


def prune(place: Place, report: Callable[[str], None], *, keep: int, dry_run: bool) -> Pruned:
    """Delete the old generations that nothing uses, but the newest `keep`."""
    with locked(place, "prune", report):
        return generations.prune(place, current=switch.current(place), keep=keep, dry_run=dry_run)


def prune_each(
    places: Iterable[Place], report: Callable[[str], None], *, keep: int, dry_run: bool
) -> list[tuple[Place, Pruned]]:
    """The same of several; what another user keeps to themselves is told and passed over."""
    found = []
    for place in places:
        with _passing_over(place, report):
            found.append((place, prune(place, report, keep=keep, dry_run=dry_run)))
    return found


@contextmanager
def _passing_over(place: Place, report: Callable[[str], None]) -> Iterator[None]:
    """In a home that users share, one's environment does not stop what another does to all."""
    try:
        with durable.told(place.generations, "read"):
            yield
    except ExternalError as problem:
        if problem.code != "permission":
            raise
        report(f"`{place.name}` is passed over: {problem.message}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What `clean` took away, or would.

    Attributes:
        half_made: generations that were never finished and that nobody builds any more, and what is left of
            deleted ones.
        files: logs and reports, and the compiled sources; their directory where nothing else is in it.
        stays: those of them that cannot be deleted, such as another user's.
    """

    half_made: tuple[Path, ...]
    files: tuple[Path, ...]
    stays: tuple[Path, ...] = ()


def clean(layout: Layout, report: Callable[[str], None], *, dry_run: bool) -> Cleaned:
    """Delete what interrupted commands left, logs, reports and compiled sources. Environments stay."""
    half_made: list[Path] = []
    for place in _places_with_debris(layout):
        aside = belongings.put_aside(place)
        with _passing_over(place, report):
            if dry_run:
                half_made += [*(found.directory for found in generations.debris(place)), *aside]
                continue
            with locked(place, "clean", report):
                half_made += generations.sweep(place, report=report)
                switch.mend(place)
            half_made += [path for path in aside if not path.exists()]
    files = [*belongings.logs(layout), *belongings.compiled(layout)]
    stays = [] if dry_run else [path for path in files if not remove_tree(path)]
    gone = tuple(path for path in files if path not in stays)
    return Cleaned(half_made=tuple(half_made), files=gone, stays=tuple(stays))


def _places_with_debris(layout: Layout) -> list[Place]:
    """Known places, and those in which nothing was ever finished."""
    places = dict.fromkeys((*all_places(layout), *belongings.built_in(layout)))
    # By os.path: a home that may not be entered is looked into by nobody.
    return [place for place in places if place.form != "plain" and os.path.isdir(place.generations)]  # noqa: PTH112


def remove_tree(path: Path) -> bool:
    """Delete a file or a directory of bnbenv's own; whether it is gone."""
    if path.is_symlink() or path.is_file():
        with suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
    return not path.exists() and not path.is_symlink()
