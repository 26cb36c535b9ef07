"""Every way a command can fail, with its exit code and its place in the closed list of problem codes.

The tree::

    BnbenvError
    ├── UsageError                2   the command line, a file or a name given by the user is wrong
    ├── UnsolvableError           3   no stack serves the target or its GPU, or a package breaks the others
    ├── EnvironmentProblem        4   no such environment, or its state is broken or from a newer version
    ├── ExternalError             5   a tool, an index, the network, the disk or a resolution failed
    ├── DataError                 6   the matrix or a lock is invalid
    └── Interrupted             130   the user stopped the command; 128 + N where signal N did

A finding of severity error or a failed self-test is a *result*, not an exception: it exits with 1. Only where
it undoes a change it is raised, and exits with 1 too (`here.SelfTestFailedError`, `repair.NotMendedError`).
An exception outside this tree is a bug and exits with 70.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar

EXIT_OK = 0
EXIT_FINDINGS = 1
EXIT_USAGE = 2
EXIT_UNSOLVABLE = 3
EXIT_ENVIRONMENT = 4
EXIT_EXTERNAL = 5
EXIT_DATA = 6
EXIT_BUG = 70
EXIT_INTERRUPTED = 130

# The hint of whatever a newer bnbenv wrote.
UPGRADE = "upgrade: `uv tool upgrade bnbenv` or `pip install --upgrade bnbenv`"

PROBLEM_CODES: Mapping[str, str] = {
    "usage": "the command line is wrong",
    "bad-name": "an environment name cannot be used",
    "bad-target": "a target file or description cannot be read",
    "bad-model": "a model's files are missing, damaged or of a kind that is never loaded",
    "bad-request": "a requirement, version or constraint given by the user cannot be read",
    "path-occupied": "the path holds files that bnbenv did not make",
    "not-in-a-terminal": "the command needs a terminal or an explicit answer",
    "unsolvable": "no stack serves the target",
    "no-usable-gpu": "there are traces of a GPU, but none can be used",
    "no-environment": "there is no such environment",
    "state-broken": "the environment's state cannot be read",
    "state-too-new": "the environment was made by a newer bnbenv",
    "tool-missing": "a program that bnbenv drives is missing or too old",
    "tool-failed": "a program that bnbenv drives failed",
    "index-unreachable": "an index does not answer",
    "index-forbidden": "an index refuses the credentials, or wants some",
    "index-not-an-index": "an address answers, but not with an index",
    "index-missing": "an address answers 404",
    "package-unavailable": "a package cannot be had from the configured indexes",
    "conflict": "the requested packages exclude each other",
    "hazard": "a package would break the others by standing beside them",
    "offline": "the network is needed and --offline was given",
    "hash-mismatch": "a file is not the one that was locked",
    "corrupt-cache": "a file in uv's cache is damaged",
    "disk-full": "there is too little free space",
    "permission": "a file or directory may not be read or written",
    "locked": "another bnbenv holds the environment, or has just changed it",
    "base-unusable": "the base interpreter's torch cannot serve the target",
    "insecure-index": "an index address is neither TLS nor loopback nor trusted",
    "python-missing": "no suitable Python was found",
    "matrix-invalid": "the compatibility matrix is invalid",
    "lock-invalid": "a lock is invalid",
    "self-test-failed": "the environment does not compute rightly",
    "not-mended": "a repair did not mend the environment, and everything was put back",
    "notice": "something the user should know; nothing is wrong",
    "interrupted": "the command was stopped",
    "bug": "bnbenv itself failed",
}


class BnbenvError(Exception):
    """A failure the user can act on.

    Attributes:
        code: a key of ``PROBLEM_CODES``.
        message: what was wrong, and where; one or more lines.
        hint: the next thing to do, best a command to type.
        data: the ``data`` object of the JSON envelope, where there is something to tell.
    """

    exit_code: int = EXIT_BUG
    default_code: ClassVar[str] = "bug"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        code: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or self.default_code
        self.data = data
        if self.code not in PROBLEM_CODES:
            raise AssertionError(f"problem code {self.code!r} is not in the closed list")

    @property
    def no_versions(self) -> bool:
        """Whether no set of versions meets what is asked for: something else may be asked."""
        return self.code in {"conflict", "package-unavailable"}


class UsageError(BnbenvError):
    """Something the user gave is wrong."""

    exit_code = EXIT_USAGE
    default_code = "usage"


class UnsolvableError(BnbenvError):
    """No stack serves the target."""

    exit_code = EXIT_UNSOLVABLE
    default_code = "unsolvable"


class EnvironmentProblem(BnbenvError):  # noqa: N818 - reads as what it is in `except` clauses
    """No such environment, or its state cannot be used."""

    exit_code = EXIT_ENVIRONMENT
    default_code = "no-environment"


class ExternalError(BnbenvError):
    """A tool, an index, the network or the file system failed."""

    exit_code = EXIT_EXTERNAL
    default_code = "tool-failed"


class DataError(BnbenvError):
    """The matrix or a lock is invalid."""

    exit_code = EXIT_DATA
    default_code = "matrix-invalid"


class Interrupted(BnbenvError):  # noqa: N818 - reads as what it is in `except` clauses
    """The user or the system stopped the command.

    Args:
        exit_code: another one than Ctrl-C's, where another signal did.
    """

    exit_code = EXIT_INTERRUPTED
    default_code = "interrupted"

    def __init__(self, message: str, *, exit_code: int = EXIT_INTERRUPTED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
