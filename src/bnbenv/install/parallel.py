"""Does slow things side by side, and leaves them behind where the user stops the command."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


def side_by_side(
    work: Callable[[_Item], _Answer], items: Sequence[_Item], *, most: int = 16
) -> list[_Answer]:
    """What `work` makes of each item, in order; `most` at once.

    The first failure is raised when what was begun has ended. Who stops the command does not wait for an
    index that trickles, or for the rest of a large file: the process ends, and its threads with it.
    """
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(max_workers=max(1, min(most, len(items))))
    wait = True
    try:
        return list(pool.map(work, items))
    except KeyboardInterrupt:
        wait = False
        raise
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)
