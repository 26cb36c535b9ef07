"""Reads the page of one project on an index: its files with their addresses, hashes and yank marks."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bnbenv.dataclass import dataclass
from bnbenv.errors import ExternalError, UsageError
from bnbenv.install.addresses import refuse_insecure
from bnbenv.install.parallel import side_by_side
from bnbenv.install.redact import redact, split_credential
from bnbenv.install.session import get_page, open_session
from bnbenv.install.status import refuse_status
from bnbenv.install.unreached import explained, in_browser
from bnbenv.install.uv_files import address, credential_variables
from bnbenv.names import normalized

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import requests
    from pypi_simple import ProjectPage

    from bnbenv.install.sources import Index, Sources

_TIMEOUT = 20.0  # seconds to connect, and between two bytes
_WHOLE = 120.0  # seconds for a page


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedFile:
    """One file that an index has.

    Attributes:
        url: without a credential.
        sha256: ``None`` where the page does not tell.
        yanked: why it was withdrawn, ``""`` without a reason; ``None`` for a file that stands.
    """

    name: str
    url: str
    sha256: str | None
    yanked: str | None


def project_files(
    index: Index, project: str, sources: Sources, environ: Mapping[str, str]
) -> tuple[OfferedFile, ...]:
    """The files that an index has of a project; none where it does not know the project.

    Raises:
        ExternalError: codes ``offline``, ``index-unreachable``, ``index-forbidden``, ``index-not-an-index``.
    """
    if index.directory is not None:
        return _of_directory(index.directory, project, flat=index.flat)
    if sources.offline:
        raise ExternalError(
            f"`{index.name}` is needed for `{project}`, and --offline was given",
            hint="bnbenv sync --wheelhouse DIR (made by `bnbenv bundle`)",
            code="offline",
        )
    with open_session(index, sources, environ) as session:
        page = project_page(index, project, sources, session, environ)
    if page is None:
        return ()
    return tuple(
        OfferedFile(
            name=file.filename,
            url=split_credential(file.url)[0].partition("#")[0],
            sha256=(file.digests or {}).get("sha256"),
            yanked=(file.yanked_reason or "") if file.is_yanked else None,
        )
        for file in page.packages
    )


def project_page(
    index: Index,
    project: str,
    sources: Sources,
    session: requests.Session,
    environ: Mapping[str, str],
    *,
    whole: float | None = None,
) -> ProjectPage | None:
    """The page of a project on an index of the network; ``None`` where it does not know the project.

    Args:
        whole: seconds for the answer; by default those of a page in a `sync`.

    Raises:
        ExternalError: codes ``index-unreachable``, ``index-forbidden``, ``index-not-an-index``.
    """
    import requests

    whole = whole or _WHOLE
    url = page_address(index, project)
    shown = f"`{index.name}` at {redact(url)}"
    try:
        # Connecting and answering may each take its time, together no longer than allowed.
        response = get_page(session, url, timeout=min(_TIMEOUT, whole / 2), whole=whole)
    except requests.exceptions.RequestException as problem:
        raise explained(problem, index, url, sources, environ, timeout=whole) from problem
    if response.status_code in {404, 410}:
        return None
    refuse_status(response.status_code, shown, login=credential_variables(index))
    try:
        refuse_insecure(response.url, origin=f"where {redact(url)} leads", trusted=sources.trusted_hosts)
    except UsageError as problem:
        raise ExternalError(problem.message, hint=problem.hint, code="index-not-an-index") from problem
    page = _read_page(response, project)
    if page is None:
        raise ExternalError(
            f"{shown} answers, but not as a package index (a login page?)",
            hint=in_browser(response.url),
            code="index-not-an-index",
        )
    return page


def page_address(index: Index, project: str) -> str:
    """Where an index of the network lists the files of a project; a flat one lists all in one place."""
    return address(index) if index.flat else f"{address(index).rstrip('/')}/{project}/"


def _read_page(response: requests.Response, project: str) -> ProjectPage | None:
    """The page of a project; ``None`` where what came is none of an index, such as a portal's."""
    from pypi_simple import ProjectPage, UnsupportedContentTypeError, UnsupportedRepoVersionError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            page = ProjectPage.from_response(response, project)
    except (UnsupportedContentTypeError, UnsupportedRepoVersionError, ValueError, KeyError, TypeError):
        return None
    # Every link of a page reads as a file; those of a portal are of no kind that packages come in.
    html = "html" in response.headers.get("Content-Type", "")
    if html and page.repository_version is None and not any(file.package_type for file in page.packages):
        text = response.text.lower()
        if not page.packages or any(word in text for word in ("<form", "<input", "<script", "password")):
            return None
    return page


def files_of_all(
    index: Index, projects: Iterable[str], sources: Sources, environ: Mapping[str, str]
) -> dict[str, tuple[OfferedFile, ...]]:
    """`project_files` of several projects, asked for at once.

    Raises:
        ExternalError: see `project_files`.
    """
    wanted = sorted(set(projects))
    answers = side_by_side(lambda project: project_files(index, project, sources, environ), wanted)
    return dict(zip(wanted, answers, strict=True))


def same_host(url: str, index: Index) -> bool:
    """Whether a file lies on the host of its index, whose credential may go there."""
    return urlsplit(url).netloc.lower() == urlsplit(address(index)).netloc.lower()


def _of_directory(directory: Path, project: str, *, flat: bool) -> tuple[OfferedFile, ...]:
    if not flat:
        from pypi_simple import ProjectPage

        page = directory / project / "index.html"
        try:
            content = page.read_text(encoding="utf-8")
        except OSError:
            return ()
        base = page.as_uri()
        return tuple(
            OfferedFile(
                name=file.filename,
                url=file.url.partition("#")[0],
                sha256=(file.digests or {}).get("sha256"),
                yanked=None,
            )
            for file in ProjectPage.from_html(project, content, base_url=base).packages
        )
    try:
        entries = sorted(directory.iterdir())
    except OSError as problem:
        raise ExternalError(
            f"`{directory}` cannot be read: {problem.strerror or problem}", code="index-unreachable"
        ) from problem
    return tuple(
        OfferedFile(name=entry.name, url=entry.absolute().as_uri(), sha256=None, yanked=None)
        for entry in entries
        if normalized(entry.name.partition("-")[0]) == project
    )
