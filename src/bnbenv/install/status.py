"""What the HTTP status of an index or of its files means where it brings nothing."""

from __future__ import annotations

from bnbenv.errors import ExternalError

PROXY_LOGIN = (
    "put the user and the password before the proxy's host, `USER:PASSWORD@HOST:PORT`; "
    "`@`, `/`, `:` and `#` in a password are written `%40`, `%2F`, `%3A` and `%23`"
)
_REFUSALS = {
    401: "wants credentials",
    403: "refuses access",
    407: "is behind a proxy that wants credentials",
}


def refuse_status(
    status: int,
    what: str,
    *,
    login: tuple[str, str] = ("UV_INDEX_<NAME>_USERNAME", "UV_INDEX_<NAME>_PASSWORD"),
) -> None:
    """Refuse every status but 200 and 206. What is absent (404, 410) is for the caller to tell before.

    Args:
        status: of the answer.
        what: what was asked, as messages name it, without a credential.
        login: the variables that could hold its credential.

    Raises:
        ExternalError: codes ``index-forbidden``, ``index-unreachable``.
    """
    if status in {200, 206}:
        return
    if status in _REFUSALS:
        raise ExternalError(
            f"{what} {_REFUSALS[status]} (HTTP {status})",
            hint=PROXY_LOGIN
            if status == 407
            else f"check the credentials: `{login[0]}` and `{login[1]}`, netrc, or the address",
            code="index-forbidden",
        )
    raise ExternalError(
        f"{what} is out of order (HTTP {status})",
        hint="try again later, or configure a mirror",
        code="index-unreachable",
    )
