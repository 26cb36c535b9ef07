"""A package index on loopback: pages over directories of wheels, with the ways an index fails."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import json
import re
import threading
import time
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self


Mode = Literal[
    "ok",
    "forbidden",
    "login-page",
    "splash-page",
    "missing",
    "broken",
    "hang",
    "drip",
    "cut",
    "loop",
    "reset",
    "no-hashes",
    "wrong-hashes",
]


@dataclass(slots=True)
class ServedIndex:
    """One index of the server.

    Attributes:
        wheels: the directory whose ``*.whl`` it offers.
        mode: how it behaves; ``ok``, or one way of failing.
        credential: ``user:password`` that it wants, else it answers 401.
        as_json: offer the JSON form to clients that accept it.
        cut_files: send only this many bytes of each file, under the full length's header.
        ranges: answer requests for parts of files.
        yanked: file name → why it was withdrawn.
        uploaded: file name → when, as RFC 3339 writes it.
        delay: seconds before each answer, as distance makes them.
    """

    wheels: Path
    mode: Mode = "ok"
    credential: str | None = None
    as_json: bool = True
    cut_files: int | None = None
    ranges: bool = False
    yanked: Mapping[str, str] = field(default_factory=dict)
    uploaded: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came."""

    path: str
    authorization: str | None
    proxy_authorization: str | None


@dataclass(slots=True)
class IndexServer:
    """Serves any number of indexes under ``http://127.0.0.1:<port>/<name>/simple/``.

    Use as a context manager. Indexes may be added and their modes changed while it runs.
    """

    indexes: dict[str, ServedIndex] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    _server: ThreadingHTTPServer | None = None
    _thread: threading.Thread | None = None
    _release: threading.Event = field(default_factory=threading.Event)

    def add(self, name: str, wheels: Path, **behaviour: object) -> str:
        """Serve a directory as an index and return its address."""
        wheels.mkdir(parents=True, exist_ok=True)
        self.indexes[name] = ServedIndex(wheels, **behaviour)  # type: ignore[arg-type]
        return self.url(name)

    def url(self, name: str, *, credential: str | None = None) -> str:
        """The address of an index, with a credential in it where one is given."""
        assert self._server is not None, "the server is not running"
        user = f"{credential}@" if credential else ""
        return f"http://{user}127.0.0.1:{self._server.server_port}/{name}/simple/"

    def asked(self, name: str) -> list[str]:
        """The packages whose pages were asked of an index, in order."""
        prefix = f"/{name}/simple/"
        return [
            seen.path.removeprefix(prefix).strip("/") for seen in self.seen if seen.path.startswith(prefix)
        ]

    def __enter__(self) -> Self:
        outer = self

        class Handler(_Handler):
            @property
            def owner(self) -> IndexServer:
                return outer

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        assert self._thread is not None
        self._release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def ended(self, seconds: float) -> bool:
        """Whether the server stops within so many seconds."""
        return self._release.wait(seconds)

    def wait_for_end(self) -> None:
        """Block a hanging request until the server stops."""
        self._release.wait(60)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up: some tests are about just that."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def owner(self) -> IndexServer:
        """The server whose indexes are served."""
        raise NotImplementedError

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: tests read `seen`."""

    def do_GET(self) -> None:
        with contextlib.suppress(ConnectionError):
            self._answer(body=True)

    def do_HEAD(self) -> None:
        with contextlib.suppress(ConnectionError):
            self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        # As a proxy it serves each host's address from the index of that name.
        path = self.path.removeprefix("http:/").split("?")[0]
        self.owner.seen.append(
            Seen(path, self.headers.get("Authorization"), self.headers.get("Proxy-Authorization"))
        )
        name, _, rest = path.lstrip("/").partition("/")
        index = self.owner.indexes.get(name)
        if index is None:
            self._send(404, b"no such index", "text/plain", body=body)
            return
        time.sleep(index.delay)
        if self._fails(index, body=body):
            return
        if rest.startswith("files/"):
            self._file(index, rest.removeprefix("files/"), body=body)
        elif rest.startswith("simple"):
            self._page(name, index, rest.removeprefix("simple").strip("/"), body=body)
        else:
            self._send(404, b"not found", "text/plain", body=body)

    def _fails(self, index: ServedIndex, *, body: bool) -> bool:
        if index.credential is not None:
            expected = "Basic " + base64.b64encode(index.credential.encode()).decode()
            if self.headers.get("Authorization") != expected:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="index"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return True
        match index.mode:
            case "forbidden":
                self._send(403, b"forbidden", "text/plain", body=body)
            case "login-page":
                page = b"<html><title>Sign in</title><form><input></form><a href='/help'>Help</a></html>"
                self._send(200, page, "text/html", body=body)
            case "splash-page":
                page = b"<html><title>Guest network</title><p>Plug in at the desk.</p></html>"
                self._send(200, page, "text/html", body=body)
            case "missing":
                self._send(404, b"not found", "text/plain", body=body)
            case "broken":
                self._send(503, b"out of order", "text/plain", body=body)
            case "ok" | "no-hashes" | "wrong-hashes":
                return False
            case mode:
                self._never_ends_well(mode)
        return True

    def _never_ends_well(self, mode: Mode) -> None:
        match mode:
            case "hang":
                self.owner.wait_for_end()
                self.close_connection = True
            case "drip":  # a byte now and then, for ever
                self._send_head(1_000_000)
                with contextlib.suppress(OSError):
                    while not self.owner.ended(0.05):
                        self.wfile.write(b" ")
                self.close_connection = True
            case "cut":
                self._send_head(1_000)
                self.wfile.write(b"<html>")
                self.close_connection = True
            case "loop":
                self.send_response(302)
                self.send_header("Location", self.path)
                self.send_header("Content-Length", "0")
                self.end_headers()
            case "reset":
                self.close_connection = True
            case _:
                raise AssertionError(mode)

    def _send_head(self, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _file(self, index: ServedIndex, name: str, *, body: bool) -> None:
        from urllib.parse import unquote

        path = index.wheels / unquote(name)
        if not path.is_file():
            self._send(404, b"not found", "text/plain", body=body)
            return
        data = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if index.ranges and asked:
            start, end = int(asked[1]), min(int(asked[2]), len(data) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(data)}")
            self.send_header("Content-Length", str(end + 1 - start))
            self.end_headers()
            self.wfile.write(data[start : end + 1])
            return
        if index.cut_files is None:
            self._send(200, data, "application/octet-stream", body=body)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: index.cut_files])
        self.close_connection = True

    def _page(self, name: str, index: ServedIndex, package: str, *, body: bool) -> None:
        from urllib.parse import quote

        wheels = sorted(index.wheels.glob("*.whl"))
        projects: dict[str, list[Path]] = {
            path.name.split("-")[0].replace("_", "-").lower(): [] for path in wheels
        }
        for path in wheels:
            projects[path.name.split("-")[0].replace("_", "-").lower()].append(path)
        if package and package not in projects:
            self._send(404, b"no such project", "text/plain", body=body)
            return
        as_json = index.as_json and "application/vnd.pypi.simple.v1+json" in self.headers.get("Accept", "")
        if not package:
            entries = sorted(projects)
            document = {"meta": {"api-version": "1.0"}, "projects": [{"name": entry} for entry in entries]}
            links = [f'<a href="/{name}/simple/{entry}/">{entry}</a>' for entry in entries]
        else:
            files = []
            links = []
            for path in projects[package]:
                url = f"../../files/{quote(path.name)}"
                digest = _sha256(path, path.stat().st_mtime_ns, index.mode)
                entry: dict[str, object] = {
                    "filename": path.name,
                    "url": url,
                    "hashes": {"sha256": digest} if digest else {},
                    "size": path.stat().st_size,
                }
                if path.name in index.uploaded:
                    entry["upload-time"] = index.uploaded[path.name]
                withdrawn = ""
                if path.name in index.yanked:
                    entry["yanked"] = index.yanked[path.name]
                    withdrawn = f' data-yanked="{html.escape(index.yanked[path.name])}"'
                files.append(entry)
                fragment = f"#sha256={digest}" if digest else ""
                links.append(
                    f'<a href="{html.escape(url)}{fragment}"{withdrawn}>{html.escape(path.name)}</a>'
                )
            document = {"meta": {"api-version": "1.1"}, "name": package, "versions": [], "files": files}
        if as_json:
            self._send(200, json.dumps(document).encode(), "application/vnd.pypi.simple.v1+json", body=body)
        else:
            page = f"<!DOCTYPE html><html><body>{'<br>'.join(links)}</body></html>"
            self._send(200, page.encode(), "text/html", body=body)

    def _send(self, status: int, data: bytes, kind: str, *, body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        # As public indexes do for files that never change; uv asks again otherwise.
        self.send_header("Cache-Control", "max-age=600")
        self.end_headers()
        if body:
            self.wfile.write(data)


@lru_cache(maxsize=4096)
def _sha256(path: Path, changed: int, mode: Mode) -> str | None:
    del changed  # a file that is written anew is another one
    if mode == "no-hashes":
        return None
    if mode == "wrong-hashes":
        return hashlib.sha256(b"another file").hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()
