from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bnbenv.errors import ExternalError
from bnbenv.install import pages
from bnbenv.install.pages import project_files
from bnbenv.install.sources import Index, Sources
from support.wheels import write_wheel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from support.index_server import IndexServer


def index(url: str) -> Index:
    return Index(name="mine", url=url, role="extra", origin="a test")


def test_the_files_of_a_project_come_with_their_hashes(
    tmp_path: Path, server: IndexServer, environ: dict[str, str]
) -> None:
    wheel = write_wheel(tmp_path, "six", "1.17.0")
    (file,) = project_files(index(server.add("mine", tmp_path)), "six", Sources(indexes=()), environ)
    assert file.name == wheel.name
    assert file.sha256 is not None
    assert project_files(index(server.url("mine")), "seven", Sources(indexes=()), environ) == ()


@pytest.mark.parametrize(
    ("behaviour", "code", "words"),
    [
        ({"credential": "joe:pw"}, "index-forbidden", "wants credentials (HTTP 401)"),
        ({"mode": "forbidden"}, "index-forbidden", "refuses access (HTTP 403)"),
        ({"mode": "broken"}, "index-unreachable", "out of order (HTTP 503)"),
        ({"mode": "reset"}, "index-unreachable", "cannot be reached"),
        ({"mode": "cut"}, "index-unreachable", "cannot be reached"),
        ({"mode": "drip"}, "index-unreachable", "does not answer within 0.3 s"),
        ({"mode": "login-page"}, "index-not-an-index", "a login page?"),
        ({"mode": "splash-page"}, "index-not-an-index", "a login page?"),
    ],
    ids=["401", "403", "503", "cut connection", "cut answer", "trickle", "login page", "splash page"],
)
def test_what_an_index_answers_instead_is_told(
    tmp_path: Path,
    server: IndexServer,
    environ: dict[str, str],
    behaviour: Mapping[str, object],
    code: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pages, "_WHOLE", 0.3)
    url = server.add("mine", tmp_path, **behaviour)
    with pytest.raises(ExternalError) as caught:
        project_files(index(url), "six", Sources(indexes=()), environ)
    assert caught.value.code == code
    assert words in caught.value.message


def test_an_index_that_leads_to_plain_http_is_refused(
    tmp_path: Path, server: IndexServer, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests

    class Led(requests.Session):
        """Ends elsewhere than it was sent."""

        def send(self, request: requests.PreparedRequest, **how: object) -> requests.Response:
            response = super().send(request, **how)  # type: ignore[arg-type]
            response.url = "http://mirror.invalid/six/"
            return response

    write_wheel(tmp_path, "six", "1.17.0")
    url = server.add("mine", tmp_path)
    monkeypatch.setattr(pages, "open_session", lambda *_: Led())
    with pytest.raises(ExternalError, match="plain http") as caught:
        project_files(index(url), "six", Sources(indexes=()), environ)
    assert caught.value.code == "index-not-an-index"
    (file,) = project_files(
        index(url), "six", Sources(indexes=(), trusted_hosts=("mirror.invalid",)), environ
    )
    assert file.url.startswith("http://mirror.invalid/")


def test_a_proxy_that_cannot_be_read_is_told_without_its_password(environ: dict[str, str]) -> None:
    environ.update({"NO_PROXY": "", "ALL_PROXY": "http://joe:s3cr#t@127.0.0.1:9"})
    with pytest.raises(ExternalError, match=r"the proxy \(`ALL_PROXY`\) before `mine`") as caught:
        project_files(index("http://127.0.0.1:9/simple"), "six", Sources(indexes=()), environ)
    assert "s3cr" not in caught.value.message
