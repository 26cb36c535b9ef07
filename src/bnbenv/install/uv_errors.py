"""Reads uv's words after a failure and says which of our problems it is."""

from __future__ import annotations

import re

from bnbenv.errors import EnvironmentProblem, ExternalError
from bnbenv.install.status import PROXY_LOGIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_MEMORY = (
    "it may have had too little memory: allow more (`ulimit -v`, the scheduler's or the container's limit), "
    "or run it on another node"
)
_LOOSEN = "loosen one of the requirements that uv names"
_EXISTING = "ask for a version that exists for this Python and platform"

_PORTAL = (
    "run the command again, and if it stays so, open the index in a browser: "
    "a portal or a sign-in may stand before it, or a proxy changes what is fetched"
)

# The first pattern that matches decides: causes that explain others stand before them. A full disk makes
# downloads fail, a switched-off network makes packages "not found", a refused login makes versions vanish.
_PATTERNS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "disk-full",
        (
            r"No space left on device|not enough space|Disk quota exceeded",
            r"os error (?:28|112|122)\b",
        ),
        (
            "free some space (or files, where `df -i` or a quota counts them), "
            "or point `UV_CACHE_DIR`, `TMPDIR` or `BNBENV_HOME` at a larger file system"
        ),
    ),
    (
        "tool-failed",
        (r"Too many open files|os error 24\b",),
        "allow more open files (`ulimit -n 1024`), then run the same command again",
    ),
    (
        "hash-mismatch",
        (r"(?:Hash|Size) mismatch",),
        (
            "the file is not the one that was locked, or a proxy changes downloads: "
            "run the command again, and if it stays so, make a new lock"
        ),
    ),
    (
        "offline",
        (r"Network connectivity is disabled", r"network was disabled"),
        "run once without `--offline` (and `UV_OFFLINE`), or add a wheelhouse with `PIP_FIND_LINKS=DIR`",
    ),
    (
        "index-not-an-index",
        (
            r"unexpected (?:JSON|HTML)|Missing `Content-Type` header",
            r"has an invalid package format",
        ),
        _PORTAL,
    ),
    ("index-forbidden", (r"\b407 Proxy|proxy authentication required",), PROXY_LOGIN),
    (
        "index-forbidden",
        (
            r"\b40[13] (?:Unauthorized|Forbidden)",
            r"status code:? 40[13]\b",
            r"lack of valid authentication",
        ),
        "set the index's credentials (`UV_INDEX_<NAME>_USERNAME` and `_PASSWORD`, keyring or netrc)",
    ),
    (
        "index-unreachable",
        (r"\b429 Too Many Requests",),
        "wait a few minutes, and run the same command again: the index lets nobody ask so often",
    ),
    (
        "index-unreachable",
        (
            r"error sending request|error decoding response|tcp connect error|dns error",
            r"failed to lookup address|(?:timed|network time) ?out",
            r"Connection (?:refused|reset)|connection closed",
            r"Request failed after|peer certificate|UnknownIssuer|certificate verify",
            r"\b5\d\d (?:Internal Server Error|Bad Gateway|Service Unavailable|Gateway Time-?out)",
            r"end of file before message length|IncompleteMessage|unexpected (?:EOF|end of file)",
        ),
        "check the network, the proxy and the certificate settings, then run the same command again",
    ),
    (
        "permission",
        (
            r"Permission denied|Read-only file system|Operation not permitted|Access is denied",
            r"os error (?:1|5|13|30)\b",
        ),
        (
            "choose a place you may write to: `--path DIR`, `BNBENV_HOME` or `UV_CACHE_DIR`; "
            "what a `sudo` once left there belongs to root until `chown` gives it back"
        ),
    ),
    # uv says so of a download that broke off as well: what broke it off has been asked for above.
    ("index-not-an-index", (r"Failed to (?:read from zip file|extract archive)",), _PORTAL),
    (
        "package-unavailable",
        (r"404 Not Found",),
        "the index names a file that it does not have: tell whoever runs it, or use another index or mirror",
    ),
    (
        "package-unavailable",
        (r"was not found in the",),
        "check the spelling, or name an index that has it with `PIP_EXTRA_INDEX_URL` or `UV_INDEX`",
    ),
    ("package-unavailable", (r"has no wheels with a matching",), _EXISTING),
    ("conflict", (r"No solution found", r"requirements are unsatisfiable"), _LOOSEN),
)
_NO_PYTHON = re.compile(
    r"No (?:virtual environment or system )?(?:Python )?interpreter found|No Python at|not a Python"
)
# uv speaks of absence to explain a conflict too. Where the only requirement in its reason is the
# user's own, nothing conflicts: what was asked for is not there.
_REQUEST_ALONE = re.compile(r"Because (?P<absent>.*?) and bnbenv-request depends on [^,]*, we can conclude")
# A package whose build imports another one, and does not say so: it is not there where builds are kept apart.
_UNDECLARED = re.compile(
    r"indicates that `(?P<name>[^`@]+)(?:@[^`]*)?` depends on `(?P<needs>[^`]+)`, "
    r"but doesn't declare it as a build"
)
# How the lines begin that tell of an error: what comes before them is progress.
ERROR = re.compile(r"\s*(?:error:|\u00d7|x )")
_ABSENT = re.compile(r"there (?:are|is) no versions? of|only .* (?:is|are) available|no wheels|not found")


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
        memory = returncode == -9 or "memory allocation" in said
        return ExternalError(
            f"{head}: ended by signal {-returncode}\n{words}".rstrip(),
            code="tool-failed",
            hint=_MEMORY if memory else None,
        )
    if _NO_PYTHON.search(said):
        return EnvironmentProblem(
            f"{head}\n{words}",
            code="python-missing",
            hint="`bnbenv create --python PATH` takes an interpreter that is there",
        )
    if built := _UNDECLARED.search(said):
        # uv goes on to say how its own projects are mended; a lock is none.
        words = words.partition("\nhint:")[0].rstrip()
        hint = (
            f"leave it out here, and then build it beside the lock, where {built['needs']} is: "
            f"bnbenv run NAME -- pip install --no-build-isolation {built['name']}"
        )
        return ExternalError(f"{head}\n{words}", code="tool-failed", hint=hint)
    code, hint = _code(said)
    return ExternalError(f"{head}\n{words}".rstrip(), code=code, hint=hint)


def _code(said: str) -> tuple[str, str]:
    for code, patterns, hint in _PATTERNS:
        if not any(re.search(pattern, said, re.IGNORECASE) for pattern in patterns):
            continue
        if code == "conflict" and (match := _REQUEST_ALONE.search(said)) and _ABSENT.search(match["absent"]):
            return "package-unavailable", _EXISTING
        return code, hint
    return "tool-failed", "run the command again with `-vv` to see all that uv says"


def _verb(arguments: Sequence[str]) -> list[str]:
    verb: list[str] = []
    for argument in arguments:
        if argument.startswith("-") or len(verb) == 2 or "/" in argument or "\\" in argument:
            break
        verb.append(argument)
    return verb


def _last_error(stderr: str, limit: int = 40) -> str:
    """The last error with its causes; progress lines before it tell nothing."""
    lines = stderr.rstrip().splitlines()
    starts = [number for number, line in enumerate(lines) if ERROR.match(line)]
    chosen = lines[starts[-1] :] if starts else lines[-limit:]
    return "\n".join(chosen[:limit])
