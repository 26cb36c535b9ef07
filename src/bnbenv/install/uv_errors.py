"""Reads uv's words after a failure and says which of our problems it is."""

from __future__ import annotations

import re

from bnbenv.errors import EnvironmentProblem, ExternalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# The first pattern that matches decides: causes that explain others stand before them. A full disk makes
# downloads fail, a switched-off network makes packages "not found", a refused login makes versions vanish.
_PATTERNS: tuple[tuple[str, str, str], ...] = (
    (
        r"No space left on device|os error 28\b|os error 112\b|Disk quota exceeded|os error 122\b|not enough space",
        "disk-full",
        "free some space, or point `UV_CACHE_DIR`, `TMPDIR` or `BNBENV_HOME` at a larger file system",
    ),
    (
        r"Hash mismatch|hash-mismatch|computed hash",
        "hash-mismatch",
        "somebody changed the file since it was locked, or a proxy rewrites downloads; "
        "run the command again, and if it stays so, make a new lock",
    ),
    (
        r"Network connectivity is disabled|network was disabled|but not found in the cache.*offline",
        "offline",
        "run once without `--offline` (and `UV_OFFLINE`), or add a wheelhouse with `PIP_FIND_LINKS=DIR`",
    ),
    (
        r"\b40[137] (?:Unauthorized|Forbidden|Proxy Authentication Required)"
        r"|status code: 40[137]|\((?:401|403|407) |lacks? valid authentication|requires? authentication",
        "index-forbidden",
        "set the index's credentials (`UV_INDEX_<NAME>_USERNAME` and `_PASSWORD`, keyring or netrc)",
    ),
    (
        r"error sending request|tcp connect error|dns error|failed to lookup address|operation timed out"
        r"|Connection (?:refused|reset)|connection closed|Request failed after|timed out|invalid peer certificate"
        r"|UnknownIssuer|certificate verify|5\d\d (?:Internal Server Error|Bad Gateway|Service Unavailable"
        r"|Gateway Time-?out)|end of file before message length|IncompleteMessage|unexpected EOF|body from connection",
        "index-unreachable",
        "check the network, the proxy and the certificate settings, then run the same command again; "
        "what was downloaded is kept",
    ),
    (
        r"Permission denied|os error 13\b|Read-only file system|os error 30\b|Operation not permitted|Access is denied",
        "permission",
        "choose a place you may write to: `--path DIR`, `BNBENV_HOME` or `UV_CACHE_DIR`",
    ),
    (
        r"was not found in the (?:package registry|provided package locations|cache)|was not found|no versions? of"
        r"|no wheels? (?:with|are|is)|has no (?:usable|compatible)? ?wheels|there (?:are|is) no (?:version|wheel)"
        r"|doesn't have a (?:source|wheel)|not available|404 Not Found",
        "package-unavailable",
        "check the spelling, or name an index that has it with `PIP_EXTRA_INDEX_URL` or `UV_INDEX`",
    ),
    (
        r"No solution found|requirements are unsatisfiable|incompatible",
        "conflict",
        "loosen one of the requirements that uv names",
    ),
)
_NO_PYTHON = re.compile(
    r"No (?:virtual environment or system )?(?:Python )?interpreter found|No Python at|not a Python"
)
_UNSATISFIABLE = re.compile(r"No solution found")
_ABSENT = re.compile(
    r"(?:was|were) not found in|there (?:are|is) no versions? (?:of|satisfying)|only the following versions?"
    r"|has no wheels|no wheels with a matching"
)
_CONFLICT = re.compile(r"depends? on|and you require|conflict|are incompatible|cannot be used")


def uv_problem(arguments: Sequence[str], returncode: int, stderr: str) -> ExternalError | EnvironmentProblem:
    """The error to raise for a failed uv, in uv's own words.

    Args:
        arguments: what uv was asked, without the program.
        returncode: negative where a signal ended it.
        stderr: what it said, redacted.
    """
    # uv wraps its lines at the terminal's width, so that a phrase may be cut by a line end.
    said = re.sub(r"\s+", " ", stderr)
    head = f"uv {' '.join(_verb(arguments))} failed"
    words = _last_error(stderr)
    if returncode < 0:
        return ExternalError(f"{head}: ended by signal {-returncode}\n{words}".rstrip(), code="tool-failed")
    if _NO_PYTHON.search(said):
        return EnvironmentProblem(
            f"{head}\n{words}", code="python-missing", hint="name an interpreter with `--python PATH`"
        )
    code, hint = _code(said)
    return ExternalError(f"{head}\n{words}".rstrip(), code=code, hint=hint)


def _code(said: str) -> tuple[str, str | None]:
    for pattern, code, hint in _PATTERNS:
        if not re.search(pattern, said, re.IGNORECASE):
            continue
        if code == "package-unavailable" and _UNSATISFIABLE.search(said):
            # uv explains a conflict in the words of absence too ("there are no versions of a>2"):
            # it is absence alone only where no package's own requirement takes part.
            code, hint = _absent_or_conflict(said, hint)
        return code, hint
    return "tool-failed", "run the command again with `-vv` to see all that uv says"


def _absent_or_conflict(said: str, absent_hint: str) -> tuple[str, str]:
    if _ABSENT.search(said) and not re.search(r"\bdepends? on\b.*\bdepends? on\b", said):
        return "package-unavailable", absent_hint
    if re.search(r"was not found in", said):
        return "package-unavailable", absent_hint
    return "conflict", "loosen one of the requirements that uv names"


def _verb(arguments: Sequence[str]) -> list[str]:
    verb: list[str] = []
    for argument in arguments:
        if argument.startswith("-") or len(verb) == 2 or "/" in argument or "\\" in argument:
            break
        verb.append(argument)
    return verb


def _last_error(stderr: str, limit: int = 40) -> str:
    """Uv's last error with its causes; progress lines before it tell nothing."""
    lines = stderr.rstrip().splitlines()
    starts = [number for number, line in enumerate(lines) if re.match(r"\s*(?:error:|×|x )", line)]
    chosen = lines[starts[-1] :] if starts else lines[-limit:]
    return "\n".join(chosen[:limit])
