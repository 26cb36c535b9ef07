"""How a workflow speaks: three small ports that the command line fills and tests listen to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bnbenv.install.uv import Ran


class Voice(Protocol):
    """Where progress goes, and who is asked."""

    def progress(self, text: str) -> None:
        """Tell what is being done."""

    def confirm(self, question: str, *, yes: bool = False) -> bool:
        """Whether the user agrees; True where nobody can be asked."""

    def ran(self, ran: Ran) -> None:
        """Tell of a command that has ended."""
