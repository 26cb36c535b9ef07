"""Asks one index for its torch files, and says precisely what came instead where none came."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.errors import ExternalError
from bnbenv.install.pages import page_address, project_page
from bnbenv.install.redact import redact
from bnbenv.install.session import open_session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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
    if index.directory is not None:
        return _ask_directory(index)
    url = page_address(index, PROJECT)
    try:
        with open_session(index, sources, environ) as session:
            page = project_page(index, PROJECT, sources, session, environ, whole=timeout)
    except ExternalError as problem:
        return _problem(index, url, problem.code, problem.message, problem.hint or "")
    if page is not None:
        files = [file for file in page.packages if _is_wheel(file.filename) and not file.is_yanked]
        return Answer(index=index.name, files=tuple((file.filename, file.size) for file in files))
    if index.role in {"default", "extra"}:
        return Answer(index=index.name)  # a sound index without torch
    return _problem(
        index,
        url,
        "index-missing",
        f"`{index.name}` at {redact(url)} does not exist (HTTP 404)",
        f"check the address that {index.origin} gives",
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
