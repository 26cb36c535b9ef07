"""Everything on a machine that is bnbenv's own, and how it goes away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bnbenv.dataclass import dataclass
from bnbenv.env.layout import Layout
from bnbenv.errors import EnvironmentProblem
from bnbenv.workflows.change import remove, remove_tree, users_of
from bnbenv.workflows.config import config_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bnbenv.env.layout import Place

Kind = Literal["environment", "configuration", "log", "directory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """One thing that bnbenv made and may delete.

    Attributes:
        place: of an environment.
    """

    kind: Kind
    path: Path
    place: Place | None = None


def owned(environ: Mapping[str, str], *, keep_environments: bool = False) -> tuple[Owned, ...]:
    """What bnbenv owns here. uv's cache and its Pythons belong to uv and are not listed."""
    from bnbenv.workflows.environment import all_places

    layout = Layout.find(environ)
    found: list[Owned] = []
    if not keep_environments:
        found += [Owned(kind="environment", path=place.link, place=place) for place in all_places(layout)]
    if (config := config_path(environ)).is_file():
        found.append(Owned(kind="configuration", path=config))
    found += [
        Owned(kind="log", path=directory) for directory in (layout.runs, layout.reports) if directory.is_dir()
    ]
    if not keep_environments and layout.home.is_dir():
        found.append(Owned(kind="directory", path=layout.home))
    return tuple(found)


def uninstall(
    items: Sequence[Owned], environ: Mapping[str, str], report: Callable[[str], None]
) -> tuple[Path, ...]:
    """Delete what `owned` listed; returns what is gone.

    Raises:
        EnvironmentProblem: an environment is in use; nothing was deleted.
    """
    layout = Layout.find(environ)
    for item in items:
        if item.place is not None and (users := users_of(item.place)):
            raise EnvironmentProblem(
                f"`{item.place.name}` is in use by process {', '.join(map(str, users))}; nothing was deleted",
                hint="end these processes, or give --keep-environments",
                code="locked",
            )
    gone: list[Path] = []
    for item in items:
        report(f"deleting {item.path}")
        if item.place is not None:
            remove(item.place, layout, report)
        elif item.kind == "directory":
            _remove_home(layout)
        else:
            remove_tree(item.path)
        if not item.path.exists():
            gone.append(item.path)
    return tuple(gone)


def _remove_home(layout: Layout) -> None:
    """Only what bnbenv puts there: a home may be a directory that holds other things as well."""
    for directory in layout.directories:
        remove_tree(directory)
    try:
        layout.home.rmdir()
    except OSError:
        return
