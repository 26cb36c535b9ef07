"""A variant of a team's lock, for tests of what stands around it."""

from __future__ import annotations

from bnbenv.lockfile.index import Variant

CPU = Variant(
    name="cpu",
    sha256="ab" * 32,
    python="3.12",
    os="linux",
    arch="x86_64",
    glibc=None,
    torch={"version": "2.14.1", "build": "cpu", "index": "pytorch-cpu"},
    bitsandbytes=None,
    packages={},
    evidence="none",
)
