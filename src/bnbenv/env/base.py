"""A foreign interpreter whose torch an environment is built upon: what it brings, read once.

The interpreter is run, because only it knows its search path (HPC modules set ``PYTHONPATH``, conda and NGC
images patch ``site``). Nothing of torch is imported: versions come from metadata and ``torch/version.py``.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.errors import ExternalError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Packages that belong to a torch build: replacing one of them replaces torch.
TORCH_FAMILY = frozenset(
    {"torch", "torchvision", "torchaudio", "triton", "triton-rocm", "pytorch-triton", "pytorch-triton-rocm"}
)
_TORCH_FAMILY_PREFIXES = ("nvidia-", "cuda-")
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
        found[name] = {"version": dist.version, "path": str(getattr(dist, "_path", ""))}
torch = None
for p in paths:
    file = os.path.join(p, "torch", "version.py")
    if os.path.isfile(file):
        with open(file, encoding="utf-8") as stream:
            torch = {"directory": os.path.join(p, "torch"), "version_py": stream.read()}
        break
record = os.path.join(found.get("torch", {}).get("path", ""), "RECORD")
if torch is not None and os.path.isfile(record):
    with open(record, "rb") as stream:
        torch["record_sha256"] = hashlib.sha256(stream.read()).hexdigest()
own = {os.path.realpath(sysconfig.get_path(key)) for key in ("stdlib", "platstdlib")}
own |= {os.path.join(p, "lib-dynload") for p in own}
extra = [p for p in paths if os.path.realpath(p) not in own]
print(json.dumps({"version": list(sys.version_info[:3]), "implementation": sys.implementation.name,
    "executable": sys.executable, "prefix": sys.prefix, "base_prefix": sys.base_prefix,
    "paths": extra, "packages": {k: v["version"] for k, v in found.items()}, "torch": torch}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseTorch:
    """The torch of a base interpreter.

    Attributes:
        version: the public version.
        build: ``cu126``, ``cpu``, ``rocm6.4``, ``xpu``; from ``torch/version.py``.
        directory: the package's directory.
        record_sha256: of its RECORD, ``None`` for a torch that no distribution owns (an NGC or source build).
    """

    version: str
    local: str | None
    cuda: str | None
    hip: str | None
    xpu: str | None
    directory: Path
    record_sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base interpreter.

    Attributes:
        python: the executable, as given.
        version: ``3.11``.
        paths: directories that its processes import from, standard library excluded, in order.
        packages: normalised name → version, the first on the path wins.
        torch: ``None`` where it has none.
    """

    python: Path
    version: str
    prefix: Path
    paths: tuple[Path, ...]
    packages: Mapping[str, str]
    torch: BaseTorch | None

    @property
    def held(self) -> frozenset[str]:
        """The packages that belong to its torch and may not be replaced."""
        return frozenset(name for name in self.packages if is_torch_family(name))

    @property
    def constraints(self) -> tuple[str, ...]:
        """Everything else that it brings, as exact constraints without local parts."""
        skipped = {"pip", "setuptools", "wheel", "bnbenv"}
        return tuple(
            f"{name}=={version}"
            for name, version in sorted(self.packages.items())
            if not is_torch_family(name) and name not in skipped
        )


def is_torch_family(name: str) -> bool:
    """Whether a normalised package name belongs to a torch build."""
    return name in TORCH_FAMILY or name.startswith(_TORCH_FAMILY_PREFIXES)


def read_base(python: Path, environ: Mapping[str, str]) -> Base:
    """Ask `python` what it brings.

    Raises:
        UsageError: there is no such interpreter, it is older than 3.10 or not CPython.
        ExternalError: it does not answer.
    """
    executable = python / "bin" / "python" if (python / "pyvenv.cfg").is_file() else python
    if not executable.exists():
        raise UsageError(
            f"there is no interpreter at `{python}`",
            hint="give --base a Python executable, such as `--base $(command -v python3)`",
            code="base-unusable",
        )
    try:
        answer = subprocess.run(
            [str(executable), "-B", "-c", _QUESTION],
            env=dict(environ),
            capture_output=True,
            text=True,
            timeout=_TIME_LIMIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ExternalError(f"`{executable}` does not run: {error}", code="base-unusable") from error
    try:
        data = json.loads(answer.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        words = (answer.stderr or answer.stdout).strip().splitlines()[-1:] or ["no output"]
        raise ExternalError(
            f"`{executable}` does not answer: {words[0]}",
            hint="run it by hand; a base must be a working CPython of 3.10 or newer",
            code="base-unusable",
        ) from None
    version = f"{data['version'][0]}.{data['version'][1]}"
    if data["implementation"] != "cpython" or data["version"][:2] < [3, 10]:
        raise UsageError(
            f"`{executable}` is {data['implementation']} {version}; a base must be CPython 3.10 or newer",
            code="base-unusable",
        )
    return Base(
        python=Path(executable),
        version=version,
        prefix=Path(data["prefix"]),
        paths=tuple(Path(path) for path in data["paths"]),
        packages=data["packages"],
        torch=_torch(data["torch"]) if data["torch"] else None,
    )


def _torch(data: Mapping[str, str]) -> BaseTorch:
    facts = version_facts(data["version_py"])
    public, _, local = facts.get("__version__", "").partition("+")
    return BaseTorch(
        version=public,
        local=local or None,
        cuda=facts.get("cuda"),
        hip=facts.get("hip"),
        xpu=facts.get("xpu"),
        directory=Path(data["directory"]),
        record_sha256=data.get("record_sha256"),
    )


def version_facts(text: str) -> dict[str, str]:
    """The string assignments of a ``torch/version.py``, without executing it."""
    import ast

    facts: dict[str, str] = {}
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return facts
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str() as value)):
                facts[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=str() as value)):
                facts[name] = value
            case _:
                pass
    return facts
