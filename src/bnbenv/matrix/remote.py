"""Files that are read piecewise: on disk, or over HTTP by range requests."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Protocol

from bnbenv.errors import ExternalError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import requests

_CHUNK = 1 << 20
_TRIES = 4
_PAUSE = 0.25  # seconds before the second try, twice that before the third
_TIMEOUT = (10.0, 60.0)  # seconds to connect, seconds without a byte
_TAIL = 128 * 1024  # holds the directory of all but the largest wheels


class PiecewiseFile(Protocol):
    """A file of known length whose stretches can be had one by one."""

    @property
    def name(self) -> str:
        """The file's name, for messages."""

    @property
    def size(self) -> int:
        """Its length in bytes."""

    def stream(self, offset: int, length: int) -> Iterator[bytes]:
        """The bytes of a stretch, in chunks."""


class LocalFile:
    """A file on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.size = path.stat().st_size

    def stream(self, offset: int, length: int) -> Iterator[bytes]:
        """The bytes of a stretch, in chunks; fewer where the file ends."""
        with self.path.open("rb") as file:
            file.seek(offset)
            while length > 0 and (chunk := file.read(min(length, _CHUNK))):
                length -= len(chunk)
                yield chunk


class RemoteFile:
    """A file behind an address that answers range requests. What fails or breaks off is asked for again.

    Args:
        session: keeps the connection, the proxy and the certificates.
        url: never told in messages, since it may hold credentials; `name` is.
        size: the length if known; else asked for.
    """

    def __init__(self, session: requests.Session, url: str, *, name: str, size: int | None = None) -> None:
        self.name = name
        self._session = session
        self._url = url
        self.size = size if size is not None else self._ask_size()

    def _ask_size(self) -> int:
        import requests

        try:
            response = self._get(0, 1)
        except requests.RequestException as error:
            raise self._unreachable(error) from error
        with response:
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
        if not total.isdigit():
            raise ExternalError(f"{self.name}: the server does not tell the length", code="index-unreachable")
        return int(total)

    def _unreachable(self, error: requests.RequestException) -> ExternalError:
        # The words of the error hold the address, and the address may hold a password.
        return ExternalError(f"{self.name}: {type(error).__name__}", code="index-unreachable")

    def _get(self, offset: int, length: int) -> requests.Response:
        wanted = {"Range": f"bytes={offset}-{offset + length - 1}", "Accept-Encoding": "identity"}
        response = self._session.get(self._url, headers=wanted, stream=True, timeout=_TIMEOUT)
        if response.status_code == 206:
            return response
        response.close()
        if response.status_code == 200:
            raise ExternalError(f"{self.name}: the server does not serve ranges", code="index-not-an-index")
        code = {401: "index-forbidden", 403: "index-forbidden", 404: "index-missing"}.get(
            response.status_code, "index-unreachable"
        )
        raise ExternalError(f"{self.name}: the server answers {response.status_code}", code=code)

    def stream(self, offset: int, length: int) -> Iterator[bytes]:
        """The bytes of a stretch, in chunks.

        Raises:
            ExternalError: the server refuses, or breaks off again and again.
        """
        import requests

        end, tries = offset + length, 0
        while offset < end:
            came, reached, why = False, False, None
            try:
                with self._get(offset, end - offset) as response:
                    reached = True
                    for chunk in response.iter_content(_CHUNK):
                        came = True
                        offset += len(chunk)
                        yield chunk
            except requests.RequestException as error:
                why = error
            tries = 0 if came else tries + 1
            if offset < end and tries >= _TRIES:
                if why is not None and not reached:
                    raise self._unreachable(why) from why
                raise ExternalError(
                    f"{self.name}: the transfer broke off at {offset} of {end} bytes",
                    code="index-unreachable",
                )
            if tries:
                time.sleep(_PAUSE * tries)


class SeekableFile(io.RawIOBase):
    """A piecewise file as `zipfile` wants it; the tail, where the directory stands, is read once."""

    def __init__(self, file: PiecewiseFile) -> None:
        super().__init__()
        self._file = file
        self._at = 0
        self._held_at = max(0, file.size - _TAIL)
        self._held = b"".join(file.stream(self._held_at, file.size - self._held_at))

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The offset of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset.

        Raises:
            ValueError: before the file's start.
        """
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        if at < 0:
            raise ValueError(f"offset {at} is before the file's start")
        self._at = at
        return at

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes, out of what is held or by a request of their own."""
        left = max(0, self._file.size - self._at)
        length = left if size is None or size < 0 else min(size, left)
        start = self._at - self._held_at
        if start >= 0 and start + length <= len(self._held):
            data = self._held[start : start + length]
        else:
            data = b"".join(self._file.stream(self._at, length))
        self._at += len(data)
        return data
