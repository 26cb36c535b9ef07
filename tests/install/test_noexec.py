from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bnbenv.errors import ExternalError
from bnbenv.install.noexec import refuse_noexec

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(os, "ST_NOEXEC"), reason="this system does not tell")


def test_a_place_where_nothing_can_be_run_is_refused_by_its_first_directory_that_is_there(
    tmp_path: Path,
) -> None:
    asked: list[Path] = []

    def flags(directory: Path) -> int:
        asked.append(directory)
        return os.ST_NOEXEC | os.ST_NOSUID

    with pytest.raises(ExternalError, match="mounted `noexec`") as caught:
        refuse_noexec(tmp_path / "envs" / "qlora", flags=flags)
    assert asked == [tmp_path]
    assert f"`{tmp_path}`" in caught.value.message
    assert caught.value.code == "permission"


def test_every_other_place_is_fine(tmp_path: Path) -> None:
    refuse_noexec(tmp_path, flags=lambda _: os.ST_NOSUID)
