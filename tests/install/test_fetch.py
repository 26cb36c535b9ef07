from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from bnbenv.install.fetch import fetch
from bnbenv.install.sources import read_sources
from support import faults

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_file_that_a_scanner_holds_on_windows_is_kept_a_moment_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    there, here = tmp_path / "there.whl", tmp_path / "here.whl"
    there.write_bytes(b"a wheel")
    sources = read_sources(environ={}, cwd=tmp_path, home=tmp_path, index_rows=(), mirrors={})
    faults.held_on_windows(2, 32, "replace", monkeypatch)
    digest = sha256(b"a wheel").hexdigest()
    assert fetch(there.as_uri(), here, digest, sources=sources, environ={}, relock="bnbenv lock")
    assert (here.read_bytes(), len(waited)) == (b"a wheel", 2)
