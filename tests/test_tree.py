from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = {".py", ".toml", ".json", ".md", ".yml", ".yaml", ".txt", ".cfg", ".sh", ".c", ".template", ""}

# Spelled in parts, so that this file does not hold what it looks for.
REGISTRY_HOSTS = (
    r"py" + r"pi\.(?:org|python\.org)",
    r"files\.python" + r"hosted\.org",
    r"registry\.npm" + r"js\.(?:org|com)",
    r"(?:deb|ftp|security|archive)\.deb" + r"ian\.org",
)
# PyTorch's, NVIDIA's and AMD's index addresses are facts, with one place.
VENDOR_HOSTS = (
    r"download" + r"[-a-z0-9]*\.pytorch\.org",
    r"pypi\." + r"nvidia\.com",
    r"pypi\." + r"jetson",
    r"repo\.ra" + r"deon\.com",
)
VENDOR_PLACE = Path("compat/indexes.toml")


def tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("no git checkout: nothing to list")
    found = [Path(line) for line in listing.stdout.splitlines()]
    return [path for path in found if path.suffix in TEXT and (ROOT / path).is_file()]


def mentions(pattern: re.Pattern[str], allowed: frozenset[Path] = frozenset()) -> list[str]:
    return [
        f"{path}: {match[0]}"
        for path in tracked()
        if path not in allowed
        for match in pattern.finditer((ROOT / path).read_text(encoding="utf-8", errors="replace"))
    ]


def test_no_package_registry_is_named() -> None:
    pattern = re.compile("|".join(REGISTRY_HOSTS))
    assert pattern.search("https://" + "py" + "pi.org/simple")
    assert mentions(pattern) == []


def test_vendor_indexes_have_one_place() -> None:
    pattern = re.compile("|".join(VENDOR_HOSTS))
    assert pattern.search("https://download" + ".pytorch.org/whl")
    assert mentions(pattern, frozenset({VENDOR_PLACE})) == []
