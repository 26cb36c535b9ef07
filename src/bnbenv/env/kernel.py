"""Jupyter kernels of environments: the files by which Jupyter finds one and starts it.

A kernel is started through the environment's link, which is resolved once, at start: it works from the
generation's real path until it ends, and the next start works in what is current then. Nothing of bnbenv is
needed for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.env import durable
from bnbenv.env.generation import python_in

if TYPE_CHECKING:
    from collections.abc import Mapping

_SPEC = "kernel.json"
_LAUNCHER = "launch.py"

# Started with the python behind the link; what it starts names the generation itself.
_LAUNCH = '''\
"""Starts the kernel in what the environment is now; written by bnbenv."""

import os
import subprocess
import sys

LINK = {link!r}

directory = os.path.realpath(LINK)
scripts = os.path.join(directory, "Scripts" if os.name == "nt" else "bin")
python = os.path.join(scripts, "python.exe" if os.name == "nt" else "python")
os.environ["VIRTUAL_ENV"] = directory
os.environ["PATH"] = scripts + os.pathsep + os.environ.get("PATH", os.defpath)
os.environ.pop("PYTHONHOME", None)
command = [python, "-m", "ipykernel_launcher", *sys.argv[1:]]
if os.name == "nt":  # a process cannot become another one there
    # Jupyter interrupts a kernel, and tells it of its own end, by handles that the kernel inherits.
    sys.exit(subprocess.call(command, close_fds=False))
os.execv(python, command)
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One kernel of bnbenv's.

    Attributes:
        name: as Jupyter knows it.
        shown: as people see it.
        link: the environment that it starts in.
        directory: where its files are.
    """

    name: str
    shown: str
    link: Path
    directory: Path

    @property
    def works(self) -> bool:
        """Whether the environment is there."""
        return python_in(self.link).exists()


def kernels_directory(environ: Mapping[str, str], *, platform: str = sys.platform) -> Path:
    """Where Jupyter looks for a user's kernels."""
    if given := environ.get("JUPYTER_DATA_DIR"):
        return Path(given) / "kernels"
    home = Path(environ.get("HOME") or Path.home())
    if platform == "darwin":
        return home / "Library" / "Jupyter" / "kernels"
    if platform == "win32":
        return Path(environ.get("APPDATA") or home / "AppData" / "Roaming") / "jupyter" / "kernels"
    return Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "jupyter" / "kernels"


def kernel_name(environment: str) -> str:
    """A name that Jupyter takes (ASCII letters, digits, ``.``, ``_``, ``-``) for an environment's."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", environment.lower()).strip("-.")
    if plain == environment:
        return f"bnbenv-{plain}"
    return "-".join(
        part for part in ("bnbenv", plain, hashlib.sha256(environment.encode()).hexdigest()[:6]) if part
    )


def write_kernel(kernel: Kernel) -> None:
    """Write it whole, the file that Jupyter looks for last.

    Raises:
        ExternalError: codes ``permission``, ``disk-full``.
    """
    with durable.told(kernel.directory, "create"):
        kernel.directory.mkdir(parents=True, exist_ok=True)
    launcher = kernel.directory / _LAUNCHER
    durable.write_whole(launcher, _LAUNCH.format(link=str(kernel.link)).encode())
    document = {
        "argv": [str(python_in(kernel.link)), "-I", str(launcher), "-f", "{connection_file}"],
        "display_name": kernel.shown,
        "language": "python",
        "metadata": {"debugger": True, "bnbenv": {"environment": str(kernel.link)}},
    }
    durable.write_whole(kernel.directory / _SPEC, (json.dumps(document, indent=1) + "\n").encode())


def list_kernels(environ: Mapping[str, str]) -> tuple[Kernel, ...]:
    """Bnbenv's kernels; those of others are none of its business."""
    top = kernels_directory(environ)
    found = (_read(top / name) for name in durable.names_in(top))
    return tuple(kernel for kernel in found if kernel is not None)


def kernels_of(link: Path, environ: Mapping[str, str]) -> tuple[Kernel, ...]:
    """The kernels that start the environment at `link`."""
    return tuple(kernel for kernel in list_kernels(environ) if same_place(kernel.link, link))


def remove_kernel(kernel: Kernel) -> None:
    """Delete it: first what makes it a kernel, then the rest.

    Raises:
        ExternalError: code ``permission``.
    """
    with durable.told(kernel.directory, "remove"):
        (kernel.directory / _SPEC).unlink(missing_ok=True)
        shutil.rmtree(kernel.directory, ignore_errors=True)


def _read(directory: Path) -> Kernel | None:
    try:
        document = json.loads((directory / _SPEC).read_bytes())
        link = document["metadata"]["bnbenv"]["environment"]
        shown = document["display_name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not (isinstance(link, str) and isinstance(shown, str)):
        return None
    return Kernel(name=directory.name, shown=shown, link=Path(link), directory=directory)


def same_place(one: Path, other: Path) -> bool:
    """Whether two paths are the same link: what it leads to plays no part."""
    return os.path.abspath(one) == os.path.abspath(other)  # noqa: PTH100 - links are kept
