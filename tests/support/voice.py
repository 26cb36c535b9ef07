"""A voice that remembers what a workflow says, and agrees unless told otherwise."""

from __future__ import annotations


class Listener:
    """Satisfies `bnbenv.workflows.voice.Voice`."""

    def __init__(self, *, agrees: bool = True) -> None:
        self.heard: list[str] = []
        self.agrees = agrees

    def progress(self, text: str) -> None:
        self.heard.append(text)

    def confirm(self, question: str, *, yes: bool = False) -> bool:
        self.heard.append(question)
        return yes or self.agrees

    def ran(self, ran: object) -> None:
        del ran
