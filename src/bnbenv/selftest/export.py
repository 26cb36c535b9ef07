"""Writes the self-test as one file for a machine without bnbenv."""

from __future__ import annotations

import hashlib
from pathlib import Path

_HERE = Path(__file__).parent
_ENTRY = '\n\nif __name__ == "__main__":\n'
_FUTURE = "from __future__ import annotations\n"


def script_sha256() -> str:
    """What a block names as the self-test that was run."""
    return hashlib.sha256(_body().encode()).hexdigest()


def export_script() -> str:
    """The text of a program that tests every device and prints one block to paste.

    It needs nothing but torch and bitsandbytes: ``python bnbenv_selftest.py``. The block carries the
    sha256 of this text without its last lines, and its own.
    """
    entry = f'    sys.exit(main() if "--events" in sys.argv else paste("{script_sha256()}"))\n'
    return _body() + _ENTRY + entry


def _body() -> str:
    script = (_HERE / "script.py").read_text("utf-8")
    paste = (_HERE / "paste.py").read_text("utf-8")
    heading = "\n\n# -- one block to paste " + "-" * 80 + "\n"
    return script[: script.index(_ENTRY)] + heading + paste[paste.index(_FUTURE) + len(_FUTURE) :]
