"""Asks one index for its torch files, and says precisely what came instead where none came."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.errors import ExternalError, UsageError
from bnbenv.install.addresses import refuse_insecure
from bnbenv.install.pages import is_html, read_page
from bnbenv.install.redact import redact
from bnbenv.install.session import get_page, open_session
from bnbenv.install.status import refuse_status
from bnbenv.install.unreached import explained, in_browser
from bnbenv.install.uv_files import address, credential_variables

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import requests

    from bnbenv.install.sources import Index, Sources

PROJECT = "torch"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexProblem:
    """Why an index cannot be used.

    Attributes:
        code: ``index-forbidden``, ``index-not-an-index``, ``index-missing`` or ``index-unreachable``.
        message: one sentence with the address.
        hint: what the user can do.
    """

    index: str
    url: str
    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an index said about torch.

    Attributes:
        index: its name.
        files: file name and size of every wheel that is not yanked.
        problem: why it cannot be used; then there are no files.
    """

    index: str
    files: tuple[tuple[str, int | None], ...] = ()
    problem: IndexProblem | None = None


def ask(index: Index, sources: Sources, *, timeout: float, environ: Mapping[str, str]) -> Answer:
    """Ask an index, on the network or in a directory, for its torch files.

    Args:
        index: which.
        sources: for certificates, proxy and trusted hosts.
        timeout: seconds for the whole answer.
        environ: the caller's variables.
    """
    directory = index.directory
    if directory is not None:
        return _ask_directory(index)
    import requests

    url = address(index) if index.flat else f"{address(index).rstrip('/')}/{PROJECT}/"
    try:
        with open_session(index, sources, environ) as session:
            # Connecting and answering may each take its time, together no longer than allowed.
            return _read(index, url, get_page(session, url, timeout=timeout / 2, whole=timeout), sources)
    except requests.exceptions.RequestException as problem:
        told = explained(problem, index, url, sources, environ, timeout=timeout)
        return _problem(index, url, told.code, told.message, told.hint or "")


def _read(index: Index, url: str, response: requests.Response, sources: Sources) -> Answer:
    shown = redact(url)
    status = response.status_code
    if status in {404, 410}:
        if index.role in {"default", "extra"}:
            return Answer(index=index.name)  # a sound index without torch
        return _problem(
            index,
            url,
            "index-missing",
            f"`{index.name}` at {shown} does not exist (HTTP {status})",
            f"check the address that {index.origin} gives",
        )
    try:
        refuse_status(status, f"`{index.name}` at {shown}", login=credential_variables(index))
    except ExternalError as problem:
        return _problem(index, url, problem.code, problem.message, problem.hint or "")
    try:
        refuse_insecure(response.url, origin=f"where {shown} leads", trusted=sources.trusted_hosts)
    except UsageError as problem:
        return _problem(index, url, "index-not-an-index", problem.message, problem.hint or "")
    files = _files(response)
    if files is None:
        return _problem(
            index,
            url,
            "index-not-an-index",
            f"`{index.name}` at {shown} answers, but not as a package index (a login page?)",
            in_browser(response.url),
        )
    return Answer(index=index.name, files=files)


def _files(response: requests.Response) -> tuple[tuple[str, int | None], ...] | None:
    """The wheels on a page; ``None`` where the page is none of an index."""
    page = read_page(response, PROJECT)
    if page is None or (is_html(response) and not page.packages):
        return None
    return tuple(
        (file.filename, file.size)
        for file in page.packages
        if _is_wheel(file.filename) and not file.is_yanked
    )


def _ask_directory(index: Index) -> Answer:
    directory = index.directory
    assert directory is not None  # noqa: S101 - the caller looked
    try:
        if index.flat:
            files = [
                (path.name, path.stat().st_size)
                for path in sorted(directory.iterdir())
                if _is_wheel(path.name)
            ]
            return Answer(index=index.name, files=tuple(files))
        page = page_of(index)
        if page is None or not page.exists():
            return Answer(index=index.name)
        from pypi_simple import ProjectPage  # its parsers cost more than a whole `resolve`

        parsed = ProjectPage.from_html(PROJECT, page.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        return _problem(
            index,
            str(directory),
            "index-unreachable",
            f"`{index.name}` at {directory} cannot be read: {problem}",
            "",
        )
    return Answer(
        index=index.name,
        files=tuple((file.filename, None) for file in parsed.packages if _is_wheel(file.filename)),
    )


def page_of(index: Index) -> Path | None:
    """The file that lists torch, of an index that is a tree of pages in a directory."""
    directory = index.directory
    return None if directory is None or index.flat else directory / PROJECT / "index.html"


def _is_wheel(name: str) -> bool:
    return name.startswith(f"{PROJECT}-") and name.endswith(".whl")


def _problem(index: Index, url: str, code: str, message: str, hint: str) -> Answer:
    return Answer(
        index=index.name,
        problem=IndexProblem(index=index.name, url=redact(url), code=code, message=message, hint=hint),
    )
