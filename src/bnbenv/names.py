"""Names of packages, as indexes and installers compare them."""

from __future__ import annotations

import re


def normalized(name: str) -> str:
    """A package name in the form that PEP 503 compares: ``Flash_Attn`` is ``flash-attn``."""
    return re.sub(r"[-_.]+", "-", name).lower()
