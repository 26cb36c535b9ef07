from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bnbenv.errors import UsageError
from bnbenv.workflows.new_file import write_new

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_there_stays(tmp_path: Path) -> None:
    file = tmp_path / "train.py"
    write_new(file, "first\n")
    with pytest.raises(UsageError, match="is there already"):
        write_new(file, "second\n")
    assert file.read_bytes() == b"first\n"


def test_what_was_written_in_part_does_not_stay(tmp_path: Path) -> None:
    file = tmp_path / "train.py"
    with pytest.raises(UnicodeEncodeError):
        write_new(file, "whole\n" * 10_000 + "\udc80")
    assert not file.exists()
