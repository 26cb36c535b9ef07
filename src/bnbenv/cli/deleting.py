"""Before a deletion the user is asked; where nobody can be, only ``--yes`` agrees. What stays is told."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from bnbenv.cli.outcome import Problem
from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path

    from bnbenv.cli.ui import Ui


def agreed(question: str, args: Namespace, ui: Ui) -> bool:
    """Whether the user agrees to a deletion, which no later command can undo.

    Raises:
        UsageError: code ``not-in-a-terminal``; there is nobody to ask, and no ``--yes``.
    """
    if not args.yes and not ui.asks:
        words = list(args.typed)
        words.insert(words.index("--") if "--" in words else len(words), "--yes")
        raise UsageError(
            f"{question} There is nobody to ask, so nothing was deleted",
            hint=shlex.join(["bnbenv", args.command, *words]),
            code="not-in-a-terminal",
        )
    return ui.confirm(question, yes=args.yes)


def not_deleted(path: Path) -> Problem:
    """What stayed, and whose it is where that is why."""
    from bnbenv.env.durable import others

    other = others(path)
    whose = f": `{other[0]}` belongs to {other[1]}" if other else ""
    return Problem(code="permission", message=f"not deleted: {path}{whose}")
