"""Everything on a machine that is bnbenv's own, and how it goes away."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Literal

from bnbenv.dataclass import dataclass
from bnbenv.env import durable
from bnbenv.env import generation as generations
from bnbenv.env.kernel import Kernel, list_kernels, same_place
from bnbenv.env.layout import FACTS, Layout, leads_to_generations
from bnbenv.env.locking import hold
from bnbenv.errors import EnvironmentProblem, ExternalError
from bnbenv.toml import TOMLDecodeError, loads
from bnbenv.workflows import belongings
from bnbenv.workflows.change import remove, remove_tree, users_of
from bnbenv.workflows.config import SETTINGS, config_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bnbenv.env.layout import Place

Kind = Literal["environment", "kernel", "configuration", "log", "cache", "rows", "record", "directory"]

_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """One thing that bnbenv made and may delete.

    Attributes:
        kind: a ``record`` is a note or a lock; a ``directory`` holds nothing but what is deleted before it.
        place: of an environment, and of one that never came to be.
    """

    kind: Kind
    path: Path
    place: Place | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A directory that stays, and why."""

    path: Path
    why: str


def owned(environ: Mapping[str, str], *, keep_environments: bool = False) -> tuple[Owned, ...]:
    """What bnbenv owns here, in the order of deletion. uv's cache and its Pythons belong to uv."""
    layout = Layout.find(environ)
    found: list[Owned] = []
    places = () if keep_environments else _places(layout)
    for place in places:
        linked = place.form == "plain" or leads_to_generations(place)
        path = place.link if linked else place.generations
        found.append(Owned(kind="environment", path=path, place=place))
    if not keep_environments:  # their environments may be gone by now
        kernels = (kernel for kernel in list_kernels(environ) if not _starts_another(kernel, places))
        found += [Owned(kind="kernel", path=kernel.directory) for kernel in kernels]
    if _is_configuration(config := config_path(environ), environ):
        found.append(Owned(kind="configuration", path=config))
    found += [Owned(kind="log", path=path) for path in belongings.logs(layout)]
    if not keep_environments:
        caches = (*belongings.compiled(layout), *belongings.answers(layout))
        found += [Owned(kind="cache", path=path) for path in caches]
        found += [Owned(kind="rows", path=path) for path in belongings.rows(layout)]
        found += [Owned(kind="record", path=path) for path in belongings.records(layout)]
    stays = {place.generations for place in places if not belongings.is_whole(place)}
    going = {item.path for item in found}.union(place.generations for place in places) - stays
    found += [Owned(kind="directory", path=path) for path in _emptied(layout, config, going)]
    return tuple(found)


def left(environ: Mapping[str, str]) -> tuple[Left, ...]:
    """What stays in bnbenv's home because bnbenv did not make it."""
    layout = Layout.find(environ)
    items = owned(environ)
    whole = {item.path for item in items}
    own = whole.union(layout.directories, [layout.bytecode])
    made = [item.place for item in items if item.place is not None and item.place.form != "plain"]
    beside = dict.fromkeys(place.generations for place in made)
    for place in made:
        own.update(belongings.of_place(place), [place.generations])
    found = []
    compiled = () if layout.bytecode in whole else (layout.bytecode,)
    for directory in (*beside, *layout.directories, *compiled, layout.home):
        if stay := [name for name in durable.names_in(directory) if directory / name not in own]:
            shown = ", ".join(f"`{name}`" for name in stay[:_SHOWN])
            more = f" and {len(stay) - _SHOWN} more" if len(stay) > _SHOWN else ""
            found.append(Left(path=directory, why=f"it holds {shown}{more}, which bnbenv did not make"))
    return tuple(found)


def uninstall(
    items: Sequence[Owned], environ: Mapping[str, str], report: Callable[[str], None]
) -> tuple[Path, ...]:
    """Delete what `owned` listed; returns what is gone.

    Raises:
        EnvironmentProblem: an environment is in use; nothing was deleted.
        ExternalError: code ``permission``; an environment is another user's, and nothing was deleted.
    """
    from bnbenv.workflows.environment import is_ours

    layout = Layout.find(environ)
    for item in items:
        if item.place is not None:
            generations.refuse_others(item.place)
        if item.place is not None and (users := users_of(item.place)):
            raise EnvironmentProblem(
                f"`{item.place.name}` is in use by process {', '.join(map(str, users))}; nothing was deleted",
                hint="end these processes, or give --keep-environments",
                code="locked",
            )
    gone: list[Path] = []
    for item in items:
        report(f"deleting {item.path}")
        _delete(item, layout, report)
        if not (os.path.lexists(item.path) if item.place is None else is_ours(item.place)):
            gone.append(item.path)
    return tuple(gone)


def _delete(item: Owned, layout: Layout, report: Callable[[str], None]) -> None:
    if item.place is not None:
        remove(item.place, layout, report)
        for path in belongings.of_place(item.place):
            remove_tree(path)
        if item.place.form != "plain":
            _remove_empty(item.place.generations)
    elif item.kind == "directory":
        if item.path == layout.home:  # the lock of an environment may have made one anew
            for directory in layout.directories:
                _remove_empty(directory)
        _remove_empty(item.path)
    elif item.path.parent == layout.locks and not item.path.name.startswith("."):
        _delete_lock(item.path, report)
    else:
        remove_tree(item.path)


def _delete_lock(path: Path, report: Callable[[str], None]) -> None:
    lock = path.with_name(path.name.removesuffix(".d"))
    try:
        with hold(lock, report, command="bnbenv self uninstall"):  # who repairs what it locks is waited for
            remove_tree(path)
            remove_tree(lock)
    except ExternalError as problem:
        if problem.code != "permission":
            raise
        report(f"left there: {problem.message}")
    if sys.platform == "win32":  # where no file goes that is open
        remove_tree(path)
        remove_tree(lock)


def _places(layout: Layout) -> tuple[Place, ...]:
    """The environments that are known, and those that lost their links or never came to be."""
    from bnbenv.workflows.environment import all_places

    return tuple(dict.fromkeys((*all_places(layout), *belongings.built_in(layout))))


def _starts_another(kernel: Kernel, places: Sequence[Place]) -> bool:
    """Whether its environment is bnbenv's and stays, in another home."""
    stays = not any(same_place(kernel.link, place.link) for place in places)
    # By os.path: what may not be entered starts nothing.
    return stays and os.path.isfile(kernel.link / FACTS / "READY")  # noqa: PTH113


def _emptied(layout: Layout, config: Path, going: set[Path]) -> list[Path]:
    """The directories that will hold nothing more, each before the one that it stands in.

    One that is empty already goes only with all of bnbenv's home: elsewhere a user may have made it.
    """
    filled: list[Path] = []
    empty: list[Path] = []
    aside = () if config.parent == layout.home else (config.parent,)
    for directory in (*layout.directories, *aside):
        if _is_real(directory) and (inside := _entries(directory)) <= going:
            (filled if inside else empty).append(directory)
    alone = _entries(layout.home) <= going.union(filled, empty)
    return [*filled, *empty, layout.home] if alone and _is_real(layout.home) else filled


def _is_real(directory: Path) -> bool:
    """Whether it is a directory, and this user may see what is in it."""
    return directory.is_dir() and not directory.is_symlink() and durable.may_read(directory)


def _entries(directory: Path) -> set[Path]:
    return {directory / name for name in durable.names_in(directory)}


def _is_configuration(path: Path, environ: Mapping[str, str]) -> bool:
    """Whether a file is bnbenv's configuration: in a home that others use, it may be theirs."""
    if not path.is_file():
        return False
    if not environ.get("BNBENV_HOME"):
        return True
    try:
        keys = loads(path.read_text(encoding="utf-8")).keys()
    except (OSError, UnicodeDecodeError, TOMLDecodeError):
        return False
    return bool(keys) and keys <= {"schema", "mirrors", *SETTINGS}


def _remove_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        return
