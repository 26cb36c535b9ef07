"""A foreign interpreter whose torch an environment is built upon: what it brings, read once.

The interpreter is run, because only it knows its search path (HPC modules set ``PYTHONPATH``, conda and NGC
images patch ``site``). Nothing of torch is imported: versions come from metadata and ``torch/version.py``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, field
from bnbenv.env.torch import installed_torch
from bnbenv.errors import ExternalError, UsageError
from bnbenv.torch_family import is_torch_family

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from bnbenv.env.state import Base as State
    from bnbenv.env.torch import InstalledTorch

_TOOLS = frozenset({"pip", "setuptools", "wheel", "bnbenv"})
# Their releases need each other's newest; a newer transformers cannot be had without them.
RELEASED_WITH_TRANSFORMERS = frozenset(
    {"accelerate", "hf-xet", "huggingface-hub", "peft", "safetensors", "tokenizers", "transformers", "trl"}
)
_TIME_LIMIT = 60.0  # seconds; a cold network file system answers slowly

_QUESTION = r"""
import hashlib, json, os, re, sys, sysconfig
from importlib import metadata
cwd = os.getcwd()
paths = [p for p in sys.path if p and os.path.isdir(p) and os.path.realpath(p) != os.path.realpath(cwd)]
found = {}
for dist in metadata.distributions(path=paths):
    name = dist.metadata["Name"] if dist.metadata else None
    if not name:
        continue
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name not in found:
        path = str(getattr(dist, "_path", ""))
        try:
            url = json.loads(dist.read_text("direct_url.json") or "{}")
        except ValueError:
            url = {}
        found[name] = {"version": dist.version, "path": path,
            "editable": bool(isinstance(url, dict) and (url.get("dir_info") or {}).get("editable")),
            "record": os.path.isfile(os.path.join(path, "RECORD"))}
torch = None
for p in paths:
    file = os.path.join(p, "torch", "version.py")
    if os.path.isfile(file):
        with open(file, encoding="utf-8") as stream:
            torch = {"directory": os.path.join(p, "torch"), "version_py": stream.read()}
        break
info = found.get("torch", {}).get("path", "")
record = os.path.join(info, "RECORD")
if torch is not None and os.path.isfile(record):
    torch["metadata"] = info
    with open(record, "rb") as stream:
        torch["record_sha256"] = hashlib.sha256(stream.read()).hexdigest()
own = {os.path.realpath(sysconfig.get_path(key)) for key in ("stdlib", "platstdlib")}
own |= {os.path.join(p, "lib-dynload") for p in own}
extra = [p for p in paths if os.path.realpath(p) not in own]
print(json.dumps({"version": list(sys.version_info[:3]), "implementation": sys.implementation.name,
    "prefix": sys.prefix, "paths": extra, "torch": torch,
    "packages": {k: v["version"] for k, v in found.items()},
    "sites": [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")],
    "unmanaged": [k for k, v in found.items() if v["editable"] or not v["record"]],
    "locations": {k: os.path.dirname(v["path"]) for k, v in found.items()}}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base interpreter.

    Attributes:
        python: the executable, as given.
        version: ``3.11``.
        paths: directories that its processes import from, standard library excluded, in order.
        packages: normalised name → version, the first on the path wins.
        torch: ``None`` where it has none.
        sites: where installers put packages of its own.
        unmanaged: packages that no installer can replace cleanly: editable ones, and those without RECORD.
        locations: the directory that each package was found in.
    """

    python: Path
    version: str
    prefix: Path
    paths: tuple[Path, ...]
    packages: Mapping[str, str]
    torch: InstalledTorch | None
    sites: tuple[Path, ...] = ()
    unmanaged: frozenset[str] = frozenset()
    locations: Mapping[str, Path] = field(default_factory=dict)

    @property
    def held(self) -> frozenset[str]:
        """The packages that belong to its torch and may not be replaced."""
        return frozenset(name for name in self.packages if is_torch_family(name))

    @property
    def constraints(self) -> tuple[str, ...]:
        """Everything else that it brings, as exact constraints without local parts.

        Versions that are no PEP 440 (distributions of Linux have such) constrain nothing.
        """
        from packaging.version import InvalidVersion, Version

        lines = []
        for name, text in sorted(self.packages.items()):
            if is_torch_family(name) or name in _TOOLS:
                continue
            try:
                lines.append(f"{name}=={Version(text).public}")
            except InvalidVersion:
                continue
        return tuple(lines)

    def constraint_rounds(self, asked: Collection[str]) -> tuple[tuple[str, ...], ...]:
        """Its constraints, and what is left of them as one gives way, strictest first.

        What a profile needs newer than the base has it (transformers and what is released with it) stands in
        the environment itself, in front of the base's copy; then everything may, except numpy, against whose
        ABI torch was built; at last numpy too.

        Args:
            asked: normalised names that are asked for by themselves.
        """
        every = self.constraints
        loose = RELEASED_WITH_TRANSFORMERS | set(asked)
        some = tuple(line for line in every if line.partition("==")[0] not in loose)
        numpy = tuple(line for line in every if line.startswith("numpy=="))
        return tuple(dict.fromkeys((every, some, numpy, ())))


_SAID = 160  # characters of what a program that is no Python says


def read_base(python: Path, environ: Mapping[str, str]) -> Base:
    """Ask `python` what it brings.

    Raises:
        UsageError: there is no such interpreter, it is older than 3.10 or not CPython.
        ExternalError: it does not answer.
    """
    from bnbenv.env.generation import python_in

    executable = python_in(python) if (python / "pyvenv.cfg").is_file() else python
    if not executable.exists():
        raise UsageError(
            f"there is no interpreter at `{python}`",
            hint="give --base a Python executable, such as `--base $(command -v python3)`",
            code="base-unusable",
        )
    import subprocess

    try:
        answer = subprocess.run(
            [str(executable), "-B", "-c", _QUESTION],
            env=dict(environ),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIME_LIMIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ExternalError(
            f"`{executable}` does not run: {error}",
            hint="run it by hand; a base must be a working CPython of 3.10 or newer",
            code="base-unusable",
        ) from error
    try:
        data = json.loads(answer.stdout.strip().splitlines()[-1])
        if not isinstance(data, dict):
            raise ValueError  # noqa: TRY004, TRY301 - told as what is no JSON at all
    except (ValueError, IndexError):
        words = (answer.stderr or answer.stdout).strip().splitlines()[-1:] or ["no output"]
        said = words[0] if len(words[0]) <= _SAID else f"{words[0][:_SAID]}…"
        raise ExternalError(
            f"`{executable}` does not answer: {said}",
            hint="run it by hand; a base must be a working CPython of 3.10 or newer",
            code="base-unusable",
        ) from None
    version = f"{data['version'][0]}.{data['version'][1]}"
    if data["implementation"] != "cpython" or data["version"][:2] < [3, 10]:
        raise UsageError(
            f"`{executable}` is {data['implementation']} {version}; a base must be CPython 3.10 or newer",
            hint="name another Python, or let bnbenv choose torch: leave `--base` out",
            code="base-unusable",
        )
    return Base(
        python=Path(executable),
        version=version,
        prefix=Path(data["prefix"]),
        paths=tuple(Path(path) for path in data["paths"]),
        packages=data["packages"],
        torch=_torch(data["torch"]) if data["torch"] else None,
        sites=tuple(dict.fromkeys(Path(site) for site in data["sites"])),
        unmanaged=frozenset(data["unmanaged"]),
        locations={name: Path(path) for name, path in data["locations"].items()},
    )


def _torch(data: Mapping[str, str]) -> InstalledTorch:
    return installed_torch(
        data["version_py"],
        Path(data["directory"]),
        metadata=Path(data["metadata"]) if data.get("metadata") else None,
        record_sha256=data.get("record_sha256"),
    )


def changes_since(recorded: State) -> tuple[str, ...]:
    """What of a base's torch is no longer as it was when an environment was built upon it.

    Reads files alone. What an older bnbenv did not record cannot have changed.
    """
    if recorded.directory is None or recorded.torch is None:
        return ()
    directory = Path(recorded.directory)
    try:
        text = (directory / "version.py").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return (f"torch {recorded.torch} is no longer at `{directory}`",)
    found = installed_torch(text, directory).full_version or "unknown"
    if found != recorded.torch:
        return (f"torch was {recorded.torch}, and is {found} now",)
    if recorded.record is None or recorded.metadata is None:
        return ()
    try:
        digest = hashlib.sha256((Path(recorded.metadata) / "RECORD").read_bytes()).hexdigest()
    except OSError:
        return (f"the RECORD of torch {found} is gone from `{recorded.metadata}`",)
    if digest != recorded.record:
        return (f"torch {found} was installed anew: its RECORD is another one",)
    return ()
