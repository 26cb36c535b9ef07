"""How an error is cut down to what tells it."""

from __future__ import annotations

import measure_coexistence

TRACEBACK = """\
uv pip install failed
  Traceback (most recent call last):
    File "/home/you/.pyenv/versions/3.11.7/lib/python3.11/importlib/metadata/__init__.py", line 563
  importlib.metadata.PackageNotFoundError: No package metadata was found for torch
  hint: add torch to the build's requirements
"""


def test_the_error_of_a_build_is_its_tracebacks() -> None:
    assert measure_coexistence._last_error(TRACEBACK).endswith("No package metadata was found for torch")
    assert measure_coexistence._last_error("no solution found") == "no solution found"


def test_no_path_of_a_machine_is_kept() -> None:
    words = measure_coexistence._short(TRACEBACK)
    assert "/home/you" not in words
    assert 'File "importlib/metadata/__init__.py"' in words
    assert measure_coexistence._short("~/a/lib/python3.11/site-packages/x/y.py\n z") == "x/y.py z"
