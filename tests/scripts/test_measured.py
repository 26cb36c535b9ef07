from __future__ import annotations

from pathlib import Path

import pytest

from _measured import surprises
from bnbenv.matrix.load import load

COMPAT = Path(__file__).resolve().parents[2] / "compat"
MATRIX = load("bitsandbytes", "torch", directory=COMPAT)


def test_every_surprise_names_wheels_of_the_matrix_with_their_hashes() -> None:
    sources = {row.provenance.source for row in MATRIX.bitsandbytes}
    sources |= {row.provenance.source for row in MATRIX.torch}
    for surprise in surprises(MATRIX):
        assert surprise.evidence
        assert set(surprise.evidence) <= sources
        assert all(" sha256:" in source for source in surprise.evidence)


def test_words_that_the_rows_no_longer_bear_out_are_refused() -> None:
    later = {(row.os, row.arch): row for row in MATRIX.bitsandbytes if row.version == "0.47.0"}
    mended = tuple(
        row._replace(libraries=later[row.os, row.arch].libraries)
        if row.version in {"0.46.0", "0.46.1"}
        else row
        for row in MATRIX.bitsandbytes
    )
    changed = type(MATRIX)(revision=MATRIX.revision, bitsandbytes=mended, torch=MATRIX.torch)
    with pytest.raises(LookupError, match="Volta"):
        surprises(changed)
