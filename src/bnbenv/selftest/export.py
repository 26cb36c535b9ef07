"""Writes the self-test as one file for a machine without bnbenv, and reads the block that it prints."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from bnbenv.errors import UsageError

_HERE = Path(__file__).parent
_ENTRY = '\n\nif __name__ == "__main__":\n'
_FUTURE = "from __future__ import annotations\n"
_BLOCK = re.compile(
    r"^----- bnbenv self-test -----\r?\n(?P<body>.*?)\r?\n----- sha256 (?P<digest>[0-9a-f]{64}) -----",
    re.DOTALL | re.MULTILINE,
)


def export_script() -> str:
    """The text of a program that tests every device and prints one block to paste.

    It needs nothing but torch and bitsandbytes: ``python bnbenv_selftest.py``. The block carries the
    sha256 of this text without its last lines, and its own.
    """
    script = (_HERE / "script.py").read_text("utf-8")
    paste = (_HERE / "paste.py").read_text("utf-8")
    body = script[: script.index(_ENTRY)] + "\n\n# -- one block to paste " + "-" * 80 + "\n"
    body += paste[paste.index(_FUTURE) + len(_FUTURE) :]
    digest = hashlib.sha256(body.encode()).hexdigest()
    return f'{body}{_ENTRY}    sys.exit(main() if "--events" in sys.argv else paste("{digest}"))\n'


def read_block(text: str) -> dict[str, Any]:
    """The facts of a pasted block, with anything around it left out.

    Raises:
        UsageError: there is no block, or it is not the one that was printed.
    """
    found = _BLOCK.search(text.replace("\r\n", "\n"))
    if found is None:
        raise UsageError(
            "the text holds no block of the self-test", hint="paste it with its first and last line"
        )
    if hashlib.sha256(found["body"].encode()).hexdigest() != found["digest"]:
        raise UsageError("the block was changed after it was printed", hint="paste it as it was printed")
    facts = json.loads(found["body"])
    if not isinstance(facts, dict):
        raise UsageError("the block holds no facts")
    return facts
