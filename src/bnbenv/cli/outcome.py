"""What a command hands back to be rendered: data for programs, text for people, and the exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from bnbenv.dataclass import dataclass, field
from bnbenv.errors import EXIT_FINDINGS, EXIT_OK, EXIT_UNSOLVABLE, PROBLEM_CODES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.errors import BnbenvError

Status = Literal["ok", "findings", "unsolvable", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One entry of the envelope's ``problems``: a code of the closed list, and words."""

    code: str
    message: str
    hint: str | None = None

    def __post_init__(self) -> None:
        if self.code not in PROBLEM_CODES:
            raise AssertionError(f"problem code {self.code!r} is not in the closed list")

    @classmethod
    def of(cls, error: BnbenvError) -> Problem:
        """The problem that an error is."""
        return cls(code=error.code, message=error.message, hint=error.hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A command's answer.

    Attributes:
        data: the envelope's ``data``; made of JSON's own types.
        text: what stdout shows without ``--json``; may be empty. A `Verbatim` goes out as it is.
        document: the text is for a file or to be pasted: a terminal shows it with its own lines.
        problems: what the user should know beside the answer.
        streamed: the command has written its answer itself (batches, `run`, `shell`).
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    document: bool = False
    exit_code: int = EXIT_OK
    problems: tuple[Problem, ...] = ()
    streamed: bool = False


def status_of(exit_code: int) -> Status:
    """The envelope's status; ``findings`` exactly when the exit code is 1."""
    match exit_code:
        case 0:
            return "ok"
        case _ if exit_code == EXIT_FINDINGS:
            return "findings"
        case _ if exit_code == EXIT_UNSOLVABLE:
            return "unsolvable"
        case _:
            return "error"


def envelope(command: str, outcome: Outcome) -> dict[str, Any]:
    """The one JSON object that a command prints."""
    return {
        "schema": f"bnbenv.{command}/1",
        "status": status_of(outcome.exit_code),
        "data": dict(outcome.data),
        "problems": [
            {"code": problem.code, "message": problem.message, "hint": problem.hint}
            for problem in outcome.problems
        ],
    }


def failure(error: BnbenvError) -> Outcome:
    """The outcome of a command that raised."""
    return Outcome(data=error.data or {}, exit_code=error.exit_code, problems=(Problem.of(error),))
