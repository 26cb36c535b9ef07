"""Which lock is meant where none is named: the one here, or the nearest above that is surely ours."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.lockfile.index import NAME, made_here

if TYPE_CHECKING:
    from collections.abc import Iterator


def nearest(start: Path) -> Path | None:
    """The directory of the lock that is meant in `start`; ``None`` where none is found.

    As by git, it is looked for no higher than the root of the repository; outside of any, no higher than the
    user's home, and nowhere but here where that is not above. The first lock above counts, unless others can
    write there: what they put there would be installed.
    """
    if os.path.lexists(start / NAME) or made_here(start):
        return start  # also where it is broken or lost: another one would be taken for it
    having = (place for place in _above(start) if os.path.isfile(place / NAME))  # noqa: PTH113 - some may not be looked into
    found = next(having, None)
    return found if found is not None and only_ours(found) else None


def _above(start: Path) -> Iterator[Path]:
    """The directories above, from the nearest to the last one that may be meant."""
    places = (start, *start.parents)
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - `Path` raises where there is none
    roots = [place for place in places if os.path.lexists(place / ".git")]
    last = roots[0] if roots else home
    if last in places:
        yield from places[1 : places.index(last) + 1]


def only_ours(directory: Path) -> bool:
    """Whether nobody but this user and the system can put a file into a directory."""
    if sys.platform == "win32":
        home = Path(os.path.expanduser("~"))  # noqa: PTH111 - the same
        return directory.is_relative_to(home)  # what stands there is closed to others
    status = directory.stat()
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o002:
        return False
    return not status.st_mode & 0o020 or _is_private(status.st_gid)


def _is_private(group: int) -> bool:
    """Whether a group is the user's own alone, as many systems make one for each user."""
    import grp
    import pwd

    try:
        name, found = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return found.gr_name == name and not {*found.gr_mem} - {name}
