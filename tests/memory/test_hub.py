from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from bnbenv.errors import BnbenvError
from bnbenv.memory import hub
from support.safetensors import LLAMA, write_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Hub(BaseHTTPRequestHandler):
    """Answers like the hub, for a few ids."""

    def do_GET(self) -> None:
        name = self.path.removesuffix("/resolve/main/config.json").lstrip("/")
        given = self.headers.get("Authorization")
        status = {
            "org/gated": 200 if given == "Bearer secret" else 401,
            "org/open": 200,
            "org/cut": 200,
            "org/zipped": 200,
            "org/page": 200,
        }.get(name, 404)
        body = b"<html>" if name == "org/page" else json.dumps(LLAMA).encode()
        self.send_response(status)
        if name == "org/zipped":
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body) + (name == "org/cut")))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path)}
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_hub_is_asked_for_the_configuration(environ: dict[str, str]) -> None:
    found = hub.find("org/open", environ, offline=False)
    assert (found.config, found.directory) == (LLAMA, None)


def test_a_token_opens_a_gate(environ: dict[str, str]) -> None:
    assert hub.find("org/gated", {**environ, "HF_TOKEN": "secret"}, offline=False).config == LLAMA


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("org/gated", "bad-model", "HF_TOKEN"),
        ("org/none", "bad-model", "spelling"),
        ("org/page", "bad-model", "directory"),
    ],
)
def test_refusals_say_what_to_do(environ: dict[str, str], model: str, code: str, words: str) -> None:
    with pytest.raises(BnbenvError) as raised:
        hub.find(model, environ, offline=False)
    assert raised.value.code == code
    assert words in str(raised.value.hint)


def test_a_hub_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(BnbenvError, match="does not answer") as raised:
        hub.find("org/open", {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}, offline=False)
    assert raised.value.code == "index-unreachable"


@pytest.mark.parametrize("model", ["org/cut", "org/zipped"])
def test_an_answer_that_breaks_off_or_is_damaged_is_none(environ: dict[str, str], model: str) -> None:
    with pytest.raises(BnbenvError, match="does not answer") as raised:
        hub.find(model, environ, offline=False)
    assert raised.value.code == "index-unreachable"


@pytest.mark.parametrize("variables", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_offline_asks_nobody(environ: dict[str, str], variables: dict[str, str]) -> None:
    with pytest.raises(BnbenvError) as raised:
        hub.find("org/open", {**environ, **variables}, offline=not variables)
    assert raised.value.code == "offline"


def test_the_newest_snapshot_of_the_cache_is_taken_first(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--org--open" / "snapshots" / "abc"
    write_model(snapshot)
    assert hub.find("org/open", {"HF_HOME": str(tmp_path)}, offline=True).directory == snapshot


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("org/name", True),
        ("gpt2", True),
        ("../x", False),
        ("a/b/c", False),
        ("org/..", False),
        ("a b", False),
    ],
)
def test_ids(text: str, right: bool) -> None:
    assert hub.looks_like_id(text) is right
