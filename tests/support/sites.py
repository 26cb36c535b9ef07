"""Small constructed environments: the files that doctor reads, without the code."""

from __future__ import annotations

import base64
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.matrix.load import load
from bnbenv.workflows.environment import Located

if TYPE_CHECKING:
    from collections.abc import Mapping

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
# The newest releases that every Python takes: transformers 5.21 and trl 1.15 want 3.11.
PACKAGES = {
    "transformers": "5.20.2",
    "accelerate": "1.15.0",
    "peft": "0.21.2",
    "trl": "1.14.2",
    "safetensors": "0.8.0",
    "tokenizers": "0.23.3",
    "numpy": "2.4.6",
    "huggingface-hub": "2.4.0",
}


def libraries(version: str, *, os: str = "linux", arch: str = "x86_64") -> tuple[str, ...]:
    """The names of the native libraries that the matrix knows of a release."""
    for row in load("bitsandbytes").bitsandbytes:
        if (row.version, row.os, row.arch) == (version, os, arch):
            return tuple(library.name for library in row.libraries)
    return ()


def make_site(
    root: Path,
    *,
    torch: str | None = "2.13.0+cpu",
    cuda: str | None = None,
    hip: str | None = None,
    xpu: str | None = None,
    bitsandbytes: str | None = "0.50.2",
    packages: Mapping[str, str] = PACKAGES,
    python: str = PYTHON,
    torch_requires: tuple[str, ...] = (),
) -> Path:
    """A venv below `root` that doctor finds nothing wrong with; returns its directory."""
    site = root / "lib" / f"python{python}" / "site-packages"
    site.mkdir(parents=True)
    (root / "bin").mkdir()
    interpreter = Path(sys.executable).resolve()
    (root / "bin" / "python").symlink_to(interpreter)
    (root / "pyvenv.cfg").write_text(
        f"home = {interpreter.parent}\nversion_info = {python}.4\ninclude-system-site-packages = false\n",
        encoding="utf-8",
    )
    if torch is not None:
        text = f"__version__ = {torch!r}\ncuda = {cuda!r}\nhip = {hip!r}\nxpu = {xpu!r}\n"
        files = {"torch/__init__.py": b"", "torch/version.py": text.encode(), "torch/_C.so": b"native"}
        add(site, "torch", torch, files, requires=torch_requires)
    if bitsandbytes is not None:
        files = {f"bitsandbytes/{name}": name.encode() for name in libraries(bitsandbytes)}
        files["bitsandbytes/__init__.py"] = f'__version__ = "{bitsandbytes}"\n'.encode()
        add(site, "bitsandbytes", bitsandbytes, files)
    for name, version in packages.items():
        module = name.replace("-", "_")
        add(site, name, version, {f"{module}/__init__.py": b"# code\n"})
    return root


def add(
    site: Path,
    name: str,
    version: str,
    files: Mapping[str, bytes],
    *,
    requires: tuple[str, ...] = (),
    installer: str = "uv",
) -> Path:
    """Install a package by hand; returns its metadata directory."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    headers = "".join(f"Requires-Dist: {text}\n" for text in requires)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{headers}\nProse.\n"
    every = {**files, f"{info}/METADATA": metadata.encode(), f"{info}/INSTALLER": installer.encode()}
    lines = []
    for path, data in every.items():
        file = site / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        lines.append(f"{path},sha256={digest},{len(data)}\n")
    (site / info / "RECORD").write_text("".join([*lines, f"{info}/RECORD,,\n"]), encoding="utf-8")
    return site / info


def site_of(environment: Path) -> Path:
    """Its site-packages."""
    return next((environment / "lib").glob("python3*/site-packages"))


def located(environment: Path) -> Located:
    """As `locate` would tell it."""
    return Located(directory=environment, kind="venv", why="a test")
