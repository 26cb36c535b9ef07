"""The guard of an environment: pip and uv in it hold what was locked, and name the command that changes it.

Three layers, each for whom it reaches. `pip.conf` in the venv is pip's own site configuration and reaches
`python -m pip` too. `bin/pip` and `bin/uv` are wrappers that add the constraint for installs into this very
environment, whatever the user's variables say, and explain a refusal. Nothing is exported: other environments
and projects are not held. What neither reaches (a uv from outside, told to work here) the doctor finds.

RECORD stays true: pip's lists its scripts, which every installer writes anew, so they are looked for and
never hashed; all else stands in files that no package brought.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.dataclass import asdict, dataclass, field, fields
from bnbenv.env import durable
from bnbenv.env.generation import python_in
from bnbenv.env.layout import FACTS
from bnbenv.torch_family import is_torch_family

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnbenv.env.installed import Installed

MARK = "# bnbenv holds this environment to its lock"
_SCRIPT = "guard.py"
_READ = 0o644
_NOTE = "what is held, and why: `bnbenv info`; to change it: `bnbenv upgrade`, `bnbenv install`"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptOut:
    """A package that would break the environment by standing in it.

    Attributes:
        why: the mechanism, one sentence.
        instead: the profile that serves what it is for; ``None`` where none does.
    """

    why: str
    instead: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What an environment holds.

    Attributes:
        environment: how its commands name it: a name or a path.
        profile: what it is for.
        held: package → exact version: torch, what is built against it, bitsandbytes, pip.
        ranges: package → specifier, proven with them; such a package may move within.
        kept_out: packages that may not come in.
        index: the address of torch's own index, without credentials; ``None`` where pip knows it anyway.
        extra_indexes: the user's own extra indexes, which a site configuration would otherwise hide; ``None``
            where they cannot be written down.
        uv: a uv to fall back on where PATH has none.
    """

    environment: str
    profile: str
    held: Mapping[str, str]
    ranges: Mapping[str, str] = field(default_factory=dict)
    kept_out: Mapping[str, KeptOut] = field(default_factory=dict)
    index: str | None = None
    extra_indexes: tuple[str, ...] | None = ()
    uv: str | None = None


# Built against a torch, and pip itself, on which the guard stands.
_BESIDE_TORCH = frozenset({"torchtext", "torchcodec", "bitsandbytes", "pip"})


def moves_with_torch(name: str) -> bool:
    """Whether a package makes a build of torch, is built against it, or is pip, on which the guard stands."""
    return is_torch_family(name) or name in _BESIDE_TORCH


def stand(generation: Path, guard: Guard, installed: Installed) -> None:
    """Write the guard into an environment that is being built; its `files` are still to be flushed.

    Args:
        generation: the environment's final, real path.
        guard: what to hold.
        installed: the environment as it is now.

    Raises:
        ExternalError: codes ``permission``, ``disk-full``.
    """
    own = generation / FACTS / "guard"
    with durable.told(own, "create"):
        own.mkdir(parents=True, exist_ok=True)
    metadata = {
        found.name: os.path.relpath(found.metadata, generation)
        for found in installed.distributions
        if found.name in guard.held
    }
    document = json.dumps({"schema": 1, **asdict(guard), "metadata": metadata}, indent=1) + "\n"
    durable.write_whole(own / "guard.json", document.encode(), flush=False)
    for program, kept in displaced(generation).items():
        with durable.told(program, "change"):
            program.replace(kept)
    for path, text in _texts(generation, guard):
        durable.write_whole(path, text, flush=False)
        if mode_of(path) != _READ:
            with durable.told(path, "change"):
                path.chmod(mode_of(path))


def constraint_lines(guard: Guard) -> Iterator[str]:
    """The constraints, as pip and uv read them."""
    yield f"{MARK}; {_NOTE}"
    for name, version in sorted(guard.held.items()):
        # `==2.13.0` would let `2.13.0+cpu` in, which is another build.
        yield f"{name}==={version}"
    for name, specifier in sorted(guard.ranges.items()):
        if specifier and name not in guard.held:
            yield f"{name}{specifier}"
    for name in sorted(guard.kept_out):
        yield f"{name}<0.dev0"


def read(generation: Path) -> Guard | None:
    """What an environment holds; ``None`` where it has no guard, or one that cannot be read."""
    try:
        document = json.loads((generation / FACTS / "guard" / "guard.json").read_bytes())
        kept_out = {name: KeptOut(**entry) for name, entry in document["kept_out"].items()}
        known = {item.name for item in fields(Guard)}
        return Guard(**{**{key: document[key] for key in known & set(document)}, "kept_out": kept_out})
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None


def own_files(generation: Path) -> frozenset[Path]:
    """The guard's files that stand among the environment's own: no package's, and no user's either."""
    wrappers = (python_in(generation).parent / name for name, _ in _wrappers(generation))
    return frozenset(path for path in (_pip_configuration(generation), *wrappers) if _holds(path, MARK))


def placed_files(generation: Path) -> dict[Path, bytes]:
    """Those files with the text that they must have where the environment stands now."""
    guard, own = read(generation), own_files(generation)
    if guard is None:
        return {}
    return {path: text.encode() for path, text in _placed(generation, guard) if path in own}


def standing_files(generation: Path) -> dict[Path, bytes]:
    """All that stands where the guard is whole, with its text; nothing where what it holds is not known."""
    guard = read(generation)
    return dict(_texts(generation, guard)) if guard is not None else {}


def displaced(generation: Path) -> dict[Path, Path]:
    """The program of the package `uv`, where the user asked for it → where the wrapper starts it from."""
    program = python_in(generation).parent / "uv"
    if sys.platform == "win32" or not program.is_file() or _holds(program, MARK):
        return {}
    return {program: generation / FACTS / "guard" / "uv"}


def mode_of(path: Path) -> int:
    """The mode of one of the guard's files: the wrappers are programs."""
    return 0o755 if path.parent.name == "bin" else _READ


def files(generation: Path) -> Iterator[Path]:
    """Everything that `stand` has written."""
    own = generation / FACTS / "guard"
    yield from (own / name for name in durable.names_in(own))
    yield from sorted(own_files(generation))


def missing_parts(generation: Path) -> tuple[str, ...]:
    """The parts of the guard that are gone or replaced, by their paths in the environment.

    An environment that never had one misses nothing.
    """
    own = generation / FACTS / "guard"
    if not own.is_dir():
        return ()
    parts: list[tuple[Path, str]] = [
        (own / "guard.json", ""),
        (own / "constraints.txt", MARK),
        (own / _SCRIPT, ""),
        (_pip_configuration(generation), MARK),
    ]
    if sys.platform != "win32":
        parts += [(python_in(generation).parent / name, MARK) for name, _ in _wrappers(generation)]
    return tuple(str(path.relative_to(generation)) for path, mark in parts if not _holds(path, mark))


def _holds(path: Path, mark: str) -> bool:
    try:
        return mark in path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _texts(generation: Path, guard: Guard) -> Iterator[tuple[Path, bytes]]:
    """What the guard consists of, but for `guard.json`, which says what it holds."""
    own = generation / FACTS / "guard"
    yield own / "constraints.txt", "".join(f"{line}\n" for line in constraint_lines(guard)).encode()
    yield own / "none.txt", b"# holds nothing: for what pip installs elsewhere\n"
    yield own / _SCRIPT, Path(__file__).with_name("guard_script.py").read_bytes()
    for path, text in _placed(generation, guard):
        yield path, text.encode()


def _placed(generation: Path, guard: Guard) -> Iterator[tuple[Path, str]]:
    """The files among the environment's own, which all say where it stands, each with its text."""
    own = generation / FACTS / "guard"
    yield _pip_configuration(generation), _configuration(own, guard)
    if sys.platform != "win32":  # a launcher there is a program of its own, which pip.ini has to do without
        for name, tool in _wrappers(generation):
            yield python_in(generation).parent / name, _wrapper(generation, own, tool)


def _pip_configuration(generation: Path) -> Path:
    return generation / ("pip.ini" if sys.platform == "win32" else "pip.conf")


def _configuration(own: Path, guard: Guard) -> str:
    # As an address: pip splits this setting at blanks, which a path may have.
    lines = [f"{MARK}; {_NOTE}", "[install]", f"constraint = {(own / 'constraints.txt').as_uri()}"]
    if guard.index and guard.extra_indexes is not None:
        lines += ["[global]", f"extra-index-url = {' '.join((*guard.extra_indexes, guard.index))}"]
    return "\n".join(lines) + "\n"


def _wrappers(generation: Path) -> Iterator[tuple[str, str]]:
    """The scripts that are replaced, each with its tool: pip's as they are there, and uv, which is not."""
    for name in sorted(durable.names_in(python_in(generation).parent)):
        if re.fullmatch(r"pip(3(\.\d+)?)?", name):
            yield name, "pip"
    yield "uv", "uv"


def _wrapper(generation: Path, own: Path, tool: str) -> str:
    itself = "`python -m pip`" if tool == "pip" else "the uv outside"
    return (
        "#!/bin/sh\n"
        f"{MARK}.\n# The tool itself, without explanations: {itself}. {_NOTE.capitalize()}\n"
        f'exec {shlex.quote(str(python_in(generation)))} -I {shlex.quote(str(own / _SCRIPT))} {tool} "$@"\n'
    )
