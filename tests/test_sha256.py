from __future__ import annotations

import hashlib
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from bnbenv.sha256 import hexdigest


@given(st.binary(max_size=300))
def test_it_is_the_standard_librarys(data: bytes) -> None:
    assert hexdigest(data) == hashlib.sha256(data).hexdigest()


def test_what_hashes_names_alone_loads_no_openssl() -> None:
    code = "import sys, bnbenv.env.layout, bnbenv.lockfile.index, bnbenv.lockfile.pylock; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"hashlib", "_hashlib", "ssl"} & set(done.stdout.split()) == set()
