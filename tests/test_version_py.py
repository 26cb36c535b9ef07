from __future__ import annotations

import pytest

from bnbenv.version_py import assigned_texts

WRITTEN_BY_TORCH = """\
from typing import Optional
__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip', 'xpu']
__version__ = '2.14.1+cu126'
debug = False
cuda: Optional[str] = '12.6'
git_version = '0' * 40
hip: Optional[str] = None
"""


def test_only_texts_are_read() -> None:
    assert assigned_texts(WRITTEN_BY_TORCH) == {"__version__": "2.14.1+cu126", "cuda": "12.6"}


def test_nothing_is_executed() -> None:
    assert assigned_texts("import os; os.abort()\ncuda = '12.8'") == {"cuda": "12.8"}


@pytest.mark.parametrize("source", ["this is no python", "cuda = '12.8", "\x00"])
def test_what_is_no_python(source: str) -> None:
    with pytest.raises(ValueError, match=r"no Python|null"):
        assigned_texts(source)
