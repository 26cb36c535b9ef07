"""Writes tiny real wheels: zip, metadata and RECORD as an installer wants them."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def write_wheel(
    directory: Path,
    name: str,
    version: str,
    *,
    requires: Sequence[str] = (),
    requires_python: str | None = None,
    tag: str = "py3-none-any",
    members: Mapping[str, bytes] | None = None,
) -> Path:
    """Write ``name-version-tag.whl`` with a module of that name and return its path.

    Args:
        directory: made if missing.
        requires: ``Requires-Dist`` lines.
        requires_python: ``Requires-Python``.
        tag: the wheel tag.
        members: further files; a module ``<name>/__init__.py`` with ``__version__`` is written otherwise.
    """
    directory.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"]
    metadata += [f"Requires-Dist: {requirement}\n" for requirement in requires]
    if requires_python:
        metadata.append(f"Requires-Python: {requires_python}\n")
    content: dict[str, bytes] = {
        **(
            members
            if members is not None
            else {f"{module}/__init__.py": f"__version__ = {version!r}\n".encode()}
        ),
        f"{info}/METADATA": "".join(metadata).encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    record = "".join(f"{path},{_digest(data)},{len(data)}\n" for path, data in content.items())
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = directory / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in content.items():
            # A fixed date makes equal inputs equal files, and so equal hashes.
            archive.writestr(zipfile.ZipInfo(member, date_time=(2020, 1, 1, 0, 0, 0)), data)
    return path


def _digest(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
